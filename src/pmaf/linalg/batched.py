"""Products and rearrangements in the form that batches well and keeps its digits.

A product of a batch of matrices with one column each is memory-bound and slow in BLAS; the same product with one row is
two to ten times faster. A float32 sum of a million products in one go is known to 2e-5 only, so that no basis would be
orthonormal to more: long sums are taken piece by piece.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from pmaf.linalg.dtypes import LONG, double

__all__ = [
    "adjoint_matvec",
    "combined",
    "inner_products",
    "interleaved",
    "lengths",
    "matvec",
    "narrow_adjoint",
    "narrow_product",
    "transposed",
]

PIECE = 512  # of this length


def matvec(A: Tensor, x: Tensor) -> Tensor:
    """A x, ``(*, m)``, for A ``(*, m, n)`` and x ``(*, n)``."""
    return (x[..., None, :] @ A.mT)[..., 0, :]


def adjoint_matvec(A: Tensor, x: Tensor) -> Tensor:
    """Aᴴ x, ``(*, n)``, for A ``(*, m, n)`` and x ``(*, m)``."""
    if not A.is_complex():
        return (x[..., None, :] @ A)[..., 0, :]
    return (x.conj()[..., None, :] @ A)[..., 0, :].conj()


def narrow_product(A: Tensor, V: Tensor) -> Tensor:
    """A V for a tall A ``(*, m, n)`` and a few columns V ``(*, n, k)``, which are laid out one after the other."""
    rows = V.mT.contiguous()
    return A @ rows.mT if A.dim() > 2 else (rows @ A.mT).mT  # twice as fast, but not in batches


def narrow_adjoint(A: Tensor, U: Tensor) -> Tensor:
    """AᴴU for a tall A ``(*, m, n)`` and a few columns U ``(*, m, k)``, as a product of rows."""
    return (U.mH @ A).mH


def interleaved(parts: Sequence[Tensor]) -> Tensor:
    """``torch.stack(parts, -1)`` by one transposition, which is several times faster for long parts."""
    return transposed(torch.stack(tuple(parts)))


def transposed(X: Tensor) -> Tensor:
    """A copy of X with its first dimension as the last, where one of the dimensions is short.

    With a third dimension torch does not go through square blocks, which is four times slower for such shapes.
    """
    copy: Tensor = X[None].movedim(1, -1).contiguous()[0]
    return copy


def inner_products(V: Tensor, W: Tensor) -> Tensor:
    """VᴴW, ``(*, m, p)``, for V ``(*, n, m)`` and W ``(*, n, p)``; of single precision, long sums in pieces."""
    n = V.shape[-2]
    if n <= LONG or V.dtype == double(V):
        return V.mH @ W
    whole = n - n % PIECE
    left, right = (M.mT[..., :whole].unflatten(-1, (-1, PIECE)).transpose(-3, -2) for M in (V, W))
    total = (left.conj() @ right.mT).sum(-3, dtype=double(V))
    product: Tensor = (total + V[..., whole:, :].mH @ W[..., whole:, :]).to(V.dtype)
    return product


def combined(V: Tensor, C: Tensor) -> Tensor:
    """V C, ``(*, n, p)``, for V ``(*, n, m)`` and C ``(*, m, p)``, as a product of rows: each column is contiguous."""
    return (C.mT @ V.mT).mT


def lengths(V: Tensor) -> Tensor:
    """The length of each column, ``(*, 1, p)``; torch adds up a plain sum in pairs, but not a norm."""
    if V.shape[-2] <= LONG:
        norm: Tensor = torch.linalg.vector_norm(V, dim=-2, keepdim=True)
        return norm
    total: Tensor = V.abs().square().sum(-2, keepdim=True)
    return total.sqrt()
