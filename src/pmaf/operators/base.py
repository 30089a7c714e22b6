r"""What a solver may ask of a matrix.

An operator is a matrix X(θ) known through its products with blocks of vectors. It tells which tensors θ it is made of
and carries gradients to them:

    vjp(W, U)       = ∂ Re⟨W, X(θ) U⟩/∂θ    one vector–Jacobian product of a matrix–vector product
    jvp(dθ, U)      = (∂X/∂θ · dθ) U        its transpose

which is all that implicit differentiation needs. Of a square matrix only the Hermitian part ½(X + Xᴴ) counts, in
products as in derivatives, unless it is taken as it is, :meth:`Operator.general`: this is the one place that decides
what a matrix means that is not quite symmetric.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["DENSE_LIMIT", "Operator"]

DENSE_LIMIT = 256  # an operator known by its products is made dense up to this order, where nothing may be looked at


class Operator(ABC):
    """A matrix known by its products; subclasses say what it is made of."""

    tensors: tuple[Tensor, ...]
    hermitian: bool = True  # whether only the Hermitian part counts
    known: Any = None  # what a subclass finds out of its tensors once
    core_dims: tuple[int, ...] = ()  # non-batch dimensions of each tensor; empty where tensors carry no batch

    @property
    @abstractmethod
    def n(self) -> int:
        """The number of columns."""

    @property
    def rows(self) -> int | None:
        """The number of rows; ``None`` where it is not known before the first product."""
        return self.n

    @property
    def dtype(self) -> torch.dtype:
        """The data type of the products."""
        return self.tensors[0].dtype

    @property
    def device(self) -> torch.device:
        """Where the tensors live."""
        return self.tensors[0].device

    @property
    def batch_shape(self) -> torch.Size:
        """The leading dimensions."""
        return self.tensors[0].shape[: -self.core_dims[0]] if self.core_dims else torch.Size()

    def with_tensors(self, tensors: Sequence[Tensor]) -> Self:
        """The same operator made of other tensors, which need not be looked at again."""
        same = object.__new__(type(self))
        same.__dict__.update(self.__dict__, tensors=tuple(tensors), known=None)
        return same

    def structure(self) -> Self:
        """The structure alone, without the tensors, to be filled by :meth:`with_tensors`."""
        return self.with_tensors(())

    def plain(self) -> Operator:
        """The same matrix in the form that solvers know, which derivatives need not go through."""
        return self

    def general(self) -> Self:
        """The same matrix taken as it is, for least squares and for pairs of a matrix that need not be Hermitian."""
        same = self.with_tensors(self.tensors)
        same.hermitian = False
        return same

    def dense(self) -> Tensor:
        """What counts of X as a full matrix, ``(*, m, n)``."""
        X = self.matmat(torch.eye(self.n, dtype=self.dtype, device=self.device))
        return (X + X.mH) / 2 if self.hermitian else X

    @abstractmethod
    def matmat(self, V: Tensor) -> Tensor:
        """X V for a block V, ``(*, n, p)``."""

    def rmatmat(self, Y: Tensor) -> Tensor:
        """Xᴴ Y for a block Y, ``(*, m, p)``."""
        return self.matmat(Y)

    @abstractmethod
    def vjp(self, W: Tensor, U: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient of Re⟨W, X U⟩ with respect to each tensor."""

    @abstractmethod
    def jvp(self, tangents: Sequence[Tensor | None], U: Tensor) -> Tensor:
        """The change of X U when the tensors change by ``tangents``."""

    def jvp_adjoint(self, tangents: Sequence[Tensor | None], Y: Tensor) -> Tensor:
        """The change of Xᴴ Y when the tensors change by ``tangents``."""
        return self.jvp(tangents, Y)
