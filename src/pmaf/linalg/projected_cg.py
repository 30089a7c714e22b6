r"""The bordered system of leading eigenpairs, where nothing but products with X is known.

For a leading pair the matrix of the system, restricted to the complement of the selected vectors, is positive definite:

    A_i = P (λᵢI − X) P ≻ 0,   P = I − U Uᴴ,   eigenvalues λᵢ − λⱼ over the unwanted λⱼ   (−A_i for the smallest)

so conjugate gradients solve it, with an error after j steps of at most 2((√κ − 1)/(√κ + 1))ʲ in the norm of A, where
κ = (λᵢ − λₙ)/(λᵢ − λₖ₊₁) is about what the forward pass had to resolve as well.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from pmaf.linalg.batched import inner_products
from pmaf.transforms import mapped_the_older_way, wrapped

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

    Raises:
        RuntimeError: inside the older vmap of ``is_grads_batched``, or of forward mode over forward mode.
    """
    if mapped_the_older_way(H) or wrapped(H):
        raise RuntimeError(
            "pmaf: autograd.grad(..., is_grads_batched=True) and forward mode over forward mode cannot look at values, "
            "which conjugate gradients for an operator known by its products do; use torch.func.vmap, hessian, "
            "or a dense matrix"
        )
    eps, tiny = torch.finfo(H.dtype).eps, torch.finfo(H.dtype).tiny
    rtol = 4 * eps if rtol is None else rtol
    budget = 1000 if max_steps is None else max_steps
    k = U.shape[-1]
    rows, shift = U.mT, eigenvalues[..., None]  # vectors are rows here, (*, k, n): each is contiguous

    def project(R: Tensor) -> Tensor:
        return R - (inner_products(U, R.mT).mT @ rows)

    def matrix(R: Tensor) -> Tensor:
        image = signed * R - product(R.mT).mT * unit
        return image if k == 1 else project(image)  # with one vector A is semidefinite: what leaks along it stays small

    # Units in which ‖hᵢ‖ = 1 and ‖A_i‖ is of order one, so that squares neither overflow nor underflow.
    unit = torch.ones_like(shift) if largest else -torch.ones_like(shift)
    signed = shift * unit
    B = project(H.mT)
    B_size = size(B, tiny)
    whole = size(H.mT, tiny)
    base = (whole / B_size).clamp_min(1)[..., 0]
    # Of a right-hand side without a part outside span(U) rounding leaves one, for which steps would be spent in vain.
    B = torch.where(B_size > 4 * rtol * whole, project(B / B_size), 0)
    A_size = size(project(matrix(B)), tiny)
    unit, signed = unit / A_size, signed / A_size
    A_norm = signed.abs().clamp_min(1)[..., 0]  # (*, k), to an order of magnitude

    W = torch.zeros_like(B)
    R = B
    done = torch.zeros_like(A_norm, dtype=torch.bool)
    sound = B_size[..., 0].isfinite() & A_size[..., 0].isfinite()
    for _ in range(ROUNDS):
        active, P = ~done & sound, R
        rho = inner(R, R)
        bound = (rtol / 4 * (base + A_norm * torch.linalg.vector_norm(W, dim=-1))).square()
        step = 0
        while budget > 0 and bool(active.any()):
            budget, step = budget - 1, step + 1
            image = matrix(P)
            curvature = inner(P, image)
            active = active & (curvature > 0)  # else λᵢ is no leading eigenvalue, or the column is exactly zero
            alpha = torch.where(active, rho / curvature, 0)[..., None]
            W = torch.addcmul(W, alpha, P)
            R = torch.addcmul(R, alpha, image, value=-1)
            fresh = inner(R, R)
            P = torch.addcmul(R, torch.where(active, fresh / rho, 0)[..., None], P)
            rho = fresh
            if step % 4 == 0:
                bound = (rtol / 4 * (base + A_norm * torch.linalg.vector_norm(W, dim=-1))).square()
            active = active & (rho > bound)
        W = torch.where(sound[..., None], project(W), 0)
        R = torch.where(sound[..., None], B - project(matrix(W)), 0)
        bound = rtol * (base + A_norm * torch.linalg.vector_norm(W, dim=-1))
        done = sound & (torch.linalg.vector_norm(R, dim=-1) <= bound)
        if budget <= 0 or bool((done | ~sound).all()):
            break
    return (W * (B_size / A_size if largest else -B_size / A_size)).mT, done


def inner(left: Tensor, right: Tensor) -> Tensor:
    """Re⟨left, right⟩ of each row."""
    terms = (left.conj() * right).real if left.is_complex() else left * right
    total: Tensor = terms.sum(-1)
    return total


def size(R: Tensor, tiny: float) -> Tensor:
    """The length of each row, ``(*, k, 1)``, safe from overflow; one for rows that vanish."""
    peak = R.abs().amax(-1, keepdim=True)
    peak = torch.where(peak > tiny, peak, 1)
    length = torch.linalg.vector_norm(R / peak, dim=-1, keepdim=True)
    return peak * torch.where(length > tiny, length, 1)
