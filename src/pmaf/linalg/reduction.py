r"""The generalised eigenproblem X u = λ B u as a standard one, by one Cholesky factorisation of B.

With B = L Lᴴ and v = Lᴴu it reads (L⁻¹XL⁻ᴴ) v = λ v, and uᴴBu = vᴴv. B is brought to a diagonal of order one first, by
powers of two, which round nothing: bad scaling by its diagonal alone then costs no digits.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from pmaf.linalg.cholesky import factorise
from pmaf.transforms import anywhere

__all__ = ["Reduction", "forth", "reduce", "towards"]

EVEN = 2  # binary orders of magnitude that the square roots of the diagonal may differ by without being scaled


class Reduction(NamedTuple):
    """A generalised problem, reduced."""

    X: Tensor  # (*, n, n) L⁻¹XL⁻ᴴ; diag(1, …, n) where there is no L
    L: Tensor  # (*, n, n) of the batch of B; the identity where there is none
    finite: Tensor  # (*,) whether B is
    definite: Tensor  # (*,) whether B is positive definite to working precision


def reduce(X: Tensor, B: Tensor) -> Reduction:
    """Factorise B and bring its factor to the other side.

    A pivot within the rounding of what it is left of, n·ε, counts as zero: what follows from it would be noise.

    Args:
        X: Hermitian matrices, ``(*, n, n)``.
        B: Hermitian matrices, ``(*, n, n)``, whose batch dimensions broadcast with those of X.

    Returns:
        The reduced problem.
    """
    n, eps = B.shape[-1], torch.finfo(B.dtype).eps
    diagonal = B.detach().diagonal(dim1=-2, dim2=-1).real
    usable = (diagonal > 0).all(-1) & diagonal.isfinite().all(-1)
    exponent = torch.frexp(torch.where(usable[..., None], diagonal, 1)).exponent // 2
    spread = exponent.amax(-1) - exponent.amin(-1)
    d = None
    if anywhere(spread > EVEN):
        d = torch.ldexp(torch.ones_like(diagonal), -exponent)  # (*, n)
        B, X, diagonal = scaled(B, d), scaled(X, d), diagonal * d.square()
    eye = torch.eye(n, dtype=B.dtype, device=B.device)
    if anywhere(~usable):
        B = torch.where(usable[..., None, None], B, eye)
    L, definite = factorise(B)
    pivots = L.detach().diagonal(dim1=-2, dim2=-1).real.square()
    finite = definite = usable & definite & (pivots > n * eps * diagonal).all(-1)
    good = not anywhere(~definite)
    if not good:
        finite = B.detach().isfinite().flatten(-2).all(-1) & diagonal.isfinite().all(-1)
        L = torch.where(definite[..., None, None], L, eye)
    half = torch.linalg.solve_triangular(L, X.mH, upper=False)  # columns, as the solver wants them
    reduced = torch.linalg.solve_triangular(L, half.mH, upper=False).mH.resolve_conj()  # in rows
    if not good:
        easy = torch.arange(1, n + 1, device=B.device).to(reduced.dtype).diag()
        reduced = torch.where(definite[..., None, None], reduced, easy)
    return Reduction(reduced, L if d is None else L / d[..., :, None], finite, definite)


def scaled(A: Tensor, d: Tensor) -> Tensor:
    """diag(d) A diag(d)."""
    return d[..., :, None] * A * d[..., None, :]


def forth(L: Tensor, H: Tensor) -> Tensor:
    """L⁻¹H."""
    solved: Tensor = torch.linalg.solve_triangular(L, H.resolve_conj(), upper=False)
    return solved


def towards(L: Tensor, V: Tensor) -> Tensor:
    """L⁻ᴴV."""
    solved: Tensor = torch.linalg.solve_triangular(L.mH.resolve_conj(), V.resolve_conj(), upper=True)
    return solved
