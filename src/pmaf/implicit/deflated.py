r"""The bordered system of leading eigenpairs of a dense matrix, by Cholesky factorisations.

For a leading pair λᵢI − X is positive definite on the complement of the selected vectors (negative definite for the
smallest). Moving the selected eigenvalues to τᵢ > 0 makes it definite everywhere without a change on the complement:

    Mᵢ = ±(λᵢI − X) + U diag(τᵢ − (±(λᵢ − λⱼ))) Uᴴ ≻ 0,       Mᵢ uⱼ = τᵢ uⱼ,

so that the solution of Mᵢ w = ±P hᵢ with P = I − UUᴴ is orthogonal to the selected vectors by itself. τᵢ is the mean of
the eigenvalues of ±(λᵢI − X), which keeps the condition number that of the complement.
"""

import torch
from torch import Tensor

from pmaf.implicit.refinement import is_single, residual_in_double

__all__ = ["solve_deflated"]


def solve_deflated(X: Tensor, values: Tensor, U: Tensor, H: Tensor, *, largest: bool) -> tuple[Tensor, Tensor]:
    """Solve (λᵢI − X) wᵢ = P hᵢ, wᵢ ⟂ U, for every selected pair i: k factorisations of order n.

    Args:
        X: Hermitian matrices, ``(*, n, n)``.
        values: the k algebraically largest (smallest) eigenvalues of X, ``(*, k)``.
        U: their eigenvectors, orthonormal, ``(*, n, k)``.
        H: right-hand sides, ``(*, n, k)``; only their part outside span(U) counts.
        largest: whether the pairs are the largest or the smallest.

    Returns:
        W, ``(*, n, k)``, and a mask ``(*, k)`` of the columns whose matrix is definite to working precision.
    """
    n, k = U.shape[-2:]
    sign = 1.0 if largest else -1.0
    signed = sign * values
    tau = signed - X.diagonal(dim1=-2, dim2=-1).sum(-1, keepdim=True).real * (sign / n)  # (*, k)
    if k == 1:  # the same without a dimension for i
        M = (U * tau[..., None]) @ U.mH - sign * X
        M.diagonal(dim1=-2, dim2=-1).add_(signed)
        L, info = torch.linalg.cholesky_ex(M)
        H = H - U * (U.conj() * H).sum(-2, keepdim=True)
        W = torch.cholesky_solve(H, L) * sign
        if is_single(W.dtype):
            W = W + torch.cholesky_solve(residual_in_double(X, U, H, W), L) * sign
        return W - U * (U.conj() * W).sum(-2, keepdim=True), info[..., None] == 0
    moved = tau[..., :, None] - signed[..., :, None] + signed[..., None, :]  # (*, i, j)
    M = (U[..., None, :, :] * moved[..., None, :]) @ U.mH[..., None, :, :] - (sign * X)[..., None, :, :]
    M.diagonal(dim1=-2, dim2=-1).add_(signed[..., None])
    L, info = torch.linalg.cholesky_ex(M)
    outside = H - U @ (U.mH @ H)
    W = torch.cholesky_solve(outside.mT[..., None], L)[..., 0].mT * sign
    if is_single(W.dtype):
        R = residual_in_double(X, U, outside, W)
        W = W + torch.cholesky_solve(R.mT[..., None], L)[..., 0].mT * sign
    return W - U @ (U.mH @ W), info == 0
