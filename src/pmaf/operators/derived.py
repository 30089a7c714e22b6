r"""Maps made of operators and operators made of maps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pmaf.operators.base import LinearMap, Operator

__all__ = ["General", "HermitianMap", "Normal"]


class HermitianMap(LinearMap):
    """A Hermitian operator taken as the matrix of a least-squares problem."""

    def __init__(self, operator: Operator) -> None:
        self.operator, self.n, self.tensors = operator, operator.n, operator.tensors

    def with_tensors(self, tensors: Sequence[Tensor]) -> HermitianMap:
        """The same operator made of other tensors."""
        return HermitianMap(self.operator.with_tensors(tensors))

    def matmat(self, V: Tensor) -> Tensor:
        """X V."""
        return self.operator.hermitian_matmat(V)

    def adjoint(self, Y: Tensor) -> Tensor:
        """X Y."""
        return self.operator.hermitian_matmat(Y)

    def pullback(self, Y: Tensor, V: Tensor) -> tuple[Tensor | None, ...]:
        """That of the operator."""
        return self.operator.pullback(Y, V)

    def pushforward(self, tangents: Sequence[Tensor | None], V: Tensor) -> Tensor:
        """That of the operator."""
        return self.operator.pushforward(tangents, V)

    def pushforward_adjoint(self, tangents: Sequence[Tensor | None], Y: Tensor) -> Tensor:
        """That of the operator."""
        return self.operator.pushforward(tangents, Y)


class Normal(Operator):
    """AᴴA of a linear map, for solvers that only multiply by it."""

    def __init__(self, A: LinearMap) -> None:
        self.A, self.n, self.tensors = A, A.n, A.tensors

    def with_tensors(self, tensors: Sequence[Tensor]) -> Normal:
        """The same made of other tensors."""
        return Normal(self.A.with_tensors(tensors))

    def matmat(self, V: Tensor) -> Tensor:
        """Aᴴ(A V)."""
        return self.A.adjoint(self.A.matmat(V))

    def pullback(self, W: Tensor, U: Tensor) -> tuple[Tensor | None, ...]:
        """∂Re⟨A W, A U⟩/∂θ in one product with twice the columns."""
        return self.A.pullback(torch.cat((self.A.matmat(W), self.A.matmat(U)), -1), torch.cat((U, W), -1))

    def pushforward(self, tangents: Sequence[Tensor | None], U: Tensor) -> Tensor:
        """dAᴴ(A U) + Aᴴ(dA U)."""
        there = self.A.pushforward_adjoint(tangents, self.A.matmat(U))
        return there + self.A.adjoint(self.A.pushforward(tangents, U))


class General(Operator):
    """A square matrix that need not be Hermitian, for solvers and derivatives that do not assume it."""

    def __init__(self, A: LinearMap) -> None:
        self.A, self.n, self.tensors = A, A.n, A.tensors

    def with_tensors(self, tensors: Sequence[Tensor]) -> General:
        """The same made of other tensors."""
        return General(self.A.with_tensors(tensors))

    def matmat(self, V: Tensor) -> Tensor:
        """A V."""
        return self.A.matmat(V)

    def dense(self) -> Tensor:
        """A as a full matrix."""
        return self.matmat(torch.eye(self.n, dtype=self.dtype, device=self.device))

    def pullback(self, W: Tensor, U: Tensor) -> tuple[Tensor | None, ...]:
        """That of the map: entry by entry, not symmetric."""
        return self.A.pullback(W, U)

    def pushforward(self, tangents: Sequence[Tensor | None], U: Tensor) -> Tensor:
        """That of the map."""
        return self.A.pushforward(tangents, U)
