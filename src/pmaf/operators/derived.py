r"""Operators made of operators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pmaf.operators.base import Operator

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Normal"]


class Normal(Operator):
    """AᴴA, for solvers that only multiply by it."""

    def __init__(self, A: Operator) -> None:
        self.A, self.tensors = A, A.tensors

    @property
    def n(self) -> int:
        """The columns of A."""
        return self.A.n

    def with_tensors(self, tensors: Sequence[Tensor]) -> Self:
        """The same made of other tensors."""
        return type(self)(self.A.with_tensors(tensors))

    def matmat(self, V: Tensor) -> Tensor:
        """Aᴴ(A V)."""
        return self.A.rmatmat(self.A.matmat(V))

    def vjp(self, W: Tensor, U: Tensor) -> tuple[Tensor | None, ...]:
        """∂Re⟨A W, A U⟩/∂θ in one product with twice the columns."""
        return self.A.vjp(torch.cat((self.A.matmat(W), self.A.matmat(U)), -1), torch.cat((U, W), -1))

    def jvp(self, tangents: Sequence[Tensor | None], U: Tensor) -> Tensor:
        """dAᴴ(A U) + Aᴴ(dA U)."""
        there = self.A.jvp_adjoint(tangents, self.A.matmat(U))
        return there + self.A.rmatmat(self.A.jvp(tangents, U))
