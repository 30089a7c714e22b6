"""Leading eigenpairs without autograd: solve, measure, and give every item its status."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pmaf.forward.custom_ops import register, run_eigenpairs
from pmaf.handover import EigenAux, ForwardResult, Report
from pmaf.kernels.eigenpairs import factor_rows
from pmaf.kernels.loader import VERSION
from pmaf.linalg.tolerances import relative_tolerance
from pmaf.operators.base import Operator
from pmaf.operators.gram import Gram
from pmaf.operators.separation import separation_tolerance
from pmaf.solution import Status
from pmaf.solvers.base import EigenAnswer, EigenSolver
from pmaf.transforms import anywhere, compiling

__all__ = ["EigenForward", "most_residual"]


@dataclass(frozen=True)
class EigenForward:
    """The forward pass as a function of the operator's tensors alone."""

    operator: Operator  # structure only
    k: int
    largest: bool
    solver: EigenSolver
    start: Tensor | None
    rtol: float | None
    atol: float
    subspace: bool
    asymmetry: float = 1e-3  # what of X, relative to its norm, need not be Hermitian
    interface: int = VERSION  # of the kernels: what torch keeps on disk of graphs with another one does not fit

    def __call__(self, *tensors: Tensor) -> ForwardResult:
        """Run, as one opaque node while a graph is traced.

        Args:
            tensors: what the operator is made of.

        Returns:
            What :meth:`run` returns.
        """
        if compiling():
            return run_eigenpairs(self, *self.operator.with_tensors(tensors).plain().tensors)
        return self.run(*tensors)

    def basis_size(self, X: Tensor) -> int:
        """How large an eigenbasis the solver leaves for X; 0 for a solver that finds only the wanted pairs."""
        r, n = X.shape[-2:]
        if not getattr(self.solver, "leaves_basis", False):
            return 0
        return r if isinstance(self.operator, Gram) and self.largest and self.k <= r < n else n

    def factor_size(self, X: Tensor) -> tuple[int, int]:
        """The size of the tridiagonal form that the solver leaves for X; zeros for a solver that leaves none."""
        n = X.shape[-1]
        return (factor_rows(n), n) if getattr(self.solver, "leaves_factor", False) else (0, 0)

    def run(self, *tensors: Tensor) -> ForwardResult:
        """Solve, measure, and give every item its status.

        Args:
            tensors: what the operator is made of.

        Returns:
            The solution U, Λ (or T), what is left for derivatives, and the report.
        """
        X = self.operator.with_tensors(tensors).plain()
        answer = self.solver.solve(X, self.k, self.largest, self.start)
        most = most_residual(self.solver, self.asymmetry)
        return report(X, answer, relative_tolerance(self.rtol, X.dtype, X.n), self.atol, most, self.subspace)


register(EigenForward)


def most_residual(solver: EigenSolver, asymmetry: float) -> float:
    """The largest residual of what is an eigenpair at all."""
    return max(10 * (getattr(solver, "rtol", None) or 0), asymmetry)


def report(X: Operator, answer: EigenAnswer, rtol: float, atol: float, most: float, subspace: bool) -> ForwardResult:
    """What the layer returns, from what the solver found.

    Args:
        X: the operator.
        answer: the solver's answer.
        rtol: relative tolerance of what counts as repeated.
        atol: absolute tolerance.
        most: the largest residual of what is an eigenpair at all.
        subspace: only the gap at the end of the block counts, and T stands in for Λ.

    Returns:
        The solution U, Λ (or T), what is left for derivatives, and the report.
    """
    values, U = answer.eigenvalues, answer.eigenvectors
    batch = values.shape[:-1]
    spectrum = values.new_zeros(*batch, 0) if answer.spectrum is None else answer.spectrum
    V = U.new_zeros(*batch, 0, 0) if answer.basis is None else answer.basis
    if answer.norm is not None:
        norm = answer.norm[..., None]  # (*, 1), of X
    else:
        norm = (values if answer.spectrum is None else spectrum).abs().amax(-1, keepdim=True)

    if answer.residual is not None:
        residual = answer.residual
    else:
        unit = norm.clamp_min(torch.finfo(norm.dtype).tiny)[..., None]
        misfit = (X.matmat(U) - U * values[..., None, :]) / unit  # (*, n, k), of a size that can be squared
        residual = torch.linalg.vector_norm(misfit, dim=-2).amax(-1)

    outside = torch.full_like(values[..., :1], torch.nan) if answer.next is None else answer.next[..., None]
    left, right = values, outside if values.shape[-1] == 1 else torch.cat((values[..., 1:], outside), -1)
    if subspace:
        left, right = left[..., -1:], right[..., -1:]
    step = (left - right).abs()  # distances to the next in order, NaN where unknown
    near = torch.where(right.isfinite(), right, 0) if isinstance(X, Gram) else right
    close = step <= separation_tolerance(X, left, near, norm, rtol, atol)
    degenerate = close.any(-1)
    gap = step[..., -1].clone()
    if answer.gap is not None:  # pairs in no order of their values
        ordered = values.sort(-1).values
        lower, upper = ordered[..., :-1], ordered[..., 1:]
        close = upper - lower <= separation_tolerance(X, lower, upper, norm, rtol, atol)
        end = ordered[..., -1:]
        cut = answer.gap[..., None] <= separation_tolerance(X, end, near[..., -1:], norm, rtol, atol)
        degenerate, gap = close.any(-1) | cut[..., 0], answer.gap.clone()

    failed = ~(residual < torch.inf)  # which NaN in X, Λ or U reaches
    finished = answer.finished & ~(residual > most)
    fine = finished & ~(failed | degenerate)
    status = torch.zeros_like(answer.steps)  # CONVERGED
    if anywhere(~fine):
        status = torch.where(degenerate, Status.NOT_UNIQUE, status)
        status = torch.where(finished, status, Status.MAX_STEPS)
        status = torch.where(failed, Status.NON_FINITE, status)
        values = torch.where(failed[..., None], torch.nan, values)
        U = torch.where(failed[..., None, None], torch.nan, U)
        gap = torch.where(failed, torch.nan, gap)
    # No output may share memory with another: what is differentiated is a copy.
    U = U.clone(memory_format=torch.contiguous_format)
    second = torch.diag_embed(values).to(U.dtype) if subspace else values.clone(memory_format=torch.contiguous_format)
    factor = U.new_zeros(*batch, 0, 0) if answer.factor is None else answer.factor
    aux = EigenAux(failed, degenerate, values, spectrum, V, outside[..., 0].clone(), norm[..., 0].expand(batch), factor)
    return ForwardResult((U, second), aux, Report(status, answer.steps, residual, gap))
