"""The sphere without autograd when the matrix is known by its products only."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pmaf.linalg.tolerances import relative_tolerance
from pmaf.operators.base import LinearMap, Operator
from pmaf.operators.derived import Normal
from pmaf.solution import Status
from pmaf.solvers.sphere.krylov_trust_region import KrylovTrustRegion

__all__ = ["OUTPUTS", "MatrixFreeForward"]

OUTPUTS = 8  # tensors that a forward pass returns


@dataclass(frozen=True)
class MatrixFreeForward:
    """The forward pass as a function of (*operator's tensors, b or g, radius)."""

    matrix: LinearMap | Operator  # only its structure counts: A of least squares, or H of a quadratic
    solver: KrylovTrustRegion
    start: Tensor | None
    rtol: float | None
    atol: float

    def __call__(self, *params: Tensor) -> tuple[Tensor, ...]:
        """Solve, measure, and give the problem its status.

        Args:
            params: the operator's tensors, then b or g, then the radius.

        Returns:
            u, λ, the fields of MatrixFreeAux, then status, steps, residual and gap.
        """
        *tensors, linear, radius = params
        filled = self.matrix.with_tensors(tensors)
        if isinstance(filled, LinearMap):
            Q: Operator = Normal(filled)
            g = filled.adjoint(linear[:, None])[:, 0]
        else:
            Q, g = filled, linear
        found = self.solver.solve_operator(Q, g, radius, self.start)
        assert found.multiplier is not None
        assert found.gap is not None
        u, multiplier, gap = found.u, found.multiplier, found.gap

        Qu = Q.hermitian_matmat(u[:, None])[:, 0]
        length = torch.linalg.vector_norm(u)
        norm = torch.linalg.vector_norm(Qu) / torch.where(length > 0, length, 1)  # at most ‖Q‖
        size = (norm + multiplier.abs()) * length
        residual = torch.linalg.vector_norm(Qu + multiplier * u - g) / torch.where(size > 0, size, 1)
        bad = ~(torch.isfinite(u).all() & torch.isfinite(multiplier) & torch.isfinite(residual))
        rtol = relative_tolerance(self.rtol, u.dtype, u.shape[-1])
        doubtful = gap <= rtol * (norm + multiplier.abs()) + self.atol
        status = torch.where(doubtful, int(Status.NOT_UNIQUE), int(Status.CONVERGED))
        status = torch.where(found.finished, status, int(Status.MAX_STEPS))
        status = torch.where(bad, int(Status.NON_FINITE), status)
        u, multiplier, gap = (torch.where(bad, torch.nan, x) for x in (u, multiplier, gap))
        return u, multiplier, bad, doubtful, status, found.steps, residual, gap
