r"""The largest eigenvalue of a Hermitian matrix by inverse iteration with shifts proven to lie above the spectrum.

For the largest eigenvalue λ₁ of X, σI − X is positive definite exactly if σ > λ₁, which a Cholesky factorisation
decides; a Rayleigh quotient ρ = uᴴXu, on the other hand, is never above λ₁. So λ₁ stays in a bracket [lo, hi] that
every factorisation narrows: success moves hi to σ, and gives u ← (σI − X)⁻¹u / ‖·‖, which damps all other
eigenvectors by (σ − λ₁)/(σ − λⱼ); failure moves lo to σ. The shift is σ = ρ + ‖Xu − ρu‖ where the bracket allows,
which is of the order of the error of u, so that the error is squared in each step; otherwise the bracket is halved,
or, while hi is only a crude bound, searched from below in steps that grow eightfold: u may begin right beside another
eigenvector. Where halving fails, hi itself is next, which finds at once what lies right below its bound, such as an
eigenvalue that repeats.
"""

import torch
from torch import Tensor

from pmaf.linalg.batched import matvec
from pmaf.linalg.cholesky import factorise, substitute
from pmaf.transforms import anywhere

__all__ = ["leading_pair"]


def leading_pair(X: Tensor, u: Tensor, top: Tensor | None, max_steps: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The largest eigenvalue and its vector.

    Args:
        X: Hermitian, of norm about one at most, ``(*, n, n)``.
        u: unit vectors to begin with, ``(*, n)``.
        top: upper bounds of the eigenvalue so tight that it pays to begin there, ``(*,)``; ``None``: the Frobenius norm
            bounds it, which is measured here: X may have been scaled in a coarser type, to one and a rounding.
        max_steps: the most factorisations.

    Returns:
        λ₁, ``(*,)``; u, ``(*, n)``; a mask of the items whose λ₁ is proven to be the largest up to rounding, and
        whose u is its vector to rounding; and the number of factorisations of each.
    """
    n = X.shape[-1]
    noise = 2 * torch.finfo(X.dtype).eps * n**0.5  # shifts closer to the spectrum than this prove nothing
    eye = torch.eye(n, dtype=X.dtype, device=X.device)
    hi = (torch.linalg.matrix_norm(X) if top is None else top) + noise
    lo = torch.full_like(hi, -torch.inf)
    # σ = hi comes next where a shift in the upper half has failed.
    safe = torch.full_like(hi, top is not None, dtype=torch.bool)
    active = torch.ones_like(hi, dtype=torch.bool)
    steps = torch.zeros_like(hi, dtype=torch.int64)
    for _ in range(max_steps):
        Xu = matvec(X, u)
        rho = (u.conj() * Xu).sum(-1).real
        error = torch.linalg.vector_norm(Xu - rho[..., None] * u, dim=-1).clamp(min=noise)
        lo = torch.maximum(lo, rho)
        near, middle = torch.maximum(rho + error, rho + 8 * (lo - rho)), (lo + hi) / 2
        sigma = torch.where(near < middle, near, torch.maximum(middle, lo + noise / 2))
        sigma = torch.where(safe, hi, sigma)
        L, above = factorise(sigma[..., None, None] * eye - X)
        v = substitute(torch.where(above[..., None, None], L, eye), u[..., None])[..., 0]
        v = v / torch.linalg.vector_norm(v, dim=-1, keepdim=True)
        u = torch.where((active & above)[..., None], v, u)
        hi, lo = torch.where(above, torch.minimum(hi, sigma), hi), torch.where(above, lo, sigma)
        safe = ~above & ~safe & (sigma >= middle)
        steps = steps + active
        active = active & ~(above & (sigma - rho <= 2 * noise) & (error <= 2 * noise))
        if not anywhere(active):
            break
    Xu = matvec(X, u)
    rho = (u.conj() * Xu).sum(-1).real
    error = torch.linalg.vector_norm(Xu - rho[..., None] * u, dim=-1)  # whose square is that of ρ
    return rho, u, (hi - rho <= 16 * noise) & (error <= 3 * noise), steps
