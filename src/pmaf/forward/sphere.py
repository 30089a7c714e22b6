r"""The sphere without autograd: eliminate, solve, measure, and give every item its status."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pmaf.forward.custom_ops import register, run_least_squares, run_quadratic
from pmaf.forward.free_unknowns import eliminate
from pmaf.forward.inside import least_norm
from pmaf.handover import ForwardResult, Report, SphereAux
from pmaf.linalg.batched import adjoint_matvec, matvec
from pmaf.linalg.bordered import safe_inverse
from pmaf.linalg.dtypes import double
from pmaf.linalg.robust_eigh import hermitian_eigh
from pmaf.linalg.scaling import divisor, magnitude
from pmaf.linalg.tolerances import relative_tolerance
from pmaf.solution import Status
from pmaf.solvers.base import LeastSquares, SphereAnswer, SphereQuadratic, SphereSolver
from pmaf.transforms import compiling

__all__ = ["LeastSquaresForward", "QuadraticForward"]

VAGUE = 1e4  # gaps of up to so many roundings of AᴴA leave four digits of u at best where only AᴴA was looked at


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
        return matrix.shape[-1] if getattr(self.solver, "leaves_basis", True) else 0


@dataclass(frozen=True)
class LeastSquaresForward(SphereForward):
    """The forward pass of least squares as a function of its parameters alone."""

    def __call__(self, A: Tensor, b: Tensor, weights: Tensor | None, C: Tensor | None, radius: Tensor) -> ForwardResult:
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

    def run(self, A: Tensor, b: Tensor, weights: Tensor | None, C: Tensor | None, radius: Tensor) -> ForwardResult:
        """Eliminate weights and free unknowns, solve, measure, and give every item its status.

        Args:
            A: ``(*, m, n)``.
            b: ``(*, m)``.
            weights: ``(*, m)`` or ``None``.
            C: ``(*, m, p)`` or ``None``.
            radius: ``(*,)``.

        Returns:
            The solution u, λ, and z if there is a free block; what is left for derivatives; and the report.
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
        result = report(problem, found, self.ball, rtol, self.atol, ambiguous)
        if C is None:
            return result
        misfit = b0 - matvec(A0, result.solution[0])
        z = matvec(inverse, adjoint_matvec(basis, misfit))
        return result._replace(solution=(*result.solution, z))


@dataclass(frozen=True)
class QuadraticForward(SphereForward):
    """The forward pass of a quadratic as a function of its parameters alone."""

    def __call__(self, H: Tensor, g: Tensor, radius: Tensor) -> ForwardResult:
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

    def run(self, H: Tensor, g: Tensor, radius: Tensor) -> ForwardResult:
        """Solve, measure, and give every item its status.

        Args:
            H: ``(*, n, n)``.
            g: ``(*, n)``.
            radius: ``(*,)``.

        Returns:
            The solution u, λ, what is left for derivatives, and the report.
        """
        problem = SphereQuadratic((H + H.mH) / 2, g, radius)
        found = self.solver.solve(problem, self.start)
        rtol = relative_tolerance(self.rtol, H.dtype, H.shape[-1])
        return report(problem, found, self.ball, rtol, self.atol, None)


register(LeastSquaresForward, QuadraticForward)


def report(
    problem: LeastSquares | SphereQuadratic,
    found: SphereAnswer,
    ball: bool,
    rtol: float,
    atol: float,
    ambiguous: Tensor | None,
) -> ForwardResult:
    """What the layer returns, from what the solver found.

    Args:
        problem: what was solved.
        found: the solver's answer.
        ball: whether the inside counts as well.
        rtol: relative tolerance of what counts as zero.
        atol: absolute tolerance.
        ambiguous: items that are not unique for another reason.

    Returns:
        The solution u, λ, what is left for derivatives, and the report.
    """
    quadratic = isinstance(problem, SphereQuadratic)
    batch, radius = problem.batch_shape, problem.radius
    if found.norm is not None:  # no basis
        norm = found.norm
        scale = divisor(norm)
        entry = scale if quadratic else scale.sqrt()
        assert found.gap is not None
        assert found.multiplier is not None
        s = ((found.gap - found.multiplier) / scale)[..., None]  # the smallest eigenvalue alone, of a rounded Q
        noise = 8 * torch.finfo(double(s)).eps * problem.n**0.5 + torch.finfo(s.dtype).eps * found.multiplier / scale
        s = torch.where(s.abs() <= noise[..., None], 0, s)
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

    right = (problem[1] / entry[..., None])[..., None, :]
    size_b = torch.where((right != 0).flatten(-2).any(-1), magnitude(right), 0)  # where squares overflow as well
    size_g = size_b if quadratic else norm.sqrt() * size_b  # ‖g‖ if it were not for cancellation

    u = found.u
    steepest, misfit = gradient(u)
    if found.multiplier is None:
        multiplier = -(u.conj() * steepest).sum(-1).real / radius.square()
    else:
        multiplier = found.multiplier / scale
    gap = multiplier + s[..., 0] if found.gap is None else found.gap / scale

    def zero(smallest: Tensor) -> Tensor:
        """Eigenvalues of Q up to here count as zero."""
        if quadratic:
            return rtol * norm + atol / scale
        root = norm.sqrt()  # squares of singular values that are known to rtol·‖A‖
        return rtol * root * torch.maximum(smallest.clamp(min=0).sqrt(), rtol * root) + atol / scale

    tolerance = zero(s[..., 0])
    corner = torch.zeros_like(gap)
    if ball:
        near = multiplier <= torch.finfo(norm.dtype).eps ** 0.5 * norm + rtol * size_g / radius
        near = near | (found.multiplier is None)
        free, smallest = least_norm(problem, s, V, scale, tolerance, rtol, near)
        length = torch.linalg.vector_norm(free, dim=-1)
        # On the sphere, a null space would be filled with the rounding of g divided by that of λ; so a least norm that
        # exceeds the radius by rounding is cut, if it stays stationary.
        cut = (length > radius) & (smallest <= tolerance) & (length <= 2 * radius)
        free = torch.where(cut[..., None], free * (radius / divisor(length))[..., None], free)
        length = torch.where(cut, radius, length)
        slope, left = gradient(free)
        stationary = torch.linalg.vector_norm(slope, dim=-1) <= 2 * rtol * (norm * length + size_g)
        inside = (length <= radius) & stationary & (smallest >= -tolerance if quadratic else True)
        u = torch.where(inside[..., None], free, u)
        steepest, misfit = torch.where(inside[..., None], slope, steepest), torch.where(inside, left, misfit)
        multiplier = torch.where(inside, 0, multiplier.clamp(min=0))
        gap = torch.where(inside, smallest, torch.maximum(gap, smallest))
        tolerance = torch.where(inside, zero(smallest), tolerance)
        corner = torch.where(inside, 1.0, corner).to(corner.dtype)

    residual = torch.linalg.vector_norm(steepest + multiplier[..., None] * u, dim=-1)
    size = (norm + multiplier.abs()) * torch.linalg.vector_norm(u, dim=-1) + torch.where(corner > 0, size_g, 0)
    residual = residual / torch.where(size > 0, size, 1)
    finite = usable & torch.isfinite(u).all(-1) & torch.isfinite(multiplier) & torch.isfinite(residual)
    failed = ~finite.expand(batch)
    sharp = 3 * max(rtol, relative_tolerance(None, norm.dtype, problem.n))  # what a solver that finds λ has to reach
    poor = (residual > sharp * (1 + safe_inverse(size, size > 0) * size_g)) & (found.multiplier is not None)
    vague = torch.zeros_like(poor)
    if isinstance(problem, LeastSquares):
        if found.norm is not None:  # rounding of AᴴA has turned u by ε‖Q‖/gap
            vague = (corner == 0) & (gap <= VAGUE * torch.finfo(double(s)).eps * norm)
        # A is known to rtol·‖A‖, hence v₁ᴴAᴴ(b − A u), which decides the gap, to that times the misfit. Without this a
        # null space of A that u reaches into would count as separated by what rounding has left. Inside the ball, where
        # the gap is the smallest eigenvalue, it leaves u open by the radius or more.
        noise = torch.where(failed, 0, rtol * norm.sqrt() * torch.minimum(size_b, misfit) / radius)
        degenerate = gap <= torch.maximum(tolerance, noise)
        tolerance = torch.where(corner > 0, tolerance, torch.maximum(tolerance, noise))
    else:
        degenerate = gap <= tolerance
    if ambiguous is not None:
        degenerate = degenerate | ambiguous
    local = gap < -torch.maximum(tolerance, 10 * rtol * norm)

    status = torch.full(batch, int(Status.CONVERGED), dtype=torch.int64, device=u.device)
    status = torch.where(degenerate, Status.NOT_UNIQUE, status)
    status = torch.where(local, Status.NOT_GLOBAL, status)
    status = torch.where(poor & ~local | vague & (status == Status.CONVERGED), Status.MAX_STEPS, status)
    status = torch.where(found.finished, status, Status.MAX_STEPS)
    status = torch.where(failed, Status.NON_FINITE, status)
    u = torch.where(failed[..., None], torch.nan, u).expand(*batch, -1)
    multiplier = torch.where(failed, torch.nan, multiplier * scale).expand(batch)
    d = (((s - s[..., :1]) + gap[..., None]) * scale[..., None])[..., : V.shape[-1]]
    tolerance = (tolerance * scale).expand(batch)
    degenerate = (degenerate | failed).expand(batch)
    aux = SphereAux(failed, degenerate, corner.expand(batch), tolerance, d.expand(*batch, -1), V)
    gap = torch.where(failed, torch.nan, gap * scale)
    return ForwardResult((u, multiplier), aux, Report(status, found.steps.expand(batch), residual.expand(batch), gap))
