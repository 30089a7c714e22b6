"""The sphere without autograd when the matrix is known by its products only."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pmaf.handover import ForwardResult, MatrixFreeAux, Report
from pmaf.linalg.tolerances import relative_tolerance
from pmaf.operators.base import Operator
from pmaf.operators.derived import Normal
from pmaf.solution import Status
from pmaf.solvers.sphere.krylov_trust_region import KrylovTrustRegion

__all__ = ["MatrixFreeForward"]


@dataclass(frozen=True)
class MatrixFreeForward:
    """The forward pass as a function of (*operator's tensors, b or g, radius)."""

    matrix: Operator  # only its structure counts: A of least squares, taken as it is, or H of a quadratic
    solver: KrylovTrustRegion
    start: Tensor | None
    rtol: float | None
    atol: float

    def __call__(self, *params: Tensor) -> ForwardResult:
        """Solve, measure, and give the problem its status.

        Args:
            params: the operator's tensors, then b or g, then the radius.

        Returns:
            The solution u, λ, with its report.
        """
        *tensors, linear, radius = params
        filled = self.matrix.with_tensors(tensors)
        if not filled.hermitian:
            Q: Operator = Normal(filled)
            g = filled.rmatmat(linear[:, None])[:, 0]
        else:
            Q, g = filled, linear
        found = self.solver.solve_operator(Q, g, radius, self.start)
        assert found.multiplier is not None
        assert found.gap is not None
        u, multiplier, gap = found.u, found.multiplier, found.gap

        Qu = Q.matmat(u[:, None])[:, 0]
        length = torch.linalg.vector_norm(u)
        norm = torch.linalg.vector_norm(Qu) / torch.where(length > 0, length, 1)  # at most ‖Q‖
        size = (norm + multiplier.abs()) * length
        residual = torch.linalg.vector_norm(Qu + multiplier * u - g) / torch.where(size > 0, size, 1)
        failed = ~(torch.isfinite(u).all() & torch.isfinite(multiplier) & torch.isfinite(residual))
        rtol = relative_tolerance(self.rtol, u.dtype, u.shape[-1])
        degenerate = gap <= rtol * (norm + multiplier.abs()) + self.atol
        status = torch.where(degenerate, int(Status.NOT_UNIQUE), int(Status.CONVERGED))
        status = torch.where(found.finished, status, int(Status.MAX_STEPS))
        status = torch.where(failed, int(Status.NON_FINITE), status)
        u, multiplier, gap = (torch.where(failed, torch.nan, x) for x in (u, multiplier, gap))
        report = Report(status, found.steps, residual, gap)
        return ForwardResult((u, multiplier), MatrixFreeAux(failed, degenerate), report)
