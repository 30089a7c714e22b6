r"""Which unit multiple of a vector is meant: the one whose inner product with a reference is real and positive.

An inner product :math:`r^H u` is only known to :math:`\rho\|r\|`, where ρ is the rounding of u. Where it is no larger
(the all-ones vector and the second eigenvector of a graph Laplacian are orthogonal, always) its sign is noise, and two
inputs that hardly differ would differ in signs. There a second vector decides: fixed, and of no particular direction.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from pmaf.transforms import cheap

__all__ = ["decided_sign", "generic"]

WORD = 1 << 32


def generic(n: int, like: Tensor) -> Tensor:
    """A vector of no particular direction, the same every time, with entries between 1 and 2.

    Args:
        n: how many entries.
        like: gives the type and the device.

    Returns:
        ``(n,)``, real also where ``like`` is complex.
    """
    # Integers of 32 bits, mixed as MurmurHash3 does, of which 24 are exact in every type.
    h = torch.arange(1, n + 1, device=like.device) * 0x9E3779B1 % WORD
    h = (h ^ (h >> 15)) * 0x85EBCA6B % WORD
    h = (h ^ (h >> 13)) * 0x42B2AE35 % WORD
    return 1 + (h >> 8).to(like.real.dtype) / (1 << 24)


def decided_sign(U: Tensor, reference: Tensor | None, rounding: Tensor | Callable[[], Tensor]) -> Tensor:
    """Factors of modulus one that turn the columns of U the way they are meant.

    Written in differentiable operations: over the complex numbers the phase moves with the vector, and the derivative
    of what is returned includes that.

    Args:
        U: columns, ``(*, n, k)``.
        reference: ``(*, n, 1)`` or ``(*, n, k)``; the all-ones vector if ``None``.
        rounding: how exactly each column is known, relative to its length, ``(*, k)`` or less; at most ε^¼. Or a
            function that tells it, and is only asked where it matters.

    Returns:
        ``(*, 1, k)``; 1 where both inner products vanish.
    """
    n = U.shape[-2]
    inner = (U if reference is None else reference.conj() * U).sum(-2, keepdim=True)
    size = n**0.5 if reference is None else torch.linalg.vector_norm(reference, dim=-2, keepdim=True)
    fixed = inner.detach()
    if callable(rounding):
        if cheap(fixed) and bool((fixed.abs() > torch.finfo(U.dtype).eps ** 0.25 * size).all()):
            return torch.sgn(inner).conj() if U.is_complex() else torch.sgn(fixed)
        rounding = rounding()
    known = fixed.abs() > rounding[..., None, :] * size
    other = generic(n, U)[:, None] * U
    decisive = torch.where(known, inner, other.sum(-2, keepdim=True))
    if U.is_complex():
        return torch.sgn(torch.where(decisive.detach().abs() > 0, decisive, 1)).conj()
    return torch.ones_like(inner).copysign(decisive.detach())
