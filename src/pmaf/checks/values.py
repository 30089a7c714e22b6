"""Rules for one argument by itself, whoever is given it: a tensor, an integer, a number, a flag, a choice."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pmaf.linalg.dtypes import HALF

__all__ = [
    "CONSTRAINTS",
    "POLICIES",
    "check_choice",
    "check_flags",
    "check_integer",
    "check_real",
    "check_tensor",
    "describe",
    "set_flags",
    "set_integers",
    "set_reals",
]

WORKING = (torch.float32, torch.float64, torch.complex64, torch.complex128)
ACCEPTED = frozenset(HALF + WORKING)
POLICIES = ("drop", "nan", "raise")  # for answers that are not unique
CONSTRAINTS = ("sphere", "ball")
RANGES: dict[str, Callable[[float], bool]] = {
    "positive": lambda x: x > 0,
    "positive and finite": lambda x: 0 < x < math.inf,
    "non-negative": lambda x: x >= 0,
    "finite": math.isfinite,
    "between 0 and 1": lambda x: 0 < x < 1,
}


def describe(value: Any) -> str:
    """A value as an error message shows it: shape and dtype of a tensor, else its type and text."""
    if isinstance(value, Tensor):
        return f"a {value.dtype} tensor of shape {tuple(value.shape)}"
    return f"{value!r} ({type(value).__name__})"


def check_tensor(
    function: str, name: str, x: Any, least_dims: int, shape: str, *, sparse: bool = False, batched: bool = False
) -> None:
    """X is a floating or complex tensor with enough dimensions.

    Args:
        function: the public function, for the message.
        name: the argument, for the message.
        x: the value.
        least_dims: the fewest dimensions.
        shape: the shape in words.
        sparse: whether a sparse matrix will do.
        batched: whether several of them will.

    Raises:
        TypeError: if x is not a tensor of a supported type or layout.
        ValueError: if it has too few dimensions.
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"pmaf.{function}: {name} must be a torch.Tensor of shape {shape}, got {describe(x)}")
    if x.dtype not in ACCEPTED:
        raise TypeError(
            f"pmaf.{function}: {name} must be float16, bfloat16, float32, float64, complex64 or complex128, "
            f"got {describe(x)}; convert it with .to(torch.float32)"
        )
    if x.dim() < least_dims:
        raise ValueError(f"pmaf.{function}: {name} must have shape {shape}, got {describe(x)}")
    if x.layout != torch.strided:
        check_layout(function, name, x, sparse, batched)


def check_layout(function: str, name: str, x: Tensor, sparse: bool, batched: bool) -> None:
    """X, which is not dense, may be sparse and is one matrix, or a batch, in a layout that lists its entries.

    Args:
        function: the public function, for the message.
        name: the argument, for the message.
        x: a tensor that is not dense.
        sparse: whether a sparse matrix will do.
        batched: whether several of them will.

    Raises:
        TypeError: if x has to be dense, or has another layout.
        ValueError: if it is a batch of matrices.
    """
    if not sparse:
        raise TypeError(f"pmaf.{function}: {name} must be dense, got {x.layout}; make it so with .to_dense()")
    if x.layout not in (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc):
        raise TypeError(
            f"pmaf.{function}: a sparse {name} must have the layout COO, CSR or CSC, got {x.layout}; convert it with "
            ".to_dense().to_sparse_csr()"
        )
    if x.dense_dim():
        raise ValueError(
            f"pmaf.{function}: the entries of a sparse {name} must be numbers, but those of {describe(x)} have "
            f"{x.dense_dim()} dimensions of their own; a batch is made by torch.stack, or in the layout CSR"
        )
    if x.dim() != 2 and not batched:
        raise ValueError(
            f"pmaf.{function}: a sparse {name} has no batch dimensions, got {describe(x)}; call it for each item"
        )


def check_integer(function: str, name: str, value: Any, least: int | None = 1) -> int:
    """The value is an integer of Python, NumPy or a tracer, and large enough.

    Args:
        function: the public function or class, for the message.
        name: the argument, for the message.
        value: what was given.
        least: the smallest that is allowed, if there is one.

    Returns:
        It as Python's own.

    Raises:
        TypeError: if it is not an integer.
        ValueError: if it is too small.
    """
    if isinstance(value, bool) or not isinstance(value, (int, torch.SymInt, numbers.Integral)):
        raise TypeError(f"pmaf.{function}: {name} must be an integer, got {describe(value)}")
    if least is not None and value < least:
        raise ValueError(f"pmaf.{function}: {name} must be at least {least}, got {value}")
    own: Any = value if type(value) in (int, torch.SymInt) else int(value)
    return own  # type: ignore[no-any-return]


def check_real(function: str, name: str, value: Any, rule: str) -> float:
    """The value is a real number of Python or NumPy, in range.

    Args:
        function: the public function or class, for the message.
        name: the argument, for the message.
        value: what was given.
        rule: the range, in words, of ``RANGES``.

    Returns:
        It as Python's own.

    Raises:
        TypeError: if it is not a real number.
        ValueError: if it is out of range.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, numbers.Real)):
        raise TypeError(f"pmaf.{function}: {name} must be a number, got {describe(value)}")
    own: float = value if type(value) in (int, float) else float(value)  # type: ignore[assignment]
    if not RANGES[rule](own):
        raise ValueError(f"pmaf.{function}: {name} must be {rule}, got {own:g}")
    return own


def check_flags(function: str, **flags: Any) -> None:
    """Each value is True or False: any other would count as one of them, and not always as the one that was meant.

    Args:
        function: the public function or class, for the message.
        flags: by argument name.

    Raises:
        TypeError: at the first that is not.
    """
    for name, value in flags.items():
        if value is not True and value is not False:
            raise TypeError(f"pmaf.{function}: {name} must be True or False, got {describe(value)}")


def check_choice(function: str, name: str, value: Any, choices: tuple[str, ...]) -> None:
    """The value is one of the choices.

    Args:
        function: the public function, for the message.
        name: the argument, for the message.
        value: what was given.
        choices: what is allowed.

    Raises:
        ValueError: if it is not.
    """
    if not isinstance(value, str) or value not in choices:
        raise ValueError(
            f"pmaf.{function}: {name} must be one of {', '.join(map(repr, choices))}, got {describe(value)}"
        )


def set_integers(settings: object, *names: str, least: int = 1) -> None:
    """Fields of a solver or a backward mode are integers, or ``None`` where that is the default.

    Args:
        settings: a frozen dataclass, while it is made; it keeps Python's own integers.
        names: the fields.
        least: the smallest that is allowed.
    """
    for name in names:
        value = getattr(settings, name)
        if value is not None or getattr(type(settings), name) is not None:
            keep(settings, name, value, check_integer(label(settings), name, value, least))


def set_reals(settings: object, rule: str, *names: str) -> None:
    """Fields of a solver or a backward mode are numbers in range, or ``None`` where that is the default.

    Args:
        settings: a frozen dataclass, while it is made; it keeps Python's own numbers.
        rule: the range, of ``RANGES``.
        names: the fields.
    """
    for name in names:
        value = getattr(settings, name)
        if value is not None or getattr(type(settings), name) is not None:
            keep(settings, name, value, check_real(label(settings), name, value, rule))


def set_flags(settings: object, *names: str) -> None:
    """Fields of a solver or a backward mode are True or False."""
    check_flags(label(settings), **{name: getattr(settings, name) for name in names})


def label(settings: object) -> str:
    """The public name of what is being made, without the package."""
    kind = type(settings)
    return f"solvers.{kind.__name__}" if kind.__module__.startswith("pmaf.solvers.") else kind.__name__


def keep(settings: object, name: str, given: Any, own: Any) -> None:
    """Store Python's own number where another was given: only that can be written into a traced graph."""
    if own is not given:
        object.__setattr__(settings, name, own)
