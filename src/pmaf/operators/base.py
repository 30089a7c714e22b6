r"""What a solver may ask of a matrix.

An operator is a Hermitian matrix X(θ), known through its products with a block of vectors. It tells which tensors θ
it is made of and carries gradients to them: for :math:`\varphi(\theta) = \mathrm{Re}\,\langle W, X(\theta) U\rangle`

    pullback(W, U)    = ∂φ/∂θ           one vector–Jacobian product of a matrix–vector product
    pushforward(dθ, U) = (∂X/∂θ · dθ) U  its transpose

which is all that implicit differentiation of eigenpairs needs.

A linear map is a rectangular matrix A(θ), ``(m, n)``, for least squares, with the products A V and Aᴴ Y and
the transpose of its dependence on θ:

    pullback(Y, V) = ∂ Re⟨Y, A(θ) V⟩/∂θ,     pushforward(dθ, V) = (∂A/∂θ · dθ) V.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pmaf.transforms import on_host

__all__ = ["LinearMap", "Operator", "may_wait"]


class Operator(ABC):
    """A Hermitian matrix known by its products; subclasses say what it is made of."""

    tensors: tuple[Tensor, ...]
    n: int
    core_dims: tuple[int, ...] = ()  # non-batch dimensions of each tensor; empty where tensors carry no batch

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
        return torch.Size()

    @abstractmethod
    def with_tensors(self, tensors: Sequence[Tensor]) -> Operator:
        """The same operator made of other tensors."""

    def hollow(self) -> Operator:
        """The structure alone, without the tensors, to be filled by ``with_tensors``."""
        shell = object.__new__(type(self))
        shell.__dict__.update(self.__dict__, tensors=())
        return shell

    @abstractmethod
    def matmat(self, V: Tensor) -> Tensor:
        """X V for a block V, ``(*, n, p)``."""

    def hermitian_matmat(self, V: Tensor) -> Tensor:
        """The product with the Hermitian part, which is what derivatives are taken of."""
        return self.matmat(V)

    def dense(self) -> Tensor:
        """X as a full matrix, ``(*, n, n)``."""
        X = self.matmat(torch.eye(self.n, dtype=self.dtype, device=self.device))
        return (X + X.mH) / 2

    @abstractmethod
    def pullback(self, W: Tensor, U: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient of Re⟨W, X U⟩ with respect to each tensor."""

    @abstractmethod
    def pushforward(self, tangents: Sequence[Tensor | None], U: Tensor) -> Tensor:
        """The change of X U when the tensors change by ``tangents``."""


def may_wait(x: Any, plain: bool) -> bool:
    """Whether a call may wait for the values of x: on the host there is no need to, elsewhere plain functions do."""
    x = x.tensors[0] if isinstance(x, Operator) else x
    return plain or not isinstance(x, Tensor) or on_host(x)


class LinearMap(ABC):
    """A matrix known by its products with blocks of vectors."""

    tensors: tuple[Tensor, ...]
    n: int

    @property
    def rows(self) -> int | None:
        """m; not known of a function before it is called."""
        return self.n

    @property
    def dtype(self) -> torch.dtype:
        """The data type of the products."""
        return self.tensors[0].dtype

    def hollow(self) -> LinearMap:
        """The structure alone, to be filled by ``with_tensors``."""
        shell = copy.copy(self)
        shell.tensors = ()
        return shell

    @abstractmethod
    def with_tensors(self, tensors: Sequence[Tensor]) -> LinearMap:
        """The same map made of other tensors."""

    @abstractmethod
    def matmat(self, V: Tensor) -> Tensor:
        """A V for V ``(n, p)``."""

    @abstractmethod
    def adjoint(self, Y: Tensor) -> Tensor:
        """Aᴴ Y for Y ``(m, p)``."""

    @abstractmethod
    def pullback(self, Y: Tensor, V: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient of Re⟨Y, A V⟩ with respect to each tensor."""

    @abstractmethod
    def pushforward(self, tangents: Sequence[Tensor | None], V: Tensor) -> Tensor:
        """The change of A V when the tensors change by ``tangents``."""

    @abstractmethod
    def pushforward_adjoint(self, tangents: Sequence[Tensor | None], Y: Tensor) -> Tensor:
        """The change of Aᴴ Y when the tensors change by ``tangents``."""
