r"""The complement solve of leading eigenpairs by a Cholesky factorisation for each pair.

For a leading pair, λᵢI − X is positive semidefinite outside the span of the selected vectors, so

    Mᵢ = P (λᵢI − X) P + κ U Uᴴ ≻ 0,     P = I − U Uᴴ,     wᵢ = P Mᵢ⁻¹ P hᵢ

(λᵢI − X is negated for the smallest pairs). Nothing in it depends on values that the host would have to wait for, and
k is small, so that the k factorisations of a batch are one call, of k·n³/3 operations and k·n² numbers for each item.
Where λᵢ coincides with an eigenvalue left out, Mᵢ is singular and its pseudo-inverse takes its place.

The Gram matrix FᴴF of a factor with fewer rows than columns has zero eigenvalues beyond those of the small F Fᴴ, and

    (λᵢI − FᴴF)⁻¹ = (I + Fᴴ(λᵢI − F Fᴴ)⁻¹F)/λᵢ,

so the same is done there with the selected vectors F U.
"""

import torch
from torch import Tensor

from pmaf.bordered import safe_inverse
from pmaf.definite import solve_definite
from pmaf.degeneracy import separation_tolerance
from pmaf.operators import Gram, Operator
from pmaf.products import double

__all__ = ["complement_by_factorisation"]


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
        F = X.factor.to(double(U.dtype))
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
