"""Whether a matrix is symmetric (Hermitian), as far as rounding goes."""

from __future__ import annotations

import torch
from torch import Tensor

from pmaf.checks.tensors import first_index
from pmaf.checks.values import describe
from pmaf.linalg.dtypes import HALF
from pmaf.linalg.entrywise import SMALL
from pmaf.transforms import readable

__all__ = ["asymmetry_allowed", "check_square", "check_symmetric", "skew_items"]

ROUNDING = 4  # units of the last place that products with X may differ by from products with Xᴴ


def check_symmetric(
    function: str, name: str, X: Tensor, *, wait: bool = True, instead: str = "", least: int = 1
) -> bool:
    """X is square and, as far as rounding goes, Hermitian.

    Args:
        function: the public function, for the message.
        name: the argument, for the message.
        X: a matrix, ``(*, n, n)``.
        wait: whether the host may wait for a device to find out.
        instead: what else can be done about a matrix that is not Hermitian.
        least: the smallest order that is allowed.

    Returns:
        Whether X was found to be Hermitian up to rounding, so that its Hermitian part need not be formed.

    Raises:
        ValueError: if it is not.
    """
    check_square(function, name, X, least)
    if not (wait and readable(X)) or X.numel() == 0:
        return False
    if exactly_hermitian(X.detach()):
        return True
    with torch.no_grad():
        skew, size = skew_parts(X)
        wrong = skew > asymmetry_allowed(X.dtype) * size
    if bool(wrong.any()):
        which = f"item {first_index(wrong)} of {describe(X)}" if wrong.dim() else describe(X)
        raise ValueError(
            f"pmaf.{function}: {name} must be symmetric (Hermitian), but {which} is not; "
            f"pass ({name} + {name}.mH) / 2 if that is meant{instead}"
        )
    return bool((skew <= ROUNDING * torch.finfo(X.dtype).eps * size).all())


def check_square(function: str, name: str, X: Tensor, least: int = 1) -> None:
    """X is square and large enough.

    Args:
        function: the public function, for the message.
        name: the argument, for the message.
        X: a matrix, ``(*, n, n)``.
        least: the smallest order that is allowed.

    Raises:
        ValueError: if it is not.
    """
    if X.shape[-1] != X.shape[-2] or X.shape[-1] < least:
        raise ValueError(f"pmaf.{function}: {name} must be square, (*, n, n) with n ≥ {least}, got {describe(X)}")


def exactly_hermitian(X: Tensor) -> bool:
    """Whether X equals its adjoint to the last digit, as X + Xᴴ does; not looked for where that takes long."""
    n = X.shape[-1]
    if n > SMALL:
        return n <= 128 and not bool((X - X.mH).any())
    pairs = [(i, j) for i in range(n) for j in range(i + X.is_complex())]
    return not any(bool((X[..., i, j] != X[..., j, i].conj()).any()) for i, j in pairs)


def skew_items(X: Tensor) -> Tensor:
    """Items that are farther from Hermitian than a computed matrix may be."""
    skew, size = skew_parts(X)
    return skew > asymmetry_allowed(X.dtype) * size


def skew_parts(X: Tensor) -> tuple[Tensor, Tensor]:
    """How much of each item is not Hermitian, and the size that this is to be compared with, found in two products.

    X v and Xᴴ v are compared for one v that no particular skew part annuls; the smallest matrices entry by entry.
    """
    n = X.shape[-1]
    if n > SMALL:
        probe = torch.linspace(-2, 2, n, dtype=X.real.dtype, device=X.device).exp().to(X)[None]
        there, back = probe @ X.mT, probe @ X.conj()
        length: Tensor = torch.linalg.vector_norm(there, dim=(-2, -1)) + torch.linalg.vector_norm(back, dim=(-2, -1))
        return torch.linalg.vector_norm(there - back, dim=(-2, -1)), length
    size: Tensor = sum((X[..., i, i].abs() for i in range(1, n)), X[..., 0, 0].abs())
    skew = X[..., 0, 0].imag.abs() if X.is_complex() else torch.zeros_like(size)
    for i in range(n):
        for j in range(i):
            size = size + X[..., i, j].abs()
            skew = torch.maximum(skew, (X[..., i, j] - X[..., j, i].conj()).abs())
    return skew, size


def asymmetry_allowed(dtype: torch.dtype) -> float:
    """How far from Hermitian a computed matrix may be, relative to its largest entry."""
    return 5e-2 if dtype in HALF else 1e-3
