r"""The generalised eigenproblem X u = λ B u as a standard one, by one Cholesky factorisation of B.

With B = L Lᴴ and v = Lᴴu it reads (L⁻¹XL⁻ᴴ) v = λ v, and uᴴBu = vᴴv. B is brought to a diagonal of order one first, by
powers of two, which round nothing: bad scaling by its diagonal alone then costs no digits.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from pmaf.linalg.cholesky import factorise

__all__ = ["Reduction", "forth", "reduce", "towards"]


class Reduction(NamedTuple):
    """A generalised problem, reduced."""

    X: Tensor  # (*, n, n) L⁻¹XL⁻ᴴ; diag(1, …, n) where there is no L
    L: Tensor  # (*, n, n) of the batch of B; the identity where there is none
    finite: Tensor  # (*,) whether B is
    definite: Tensor  # (*,) whether B is positive definite to working precision


def reduce(X: Tensor, B: Tensor) -> Reduction:
    """Factorise B and bring its factor to the other side.

    A pivot within the rounding of B, n·ε after scaling, counts as zero: what follows from it would be noise.

    Args:
        X: Hermitian matrices, ``(*, n, n)``.
        B: Hermitian matrices, ``(*, n, n)``, whose batch dimensions broadcast with those of X.

    Returns:
        The reduced problem.
    """
    n, eps = B.shape[-1], torch.finfo(B.dtype).eps
    diagonal = B.detach().diagonal(dim1=-2, dim2=-1).real
    finite = B.detach().isfinite().flatten(-2).all(-1)
    usable = finite & (diagonal > 0).all(-1)
    exponent = torch.frexp(torch.where(usable[..., None], diagonal, 1)).exponent
    d = torch.ldexp(torch.ones_like(diagonal), -(exponent // 2))  # (*, n)
    eye = torch.eye(n, dtype=B.dtype, device=B.device)
    L, definite = factorise(torch.where(usable[..., None, None], d[..., :, None] * B * d[..., None, :], eye))
    pivots = L.detach().diagonal(dim1=-2, dim2=-1).real.square()
    definite = usable & definite & (pivots > n * eps).all(-1)
    there = definite[..., None, None]
    L = torch.where(there, L, eye)
    half = torch.linalg.solve_triangular(L, d[..., :, None] * X * d[..., None, :], upper=False)
    reduced = torch.linalg.solve_triangular(L, half.mH, upper=False)
    count = torch.arange(1, n + 1, dtype=d.dtype, device=d.device)
    return Reduction(torch.where(there, reduced, torch.diag(count).to(X.dtype)), L / d[..., :, None], finite, definite)


def forth(L: Tensor, H: Tensor) -> Tensor:
    """L⁻¹H."""
    solved: Tensor = torch.linalg.solve_triangular(L, H, upper=False)
    return solved


def towards(L: Tensor, V: Tensor) -> Tensor:
    """L⁻ᴴV."""
    solved: Tensor = torch.linalg.solve_triangular(L.mH, V, upper=True)
    return solved
