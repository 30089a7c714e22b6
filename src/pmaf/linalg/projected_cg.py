r"""The bordered system of leading eigenpairs, where nothing but products with X is known.

For a leading pair the matrix of the system, restricted to the complement of the selected vectors, is positive definite:

    A_i = P (λᵢI − X) P ≻ 0,   P = I − U Uᴴ,   eigenvalues λᵢ − λⱼ over the unwanted λⱼ   (−A_i for the smallest)

so conjugate gradients solve it, with an error after j steps of at most 2((√κ − 1)/(√κ + 1))ʲ in the norm of A, where
κ = (λᵢ − λₙ)/(λᵢ − λₖ₊₁) is about what the forward pass had to resolve as well.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pmaf.linalg.batched import inner_products
from pmaf.transforms import mapped_the_older_way, wrapped

__all__ = ["Columns", "complement_cg"]

Columns = slice | Tensor  # which of the columns: all of them, or those with these indices

everything = slice(None)
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
    precondition: Callable[[Tensor, Columns], Tensor] | None = None,
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
        rtol: by default four units in the last place in single precision, a hundred in double, as in the forward pass.
        max_steps: the most products; by default 1000.
        precondition: about ±(λᵢI − X)⁻¹ of rows ``(*, p, n)``, those of the columns that its second argument selects;
            Hermitian and positive definite for each column, in any units.

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
    rtol = (4 if eps > 1e-10 else 100) * eps if rtol is None else rtol
    budget = 1000 if max_steps is None else max_steps
    k = U.shape[-1]
    rows = U.mT.contiguous()  # vectors are rows here, (*, k, n): each is contiguous

    def project(R: Tensor) -> Tensor:
        return R - (inner_products(U, R.mT).mT @ rows)

    def matrix(R: Tensor, at: Columns = everything) -> Tensor:
        image = signed[..., at, :] * R - product(R.mT).mT * unit[..., at, :]
        return image if k == 1 else project(image)  # with one vector A is semidefinite: what leaks along it stays small

    def improved(R: Tensor, at: Columns = everything) -> Tensor:
        return R if precondition is None else project(precondition(R, at))

    # Units in which ‖hᵢ‖ = 1 and ‖A_i‖ is of order one, so that squares neither overflow nor underflow.
    shift = eigenvalues[..., None]
    unit = torch.ones_like(shift) if largest else -torch.ones_like(shift)
    signed = shift * unit
    B = project(H.mT)
    B_size = size(B, tiny)
    whole = size(H.mT, tiny)
    base = (whole / B_size).clamp_min(1)[..., 0]
    # Of a right-hand side without a part outside span(U) rounding leaves one, for which steps would be spent in vain.
    B = torch.where(B_size > 16 * eps * whole, project(B / B_size), 0)
    A_size = size(project(matrix(B)), tiny)
    unit, signed = unit / A_size, signed / A_size
    A_norm = signed.abs().clamp_min(1)[..., 0]  # (*, k), to an order of magnitude

    def allowed(W: Tensor, at: Columns = everything) -> Tensor:
        bound: Tensor = rtol * (base[..., at] + A_norm[..., at] * torch.linalg.vector_norm(W, dim=-1))
        return bound

    def goal(W: Tensor, at: Columns = everything) -> Tensor:
        return (allowed(W, at) / 4).square()

    W = torch.zeros_like(B)
    R = B
    done = torch.zeros_like(A_norm, dtype=torch.bool)
    sound = B_size[..., 0].isfinite() & A_size[..., 0].isfinite()
    for _ in range(ROUNDS):
        found = Iteration(W, R, goal(W), ~done & sound, improved)
        step = 0
        while budget > 0 and found.goes_on():
            budget, step = budget - 1, step + 1
            found.advance(matrix(found.P, found.at), goal if step % 4 == 0 else None)
        W = torch.where(sound[..., None], project(found.whole()), 0)
        R = torch.where(sound[..., None], B - project(matrix(W)), 0)
        done = sound & (torch.linalg.vector_norm(R, dim=-1) <= allowed(W))
        if budget <= 0 or bool((done | ~sound).all()):
            break
    return (W * (B_size / A_size if largest else -B_size / A_size)).mT, done


class Iteration:
    """Conjugate gradients from W on; of a single item the columns that are over are left behind."""

    def __init__(
        self, W: Tensor, R: Tensor, goal: Tensor, active: Tensor, improved: Callable[[Tensor, Columns], Tensor]
    ) -> None:
        self.result, self.goal, self.improved = W, goal, improved
        self.at: Columns = everything
        self.W, self.R, self.active = W, R, active
        self.Z = self.P = improved(R, everything)
        self.rho = inner(R, self.Z)

    def goes_on(self) -> bool:
        """Whether columns are left to work on."""
        left = int(self.active.sum())
        if self.active.dim() == 1 and 0 < left < len(self.active):
            self.result, keep = self.whole(), self.active
            self.at = (torch.arange(len(keep), device=keep.device) if isinstance(self.at, slice) else self.at)[keep]
            self.W, self.R, self.P = self.W[keep], self.R[keep], self.P[keep]
            self.rho, self.goal, self.active = self.rho[keep], self.goal[keep], self.active[keep]
        return left > 0

    def advance(self, image: Tensor, bound: Callable[[Tensor, Columns], Tensor] | None) -> None:
        """One step, given A P; a new bound of the residual where there is one."""
        curvature = inner(self.P, image)
        # Else λᵢ is no leading eigenvalue, the column is exactly zero, or the preconditioner is not definite.
        active = self.active & (curvature > 0) & (self.rho > 0)
        alpha = torch.where(active, self.rho / curvature, 0)[..., None]
        self.W = torch.addcmul(self.W, alpha, self.P)
        self.R = torch.addcmul(self.R, alpha, image, value=-1)
        Z = self.improved(self.R, self.at)
        fresh = inner(self.R, Z)
        self.P = torch.addcmul(Z, torch.where(active, fresh / self.rho, 0)[..., None], self.P)
        self.rho = fresh
        if bound is not None:
            self.goal = bound(self.W, self.at)
        self.active = active & ((fresh if Z is self.R else inner(self.R, self.R)) > self.goal)

    def whole(self) -> Tensor:
        """All columns."""
        if isinstance(self.at, slice):
            return self.W
        return self.result.index_copy(0, self.at, self.W)


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
