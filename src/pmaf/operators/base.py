r"""What a solver may ask of a matrix.

An operator is a Hermitian matrix X(θ), known through its products with a block of vectors. It tells which tensors θ
it is made of and carries gradients to them: for :math:`\varphi(\theta) = \mathrm{Re}\,\langle W, X(\theta) U\rangle`

    vjp(W, U)     = ∂φ/∂θ           one vector–Jacobian product of a matrix–vector product
    jvp(dθ, U) = (∂X/∂θ · dθ) U  its transpose

which is all that implicit differentiation of eigenpairs needs.

A linear map is a rectangular matrix A(θ), ``(m, n)``, for least squares, with the products A V and Aᴴ Y and
the transpose of its dependence on θ:

    vjp(Y, V) = ∂ Re⟨Y, A(θ) V⟩/∂θ,     jvp(dθ, V) = (∂A/∂θ · dθ) V.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["LinearMap", "Operator"]


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

    def structure(self) -> Operator:
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
    def vjp(self, W: Tensor, U: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient of Re⟨W, X U⟩ with respect to each tensor."""

    @abstractmethod
    def jvp(self, tangents: Sequence[Tensor | None], U: Tensor) -> Tensor:
        """The change of X U when the tensors change by ``tangents``."""


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

    def structure(self) -> LinearMap:
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
    def vjp(self, Y: Tensor, V: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient of Re⟨Y, A V⟩ with respect to each tensor."""

    @abstractmethod
    def jvp(self, tangents: Sequence[Tensor | None], V: Tensor) -> Tensor:
        """The change of A V when the tensors change by ``tangents``."""

    @abstractmethod
    def jvp_adjoint(self, tangents: Sequence[Tensor | None], Y: Tensor) -> Tensor:
        """The change of Aᴴ Y when the tensors change by ``tangents``."""
