"""Functions that stand for a matrix: which of their parameters gradients belong to, and what they may return."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pmaf.checks.values import check_integer, describe
from pmaf.operators.base import Operator
from pmaf.transforms import compiling, follows_nothing, jvp_by_vjp

__all__ = ["MatVec", "differentiable", "multiplied", "with_constants"]


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
    if compiling():
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


def check_rows(value: Tensor, Y: Tensor) -> None:
    """A block to be multiplied by the adjoint is as long as the products.

    Raises:
        ValueError: if it is not.
    """
    if value.shape != Y.shape:
        raise ValueError(
            f"pmaf.MatVec: fn(*params, V) returns {value.shape[0]} rows, so b must have size {value.shape[0]}, got "
            f"{Y.shape[0]}"
        )


class MatVec(Operator):
    r"""A symmetric matrix given by a function that multiplies a block of vectors by it.

    With a DTensor among its parameters, the blocks are DTensors as well, their rows divided (``Shard(0)``), and
    :func:`pmaf.ied` and :func:`pmaf.dominant_pair` find eigenpairs of a matrix that no rank could hold: ``fn`` is
    written as for one process, ``lambda L, V: L @ V`` for a Laplacian divided by rows, or for neighbours that exchange
    what they share. Eigenvectors come back divided by rows, and have a first derivative.

    Args:
        fn: ``fn(*params, V)`` returns :math:`X(\theta)\,V` for ``V`` of shape ``(n, p)``; it must be linear in ``V``,
            symmetric, and written in differentiable torch operations.
        n: the order of the matrix.
        params: a tensor, or a tuple of tensors, that gradients are wanted for. The first of them with floating-point
            or complex entries gives the type of the blocks; integers, such as indices, are passed on as they are.
        solve: ``solve(*params, R)`` returns about :math:`X(\theta)^{-1} R`, exactly or not, in any units: linear in
            ``R``, symmetric and positive definite. Nothing is differentiated through it. It finds the *smallest*
            eigenpairs, see :class:`pmaf.solvers.Davidson`, and preconditions the system of their gradient; how good it
            is decides how fast, not how right, the answer is. The largest pairs have no use for it.

    Example:
        >>> import torch, pmaf
        >>> d = torch.tensor([1.0, 5.0, 2.0], requires_grad=True)
        >>> X = pmaf.MatVec(lambda d, V: d[:, None] * V, 3, d)
        >>> eigenvalues, _ = pmaf.ied(X, 1)
        >>> eigenvalues.sum().backward()
        >>> d.grad
        tensor([0., 1., 0.])
    """

    def __init__(
        self,
        fn: Callable[..., Tensor],
        n: int,
        params: Tensor | Sequence[Tensor],
        solve: Callable[..., Tensor] | None = None,
    ) -> None:
        given = (params,) if isinstance(params, Tensor) else tuple(params)
        for param in given:
            if not isinstance(param, Tensor):
                raise TypeError(f"pmaf.MatVec: params must be tensors, got {describe(param)}; wrap it in torch.tensor")
        self.tensors = tuple(param for param in given if differentiable(param))
        if not callable(fn) or not self.tensors:
            raise ValueError(
                "pmaf.MatVec: needs a callable fn(*params, V) and at least one parameter tensor that is floating-point "
                "or complex"
            )
        if solve is not None and not callable(solve):
            raise ValueError(f"pmaf.MatVec: solve must be a callable solve(*params, R), got {describe(solve)}")
        whole = len(self.tensors) == len(given)
        self.fn = fn if whole else with_constants(fn, given)
        self.solve = solve if whole or solve is None else with_constants(solve, given)
        self.order = check_integer("MatVec", "n", n)

    @property
    def n(self) -> int:
        """The order."""
        return self.order

    @property
    def rows(self) -> int | None:
        """As many as columns; not known where the function need not be symmetric."""
        return self.n if self.hermitian else None

    def matmat(self, V: Tensor) -> Tensor:
        """The function's value."""
        return multiplied(self.fn, self.tensors, V, self.rows)

    def nearly_inverse(self) -> Callable[[Tensor], Tensor] | None:
        """What the user says is about X⁻¹, for blocks ``(n, p)``; no derivative goes through it."""
        if self.solve is None:
            return None
        given, params = self.solve, tuple(t.detach() for t in self.tensors)

        def solved(R: Tensor) -> Tensor:
            with torch.no_grad():
                Y = given(*params, R)
            if not isinstance(Y, Tensor) or Y.dtype != R.dtype or Y.shape != R.shape:
                raise ValueError(
                    f"pmaf.MatVec: solve(*params, R) must return about X⁻¹R, of the shape {tuple(R.shape)} and the "
                    f"type {R.dtype} of R, got {describe(Y)}"
                )
            return Y

        return solved

    def rmatmat(self, Y: Tensor) -> Tensor:
        """X Y, or, where all of X counts, one vector–Jacobian product of ``fn`` with respect to its block of vectors.

        Raises:
            ValueError: if Y has not as many rows as the products.
        """
        if self.hermitian:
            return self.matmat(Y)
        V = Y.new_zeros(self.n, Y.shape[-1])
        if not follows_nothing() or torch.is_inference_mode_enabled():
            value, vjp = torch.func.vjp(self.matmat, V)[:2]
            check_rows(value, Y)
            product: Tensor = vjp(Y)[0]
            return product
        kept = torch.is_grad_enabled()
        with torch.enable_grad():  # what torch.func does not do under activation checkpointing
            value = self.matmat(V.requires_grad_())
            check_rows(value, Y)
            if value.requires_grad:
                (product,) = torch.autograd.grad(value, V, Y, create_graph=kept, materialize_grads=True)
                return product
        return V.detach()

    def vjp(self, W: Tensor, U: Tensor) -> tuple[Tensor | None, ...]:
        """One vector–Jacobian product of ``fn`` with respect to its parameters."""
        gradients: tuple[Tensor, ...] = torch.func.vjp(lambda *params: self.fn(*params, U), *self.tensors)[1](W)
        return gradients

    def jvp(self, tangents: Sequence[Tensor | None], U: Tensor) -> Tensor:
        """One Jacobian–vector product of ``fn`` with respect to its parameters."""
        return self.changed(lambda *params: self.fn(*params, U), tangents)

    def jvp_adjoint(self, tangents: Sequence[Tensor | None], Y: Tensor) -> Tensor:
        """One Jacobian–vector product of the adjoint product with respect to the parameters."""
        return self.changed(lambda *params: self.with_tensors(params).rmatmat(Y), tangents)

    def changed(self, product: Callable[..., Tensor], tangents: Sequence[Tensor | None]) -> Tensor:
        """The change of a product when the parameters change by ``tangents``."""
        filled = tuple(torch.zeros_like(p) if t is None else t for p, t in zip(self.tensors, tangents, strict=True))
        change: Tensor = jvp_by_vjp(product, self.tensors, filled)
        return change
