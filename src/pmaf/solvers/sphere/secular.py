r"""Least squares on the sphere, globally, by the secular equation.

In the eigenbasis Q = V diag(s) Vᴴ, s ascending, stationarity (Q + λI)u = g reads p_i = γ_i/(s_i + λ) with p = Vᴴu and
γ = Vᴴg, and the global minimiser is the only solution with t = λ + s₁ ≥ 0. On the unit sphere t is the root of

    φ(t) = ‖γ/(d + t)‖ = 1,     d = s − s₁ ≥ 0,

where φ decreases from the left end t₀ = max_i(|γ_i| − d_i)₊, at which 1 ≤ φ ≤ √n unless the case is hard. From
there :mod:`pmaf.solvers.sphere.climb` climbs to the root without overshooting. Working in t instead of λ
keeps the digits when the root is close to the pole. In the *hard case*, γ₁ = 0 and φ(0) < 1, the root is t = 0 and the
missing length goes along v₁, in either of two directions.

References: Moré and Sorensen, Computing a trust region step (1983); Golub and von Matt, Quadratically constrained least
squares and quadratic problems (1991).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pmaf.checks.values import set_integers, set_reals
from pmaf.linalg.batched import adjoint_matvec, matvec
from pmaf.linalg.bordered import safe_inverse, solve_bordered
from pmaf.linalg.dtypes import double, widened
from pmaf.linalg.robust_eigh import hermitian_eigh
from pmaf.linalg.scaling import brought_in_range, divisor, in_range
from pmaf.linalg.signs import decided_sign
from pmaf.solvers.base import LeastSquares, Solver, SphereAnswer, SphereQuadratic
from pmaf.solvers.iteration import State, iterate
from pmaf.solvers.sphere.climb import climb

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
        t, low = state
        pole = d + t[..., None]
        inverse = safe_inverse(pole, pole > 0)
        p = size * inverse
        squares = p.square()
        phi, rest = squares.sum(-1).sqrt(), squares[..., 1:]
        ahead, higher = climb(t, low, p[..., 0], rest.sum(-1), (rest * inverse[..., 1:]).sum(-1))
        near = (phi - 1).abs() <= tolerance
        stuck = (t <= low) & ((phi < 1) | (ahead <= t))  # φ(t₀) < 1 only in the hard case
        done = near | stuck | ~phi.isfinite()
        return (torch.where(done, t, ahead), torch.where(done, low, higher)), done

    (t, _), finished, steps = iterate(step, (t0, t0), t0.shape, max_steps)
    return t, finished, steps


class _Solved(NamedTuple):
    """A solution on the unit sphere in scaled units."""

    u: Tensor
    t: Tensor
    s: Tensor
    V: Tensor
    finished: Tensor
    steps: Tensor


def unit_solution(
    s: Tensor, V: Tensor, gamma: Tensor, usable: Tensor, max_steps: int, noise: Tensor | None = None
) -> _Solved:
    """The minimiser on the unit sphere from an eigenbasis.

    Args:
        s: eigenvalues of Q, ascending, ``(*, n)``.
        V: eigenvectors of Q, ``(*, n, n)``.
        gamma: Vᴴg, ``(*, n)``.
        usable: items whose basis is good, ``(*,)``.
        max_steps: the most Newton steps.
        noise: the size of what g was rounded in, ``(*,)``; that of g if ``None``.

    Returns:
        The solution.
    """
    n, eps = s.shape[-1], torch.finfo(s.dtype).eps
    scale = divisor(torch.maximum(gamma.abs().amax(-1), s.abs().amax(-1)))[..., None]  # keep squares in range
    d, scaled = (s - s[..., :1]) / scale, gamma / scale
    size = torch.linalg.vector_norm(scaled.detach(), dim=-1) if noise is None else noise / scale[..., 0]
    # v₁ is off by ε‖Q‖/(sᵢ − s₁) along vᵢ, where γᵢ = (sᵢ − s₁ + t)pᵢ.
    blind = 4 * n**0.5 * eps * (size + s.detach().abs().amax(-1) / scale[..., 0])
    t, finished, steps = solve_secular(d, scaled, max_steps)
    pole = d + t[..., None]
    p = scaled * safe_inverse(pole, pole > 0)
    missing = 1 - p.abs().square().sum(-1)
    short = torch.where(missing > 0, torch.where(missing > 0, missing, 1).sqrt(), 0)  # √ has no slope at zero
    separation = d[..., min(1, n - 1)]
    rounding = n**0.5 * eps * d[..., -1:] / torch.where(separation > 0, separation, eps)[..., None]
    side = decided_sign(V[..., :1], None, rounding)[..., 0, 0]  # of v₁, which is all that the hard case leaves open
    fill = torch.where(t > 0, p[..., 0], side * short)
    fill = torch.where(scaled[..., 0].abs() > blind, fill, side * fill.abs())  # the sign of noise decides nothing
    p = torch.cat((fill[..., None], p[..., 1:]), -1)
    length = torch.linalg.vector_norm(p, dim=-1, keepdim=True)
    u = matvec(V, p / torch.where(length > 0, length, 1))
    return _Solved(u, t * scale[..., 0], s, V, finished & usable, steps)


def refine(steepest: Callable[[Tensor], Tensor], solved: _Solved, tolerance: Tensor) -> tuple[Tensor, Tensor]:
    """One Newton step on stationarity from a residual that was measured on the data, where that lowers it.

    At the edge of the hard case λ is so steep a function of the data that the step leads away: no step is taken that
    the residual, measured once more, does not speak for.

    Args:
        steepest: u ↦ g − Q u, in double precision where that is cheap, since u and λ cancel it, ``(*, n)``.
        solved: the solution to improve.
        tolerance: eigenvalues up to here count as zero, ``(*,)``.

    Returns:
        Better u and t, or those that were given.
    """
    u, t, s = solved.u, solved.t, solved.s

    def residual(u: Tensor, t: Tensor) -> Tensor:
        descent = steepest(u)
        wide = descent.real.dtype
        return descent - (t.to(wide) - s[..., 0].to(wide))[..., None] * u.to(descent.dtype)

    upper = residual(u, t)
    lower = (1 - u.abs().square().sum(-1)) / 2
    d = (s - s[..., :1]) + t[..., None]
    du, dt = solve_bordered(d, solved.V, u, torch.zeros_like(t), upper.to(u.dtype), lower, tolerance)
    better = u + du
    better = better / torch.linalg.vector_norm(better, dim=-1, keepdim=True)
    before, after = (torch.linalg.vector_norm(r, dim=-1) for r in (upper, residual(better, t + dt)))
    good = (after < before) & (t + dt >= 0)
    return torch.where(good[..., None], better, u), torch.where(good, t + dt, t)


@dataclass(frozen=True, kw_only=True)
class Secular(Solver):
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

    use = "always, unless you study the others; the default"
    leaves_basis = True

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
        self.refuse_start(start)
        if isinstance(problem, LeastSquares):
            return self._least_squares(problem)
        return self._quadratic(problem)

    def _quadratic(self, problem: SphereQuadratic) -> SphereAnswer:
        H, g, radius = problem
        Q, scale = brought_in_range((H + H.mH) / 2)
        g = g / (scale * radius)[..., None]
        s, V, usable = hermitian_eigh(Q)
        solved = unit_solution(s, V, adjoint_matvec(V, g), usable, self.max_steps)
        wide = widened(Q)
        exact, target = Q.to(wide), g.to(wide)
        u, t = refine(lambda u: target - matvec(exact, u.to(wide)), solved, negligible(solved))
        return answer(solved._replace(u=u, t=t), scale, radius)

    def _least_squares(self, problem: LeastSquares) -> SphereAnswer:
        A, b, radius = problem
        Q = A.mH @ A
        trace = Q.detach().diagonal(dim1=-2, dim2=-1).real.sum(-1)  # ‖A‖², without another pass over A
        scale = torch.ones_like(trace)
        if not in_range(trace):
            A, scale = brought_in_range(A)
            Q = A.mH @ A
        b = b / (scale * radius)[..., None]
        s, V, usable = hermitian_eigh(Q)
        g = adjoint_matvec(A, b)
        solved = unit_solution(s, V, adjoint_matvec(V, g), usable, self.max_steps)
        wide = widened(A)
        F, y = A.to(wide), b.to(wide)
        u, t = refine(lambda u: adjoint_matvec(F, y - matvec(F, u.to(wide))), solved, negligible(solved))
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
        wide = double(A)

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
        usable = torch.ones_like(index, dtype=torch.bool)
        noise = sigma.amax(-1) * torch.linalg.vector_norm(y, dim=-1) if sigma.shape[-1] else sigma.new_zeros(len(index))
        again = unit_solution(s, Vh.mH.flip(-1), gamma, usable, self.max_steps, noise)

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
