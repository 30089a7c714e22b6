r"""Least squares on the sphere, globally, by the secular equation.

In the eigenbasis Q = V diag(s) Vᴴ, s ascending, stationarity (Q + λI)u = g reads p_i = γ_i/(s_i + λ) with p = Vᴴu and
γ = Vᴴg, and the global minimiser is the only solution with t = λ + s₁ ≥ 0. On the unit sphere t is the root of

    φ(t) = ‖γ/(d + t)‖ = 1,     d = s − s₁ ≥ 0,

where φ decreases from the left end t₀ = max_i(|γ_i| − d_i)₊, at which 1 ≤ φ ≤ √n unless the case is hard. Newton's
method on 1/φ, which is concave and nearly linear, climbs to the root without overshooting. Working in t instead of λ
keeps the digits when the root is close to the pole. In the *hard case*, γ₁ = 0 and φ(0) < 1, the root is t = 0 and the
missing length goes along v₁, in either of two directions.

References: Moré and Sorensen, Computing a trust region step (1983); Golub and von Matt, Quadratically constrained least
squares and quadratic problems (1991).
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pmaf.checks.values import set_integers, set_reals
from pmaf.linalg.batched import adjoint_matvec, matvec
from pmaf.linalg.bordered import safe_inverse, solve_bordered
from pmaf.linalg.dtypes import double, widened
from pmaf.linalg.robust_eigh import hermitian_eigh
from pmaf.linalg.scaling import divisor, in_range, moderate
from pmaf.solvers.base import LeastSquares, SphereAnswer, SphereQuadratic
from pmaf.solvers.iteration import State, iterate

__all__ = ["Secular", "solve_secular", "unit_solution"]


def solve_secular(d: Tensor, gamma: Tensor, max_steps: int = 60) -> tuple[Tensor, Tensor, Tensor]:
    """The root t ≥ 0 of ‖γ/(d + t)‖ = 1, or 0 in the hard case.

    Args:
        d: ``(*, n)``, ascending from zero.
        gamma: ``(*, n)``.
        max_steps: the most Newton steps.

    Returns:
        t, ``(*,)``; a mask of items that converged; the number of steps.
    """
    size = gamma.abs()
    tolerance = 8 * torch.finfo(d.dtype).eps * d.shape[-1] ** 0.5
    t0 = (size - d).amax(-1).clamp(min=0)

    def step(state: State) -> tuple[State, Tensor]:
        (t,) = state
        pole = d + t[..., None]
        inverse = safe_inverse(pole, pole > 0)
        p = size * inverse
        phi_squared = p.square().sum(-1)
        phi = phi_squared.sqrt()
        slope = (p.square() * inverse).sum(-1)  # −φφ'
        rise = (phi - 1) * phi_squared * safe_inverse(slope, slope > 0)
        higher = torch.where(phi > 1, t + rise, t)  # φ(t₀) < 1 only in the hard case
        return (higher,), ((phi - 1).abs() <= tolerance) | (higher <= t) | ~phi.isfinite()

    (t,), finished, steps = iterate(step, (t0,), t0.shape, max_steps)
    return t, finished, steps


class _Solved(NamedTuple):
    """A solution on the unit sphere in scaled units."""

    u: Tensor
    t: Tensor
    s: Tensor
    V: Tensor
    finished: Tensor
    steps: Tensor


def unit_solution(s: Tensor, V: Tensor, gamma: Tensor, usable: Tensor, max_steps: int) -> _Solved:
    """The minimiser on the unit sphere from an eigenbasis.

    Args:
        s: eigenvalues of Q, ascending, ``(*, n)``.
        V: eigenvectors of Q, ``(*, n, n)``.
        gamma: Vᴴg, ``(*, n)``.
        usable: items whose basis is good, ``(*,)``.
        max_steps: the most Newton steps.

    Returns:
        The solution.
    """
    scale = divisor(torch.maximum(gamma.abs().amax(-1), s.abs().amax(-1)))[..., None]  # keep squares in range
    d, scaled = (s - s[..., :1]) / scale, gamma / scale
    t, finished, steps = solve_secular(d, scaled, max_steps)
    pole = d + t[..., None]
    p = scaled * safe_inverse(pole, pole > 0)
    missing = 1 - p.abs().square().sum(-1)
    short = torch.where(missing > 0, torch.where(missing > 0, missing, 1).sqrt(), 0)  # √ has no slope at zero
    side = V[..., 0].sum(-1)  # in the hard case, v₁ with non-negative inner product with the all-ones vector
    side = torch.where(side.abs() > 0, torch.sgn(side).conj(), 1)
    fill = torch.where(t > 0, p[..., 0], side * short)
    p = torch.cat((fill[..., None], p[..., 1:]), -1)
    length = torch.linalg.vector_norm(p, dim=-1, keepdim=True)
    u = matvec(V, p / torch.where(length > 0, length, 1))
    return _Solved(u, t * scale[..., 0], s, V, finished & usable, steps)


def refine(steepest: Tensor, solved: _Solved, tolerance: Tensor) -> tuple[Tensor, Tensor]:
    """One Newton step on stationarity from a residual that was measured on the data, not on the basis.

    Args:
        steepest: g − Q u, in double precision where that is cheap, since u and λ cancel it, ``(*, n)``.
        solved: the solution to improve.
        tolerance: eigenvalues up to here count as zero, ``(*,)``.

    Returns:
        Better u and t.
    """
    u, t, s = solved.u, solved.t, solved.s
    multiplier = t - s[..., 0]
    upper = (steepest - (multiplier[..., None] * u.to(steepest.dtype))).to(u.dtype)
    lower = (1 - u.abs().square().sum(-1)) / 2
    d = (s - s[..., :1]) + t[..., None]
    du, dt = solve_bordered(d, solved.V, u, torch.zeros_like(t), upper, lower, tolerance)
    better = u + du
    better = better / torch.linalg.vector_norm(better, dim=-1, keepdim=True)
    good = torch.isfinite(better).all(-1) & (t + dt >= 0) & (torch.linalg.vector_norm(du, dim=-1) < 0.1)
    return torch.where(good[..., None], better, u), torch.where(good, t + dt, t)


@dataclass(frozen=True, kw_only=True)
class Secular:
    """The certified global minimiser, by safeguarded Newton on the secular equation; the default.

    Works from the eigenbasis of the Gram matrix where that is accurate, refines with a residual of A itself, and goes
    through a singular value decomposition in double precision on items whose gap is too small for the Gram matrix.

    Cost: O(mn² + n³) for each item.

    Args:
        max_steps: the most Newton steps; about six are usual.
        gram_limit: the smallest gap, relative to ‖Q‖ and in units of the machine precision, that the Gram matrix is
            trusted with.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> import torch, pmaf
        >>> A, b = torch.diag(torch.tensor([1.0, 2.0])), torch.tensor([3.0, 0.0])
        >>> pmaf.less(A, b, solver=pmaf.solvers.Secular())
        tensor([1., 0.])
    """

    max_steps: int = 60
    gram_limit: float = 1e4

    def __post_init__(self) -> None:
        set_integers(self, "max_steps")
        set_reals(self, "non-negative", "gram_limit")

    def solve(self, problem: LeastSquares | SphereQuadratic, start: Tensor | None = None) -> SphereAnswer:
        """Solve every item of the batch.

        Args:
            problem: least squares or a quadratic on the sphere.
            start: refused, since a direct method has no use for it.

        Returns:
            The minimiser, its multiplier and the eigenbasis.

        Raises:
            ValueError: if ``start`` is given.
        """
        if start is not None:
            raise ValueError("pmaf.solvers.Secular: is global and needs no start, which is for iterative solvers")
        if isinstance(problem, LeastSquares):
            return self._least_squares(problem)
        return self._quadratic(problem)

    def _quadratic(self, problem: SphereQuadratic) -> SphereAnswer:
        H, g, radius = problem
        Q, scale = moderate((H + H.mH) / 2)
        g = g / (scale * radius)[..., None]
        s, V, usable = hermitian_eigh(Q)
        solved = unit_solution(s, V, adjoint_matvec(V, g), usable, self.max_steps)
        wide = widened(Q)
        steepest = g.to(wide) - matvec(Q.to(wide), solved.u.to(wide))
        u, t = refine(steepest, solved, negligible(solved))
        return answer(solved._replace(u=u, t=t), scale, radius)

    def _least_squares(self, problem: LeastSquares) -> SphereAnswer:
        A, b, radius = problem
        Q = A.mH @ A
        trace = Q.detach().diagonal(dim1=-2, dim2=-1).real.sum(-1)  # ‖A‖², without another pass over A
        scale = torch.ones_like(trace)
        if not in_range(trace):
            A, scale = moderate(A)
            Q = A.mH @ A
        b = b / (scale * radius)[..., None]
        s, V, usable = hermitian_eigh(Q)
        g = adjoint_matvec(A, b)
        solved = unit_solution(s, V, adjoint_matvec(V, g), usable, self.max_steps)
        wide = widened(A)
        F = A.to(wide)
        steepest = adjoint_matvec(F, b.to(wide) - matvec(F, solved.u.to(wide)))
        u, t = refine(steepest, solved, negligible(solved))
        solved = solved._replace(u=u, t=t)
        limit = self.gram_limit * torch.finfo(s.dtype).eps * s[..., -1]
        suspect = (solved.t <= limit) & usable & torch.isfinite(g).all(-1)
        if bool(suspect.any()):
            solved = self._accurately(A, b, suspect, solved)
        return answer(solved, scale.square(), radius)

    def _accurately(self, A: Tensor, b: Tensor, suspect: Tensor, solved: _Solved) -> _Solved:
        """Solve the suspect items again, from a singular value decomposition in double precision."""
        batch, n = suspect.shape, A.shape[-1]
        index = suspect.reshape(-1).nonzero()[:, 0]
        wide = double(A.dtype)

        def pick(x: Tensor, core: int) -> Tensor:
            shape = x.shape[x.dim() - core :]
            return x.expand(batch + shape).reshape((batch.numel(), *shape))[index]

        F, y = pick(A, 2).to(wide), pick(b, 1).to(wide)
        r = F.shape[-2]
        W, sigma, Vh = torch.linalg.svd(F, full_matrices=r < n)
        padding = (0, n - sigma.shape[-1])
        coefficients = sigma * (W.mH @ y[..., None])[..., : sigma.shape[-1], 0]
        gamma = torch.nn.functional.pad(coefficients, padding).flip(-1)
        s = torch.nn.functional.pad(sigma, padding).square().flip(-1)
        again = unit_solution(s, Vh.mH.flip(-1), gamma, torch.ones_like(index, dtype=torch.bool), self.max_steps)

        def put(new: Tensor, old: Tensor) -> Tensor:
            shape = new.shape[1:]
            flat = old.expand(batch + shape).reshape((batch.numel(), *shape))
            return flat.index_copy(0, index, new.to(old.dtype)).reshape(batch + shape)

        return _Solved(*(put(new, old) for new, old in zip(again, solved, strict=True)))


def negligible(solved: _Solved) -> Tensor:
    """Eigenvalues of Q + λI that are rounding errors, for the refinement."""
    return 10 * torch.finfo(solved.s.dtype).eps * solved.s.abs().amax(-1)


def answer(solved: _Solved, scale: Tensor, radius: Tensor) -> SphereAnswer:
    """Back to the units of the data: Q was divided by ``scale`` and u by the radius."""
    multiplier = (solved.t - solved.s[..., 0]) * scale
    return SphereAnswer(
        u=solved.u * radius[..., None],
        finished=solved.finished & torch.isfinite(solved.u).all(-1),
        steps=solved.steps,
        multiplier=multiplier,
        gap=solved.t * scale,
        spectrum=solved.s * scale[..., None],
        basis=solved.V,
    )
