"""Free unknowns of least squares, eliminated before the sphere is looked at."""

import torch
from torch import Tensor

from pmaf.linalg.batched import adjoint_matvec, matvec
from pmaf.linalg.bordered import safe_inverse
from pmaf.linalg.cholesky import definite_inverse, factorise
from pmaf.linalg.dtypes import double
from pmaf.transforms import cheap

__all__ = ["eliminate"]


def eliminate(A: Tensor, b: Tensor, C: Tensor, rtol: float) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Project A and b onto the complement of the columns of C, whose unknowns are thereby at their best.

    Args:
        A: ``(*, m, n)``.
        b: ``(*, m)``.
        C: ``(*, m, p)``.
        rtol: singular values of C up to here, relative to the largest, count as zero.

    Returns:
        The projected A and b; an orthonormal basis of the columns of C, ``(*, m, p)``, zero where they are dependent;
        the matrix, ``(*, p, p)``, that turns coefficients in it into z of least norm; and a mask of items whose C is
        rank-deficient, so that z is not unique.
    """
    usable = torch.isfinite(C).flatten(-2).all(-1)
    if not cheap(C):
        return eliminate_by_factorisation(A, b, C, rtol, usable)
    basis, sigma, Vh = torch.linalg.svd(torch.where(usable[..., None, None], C, 0), full_matrices=False)
    keep = sigma > rtol * sigma.amax(-1, keepdim=True)
    basis = torch.where(keep[..., None, :], basis, 0)
    inverse = Vh.mH * safe_inverse(sigma, keep)[..., None, :]
    inverse = torch.where(usable[..., None, None], inverse, torch.nan)
    short = (keep.sum(-1) < C.shape[-1]) & usable
    A = torch.where(usable[..., None, None], A - basis @ (basis.mH @ A), torch.nan)  # no answer without z
    return A, b - matvec(basis, adjoint_matvec(basis, b)), basis, inverse, short


def eliminate_by_factorisation(
    A: Tensor, b: Tensor, C: Tensor, rtol: float, usable: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """:func:`eliminate` where the host does not wait for a singular value decomposition.

    With the Gram matrix S of C, in double precision, the projector is 1 − C S⁺Cᴴ, applied twice, which makes up for the
    square of the condition number. The basis that is returned is C itself, so that S⁺ turns Cᴴ(b − A u) into z.
    """
    wide = double(C)
    F, p = torch.where(usable[..., None, None], C, 0).to(wide), C.shape[-1]
    S = F.mH @ F
    tolerance = max(rtol**2, 10 * torch.finfo(F.dtype).eps * p) * S.diagonal(dim1=-2, dim2=-1).real.amax(-1)
    eye = torch.eye(p, dtype=S.dtype, device=S.device)
    short = ~factorise(S - tolerance[..., None, None] * eye)[1]

    pseudo_inverse = definite_inverse(S, short, tolerance)

    def project(x: Tensor) -> Tensor:
        for _ in range(2):
            x = x - F @ pseudo_inverse(F.mH @ x)
        return x

    inverse = pseudo_inverse(eye.expand(S.shape))
    inverse = torch.where(usable[..., None, None], inverse, torch.nan).to(C.dtype)
    A = torch.where(usable[..., None, None], project(A.to(wide)).to(A.dtype), torch.nan)  # no answer without z
    return A, project(b[..., None].to(wide))[..., 0].to(b.dtype), C, inverse, short & usable
