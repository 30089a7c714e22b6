r"""The complement solve of leading eigenpairs with the factors that the forward pass left.

Let A = ±X with the selected pairs (μᵢ, uᵢ) the smallest, and M = A − σI = L D Lᴴ with σ below them. Outside the
selected vectors, with P = I − U Uᴴ and δᵢ = μᵢ − σ > 0,

    (A − μᵢI) yᵢ = P hᵢ    ⟺    (I − δᵢ T) yᵢ = T P hᵢ,     T = P M⁻¹ P,

so that all columns, whatever their shift, are found in the one block Krylov space of T and P H. With an orthonormal
basis V of it, T V = V G + Q B (last rows of I), and P H = V R,

    (I − δᵢ G) cᵢ = G rᵢ,    zᵢ = rᵢ + δᵢ cᵢ,    yᵢ = T V zᵢ = V G zᵢ + Q B zᵢ(last),

leaves P hᵢ − (A − μᵢI) yᵢ = δᵢ Q B zᵢ(last), a residual that costs nothing to know. The eigenvalues of δᵢT lie in
(0, δᵢ/(μₖ₊₁ − σ)) and crowd at zero: a few solves with k columns are enough, each with both triangular factors.

A component along a vector left out whose eigenvalue coincides with μᵢ has no meaning and is dropped.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pmaf.linalg.bordered import safe_inverse
from pmaf.linalg.krylov import KrylovSpace, orthonormal
from pmaf.linalg.sparse_factor import SparseFactor
from pmaf.linalg.vectors import random_block

__all__ = ["solve_factorised"]

STEPS = 60  # the most solves with a block
NOISE = 16  # units of rounding of a right-hand side that may be left of one that has no part outside


def solve_factorised(
    factor: SparseFactor, values: Tensor, U: Tensor, H: Tensor, norm: float, tolerance: float
) -> tuple[Tensor, Tensor]:
    """Solve (λᵢI − X) wᵢ = P hᵢ, wᵢ ⟂ U, for every selected pair i at once.

    Args:
        factor: of ±X − σI.
        values: λᵢ, ``(k,)``.
        U: orthonormal, ``(n, k)``.
        H: right-hand sides, ``(n, k)``; only their part outside span(U) counts.
        norm: of the order of ‖X‖.
        tolerance: eigenvalues left out that are as near as this to λᵢ are dropped.

    Returns:
        W, ``(n, k)``, and a mask ``(k,)`` of the columns that reached a residual of rounding.
    """
    wide = torch.complex128 if U.is_complex() else torch.float64
    eps = torch.finfo(H.dtype).eps
    basis, right = U.to(wide), H.to(wide)
    if H.dtype != wide:
        basis = orthonormal(basis)[0]
    delta = factor.sign * values.to(torch.float64) - factor.shift

    def outside(V: Tensor) -> Tensor:
        return V - basis @ (basis.mH @ V)

    R = outside(outside(right))
    whole = torch.linalg.vector_norm(right, dim=0)
    size = torch.linalg.vector_norm(R, dim=0)
    # Where the exact right-hand side has no part outside, rounding leaves one that would be solved for in vain.
    at = (size > NOISE * eps * whole).nonzero()[:, 0]
    W = torch.zeros_like(R)
    done = torch.ones_like(size, dtype=torch.bool)
    if len(at):
        W[:, at], done[at] = in_one_space(factor, delta[at], R[:, at], outside, norm, tolerance)
    return (-factor.sign * W).to(H.dtype), done


def in_one_space(
    factor: SparseFactor,
    delta: Tensor,
    R: Tensor,
    outside: Callable[[Tensor], Tensor],
    norm: float,
    tolerance: float,
) -> tuple[Tensor, Tensor]:
    """(M − δᵢI)⁻¹ rᵢ outside the selected vectors, for columns in the block Krylov space of M⁻¹ and all rᵢ.

    Args:
        factor: of M.
        delta: δᵢ, ``(p,)``.
        R: right-hand sides outside the selected vectors, ``(n, p)``.
        outside: the projection P.
        norm: of the order of ‖M‖.
        tolerance: eigenvalues of M − δᵢI up to here count as zero.

    Returns:
        Y, ``(n, p)``, and a mask of the columns whose residual is that of rounding.
    """
    n, p = R.shape
    size = torch.linalg.vector_norm(R, dim=0)
    block, triangle = orthonormal(R / size)
    noise = outside(random_block(n, p, R.dtype, R.device))
    space = KrylovSpace(lambda V: outside(factor.solve(V)), block, noise, min(n, (STEPS + 1) * p))
    allowed = 4 * torch.finfo(R.dtype).eps
    for _ in range(STEPS):
        space.extend()
        m = space.V.shape[-1]
        t, S = torch.linalg.eigh((space.H + space.H.mH) / 2)
        r = torch.nn.functional.pad(triangle, (0, 0, 0, m - p))
        # In the eigenbasis of G: c = t r/(1 − δ t). Of M − δI the eigenvalue is (1 − δ t)/t.
        t = t[:, None].clamp_min(0)
        rest = 1 - delta * t
        c = safe_inverse(rest, rest.abs() > tolerance * t) * t * (S.mH @ r)
        z = r + delta * (S @ c)
        tail = space.coupling @ z[-p:]
        misfit = delta * torch.linalg.vector_norm(tail, dim=0)
        done = misfit <= allowed * (1 + norm * torch.linalg.vector_norm(c, dim=0))
        if bool(done.all()) or space.ahead.shape[-1] < p or m + p > n:
            break
    Y = space.V @ (S @ (t * (S.mH @ z)))
    if space.ahead.shape[-1] == p:
        Y = Y + space.ahead @ tail
    return outside(Y) * size, done
