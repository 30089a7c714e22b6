r"""The sphere without autograd: eliminate, solve, measure, and give every item its status."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pmaf.forward.custom_ops import register, run_least_squares, run_quadratic
from pmaf.forward.free_unknowns import eliminate
from pmaf.linalg.batched import adjoint_matvec, matvec
from pmaf.linalg.bordered import safe_inverse
from pmaf.linalg.cholesky import definite_inverse
from pmaf.linalg.dtypes import double
from pmaf.linalg.robust_eigh import hermitian_eigh
from pmaf.linalg.scaling import divisor, magnitude
from pmaf.linalg.tolerances import relative_tolerance
from pmaf.solution import Status
from pmaf.solvers.base import LeastSquares, SphereAnswer, SphereQuadratic, SphereSolver
from pmaf.solvers.sphere.more_sorensen import MoreSorensen
from pmaf.transforms import compiling

__all__ = ["LeastSquaresForward", "QuadraticForward"]


@dataclass(frozen=True)
class SphereForward:
    """What forward passes on the sphere share."""

    solver: SphereSolver
    ball: bool
    start: Tensor | None
    rtol: float | None
    atol: float

    def basis_size(self, matrix: Tensor) -> int:
        """How large an eigenbasis is left for a matrix; 0 for a solver that works by factorisations."""
        return 0 if isinstance(self.solver, MoreSorensen) else matrix.shape[-1]


@dataclass(frozen=True)
class LeastSquaresForward(SphereForward):
    """The forward pass of least squares as a function of its parameters alone."""

    def __call__(
        self, A: Tensor, b: Tensor, weights: Tensor | None, C: Tensor | None, radius: Tensor
    ) -> tuple[Tensor, ...]:
        """Run, as one opaque node while a graph is traced.

        Args:
            A: ``(*, m, n)``.
            b: ``(*, m)``.
            weights: ``(*, m)`` or ``None``.
            C: ``(*, m, p)`` or ``None``.
            radius: ``(*,)``.

        Returns:
            What :meth:`run` returns.
        """
        if compiling():
            return run_least_squares(self, A, b, weights, C, radius)
        return self.run(A, b, weights, C, radius)

    def run(self, A: Tensor, b: Tensor, weights: Tensor | None, C: Tensor | None, radius: Tensor) -> tuple[Tensor, ...]:
        """Eliminate weights and free unknowns, solve, measure, and give every item its status.

        Args:
            A: ``(*, m, n)``.
            b: ``(*, m)``.
            weights: ``(*, m)`` or ``None``.
            C: ``(*, m, p)`` or ``None``.
            radius: ``(*,)``.

        Returns:
            u, λ, z if there is a free block, the fields of SphereAux, then status, steps, residual and gap.
        """
        rtol = relative_tolerance(self.rtol, A.dtype, A.shape[-1])
        if weights is not None:
            root = weights.sqrt()
            A, b, C = root[..., None] * A, root * b, None if C is None else root[..., None] * C
        ambiguous = None
        if C is not None:
            A0, b0 = A, b
            A, b, basis, inverse, ambiguous = eliminate(A, b, C, rtol)
        problem = LeastSquares(A, b, radius)
        found = self.solver.solve(problem, self.start)
        tail = report(problem, found, self.ball, rtol, self.atol, ambiguous)
        if C is None:
            return tail
        u = tail[0]
        misfit = b0 - matvec(A0, u)
        z = matvec(inverse, adjoint_matvec(basis, misfit))
        return (*tail[:2], z, *tail[2:])


@dataclass(frozen=True)
class QuadraticForward(SphereForward):
    """The forward pass of a quadratic as a function of its parameters alone."""

    def __call__(self, H: Tensor, g: Tensor, radius: Tensor) -> tuple[Tensor, ...]:
        """Run, as one opaque node while a graph is traced.

        Args:
            H: ``(*, n, n)``.
            g: ``(*, n)``.
            radius: ``(*,)``.

        Returns:
            What :meth:`run` returns.
        """
        if compiling():
            return run_quadratic(self, H, g, radius)
        return self.run(H, g, radius)

    def run(self, H: Tensor, g: Tensor, radius: Tensor) -> tuple[Tensor, ...]:
        """Solve, measure, and give every item its status.

        Args:
            H: ``(*, n, n)``.
            g: ``(*, n)``.
            radius: ``(*,)``.

        Returns:
            u, λ, the fields of SphereAux, then status, steps, residual and gap.
        """
        problem = SphereQuadratic((H + H.mH) / 2, g, radius)
        found = self.solver.solve(problem, self.start)
        rtol = relative_tolerance(self.rtol, H.dtype, H.shape[-1])
        return report(problem, found, self.ball, rtol, self.atol, None)


register(LeastSquaresForward, QuadraticForward)


def unconstrained(
    problem: LeastSquares | SphereQuadratic,
    gradient: Callable[[Tensor], tuple[Tensor, Tensor]],
    s: Tensor,
    V: Tensor,
    scale: Tensor,
    tolerance: Tensor,
) -> Tensor:
    """The minimiser without a constraint, of least norm where there are several.

    Args:
        problem: what is solved.
        gradient: u ↦ Q u − g in units of the scale, and something else.
        s: eigenvalues of Q in these units, ascending; the smallest alone where V is empty.
        V: eigenvectors, or empty.
        scale: the units.
        tolerance: eigenvalues up to here count as zero.

    Returns:
        u, ``(*, n)``.
    """
    matrix = problem[0]
    none = torch.zeros(*problem.batch_shape, problem.n, dtype=matrix.dtype, device=matrix.device)
    if V.shape[-1] == 0:
        wide = double(matrix.dtype)
        unit = scale if isinstance(problem, SphereQuadratic) else scale.sqrt()
        A = matrix.to(wide) / unit[..., None, None]
        Q = (A + A.mH) / 2 if isinstance(problem, SphereQuadratic) else A.mH @ A
        Q = torch.where(Q.isfinite(), Q, 0)

        pseudo_inverse = definite_inverse(Q, s[..., 0] <= tolerance, tolerance.to(Q.real.dtype))

        def solve(g: Tensor) -> Tensor:
            return pseudo_inverse(g[..., None].to(wide))[..., 0].to(g.dtype)

    else:
        inverse = safe_inverse(s, s > tolerance[..., None])

        def solve(g: Tensor) -> Tensor:
            return matvec(V, adjoint_matvec(V, g) * inverse)

    free = none - solve(gradient(none)[0])
    return free - solve(gradient(free)[0])  # one refinement


def report(
    problem: LeastSquares | SphereQuadratic,
    found: SphereAnswer,
    ball: bool,
    rtol: float,
    atol: float,
    ambiguous: Tensor | None,
) -> tuple[Tensor, ...]:
    """What the layer returns, from what the solver found.

    Args:
        problem: what was solved.
        found: the solver's answer.
        ball: whether the inside counts as well.
        rtol: relative tolerance of what counts as zero.
        atol: absolute tolerance.
        ambiguous: items that are not unique for another reason.

    Returns:
        u, λ, the fields of SphereAux, status, steps, residual, gap.
    """
    quadratic = isinstance(problem, SphereQuadratic)
    batch, radius = problem.batch_shape, problem.radius
    if found.norm is not None:  # no basis
        norm = found.norm
        scale = divisor(norm)
        entry = scale if quadratic else scale.sqrt()
        assert found.gap is not None
        assert found.multiplier is not None
        s = ((found.gap - found.multiplier) / scale)[..., None]  # the smallest eigenvalue alone
        V, usable, norm = found.u.new_zeros(*scale.shape, 0, 0), norm.isfinite(), norm / scale
    elif found.spectrum is None or found.basis is None:
        entry = magnitude(problem[0])
        factor = problem[0] / entry[..., None, None]
        s, V, usable = hermitian_eigh(factor if quadratic else factor.mH @ factor)
        scale = entry if quadratic else entry.square()  # of Q
        norm = s.abs().amax(-1)
    else:
        norm = found.spectrum.abs().amax(-1)
        scale = divisor(norm)
        entry = scale if quadratic else scale.sqrt()
        s, V, usable = found.spectrum / scale[..., None], found.basis, norm.isfinite()
        norm = s.abs().amax(-1)

    def gradient(u: Tensor) -> tuple[Tensor, Tensor]:
        """Q u − g in units of the scale, without squaring large numbers, and the size of what remains of b."""
        if isinstance(problem, SphereQuadratic):
            return problem.gradient(u) / scale[..., None], torch.zeros_like(scale)
        misfit = (matvec(problem.A, u) - problem.b) / entry[..., None]
        return adjoint_matvec(problem.A, misfit) / entry[..., None], torch.linalg.vector_norm(misfit, dim=-1)

    u = found.u
    steepest, misfit = gradient(u)
    if found.multiplier is None:
        multiplier = -(u.conj() * steepest).sum(-1).real / radius.square()
    else:
        multiplier = found.multiplier / scale
    gap = multiplier + s[..., 0] if found.gap is None else found.gap / scale
    if quadratic:
        tolerance = rtol * norm + atol / scale
    else:  # squares of singular values that are known to rtol·‖A‖
        root = norm.sqrt()
        tolerance = rtol * root * torch.maximum(s[..., 0].clamp(min=0).sqrt(), rtol * root) + atol / scale

    corner = torch.zeros_like(gap)
    if ball:
        inside = multiplier <= tolerance * (gap <= tolerance)
        free = unconstrained(problem, gradient, s, V, scale, tolerance)
        u = torch.where(inside[..., None], free, u)
        steepest = torch.where(inside[..., None], gradient(free)[0], steepest)
        multiplier = torch.where(inside, 0, multiplier)
        gap = torch.where(inside, s[..., 0], gap)
        corner = torch.where(inside, 1.0, corner).to(corner.dtype)

    residual = torch.linalg.vector_norm(steepest + multiplier[..., None] * u, dim=-1)
    size = (norm + multiplier.abs()) * torch.linalg.vector_norm(u, dim=-1)
    residual = residual / torch.where(size > 0, size, 1)
    finite = usable & torch.isfinite(u).all(-1) & torch.isfinite(multiplier) & torch.isfinite(residual)
    bad = ~finite.expand(batch)
    if isinstance(problem, LeastSquares):
        # A is known to rtol·‖A‖, hence v₁ᴴAᴴ(b − A u), which decides the gap, to that times the misfit. Without this a
        # null space of A that u reaches into would count as separated by what rounding has left.
        size_b = torch.linalg.vector_norm(problem.b / entry[..., None], dim=-1)
        noise = rtol * norm.sqrt() * torch.minimum(size_b, misfit) / radius
        tolerance = torch.where((corner > 0) | bad, tolerance, torch.maximum(tolerance, noise))
    doubtful = gap <= tolerance
    if ambiguous is not None:
        doubtful = doubtful | ambiguous
    local = gap < -torch.maximum(tolerance, 10 * rtol * norm)

    status = torch.full(batch, int(Status.CONVERGED), dtype=torch.int64, device=u.device)
    status = torch.where(doubtful, Status.NOT_UNIQUE, status)
    status = torch.where(local, Status.NOT_GLOBAL, status)
    status = torch.where(found.finished, status, Status.MAX_STEPS)
    status = torch.where(bad, Status.NON_FINITE, status)
    u = torch.where(bad[..., None], torch.nan, u).expand(*batch, -1)
    multiplier = torch.where(bad, torch.nan, multiplier * scale).expand(batch)
    d = (((s - s[..., :1]) + gap[..., None]) * scale[..., None])[..., : V.shape[-1]]
    tolerance = (tolerance * scale).expand(batch)
    aux = (bad, (doubtful | bad).expand(batch), corner.expand(batch), tolerance, d.expand(*batch, -1), V)
    gap = torch.where(bad, torch.nan, gap * scale)
    return u, multiplier, *aux, status, found.steps.expand(batch), residual.expand(batch), gap
