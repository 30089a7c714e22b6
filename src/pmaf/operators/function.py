"""Functions that stand for a matrix: which of their parameters gradients belong to, and what they may return."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pmaf.arguments import describe

__all__ = ["differentiable", "multiplied", "with_constants"]


def differentiable(x: Tensor) -> bool:
    """Whether the entries of x are numbers that a gradient can belong to."""
    return x.is_floating_point() or x.is_complex()


def with_constants(fn: Callable[..., Tensor], given: Sequence[Tensor]) -> Callable[..., Tensor]:
    """``fn`` as a function of the differentiable ones of its parameters; the others keep the values given."""

    def reduced(*arguments: Tensor) -> Tensor:
        *params, V = arguments
        moving = iter(params)
        return fn(*(next(moving) if differentiable(param) else param for param in given), V)

    return reduced


def multiplied(fn: Callable[..., Tensor], params: Sequence[Tensor], V: Tensor, rows: int | None) -> Tensor:
    """A block times the matrix that a function stands for, once the function's value is known to be one.

    Args:
        fn: ``fn(*params, V)``.
        params: the parameters.
        V: the block, ``(n, p)``.
        rows: of the product, where known.

    Returns:
        The product, ``(rows, p)``.

    Raises:
        TypeError: if the value is no tensor, or of another type.
        ValueError: if it has another shape, or ``fn`` cannot take the block.
        RuntimeError: as ``fn`` raises it, if it is of a narrower kind, such as being out of memory.
    """
    if torch.compiler.is_compiling():
        return fn(*params, V)
    try:
        Y = fn(*params, V)
    except RuntimeError as error:
        if type(error) is not RuntimeError:
            raise
        raise ValueError(
            f"pmaf.MatVec: fn(*params, V) fails for V of shape {tuple(V.shape)}, that is (n, p): {error}"
        ) from error
    shape = f"({'m' if rows is None else rows}, {V.shape[-1]})"
    if not isinstance(Y, Tensor) or Y.dtype != V.dtype:
        raise TypeError(f"pmaf.MatVec: fn(*params, V) must return a {V.dtype} tensor like V, got {describe(Y)}")
    if Y.dim() != 2 or Y.shape[1] != V.shape[1] or rows not in (None, Y.shape[0]):
        raise ValueError(
            f"pmaf.MatVec: fn(*params, V) must return X V of shape {shape} for V of shape {tuple(V.shape)}, got "
            f"{describe(Y)}"
        )
    return Y
