"""Eigenpairs of a sparse pencil without autograd: solve, measure, and give the answer its status."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pmaf.handover import ForwardResult, PencilAux, Report
from pmaf.linalg.sparse_factor import SparseMatrix
from pmaf.linalg.tolerances import relative_tolerance
from pmaf.operators.factors import Factors
from pmaf.operators.sparse import Sparse
from pmaf.solution import Status
from pmaf.solvers.eigen.pencil import solve_pencil

__all__ = ["PencilForward"]


@dataclass(frozen=True)
class PencilForward:
    """The forward pass as a function of the values of X and B."""

    X: Sparse  # structure only
    B: Sparse
    k: int
    largest: bool
    near: float | None
    start: Tensor | None
    left: Factors  # where the factors are left for the backward pass
    rtol: float | None
    atol: float

    def __call__(self, x: Tensor, b: Tensor) -> ForwardResult:
        """Solve, and measure.

        Args:
            x: the values of X.
            b: the values of B.

        Returns:
            The solution U, Λ, what is left for derivatives, and the report.
        """
        wide = torch.complex128 if x.is_complex() else torch.float64
        real, n, k = x.real.dtype, self.X.n, self.k
        status = Status.CONVERGED
        X, B = self.X.with_tensors((x.detach().to(wide),)), self.B.with_tensors((b.detach().to(wide),))
        if not bool(x.isfinite().all() & b.isfinite().all()):
            status = Status.NON_FINITE
        elif not definite(B):
            status = Status.NOT_DEFINITE
        nan = torch.tensor(torch.nan, dtype=real)
        values, U = nan.expand(k), x.new_full((n, k), torch.nan)
        gap = residual = shift = nan
        steps, degenerate = 0, False
        if status == Status.CONVERGED:
            found = solve_pencil(X, B, k, self.largest, self.near, self.start)
            values, U, steps = found.values.to(real), found.U.to(x.dtype), found.steps
            gap, residual = nan.new_tensor(found.gap), nan.new_tensor(found.residual)
            tolerance = relative_tolerance(self.rtol, wide, n) * float(size_of(X, B, found.values)) + self.atol
            apart = found.values.sort().values.diff()
            degenerate = bool((apart <= tolerance).any()) or found.gap <= tolerance
            if found.factor is not None:
                shift = nan.new_tensor(found.factor.shift)
                self.left.put(torch.cat((x, b)), found.factor)
            if found.factor is None or not bool(found.values.isfinite().all()):
                status = Status.NON_FINITE
            elif not found.finished:
                status = Status.MAX_STEPS
            elif degenerate:
                status = Status.NOT_UNIQUE
        failed = torch.tensor(status in (Status.NON_FINITE, Status.NOT_DEFINITE))
        norm = size_of(self.X.with_tensors((x.detach(),)), self.B.with_tensors((b.detach(),)), values).nan_to_num(1.0)
        aux = PencilAux(failed, torch.tensor(degenerate), values, norm, shift)
        report = Report(torch.tensor(int(status)), torch.tensor(steps), residual, gap)
        return ForwardResult((U.clone(memory_format=torch.contiguous_format), values.clone()), aux, report)


def size_of(X: Sparse, B: Sparse, values: Tensor) -> Tensor:
    """What rounding is relative to: the largest eigenvalue that is known, or ‖X‖/‖B‖, if all are below it."""
    metric = B.size
    return values.abs().amax().clamp_min(X.size / metric if metric > 0 else 0.0)


def definite(B: Sparse) -> bool:
    """Whether all pivots of B are positive, and more than the rounding of its diagonal."""
    matrix = SparseMatrix(*B.pattern.compressed, B.tensors[0], symmetric=B.symmetric())
    if B.n and not float(matrix.A.diagonal().real.min()) > 0:
        return False
    factor = matrix.factor(1.0, 0.0)
    return factor is not None and factor.count() == 0
