"""Sizes of matrices, and matrices in units in which squares neither over- nor underflow."""

import torch
from torch import Tensor

from pmaf.linalg.batched import matvec
from pmaf.linalg.vectors import first_vector
from pmaf.transforms import anywhere, cheap

__all__ = [
    "brought_in_range",
    "divisor",
    "exponent_of",
    "in_range",
    "magnitude",
    "scaled_to_one",
    "spectral_norm",
    "times_power",
]


def divisor(size: Tensor) -> Tensor:
    """A size to divide by: itself where it is positive and finite, else one."""
    return torch.where((size > 0) & size.isfinite(), size, 1)


def scaled_to_one(A: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Matrices of Frobenius norm at most one.

    Args:
        A: ``(*, m, n)``.

    Returns:
        A divided by its Frobenius norm, zero where it is not finite; that norm, ``(*,)``; and a mask of the items that
        are finite.
    """
    peak = A.abs().amax((-2, -1)) if A.numel() else A.real.new_zeros(A.shape[:-2])
    sound = peak.isfinite()
    peak = torch.where(sound & (peak > 0), peak, 1)
    A = torch.where(sound[..., None, None], A / peak[..., None, None], 0)
    length = torch.linalg.vector_norm(A, dim=(-2, -1))
    return A / torch.where(length > 0, length, 1)[..., None, None], peak * length, sound


def spectral_norm(X: Tensor, steps: int = 10) -> Tensor:
    """‖X‖ of Hermitian matrices, ``(*,)``, from below and to the first digit, by power iteration."""
    v = first_vector(X.shape[-1], X.dtype, X.device, -1).expand(X.shape[:-1])
    length = torch.ones_like(v[..., 0].real)
    for _ in range(steps):
        v = matvec(X, v)
        length = torch.linalg.vector_norm(v, dim=-1)  # ≤ ‖X‖
        v = v / torch.where(length > 0, length, 1)[..., None]
    return length


def exponent_of(A: Tensor, dim: tuple[int, ...], bits: int) -> Tensor | None:
    """Units in which numbers are of order one: a power of two for each item, by which a division makes no error.

    An item that is in no danger, of which products of a few entries are far inside the range of the type, keeps the
    unit one, and so does one that is zero or not finite.

    Args:
        A: tensors.
        dim: the dimensions of one item.
        bits: sizes between 2^−bits and 2^bits are in no danger in single precision, ten times that in double.

    Returns:
        The exponents of the units, ``(*,)``, in floating point, which every compiler of graphs takes; ``None`` where
        all are known to be zero.
    """
    A = A.detach()
    if A.numel() == 0:
        return None
    parts = torch.view_as_real(A.resolve_conj()).abs().amax(-1) if A.is_complex() else A.abs()
    size = parts.amax(dim)
    limit = 2.0 ** (bits if torch.finfo(size.dtype).bits < 64 else 10 * bits)
    extreme = (size > 0) & size.isfinite() & ((size > limit) | (size < 1 / limit))
    if cheap(extreme) and not bool(extreme.any()):
        return None
    return torch.where(extreme, size, 1).log2().floor()


def times_power(x: Tensor, exponent: Tensor) -> Tensor:
    """2ᵉ x by factors all of which shrink or all grow, so that nothing over- or underflows but the result.

    Args:
        x: ``(*, …)``.
        exponent: e, whole numbers in floating point, ``(*,)``.

    Returns:
        A new tensor like x.
    """
    first = torch.trunc(exponent / 3)  # a power of two of any double is the product of three far inside the range
    second = torch.trunc((exponent - first) / 2)
    for part in (first, second, exponent - first - second):
        power = torch.ldexp(torch.ones_like(part), part)
        x = x * power.reshape(power.shape + (1,) * (x.dim() - power.dim()))
    return x


def magnitude(A: Tensor) -> Tensor:
    """The Frobenius norm of each matrix, or its largest entry where that over- or underflows; one for zero.

    Args:
        A: ``(*, m, n)``.

    Returns:
        A positive, finite number for each item, ``(*,)``, as a constant.
    """
    A = A.detach()
    size = torch.linalg.vector_norm(A, dim=(-2, -1))
    extreme = ~((size > 0) & size.isfinite())
    if anywhere(extreme):
        largest = torch.linalg.vector_norm(A, torch.inf, dim=(-2, -1)) if A.numel() else size
        size = torch.where(extreme, largest, size)
    return divisor(size)


def brought_in_range(A: Tensor) -> tuple[Tensor, Tensor]:
    """A and 1, or A divided by its magnitude and that magnitude where squares could leave the range of the type."""
    scale = magnitude(A)
    if in_range(scale):
        return A, torch.ones_like(scale)
    return A / scale[..., None, None], scale


def in_range(size: Tensor) -> bool:
    """Whether numbers of this size can be squared safely; no, rather than wait for the answer of a device."""
    limit = 1e6 if torch.finfo(size.dtype).bits < 64 else 1e60
    return cheap(size) and bool(((size < limit) & (size * limit > 1)).all())
