r"""Bordered systems in a known eigenbasis, in O(n²).

Both layers differentiate, and refine, through a symmetric matrix with a border,

    [ K   u ] [ w ]   [ h ]
    [ uᴴ −c ] [ μ ] = [ f ]        K = V diag(d) Vᴴ,  d ascending and non-negative,

where c is 0 (the constraint is active) or 1 with u = 0 (it is not). K may be singular: eliminating every coordinate but
the first leaves

    [ d₁   γ₁ ] [ w₁ ]   [ a₁    ]        γ = Vᴴu,  a = Vᴴh,
    [ γ₁   −β ] [ μ  ] = [ f − α ]        α = Σ' γᵢaᵢ/dᵢ,  β = c + Σ' γᵢ²/dᵢ   (sums over i > 1),

whose determinant −(d₁β + γ₁²) only vanishes where the answer is not even locally unique. Coordinates i > 1 with dᵢ
below the tolerance belong to a repeated eigenvalue and are dropped: the solution of least norm.

Over the complex numbers μ is real, because the constraint Re uᴴdu = 0 is, so w₁ splits into the part along γ₁, which
takes the place above, and the part across it, which is a₁/d₁.
"""

import torch
from torch import Tensor

from pmaf.linalg.batched import adjoint_matvec, matvec

__all__ = ["safe_inverse", "solve_bordered"]


def safe_inverse(d: Tensor, keep: Tensor) -> Tensor:
    """1/d where ``keep``, else 0, without a division by zero on the way."""
    return torch.where(keep, d, torch.inf).reciprocal()


def solve_bordered(
    d: Tensor, V: Tensor, u: Tensor, corner: Tensor, h: Tensor, f: Tensor, tolerance: Tensor
) -> tuple[Tensor, Tensor]:
    """Solve the bordered system above.

    Args:
        d: eigenvalues of K, ascending, ``(*, n)``.
        V: eigenvectors of K, ``(*, n, n)``.
        u: the border, ``(*, n)``; it is read as zero where ``corner`` is 1.
        corner: c, 0 or 1, real, ``(*,)``.
        h: upper right-hand side, ``(*, n)``.
        f: lower right-hand side, real, ``(*,)``.
        tolerance: eigenvalues up to here count as zero, ``(*,)``.

    Returns:
        w, ``(*, n)``, and μ, ``(*,)``.
    """
    active = 1 - corner
    gamma = adjoint_matvec(V, u) * active[..., None]
    a = adjoint_matvec(V, h)
    inverse = safe_inverse(d, d > tolerance[..., None])  # (*, n)
    weighted = gamma[..., 1:].conj() * inverse[..., 1:]
    alpha = (weighted * a[..., 1:]).sum(-1).real
    beta = corner + (weighted * gamma[..., 1:]).sum(-1).real

    d1, gamma1 = d[..., 0], gamma[..., 0].abs()
    phase = torch.where(gamma1 > 0, torch.sgn(gamma[..., 0]), 1)
    turned = phase.conj() * a[..., 0]
    determinant = d1 * beta + gamma1.square()
    regular = determinant > torch.where(corner > 0, tolerance * beta, 0)
    scale = safe_inverse(determinant, regular)
    along = (beta * turned.real + gamma1 * (f - alpha)) * scale
    mu = torch.where(corner > 0, -f, (gamma1 * turned.real - d1 * (f - alpha)) * scale)
    w1 = phase * (torch.complex(along, turned.imag * inverse[..., 0]) if a.is_complex() else along)
    rest = (a[..., 1:] - mu[..., None] * gamma[..., 1:]) * inverse[..., 1:]
    return matvec(V, torch.cat((w1[..., None], rest), -1)), mu
