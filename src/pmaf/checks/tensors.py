"""Input rules, one function a rule, one message form: function, rule broken, what was received, what to do."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pmaf.checks.values import check_integer, check_real, check_tensor, describe
from pmaf.linalg.dtypes import working_dtype
from pmaf.transforms import cheap, readable

__all__ = [
    "check_broadcast",
    "check_counts",
    "check_nonnegative",
    "check_sizes",
    "check_start",
    "common_dtype",
    "first_index",
    "positive_radius",
]


def first_index(mask: Tensor) -> tuple[int, ...]:
    """The batch index of the first item that is marked."""
    return tuple(int(i) for i in mask.nonzero()[0])


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


def check_counts(function: str, k: Any, n: int) -> int:
    """0 ≤ k ≤ n.

    Args:
        function: the public function, for the message.
        k: how many are wanted.
        n: how many there are.

    Returns:
        k as Python's own integer.

    Raises:
        ValueError: if it is out of range.
    """
    own = check_integer(function, "k", k, least=None)
    if not 0 <= own <= n:
        raise ValueError(f"pmaf.{function}: k must lie between 0 and n = {n}, got {k}")
    return own


def check_nonnegative(function: str, name: str, x: Tensor, *, wait: bool = True) -> None:
    """No entry of x is negative; NaN passes, since it is reported as a status.

    Args:
        function: the public function, for the message.
        name: the argument, for the message.
        x: a real tensor.
        wait: whether the host may wait for a device to find out.

    Raises:
        TypeError: if x is complex.
        ValueError: at the first entry that breaks the rule.
    """
    if x.is_complex():
        raise TypeError(f"pmaf.{function}: {name} must be real, got {describe(x)}")
    wrong = x < 0
    if wait and readable(wrong) and bool(wrong.any()):
        index = first_index(wrong) if x.dim() else ()
        value = float(x[index])
        raise ValueError(f"pmaf.{function}: {name} must be non-negative, got {value:g} at index {index}")


def positive_radius(function: str, radius: float | Tensor, like: Tensor, wait: bool) -> Tensor:
    """The radius as a positive, finite, real tensor of the working precision.

    An item of a batch whose own radius is not finite is left to its status; any other radius is the caller's mistake.

    Args:
        function: the public function, for the message.
        radius: a number or a tensor.
        like: a tensor of the data.
        wait: whether the host may wait for a device to check it; else one that is out of range becomes NaN.

    Returns:
        The radius, ``(*,)``.

    Raises:
        TypeError: if it is not a real number or tensor.
        ValueError: if it is on another device, or not positive and finite.
    """
    dtype = working_dtype(like.real.dtype)  # to_real is unknown to tracers
    if isinstance(radius, Tensor):
        if radius.device != like.device and radius.dim() > 0:
            raise ValueError(f"pmaf.{function}: radius is on {radius.device} but the data on {like.device}")
        if radius.is_complex():
            raise TypeError(f"pmaf.{function}: radius must be real, got {describe(radius)}")
        value = radius.to(like.device, dtype)
        wrong = ~(value > 0) & ~value.isnan() if value.dim() else ~((value > 0) & value.isfinite())
        if wait and readable(wrong) and bool(wrong.any()):
            index = first_index(wrong) if wrong.dim() else ()
            got = f"{float(radius.detach()[index]):g} at index {index}"
            rounded = (
                "" if radius.dtype == value.dtype else f", which is {float(value.detach()[index]):g} in {value.dtype}"
            )
            raise ValueError(f"pmaf.{function}: radius must be positive and finite, got {got}{rounded}")
        return torch.where((value > 0) & value.isfinite(), value, torch.nan)
    own = float(check_real(function, "radius", radius, "positive and finite"))
    info = torch.finfo(dtype)
    if not info.tiny * info.eps <= own <= info.max:
        raise ValueError(f"pmaf.{function}: radius must be positive and finite in {dtype}, got {own:g}")
    return torch.full((), own, dtype=dtype, device=like.device)


def check_start(
    function: str, start: Any, n: int, batch: tuple[torch.Size, ...], like: Tensor, *, block: bool = False
) -> Tensor | None:
    """A first guess, if there is one, fits the problem: in shape, in kind, and in what its entries are.

    Its precision does not matter. Entries are looked at where that costs no waiting; solvers do with any.

    Args:
        function: the public function, for the message.
        start: the guess.
        n: the number of unknowns.
        batch: the batch shapes that make up that of the problem.
        like: a tensor of the data.
        block: whether several columns may be given, ``(*, n, p)``, beside a single vector ``(n,)``.

    Returns:
        The guess; a column of it where blocks are taken.

    Raises:
        TypeError: if it is complex and the data are not.
        ValueError: if it has the wrong shape, is elsewhere, or not finite.
    """
    if start is None:
        return None
    shape = "(*, n, p)" if block else "(*, n)"
    check_tensor(function, "start", start, 1, shape)
    entries: Tensor = start[:, None] if block and start.dim() == 1 else start
    check_sizes(function, start=("the number of unknowns", n, entries.shape[-2 if block else -1]))
    if block and entries.shape[-1] == 0:
        raise ValueError(f"pmaf.{function}: start must have at least one column, got {describe(start)}")
    given = entries.shape[: -2 if block else -1]
    whole = torch.broadcast_shapes(*batch)
    check_broadcast(function, data=whole, start=given)
    if torch.broadcast_shapes(whole, given) != whole:
        raise ValueError(
            f"pmaf.{function}: start has the batch shape {tuple(given)}, more than that of the problem, {tuple(whole)}"
        )
    if start.device != like.device:
        raise ValueError(f"pmaf.{function}: start is on {start.device} but the data on {like.device}; move it with .to")
    if start.is_complex() and not like.is_complex():
        raise TypeError(f"pmaf.{function}: start must be real, as the data are, got {describe(start)}")
    if cheap(start) and not bool((finite := torch.isfinite(start)).all()):
        raise ValueError(
            f"pmaf.{function}: start must be finite, but is not at index {first_index(~finite)}; start.nan_to_num() "
            "is, and starts such an item anew"
        )
    return entries


def common_dtype(function: str, *, weights: Tensor | None = None, **tensors: Tensor | None) -> torch.dtype:
    """The one dtype that all tensors share, up to the realness of weights; under autocast the widest.

    Args:
        function: the public function, for the message.
        weights: real tensor beside data that may be complex, or ``None``.
        tensors: by argument name; ``None`` is passed over.

    Returns:
        The dtype of the first tensor, or the promoted one under autocast.

    Raises:
        TypeError: if dtypes differ.
        ValueError: if devices differ.
    """
    present = {name: t for name, t in tensors.items() if t is not None}
    (first_name, first), *others = present.items()
    if weights is not None:
        others.append(("weights", weights))
    for name, t in others:
        if t.device != first.device:
            raise ValueError(
                f"pmaf.{function}: {name} is on {t.device} but {first_name} on {first.device}; move one with .to"
            )
    dtypes = {t.dtype for t in present.values()}
    fitting = weights is None or weights.dtype == (first.dtype.to_real() if first.is_complex() else first.dtype)
    if len(dtypes) == 1 and fitting:
        return first.dtype
    if torch.is_autocast_enabled(first.device.type):
        widest = first.dtype
        for _, t in others:
            widest = torch.promote_types(widest, t.dtype)
        return widest
    listed = ", ".join(f"{name} {t.dtype}" for name, t in [(first_name, first), *others])
    raise TypeError(f"pmaf.{function}: arguments must share one dtype, got {listed}; convert with .to(dtype)")
