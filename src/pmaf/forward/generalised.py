"""Generalised eigenpairs without autograd: reduce, solve the standard problem, measure in the terms of the given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pmaf.forward.custom_ops import eigen_outputs, encode, fresh, register, with_start
from pmaf.forward.eigen import EigenForward, most_residual
from pmaf.handover import EigenAux, ForwardResult, GeneralisedAux
from pmaf.linalg.reduction import reduce, towards
from pmaf.linalg.scaling import divisor, magnitude
from pmaf.solution import Status
from pmaf.transforms import compiling, one_node

__all__ = ["GeneralisedForward"]


@dataclass(frozen=True)
class GeneralisedForward(EigenForward):
    """The forward pass as a function of X and B."""

    def __call__(self, *tensors: Tensor) -> ForwardResult:
        """Run, as one opaque node while a graph is traced.

        Args:
            tensors: X and B.

        Returns:
            What :meth:`run` returns.
        """
        if not compiling():
            return self.run(*tensors)
        outputs = torch.ops.pmaf.generalised_eigenpairs(*tensors, self.start, encode(self))
        return ForwardResult.of(tuple(outputs), 2, GeneralisedAux)

    def run(self, *tensors: Tensor) -> ForwardResult:
        """Solve, measure, and give every item its status.

        Args:
            tensors: X and B.

        Returns:
            The solution U, Λ, what is left for derivatives, and the report.
        """
        X, B = self.operator.with_tensors(tensors[:1]).dense(), tensors[1]
        problem = reduce(X, B)
        start = None if self.start is None else problem.L.mH @ self.start.to(problem.L.dtype)
        standard = EigenForward(
            self.operator, self.k, self.largest, self.solver, start, self.rtol, self.atol, False, self.asymmetry
        )
        (V, values), aux, told = standard.run(problem.X)
        U = towards(problem.L, V)
        wrong = told.status.new_tensor(int(Status.NOT_DEFINITE))
        wrong = torch.where(problem.finite, wrong, Status.NON_FINITE)
        usable = problem.definite.expand(told.status.shape)
        values = torch.where(usable[..., None], values, torch.nan)
        U = torch.where(usable[..., None, None], U, torch.nan)
        off = residual(X, B, U, values)
        lost = (off > most_residual(self.solver, self.asymmetry)) & told.status.ne(Status.NON_FINITE)
        status = torch.where(usable, torch.where(lost, Status.MAX_STEPS, told.status), wrong)
        gap = torch.where(usable, told.gap, torch.nan)
        aux = aux._replace(failed=aux.failed | ~usable, degenerate=aux.degenerate & usable)
        left = GeneralisedAux._make((*aux, problem.L, problem.X))
        return ForwardResult((U, values), left, told._replace(status=status, residual=off, gap=gap))


def residual(X: Tensor, B: Tensor, U: Tensor, values: Tensor) -> Tensor:
    """The largest ‖Xu − λBu‖ / ((‖X‖ + |λ|‖B‖)‖u‖) of each item, ``(*,)``, of the Hermitian parts."""
    size_X, size_B = magnitude(X)[..., None], magnitude(B)[..., None]  # (*, 1)
    V = U / divisor(U.abs().amax(-2))[..., None, :]
    heights = size_X + values.abs() * size_B  # (*, k)
    unit = heights[..., None, :]  # nothing that is squared leaves the range of the type

    def product(M: Tensor) -> Tensor:
        return ((V.mT @ M.mT).mT + (V.mT @ M.conj()).mT) / 2

    misfit = product(X) / unit - product(B) * (values[..., None, :] / unit)
    found: Tensor = (torch.linalg.vector_norm(misfit, dim=-2) / torch.linalg.vector_norm(V, dim=-2)).amax(-1)
    return found


register(GeneralisedForward)


@one_node("pmaf::generalised_eigenpairs")
def generalised_eigenpairs(X: Tensor, B: Tensor, start: Tensor | None, settings: str) -> list[Tensor]:
    """The forward pass of generalised eigenpairs of dense matrices."""
    forward: Any = with_start(settings, start)
    found = forward.run(X, B)
    if found.aux.V.shape[-1] != forward.basis_size(X):  # whether there is one depends on the values: do without
        aux = found.aux._replace(spectrum=found.aux.spectrum[..., :0], V=found.aux.V[..., :0, :0])
        found = found._replace(aux=aux)
    return fresh(found.flat())


@generalised_eigenpairs.register_fake
def _(X: Tensor, B: Tensor, start: Tensor | None, settings: str) -> list[Tensor]:
    batch = torch.broadcast_shapes(X.shape[:-2], B.shape[:-2])
    whole = X.new_empty(*batch, *X.shape[-2:])
    outputs = eigen_outputs(whole, settings)
    aux = 2 + len(EigenAux._fields)
    return [*outputs[:aux], torch.empty_like(B), torch.empty_like(whole), *outputs[aux:]]
