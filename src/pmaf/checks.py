"""Input rules, one function a rule, one message form: function, rule broken, what was received, what to do."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from pmaf.operators import SMALL, describe
from pmaf.reading import readable

__all__ = [
    "check_counts",
    "check_nonnegative",
    "check_start",
    "check_tensor",
    "first_index",
    "no_autocast",
    "positive_radius",
    "to_double",
    "working_dtype",
]

HALF = (torch.float16, torch.bfloat16)
WORKING = (torch.float32, torch.float64, torch.complex64, torch.complex128)


def first_index(mask: Tensor) -> tuple[int, ...]:
    """The batch index of the first item that is marked."""
    return tuple(int(i) for i in mask.nonzero()[0])


def check_tensor(function: str, name: str, x: Any, least_dims: int, shape: str) -> None:
    """X is a floating or complex tensor with enough dimensions, none of the last ones empty but m.

    Args:
        function: the public function, for the message.
        name: the argument, for the message.
        x: the value.
        least_dims: the fewest dimensions.
        shape: the shape in words.

    Raises:
        TypeError: if x is not a tensor of a supported type.
        ValueError: if it has too few dimensions.
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"pmaf.{function}: {name} must be a torch.Tensor of shape {shape}, got {describe(x)}")
    if x.dtype not in WORKING + HALF:
        raise TypeError(
            f"pmaf.{function}: {name} must be float16, bfloat16, float32, float64, complex64 or complex128, "
            f"got {describe(x)}; convert it with .to(torch.float32)"
        )
    if x.dim() < least_dims:
        raise ValueError(f"pmaf.{function}: {name} must have shape {shape}, got {describe(x)}")


def check_sizes(function: str, **sizes: tuple[str, int, int]) -> None:
    """Named sizes agree: each value is (where it comes from, expected, received).

    Args:
        function: the public function, for the message.
        sizes: by argument name.

    Raises:
        ValueError: at the first that does not.
    """
    for name, (source, expected, received) in sizes.items():
        if expected != received:
            raise ValueError(f"pmaf.{function}: {name} must have size {expected} ({source}), got {received}")


def check_broadcast(function: str, **shapes: torch.Size) -> None:
    """Batch shapes broadcast against each other.

    Args:
        function: the public function, for the message.
        shapes: by argument name.

    Raises:
        ValueError: if they do not.
    """
    try:
        torch.broadcast_shapes(*shapes.values())
    except RuntimeError:
        listed = ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())
        raise ValueError(f"pmaf.{function}: batch shapes must broadcast against each other, got {listed}") from None


def check_counts(function: str, k: Any, n: int) -> None:
    """1 ≤ k ≤ n.

    Args:
        function: the public function, for the message.
        k: how many are wanted.
        n: how many there are.

    Raises:
        TypeError: if k is not an integer.
        ValueError: if it is out of range.
    """
    if isinstance(k, bool) or not isinstance(k, (int, torch.SymInt)):
        raise TypeError(f"pmaf.{function}: k must be an integer, got {describe(k)}")
    if not 1 <= k <= n:
        raise ValueError(f"pmaf.{function}: k must lie between 1 and n = {n}, got {k}")


def check_nonnegative(function: str, name: str, x: Tensor, *, strictly: bool, wait: bool = True) -> None:
    """No entry of x is negative (or zero); NaN passes, since it is reported as a status.

    Args:
        function: the public function, for the message.
        name: the argument, for the message.
        x: a real tensor.
        strictly: refuse zero as well.
        wait: whether the host may wait for a device to find out.

    Raises:
        TypeError: if x is complex.
        ValueError: at the first entry that breaks the rule.
    """
    if x.is_complex():
        raise TypeError(f"pmaf.{function}: {name} must be real, got {describe(x)}")
    wrong = x <= 0 if strictly else x < 0
    if wait and readable(wrong) and bool(wrong.any()):
        index = first_index(wrong) if x.dim() else ()
        rule = "positive" if strictly else "non-negative"
        value = float(x[index])
        raise ValueError(f"pmaf.{function}: {name} must be {rule}, got {value:g} at index {index}")


def positive_radius(function: str, radius: float | Tensor, like: Tensor, wait: bool) -> Tensor:
    """The radius as a positive real tensor of the working precision.

    Args:
        function: the public function, for the message.
        radius: a number or a tensor.
        like: a tensor of the data.
        wait: whether the host may wait for a device to check it; else a radius that is not positive becomes NaN.

    Returns:
        The radius, ``(*,)``.

    Raises:
        TypeError: if it is not a real number or tensor.
        ValueError: if it is on another device, or not positive.
    """
    if isinstance(radius, Tensor):
        if radius.device != like.device and radius.dim() > 0:
            raise ValueError(f"pmaf.{function}: radius is on {radius.device} but the data on {like.device}")
        if radius.is_complex():
            raise TypeError(f"pmaf.{function}: radius must be real, got {describe(radius)}")
        value = radius.to(like.device, like.real.dtype)
        check_nonnegative(function, "radius", value, strictly=True, wait=wait)
        return value if wait else torch.where(value > 0, value, torch.nan)
    if not isinstance(radius, (int, float)) or isinstance(radius, bool):
        raise TypeError(f"pmaf.{function}: radius must be a number or a real tensor, got {describe(radius)}")
    if radius <= 0:
        raise ValueError(f"pmaf.{function}: radius must be positive, got {float(radius):g}")
    return torch.full((), float(radius), dtype=like.real.dtype, device=like.device)


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
    if value not in choices:
        raise ValueError(
            f"pmaf.{function}: {name} must be one of {', '.join(map(repr, choices))}, got {describe(value)}"
        )


def check_start(function: str, start: Tensor | None, n: int, dimension: int) -> None:
    """A first guess, if there is one, has n entries along a dimension.

    Args:
        function: the public function, for the message.
        start: the guess.
        n: the number of unknowns.
        dimension: where they stand, counted from the end.
    """
    if start is not None:
        check_tensor(function, "start", start, -dimension, "(*, n)" if dimension == -1 else "(*, n, p)")
        check_sizes(function, start=("the number of unknowns", n, start.shape[dimension]))


def check_symmetric(function: str, X: Tensor, *, wait: bool = True) -> bool:
    """X is square and, as far as rounding goes, Hermitian.

    Args:
        function: the public function, for the message.
        X: a matrix, ``(*, n, n)``.
        wait: whether the host may wait for a device to find out.

    Returns:
        Whether X was found to be Hermitian to the last digit.

    Raises:
        ValueError: if it is not.
    """
    if X.shape[-1] != X.shape[-2] or X.shape[-1] == 0:
        raise ValueError(f"pmaf.{function}: X must be square, (*, n, n) with n ≥ 1, got {describe(X)}")
    if not (wait and readable(X)) or X.numel() == 0:
        return False
    if exactly_hermitian(X.detach()):
        return True
    with torch.no_grad():
        wrong = skew_items(X)
    if bool(wrong.any()):
        raise ValueError(
            f"pmaf.{function}: X must be symmetric (Hermitian), but item {first_index(wrong)} of {describe(X)} is not; "
            "pass (X + X.mH) / 2 if that is meant, or symmetric=False for a general matrix"
        )
    return False


def exactly_hermitian(X: Tensor) -> bool:
    """Whether X equals its adjoint to the last digit, as X + Xᴴ does; not looked for where that takes long."""
    n = X.shape[-1]
    if n > SMALL:
        return n <= 128 and not bool((X - X.mH).any())
    pairs = [(i, j) for i in range(n) for j in range(i + X.is_complex())]
    return not any(bool((X[..., i, j] != X[..., j, i].conj()).any()) for i, j in pairs)


def skew_items(X: Tensor) -> Tensor:
    """Items that are not Hermitian up to rounding, found without passes over all of X.

    X v and Xᴴ v are compared for one v that no particular skew part annuls; the smallest matrices entry by entry.
    """
    n, allowed = X.shape[-1], asymmetry_allowed(X.dtype)
    if n > SMALL:
        probe = torch.linspace(-2, 2, n, dtype=torch.float64).exp().to(X)[None]
        there, back = probe @ X.mT, probe @ X.conj()
        length: Tensor = torch.linalg.vector_norm(there, dim=(-2, -1)) + torch.linalg.vector_norm(back, dim=(-2, -1))
        return torch.gt(torch.linalg.vector_norm(there - back, dim=(-2, -1)), allowed * length)
    size: Tensor = sum((X[..., i, i].abs() for i in range(1, n)), X[..., 0, 0].abs())
    skew = X[..., 0, 0].imag.abs() if X.is_complex() else torch.zeros_like(size)
    for i in range(n):
        for j in range(i):
            size = size + X[..., i, j].abs()
            skew = torch.maximum(skew, (X[..., i, j] - X[..., j, i].conj()).abs())
    return torch.gt(skew, allowed * size)


def asymmetry_allowed(dtype: torch.dtype) -> float:
    """How far from Hermitian a computed matrix may be, relative to its largest entry."""
    return 5e-2 if dtype in HALF else 1e-3


def working_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type that is computed in: float32 for half precision, else the input's own."""
    return torch.float32 if dtype in HALF else dtype


def to_double(dtype: torch.dtype) -> torch.dtype:
    """The double-precision type of the same kind."""
    return torch.complex128 if dtype.is_complex else torch.float64


def common_dtype(function: str, **tensors: Tensor | None) -> torch.dtype:
    """The one dtype, up to realness, that all tensors share; under autocast the widest.

    Args:
        function: the public function, for the message.
        tensors: by argument name; ``None`` is passed over.

    Returns:
        The dtype of the first tensor, or the promoted one under autocast.

    Raises:
        TypeError: if dtypes differ.
        ValueError: if devices differ.
    """
    present = {name: t for name, t in tensors.items() if t is not None}
    (first_name, first), *others = present.items()
    for name, t in others:
        if t.device != first.device:
            raise ValueError(
                f"pmaf.{function}: {name} is on {t.device} but {first_name} on {first.device}; move one with .to"
            )
    dtypes = {t.dtype for t in present.values()}
    if len(dtypes) == 1:
        return first.dtype
    if torch.is_autocast_enabled(first.device.type):
        widest = first.dtype
        for dtype in dtypes:
            widest = torch.promote_types(widest, dtype)
        return widest
    listed = ", ".join(f"{name} {t.dtype}" for name, t in present.items())
    raise TypeError(f"pmaf.{function}: arguments must share one dtype, got {listed}; convert with .to(dtype)")


def no_autocast(x: Tensor) -> AbstractContextManager[Any]:
    """A context in which autocast does not lower the precision."""
    kind = x.device.type
    needed = kind != "meta" and torch.is_autocast_enabled(kind)
    return torch.autocast(kind, enabled=False) if needed else nullcontext()
