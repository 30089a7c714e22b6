r"""Least squares and quadratics on the sphere, globally, from Cholesky factorisations alone.

Stationarity is (Q + λI)u = g, and with t = λ + s₁, the distance to the smallest eigenvalue s₁ of Q, whose vector is
v₁, the minimiser on the unit sphere is the only solution with t ≥ 0. Split g = γ₁v₁ + g', v₁ ⟂ g'. Then

    u(t) = (γ₁/t) v₁ + p(t),     p(t) = M(t)⁻¹ g',     M(t) = Q − s₁I + tI + κ v₁v₁ᴴ,

and t is the root of φ(t) = ‖u(t)‖ = 1. M(t) is positive definite down to t = 0, since v₁ is lifted out of its null
space, so the *hard case*, γ₁ = 0 and φ(0) < 1, needs no other treatment: p(0) is as good as any, and the missing
length goes along v₁. From below, :mod:`pmaf.solvers.sphere.climb` climbs to the root without overshooting, given
P = ‖p‖² and −P'/2 = pᴴM⁻¹p = ‖L⁻¹p‖², M = L Lᴴ.

References: Moré and Sorensen, Computing a trust region step (1983); Conn, Gould and Toint, Trust-Region Methods (2000),
section 7.3.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pmaf.checks.values import set_integers
from pmaf.linalg.batched import adjoint_matvec, matvec
from pmaf.linalg.cholesky import factorise, solve_bordered_definite, substitute
from pmaf.linalg.dtypes import double
from pmaf.linalg.leading_pair import leading_pair
from pmaf.linalg.scaling import magnitude, scaled_to_one, spectral_norm
from pmaf.linalg.signs import decided_sign, generic
from pmaf.linalg.vectors import first_vector
from pmaf.solvers.base import LeastSquares, Solver, SphereAnswer, SphereQuadratic
from pmaf.solvers.sphere.climb import climb
from pmaf.transforms import anywhere

__all__ = ["MoreSorensen"]

EIGEN_STEPS = 28  # factorisations for s₁ and v₁
ROUGH = 1e-5  # by how much φ may miss one in the end, where its own rounding is no smaller
SHARP = 1e-13  # by how much it may where another step could help


@dataclass(frozen=True, kw_only=True)
class MoreSorensen(Solver):
    """The certified global minimiser, by Newton's method on the secular equation with Cholesky factorisations.

    Does not wait for the device: factorisations report success there, and the number of steps is fixed, except on the
    CPU, where looking whether all items are done costs nothing. So it can be captured in a CUDA graph, and it is what
    :func:`pmaf.less_ex` and :func:`pmaf.sphere_quadratic_ex` use on accelerators. Leaves no eigenbasis; the backward
    pass factorises once more.

    Computes in double precision throughout. Forming AᴴA squares the condition number, which float32 data survive; of
    float64 data, a gap below rounding of AᴴA counts as zero, where :class:`Secular` would resolve it, and an answer
    whose gap is no more than 10⁴ roundings, so that it has four digits at best, is not CONVERGED.

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

    use = "to keep the host from waiting for a GPU; the default there for less_ex and sphere_quadratic_ex"
    waits = False

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
        self.refuse_start(start)
        matrix, right, radius = problem
        dtype = matrix.dtype
        A, size, sound = scaled_to_one(matrix)
        A, b = A.to(double(A)), right.to(double(right))
        unit, r = size.to(b.real.dtype), radius.to(b.real.dtype)
        unit = torch.where(unit > 0, unit, magnitude(b[..., None, :]) / r)
        b = b / unit[..., None] / r[..., None]
        if isinstance(problem, LeastSquares):
            Q, g, scale = A.mH @ A, adjoint_matvec(A, b), unit.square()
        else:
            Q, g, scale = (A + A.mH) / 2, b, unit
        u, multiplier, t, done, steps = self._unit(Q, g)

        def descent(u: Tensor) -> Tensor:  # of the data, not of Q
            least_squares = isinstance(problem, LeastSquares)
            return adjoint_matvec(A, b - matvec(A, u)) if least_squares else g - matvec(Q, u)

        for _ in range(2):
            u, multiplier, t = refined(Q, descent, u, multiplier, t)
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
        v = first_vector(n, Q.dtype, Q.device, 0).expand(Q.shape[:-1])
        top, v, proven, taken = leading_pair(-Q, v, None, EIGEN_STEPS)
        M0 = Q + top[..., None, None] * eye + v[..., :, None] * v.conj()[..., None, :]

        gamma = (v.conj() * g).sum(-1)
        rest = g - gamma[..., None] * v
        first, length = gamma.abs(), torch.linalg.vector_norm(g, dim=-1)
        floor = 4 * eps * n  # of shifts that leave M positive definite in spite of rounding
        t = torch.maximum(first, length - 2)  # φ ≥ 1 there: φ ≥ |γ₁|/t, and φ ≥ ‖g‖/(t + 2)
        low, active, fair = t, torch.ones_like(t, dtype=torch.bool), torch.zeros_like(t, dtype=torch.bool)
        steps = torch.zeros_like(t, dtype=torch.int64) + taken
        p = torch.zeros_like(rest)
        for _ in range(self.max_steps):
            L, definite = factorise(M0 + t.clamp(min=floor)[..., None, None] * eye)
            L = torch.where(definite[..., None, None], L, eye)
            half = torch.linalg.solve_triangular(L, rest[..., None], upper=False)
            column = torch.linalg.solve_triangular(L.mH, half, upper=True)
            p = torch.where(active[..., None], column[..., 0], p)
            bent = torch.linalg.vector_norm(torch.linalg.solve_triangular(L, column, upper=False), dim=(-2, -1))
            length_p = column.abs().square().sum((-2, -1))
            # Below the floor P is taken for what it is there: the root is where γ₁²/t² is what is missing, or beyond.
            shallow, left = active & definite & (t < floor), (1 - length_p).clamp(min=0)
            root = torch.where(left > 0, first / left.sqrt(), floor).clamp(max=floor)
            t = torch.where(shallow, root, t)
            low = torch.where(shallow, t, low)
            share = first / torch.where(t > 0, t, 1)
            phi = (share.square() + length_p).sqrt()
            ahead, higher = climb(t, low, share, length_p, bent.square())
            ahead = torch.where(definite, ahead, 2 * t + floor)
            steps = steps + active
            steep = bent.square() / phi.square()  # at most 1/(s₂ − s₁ + t): how many roundings p has
            miss, roundings = (phi - 1).abs(), 8 * eps * n**0.5 * (1 + steep)
            fair = torch.where(active, definite & (miss <= roundings.clamp(max=8 * ROUGH * n**0.5)), fair)
            near = miss <= roundings.clamp(max=SHARP)  # p may have fewer further up
            stuck = (t <= low) & ((phi < 1) | (ahead <= t))
            active = active & ~(definite & (near | stuck | ~phi.isfinite()))
            t, low = torch.where(active, ahead, t), torch.where(active & definite, higher, low)
            if not anywhere(active):
                break

        probe = generic(n, v).to(v.dtype)
        probe = substitute(L, (probe - (v.conj() * probe).sum(-1, keepdim=True) * v)[..., None])[..., 0]
        inverse = torch.linalg.vector_norm(probe, dim=-1, keepdim=True) / n**0.5  # at least 1/(s₂ − s₁), about
        rounding = n**0.5 * eps * (1 + inverse)
        missing = (1 - p.abs().square().sum(-1)).clamp(min=0).sqrt()
        side = decided_sign(v[..., None], None, rounding)[
            ..., 0, 0
        ]  # of v₁, which is all that the hard case leaves open
        phase = torch.where(
            first > 4 * n**0.5 * eps * (length + torch.linalg.matrix_norm(Q)), torch.sgn(gamma), side
        )  # the sign of noise decides nothing
        known = phase * first / torch.where(t > 0, t, 1)
        u = p + torch.where(t > floor, known, phase * missing)[..., None] * v
        for _ in range(2):
            u, t = stretched(L, v, u, t, floor)
        u = u / torch.linalg.vector_norm(u, dim=-1, keepdim=True)
        return u, t + top, t, (~active | fair) & proven, steps


def stretched(L: Tensor, v: Tensor, u: Tensor, t: Tensor, floor: float) -> tuple[Tensor, Tensor]:
    """A solution of (Q + λI)u = g that is nearly of length one, at a λ where it is more nearly so.

    Rounding of p, which is large where s₂ − s₁ is small, is nearly an eigenvector and costs the residual next to
    nothing, but a division of u by its length would. With y = (Q + λI)⁻¹u, u + αy solves the system for λ up to αu, and
    for λ − α up to α²y. ‖u + αy‖ = 1 is quadratic in α; its root is of the order of t where y is large.

    Args:
        L: the factor of M(t), ``(*, n, n)``.
        v: v₁, ``(*, n)``.
        u: ``(*, n)``.
        t: λ + s₁, ``(*,)``.
        floor: the smallest t that L was made with.

    Returns:
        u and t.
    """
    share = (v.conj() * u).sum(-1)
    rest = u - share[..., None] * v
    y = substitute(L, rest[..., None])[..., 0] + (share / t.clamp(min=floor))[..., None] * v
    slope = (u.conj() * y).sum(-1).real
    excess = u.abs().square().sum(-1) - 1
    bend = (slope.square() - y.abs().square().sum(-1) * excess).clamp(min=0).sqrt()
    alpha = -excess / torch.where(slope > 0, slope + bend, 1)
    good = slope > 0
    moves = good & (alpha.abs() < t / 2)
    return torch.where(good[..., None], u + alpha[..., None] * y, u), torch.where(moves, t - alpha, t)


def refined(
    Q: Tensor, descent: Callable[[Tensor], Tensor], u: Tensor, multiplier: Tensor, t: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """One Newton step on (Q + λI)u = g, ‖u‖ = 1, where it lowers the residual.

    Args:
        Q: of norm at most one, ``(*, n, n)``.
        descent: u ↦ g − Q u, ``(*, n)``.
        u: unit vectors, ``(*, n)``.
        multiplier: λ, ``(*,)``.
        t: λ + s₁, ``(*,)``.

    Returns:
        Better u, λ and t, or those that were given. A gap that is a rounding error is zero.
    """
    n, eps = u.shape[-1], torch.finfo(u.dtype).eps
    noise = 8 * eps * n**0.5
    K = Q + multiplier[..., None, None] * torch.eye(n, dtype=Q.dtype, device=Q.device)
    upper = descent(u) - multiplier[..., None] * u
    lower = (1 - u.abs().square().sum(-1)) / 2
    none, tolerance = torch.zeros_like(t), torch.full_like(t, noise)
    du, dt = solve_bordered_definite(K, u, none, upper, lower, t <= noise, tolerance)
    better = u + du
    better = better / torch.linalg.vector_norm(better, dim=-1, keepdim=True)
    left = descent(better) - (multiplier + dt)[..., None] * better
    before, after = (torch.linalg.vector_norm(r, dim=-1) for r in (upper, left))
    good = (after < before) & (t + dt >= 0)
    u, multiplier = torch.where(good[..., None], better, u), torch.where(good, multiplier + dt, multiplier)
    gap = torch.where(good, t + dt, t)
    return u, multiplier, torch.where(gap > noise, gap, 0)
