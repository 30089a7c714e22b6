r"""The complement solve of leading eigenpairs by a Cholesky factorisation for each pair.

**Without a look at values**, :func:`complement_by_factorisation`. For a leading pair, λᵢI − X is positive semidefinite
outside the span of the selected vectors, so

    Mᵢ = P (λᵢI − X) P + κ U Uᴴ ≻ 0,     P = I − U Uᴴ,     wᵢ = P Mᵢ⁻¹ P hᵢ

(λᵢI − X is negated for the smallest pairs). Nothing in it depends on values that the host would have to wait for, and
k is small, so that the k factorisations of a batch are one call, of k·n³/3 operations and k·n² numbers for each item.
Where λᵢ coincides with an eigenvalue left out, Mᵢ is singular and its pseudo-inverse takes its place.

The Gram matrix FᴴF of a factor with fewer rows than columns has zero eigenvalues beyond those of the small F Fᴴ, and

    (λᵢI − FᴴF)⁻¹ = (I + Fᴴ(λᵢI − F Fᴴ)⁻¹F)/λᵢ,

so the same is done there with the selected vectors F U.

**Of a dense matrix**, :func:`solve_deflated`. For a leading pair λᵢI − X is positive definite on the complement of the
selected vectors (negative definite for the smallest). Moving the selected eigenvalues to τᵢ > 0 makes it definite
everywhere without a change on the complement:

    Mᵢ = ±(λᵢI − X) + U diag(τᵢ − (±(λᵢ − λⱼ))) Uᴴ ≻ 0,       Mᵢ uⱼ = τᵢ uⱼ,

so that the solution of Mᵢ w = ±P hᵢ with P = I − UUᴴ is orthogonal to the selected vectors by itself. τᵢ is the mean of
the eigenvalues of ±(λᵢI − X), which keeps the condition number that of the complement.
"""

import torch
from torch import Tensor

from pmaf.linalg.bordered import safe_inverse
from pmaf.linalg.cholesky import solve_definite
from pmaf.linalg.dtypes import double
from pmaf.linalg.refinement import is_single, residual_in_double
from pmaf.operators.base import Operator
from pmaf.operators.gram import Gram
from pmaf.operators.separation import separation_tolerance

__all__ = ["complement_by_factorisation", "solve_deflated"]


def complement_by_factorisation(
    X: Operator, values: Tensor, U: Tensor, H: Tensor, singular: Tensor, *, largest: bool, rtol: float, atol: float
) -> Tensor:
    """Columns wᵢ = Σ_j v_j (v_jᴴhᵢ)/(λᵢ − s_j) over the eigenvectors that were not selected and are separated from λᵢ.

    Args:
        X: the operator; made dense, or the small Gram matrix of its factor.
        values: the selected eigenvalues, ``(*, k)``.
        U: the selected eigenvectors, ``(*, n, k)``.
        H: right-hand sides, ``(*, n, k)``.
        singular: items whose selected eigenvalues may coincide with others, ``(*,)``.
        largest: which end of the spectrum was selected.
        rtol: relative tolerance of what coincides.
        atol: absolute tolerance.

    Returns:
        W, ``(*, n, k)``.
    """
    H = H - U @ (U.mH @ H)
    zero = torch.zeros_like(values)
    norm = values.abs().amax(-1, keepdim=True)
    if not isinstance(X, Gram):
        M = X.dense()
        size = torch.linalg.vector_norm(M, torch.inf, dim=(-2, -1))[..., None]
        tolerance = separation_tolerance(X, values, values, torch.maximum(norm, size), rtol, atol)
        W = outside(M, values, U, H, singular, tolerance, largest)
    else:
        F = X.factor.to(double(U))
        s, V, R = values.to(F.real.dtype), U.to(F.dtype), H.to(F.dtype)
        tolerance = separation_tolerance(X, values, zero, norm, rtol, atol).to(s.dtype)
        tolerance = torch.maximum(tolerance, 10 * torch.finfo(s.dtype).eps * X.n**0.5 * norm.to(s.dtype))
        if F.shape[-2] < X.n and largest and values.shape[-1] <= F.shape[-2]:
            image = F @ V  # columns of length √s
            length = torch.linalg.vector_norm(image, dim=-2, keepdim=True)
            basis = image * safe_inverse(length, length > 0)
            small = outside(F @ F.mH, s, basis, F @ R, singular, tolerance, largest)
            W = (R + F.mH @ small) * safe_inverse(s, s > tolerance)[..., None, :]
        else:
            W = outside(F.mH @ F, s, V, R, singular, tolerance, largest)
        W = W.to(H.dtype)
    return W - U @ (U.mH @ W)


def outside(
    M: Tensor, values: Tensor, U: Tensor, H: Tensor, singular: Tensor, tolerance: Tensor, largest: bool
) -> Tensor:
    """P Mᵢ⁻¹ hᵢ for every pair at once.

    Args:
        M: the matrix, ``(*, n, n)``.
        values: λᵢ, ``(*, k)``.
        U: orthonormal, ``(*, n, k)``.
        H: right-hand sides, ``(*, n, k)``.
        singular: items that may be singular, ``(*,)``.
        tolerance: eigenvalues of Mᵢ up to here count as zero, ``(*, k)``.
        largest: whether λᵢI − M is positive outside U, or negative.

    Returns:
        ``(*, n, k)``.
    """
    sign = 1.0 if largest else -1.0
    eye = torch.eye(M.shape[-1], dtype=M.dtype, device=M.device)
    rest = M - (M @ U) @ U.mH
    rest = rest - U @ (U.mH @ rest)  # P M P
    kappa = torch.maximum(values.abs(), rest.diagonal(dim1=-2, dim2=-1).real.abs().amax(-1, keepdim=True))  # (*, k)
    lift = U @ U.mH
    shifted = values[..., None, None] * (eye - lift[..., None, :, :]) - rest[..., None, :, :]
    matrices = sign * shifted + kappa[..., None, None] * lift[..., None, :, :]  # (*, k, n, n)
    columns = solve_definite(matrices, H.mT[..., None], singular[..., None], tolerance)  # (*, k, n, 1)
    return sign * columns[..., 0].mT


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
        if is_single(W):
            W = W + torch.cholesky_solve(residual_in_double(X, U, H, W), L) * sign
        return W - U * (U.conj() * W).sum(-2, keepdim=True), info[..., None] == 0
    moved = tau[..., :, None] - signed[..., :, None] + signed[..., None, :]  # (*, i, j)
    M = (U[..., None, :, :] * moved[..., None, :]) @ U.mH[..., None, :, :] - (sign * X)[..., None, :, :]
    M.diagonal(dim1=-2, dim2=-1).add_(signed[..., None])
    L, info = torch.linalg.cholesky_ex(M)
    outside = H - U @ (U.mH @ H)
    W = torch.cholesky_solve(outside.mT[..., None], L)[..., 0].mT * sign
    if is_single(W):
        R = residual_in_double(X, U, outside, W)
        W = W + torch.cholesky_solve(R.mT[..., None], L)[..., 0].mT * sign
    return W - U @ (U.mH @ W), info == 0
