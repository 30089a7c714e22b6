r"""The bordered system of leading eigenpairs, where nothing but products with X is known.

For a leading pair the matrix of the system, restricted to the complement of the selected vectors, is positive definite:

    A_i = P (λᵢI − X) P ≻ 0,   P = I − U Uᴴ,   eigenvalues λᵢ − λⱼ over the unwanted λⱼ   (−A_i for the smallest)

so conjugate gradients solve it, with an error after j steps of at most 2((√κ − 1)/(√κ + 1))ʲ in the norm of A, where
κ = (λᵢ − λₙ)/(λᵢ − λₖ₊₁) is about what the forward pass had to resolve as well.
"""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["complement_cg"]

ROUNDS = 3  # restarts from the true residual; rounding makes the recursive one drift away from it


def complement_cg(
    product: Callable[[Tensor], Tensor],
    eigenvalues: Tensor,
    U: Tensor,
    H: Tensor,
    *,
    largest: bool = True,
    rtol: float | None = None,
    max_steps: int | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Solve (λᵢI − X) wᵢ = P hᵢ, wᵢ ⟂ U, for every selected pair i at once.

    A column is done when its *measured* residual satisfies ‖P hᵢ − A_i wᵢ‖ ≤ rtol·(‖A_i‖‖wᵢ‖ + ‖hᵢ‖), the accuracy of a
    backward stable direct solver (Rigal and Gaches, J. ACM 14, 1967). Columns do not influence each other.

    Args:
        product: V ↦ X V for blocks ``(*, n, k)``.
        eigenvalues: λᵢ, the k algebraically largest (smallest) eigenvalues of X, ``(*, k)``.
        U: their eigenvectors, orthonormal, ``(*, n, k)``.
        H: right-hand sides, ``(*, n, k)``; only their part outside span(U) counts.
        largest: whether the pairs are the largest or the smallest.
        rtol: by default four units in the last place.
        max_steps: the most products; by default 1000.

    Returns:
        W, ``(*, n, k)``, and a mask ``(*, k)`` of the columns that reached the tolerance.
    """
    eps, tiny = torch.finfo(H.dtype).eps, torch.finfo(H.dtype).tiny
    rtol = 4 * eps if rtol is None else rtol
    budget = 1000 if max_steps is None else max_steps
    rows, shift = U.mT, eigenvalues[..., None]  # vectors are rows here, (*, k, n): each is contiguous

    def project(R: Tensor) -> Tensor:
        return R - (R @ rows.mH) @ rows

    def matrix(R: Tensor) -> Tensor:
        image = project(shift * R - product(R.mT).mT)
        return image if largest else -image

    # Units in which ‖hᵢ‖ = 1 and ‖A_i‖ is of order one, so that squares neither overflow nor underflow.
    B = project(H.mT)
    B_size = size(B, tiny)
    B = project(B / B_size)
    A_size = size(matrix(B), tiny)

    def scaled(R: Tensor) -> Tensor:
        return matrix(R) / A_size

    W = torch.zeros_like(B)
    R = B
    A_norm = torch.ones_like(B_size[..., 0])  # (*, k), a lower bound that grows
    done = torch.zeros_like(A_norm, dtype=torch.bool)
    sound = B_size[..., 0].isfinite() & A_size[..., 0].isfinite()
    for _ in range(ROUNDS):
        active, P = ~done & sound, R
        rho = inner(R, R)
        while budget > 0 and bool(active.any()):
            budget -= 1
            image = scaled(P)
            curvature, length = inner(P, image), inner(P, P)
            A_norm = torch.where(active, torch.maximum(A_norm, curvature / length.clamp_min(tiny)), A_norm)
            active = active & (curvature > 0)  # else λᵢ is no leading eigenvalue, or the column is exactly zero
            mask = active[..., None]
            alpha = (rho / torch.where(active, curvature, 1))[..., None]
            W = torch.where(mask, W + alpha * P, W)
            R = torch.where(mask, R - alpha * image, R)
            fresh = inner(R, R)
            beta = fresh / torch.where(rho > 0, rho, 1)
            P = torch.where(mask, R + beta[..., None] * P, P)
            rho = torch.where(active, fresh, rho)
            bound = rtol / 4 * (1 + A_norm * torch.linalg.vector_norm(W, dim=-1))
            active = active & (rho.sqrt() > bound)
        W = project(W)
        R = torch.where(sound[..., None], B - scaled(W), 0)
        bound = rtol * (1 + A_norm * torch.linalg.vector_norm(W, dim=-1))
        done = sound & (torch.linalg.vector_norm(R, dim=-1) <= bound)
        if budget <= 0 or bool((done | ~sound).all()):
            break
    return (W * (B_size / A_size if largest else -B_size / A_size)).mT, done


def inner(left: Tensor, right: Tensor) -> Tensor:
    """Re⟨left, right⟩ of each row."""
    product: Tensor = left.conj() * right
    return product.real.sum(-1)


def size(R: Tensor, tiny: float) -> Tensor:
    """The length of each row, ``(*, k, 1)``, safe from overflow; one for rows that vanish."""
    peak = R.abs().amax(-1, keepdim=True)
    peak = torch.where(peak > tiny, peak, 1)
    return peak * torch.linalg.vector_norm(R / peak, dim=-1, keepdim=True).clamp_min(tiny)
