r"""Rectangular matrices known by their products, for least squares.

A linear map is a matrix A(θ), ``(m, n)``, with the products A V and Aᴴ Y and the transpose of its dependence on θ:

    pullback(Y, V) = ∂ Re⟨Y, A(θ) V⟩/∂θ,     pushforward(dθ, V) = (∂A/∂θ · dθ) V.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pmaf.autodiff import pushforward
from pmaf.functions import multiplied
from pmaf.operators import MatVec, Operator
from pmaf.sparse import Pattern, pattern_and_values

__all__ = ["FunctionMap", "General", "HermitianMap", "LinearMap", "Normal", "SparseMap", "as_linear_map"]


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


class SparseMap(LinearMap):
    """A sparse matrix: a fixed pattern and a tensor of values."""

    def __init__(self, pattern: Pattern, values: Tensor) -> None:
        self.pattern, self.n = pattern, pattern.shape[1]
        self.tensors = (values,)

    @property
    def rows(self) -> int:
        """Those of the pattern."""
        return self.pattern.shape[0]

    def with_tensors(self, tensors: Sequence[Tensor]) -> SparseMap:
        """The same pattern with other values."""
        return SparseMap(self.pattern, tensors[0])

    def matmat(self, V: Tensor) -> Tensor:
        """A V."""
        return self.pattern.matmat(self.tensors[0], V)

    def adjoint(self, Y: Tensor) -> Tensor:
        """Aᴴ Y."""
        return self.pattern.adjoint(self.tensors[0], Y)

    def pullback(self, Y: Tensor, V: Tensor) -> tuple[Tensor | None, ...]:
        """The entries of Y Vᴴ on the pattern."""
        return (self.pattern.pullback(Y, V),)

    def pushforward(self, tangents: Sequence[Tensor | None], V: Tensor) -> Tensor:
        """The same product with other values."""
        (change,) = tangents
        return self.pattern.matmat(torch.zeros_like(self.tensors[0]) if change is None else change, V)

    def pushforward_adjoint(self, tangents: Sequence[Tensor | None], Y: Tensor) -> Tensor:
        """The same adjoint product with other values."""
        (change,) = tangents
        return self.pattern.adjoint(torch.zeros_like(self.tensors[0]) if change is None else change, Y)


class FunctionMap(LinearMap):
    """A matrix given by a function ``fn(*params, V)`` that multiplies a block of vectors by it."""

    def __init__(self, fn: Callable[..., Tensor], n: int, params: Sequence[Tensor]) -> None:
        self.fn, self.n, self.tensors = fn, n, tuple(params)

    @property
    def rows(self) -> None:
        """Not known."""

    def with_tensors(self, tensors: Sequence[Tensor]) -> FunctionMap:
        """The same function of other parameters."""
        return FunctionMap(self.fn, self.n, tensors)

    def matmat(self, V: Tensor) -> Tensor:
        """The function's value."""
        return multiplied(self.fn, self.tensors, V, None)

    def adjoint(self, Y: Tensor) -> Tensor:
        """One vector–Jacobian product of ``fn`` with respect to its block of vectors.

        Raises:
            ValueError: if Y has not as many rows as the products.
        """
        value, vjp = torch.func.vjp(self.matmat, Y.new_zeros(self.n, Y.shape[-1]))[:2]
        if value.shape != Y.shape:
            raise ValueError(
                f"pmaf.MatVec: fn(*params, V) returns {value.shape[0]} rows, so b must have size {value.shape[0]}, got "
                f"{Y.shape[0]}"
            )
        product: Tensor = vjp(Y)[0]
        return product

    def pullback(self, Y: Tensor, V: Tensor) -> tuple[Tensor | None, ...]:
        """One vector–Jacobian product of ``fn`` with respect to its parameters."""
        gradients: tuple[Tensor, ...] = torch.func.vjp(lambda *params: self.fn(*params, V), *self.tensors)[1](Y)
        return gradients

    def pushforward(self, tangents: Sequence[Tensor | None], V: Tensor) -> Tensor:
        """One Jacobian–vector product of ``fn`` with respect to its parameters."""
        filled = tuple(torch.zeros_like(p) if t is None else t for p, t in zip(self.tensors, tangents, strict=True))
        change: Tensor = pushforward(lambda *params: self.fn(*params, V), self.tensors, filled)
        return change

    def pushforward_adjoint(self, tangents: Sequence[Tensor | None], Y: Tensor) -> Tensor:
        """One Jacobian–vector product of the adjoint with respect to the parameters."""
        filled = tuple(torch.zeros_like(p) if t is None else t for p, t in zip(self.tensors, tangents, strict=True))
        change: Tensor = pushforward(lambda *params: self.with_tensors(params).adjoint(Y), self.tensors, filled)
        return change


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


def as_linear_map(A: Tensor | Operator) -> LinearMap:
    """The linear map of a sparse tensor or an operator; gradients reach what it is made of."""
    if isinstance(A, MatVec):
        return FunctionMap(A.fn, A.n, A.tensors)
    if isinstance(A, Operator):
        return HermitianMap(A)
    return SparseMap(*pattern_and_values(A))
