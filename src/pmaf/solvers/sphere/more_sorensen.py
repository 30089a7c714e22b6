r"""Least squares and quadratics on the sphere, globally, from Cholesky factorisations alone.

Stationarity is (Q + λI)u = g, and with t = λ + s₁, the distance to the smallest eigenvalue s₁ of Q, whose vector is
v₁, the minimiser on the unit sphere is the only solution with t ≥ 0. Split g = γ₁v₁ + g', v₁ ⟂ g'. Then

    u(t) = (γ₁/t) v₁ + p(t),     p(t) = M(t)⁻¹ g',     M(t) = Q − s₁I + tI + κ v₁v₁ᴴ,

and t is the root of φ(t) = ‖u(t)‖ = 1. M(t) is positive definite down to t = 0, since v₁ is lifted out of its null
space, so the *hard case*, γ₁ = 0 and φ(0) < 1, needs no other treatment: p(0) is as good as any, and the missing
length goes along v₁. Newton's method on 1/φ, which is concave and nearly linear, climbs to the root from below
without overshooting,

    t ← t + (φ − 1) φ²/(−φφ'),     −φφ' = |γ₁|²/t³ + pᴴM⁻¹p = |γ₁|²/t³ + ‖L⁻¹p‖²,   M = L Lᴴ.

References: Moré and Sorensen, Computing a trust region step (1983); Conn, Gould and Toint, Trust-Region Methods (2000),
section 7.3.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from pmaf.checks.values import set_integers
from pmaf.linalg.batched import adjoint_matvec, matvec
from pmaf.linalg.cholesky import factorise, solve_bordered_definite
from pmaf.linalg.dtypes import double
from pmaf.linalg.leading_pair import leading_pair
from pmaf.linalg.scaling import scaled_to_one, spectral_norm
from pmaf.linalg.vectors import first_vector
from pmaf.solvers.base import LeastSquares, SphereAnswer, SphereQuadratic
from pmaf.transforms import anywhere

__all__ = ["MoreSorensen"]

EIGEN_STEPS = 28  # factorisations for s₁ and v₁


@dataclass(frozen=True, kw_only=True)
class MoreSorensen:
    """The certified global minimiser, by Newton's method on the secular equation with Cholesky factorisations.

    Does not wait for the device: factorisations report success there, and the number of steps is fixed, except on the
    CPU, where looking whether all items are done costs nothing. So it can be captured in a CUDA graph, and it is what
    :func:`pmaf.less_ex` and :func:`pmaf.sphere_quadratic_ex` use on accelerators. Leaves no eigenbasis; the backward
    pass factorises once more.

    Computes in double precision throughout. Forming AᴴA squares the condition number, which float32 data survive; of
    float64 data, a gap below rounding of AᴴA counts as zero, where :class:`Secular` would resolve it.

    Cost: O(mn²), and about twenty factorisations, 20·n³/3, for each item on the CPU; 28 + ``max_steps`` elsewhere.

    Args:
        max_steps: the most Newton steps; about six are usual.

    Raises:
        ValueError: if ``max_steps`` is not positive.

    Example:
        >>> import torch, pmaf
        >>> A, b = torch.diag(torch.tensor([1.0, 2.0])), torch.tensor([3.0, 0.0])
        >>> pmaf.less(A, b, solver=pmaf.solvers.MoreSorensen())
        tensor([1., 0.])
    """

    max_steps: int = 16

    def __post_init__(self) -> None:
        set_integers(self, "max_steps")

    def solve(self, problem: LeastSquares | SphereQuadratic, start: Tensor | None = None) -> SphereAnswer:
        """Solve every item of the batch.

        Args:
            problem: least squares or a quadratic on the sphere.
            start: refused, since a direct method has no use for it.

        Returns:
            The minimiser, its multiplier and the gap, without an eigenbasis.

        Raises:
            ValueError: if ``start`` is given.
        """
        if start is not None:
            raise ValueError("pmaf.solvers.MoreSorensen: is global and needs no start, which is for iterative solvers")
        matrix, right, radius = problem
        dtype = matrix.dtype
        A, size, sound = scaled_to_one(matrix)
        A, b = A.to(double(dtype)), right.to(double(dtype))
        unit, r = size.to(b.real.dtype), radius.to(b.real.dtype)
        b = b / (torch.where(unit > 0, unit, 1) * r)[..., None]
        if isinstance(problem, LeastSquares):
            Q, g, scale = A.mH @ A, adjoint_matvec(A, b), unit.square()
        else:
            Q, g, scale = (A + A.mH) / 2, b, unit
        u, multiplier, t, done, steps = self._unit(Q, g)

        for _ in range(2):  # Newton on stationarity, from a residual of the data
            curved = adjoint_matvec(A, matvec(A, u) - b) + g if isinstance(problem, LeastSquares) else matvec(Q, u)
            u, multiplier, t = refined(Q, g - curved - multiplier[..., None] * u, u, multiplier, t)
        real, good = radius.dtype, done & sound & torch.isfinite(u).all(-1)
        return SphereAnswer(
            u=(u * r[..., None]).to(dtype),
            finished=good,
            steps=steps,
            multiplier=(multiplier * scale).to(real),
            gap=(t * scale).to(real),
            norm=(spectral_norm(Q) * scale).to(real),
        )

    def _unit(self, Q: Tensor, g: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Minimise on the unit sphere for ‖Q‖ ≤ 1: u, λ, t, a mask of the items that converged, and factorisations."""
        n, eps = Q.shape[-1], torch.finfo(Q.dtype).eps
        eye = torch.eye(n, dtype=Q.dtype, device=Q.device)
        one = torch.ones_like(Q[..., 0, 0].real)
        v = first_vector(n, Q.dtype, Q.device, 0).expand(Q.shape[:-1])
        top, v, proven, taken = leading_pair(-Q, v, one, False, EIGEN_STEPS)
        M0 = Q + top[..., None, None] * eye + v[..., :, None] * v.conj()[..., None, :]

        gamma = (v.conj() * g).sum(-1)
        rest = g - gamma[..., None] * v
        first, length = gamma.abs(), torch.linalg.vector_norm(g, dim=-1)
        floor = 4 * eps * n  # of shifts that leave M positive definite in spite of rounding
        t = torch.maximum(first, length - 2)  # φ ≥ 1 there: φ ≥ |γ₁|/t, and φ ≥ ‖g‖/(t + 2)
        active = torch.ones_like(t, dtype=torch.bool)
        steps = torch.zeros_like(t, dtype=torch.int64) + taken
        p = torch.zeros_like(rest)
        for _ in range(self.max_steps):
            L, definite = factorise(M0 + t.clamp(min=floor)[..., None, None] * eye)
            L = torch.where(definite[..., None, None], L, eye)
            half = torch.linalg.solve_triangular(L, rest[..., None], upper=False)
            column = torch.linalg.solve_triangular(L.mH, half, upper=True)
            p = torch.where(active[..., None], column[..., 0], p)
            bent = torch.linalg.vector_norm(torch.linalg.solve_triangular(L, column, upper=False), dim=(-2, -1))
            share = first / torch.where(t > 0, t, 1)
            squared = share.square() + column.abs().square().sum((-2, -1))
            slope = share.square() / torch.where(t > 0, t, 1) + bent.square()
            phi = squared.sqrt()
            higher = t + (phi - 1) * squared / torch.where(slope > 0, slope, 1)
            higher = torch.where(definite, higher, 2 * t + floor)
            steps = steps + active
            finished = definite & ((phi - 1 <= 8 * eps * n**0.5) | (higher <= t) | ~phi.isfinite())
            active = active & ~finished
            t = torch.where(active, higher, t)
            if not anywhere(active):
                break

        missing = (1 - p.abs().square().sum(-1)).clamp(min=0).sqrt()
        side = v.sum(-1)  # in the hard case, v₁ with non-negative inner product with the all-ones vector
        side = torch.where(side.abs() > 0, torch.sgn(side).conj(), 1)
        phase = torch.where(first > 0, torch.sgn(gamma), side)
        known = gamma / torch.where(t > 0, t, 1)
        u = p + torch.where(t > floor, known, phase * missing)[..., None] * v
        u = u / torch.linalg.vector_norm(u, dim=-1, keepdim=True)
        return u, t + top, t, ~active & proven, steps


def refined(Q: Tensor, upper: Tensor, u: Tensor, multiplier: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One Newton step on (Q + λI)u = g, ‖u‖ = 1.

    Args:
        Q: of norm at most one, ``(*, n, n)``.
        upper: g − (Q + λI)u, ``(*, n)``.
        u: unit vectors, ``(*, n)``.
        multiplier: λ, ``(*,)``.
        t: λ + s₁, ``(*,)``.

    Returns:
        Better u, λ and t where the step is small, as it is except in cases that are nearly hard. A gap that is a
        rounding error is zero.
    """
    n, eps = u.shape[-1], torch.finfo(u.dtype).eps
    noise = 8 * eps * n**0.5
    K = Q + multiplier[..., None, None] * torch.eye(n, dtype=Q.dtype, device=Q.device)
    lower = (1 - u.abs().square().sum(-1)) / 2
    none, tolerance = torch.zeros_like(t), torch.full_like(t, noise)
    du, dt = solve_bordered_definite(K, u, none, upper, lower, t <= noise, tolerance)
    better = u + du
    better = better / torch.linalg.vector_norm(better, dim=-1, keepdim=True)
    good = torch.isfinite(better).all(-1) & (t + dt >= 0) & (torch.linalg.vector_norm(du, dim=-1) < 0.1)
    u, multiplier = torch.where(good[..., None], better, u), torch.where(good, multiplier + dt, multiplier)
    gap = torch.where(good, t + dt, t)
    return u, multiplier, torch.where(gap > noise, gap, 0)
