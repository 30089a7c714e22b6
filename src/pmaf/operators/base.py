r"""What a solver may ask of a matrix.

An operator is a Hermitian matrix X(θ), known through its products with a block of vectors. It tells which tensors θ
it is made of and carries gradients to them: for :math:`\varphi(\theta) = \mathrm{Re}\,\langle W, X(\theta) U\rangle`

    pullback(W, U)    = ∂φ/∂θ           one vector–Jacobian product of a matrix–vector product
    pushforward(dθ, U) = (∂X/∂θ · dθ) U  its transpose

which is all that implicit differentiation of eigenpairs needs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pmaf.arguments import check_integer, check_tensor, describe
from pmaf.autodiff import pushforward
from pmaf.functions import differentiable, multiplied, with_constants
from pmaf.products import interleaved
from pmaf.sparse import Pattern, pattern_and_values

SMALL = 4  # order up to which a batched product is slower than a few elementwise operations

__all__ = ["Dense", "Gram", "MatVec", "Operator", "Sparse", "as_operator"]


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


class Dense(Operator):
    """A full matrix; what counts is its Hermitian part, so its gradient is Hermitian.

    Args:
        X: ``(*, n, n)``.
        exact: X is known to equal its Hermitian part to the last digit, which then need not be formed.
    """

    core_dims = (2,)
    exact = False

    def __init__(self, X: Tensor, *, exact: bool = False) -> None:
        self.tensors = (X,)
        self.n = X.shape[-1]
        self.exact = exact

    @property
    def batch_shape(self) -> torch.Size:
        """The leading dimensions of X."""
        return self.tensors[0].shape[:-2]

    def with_tensors(self, tensors: Sequence[Tensor]) -> Dense:
        """The same with another X."""
        return Dense(tensors[0], exact=self.exact)

    def matmat(self, V: Tensor) -> Tensor:
        """X V, entry by entry for the smallest matrices, else as a product of rows: both batch faster than X @ V."""
        X = self.tensors[0]
        if self.n > SMALL or V.shape[-1] > 1:
            return (V.mT @ X.mT).mT
        v = V[..., 0].unbind(-1)
        rows = []
        for i in range(self.n):
            total = X[..., i, 0] * v[0]
            for j in range(1, self.n):
                total = torch.addcmul(total, X[..., i, j], v[j])
            rows.append(total)
        return interleaved(rows)[..., None]

    def hermitian_matmat(self, V: Tensor) -> Tensor:
        """½(X + Xᴴ) V."""
        return (self.matmat(V) + self.tensors[0].mH @ V) / 2

    def dense(self) -> Tensor:
        """The Hermitian part of X."""
        X = self.tensors[0]
        return X if self.exact else (X + X.mH) / 2

    def pullback(self, W: Tensor, U: Tensor) -> tuple[Tensor | None, ...]:
        """sym(W Uᴴ)."""
        W = W / 2
        if U.shape[-1] == 1:
            return (W * U.mH + U * W.mH,)  # symmetric to the last digit, which a fused multiplication would not be
        half = W @ U.mH
        return (half + half.mH,)

    def pushforward(self, tangents: Sequence[Tensor | None], U: Tensor) -> Tensor:
        """sym(dX) U."""
        (dX,) = tangents
        return torch.zeros_like(U) if dX is None else (dX @ U + dX.mH @ U) / 2


class Gram(Operator):
    r"""The Gram matrix :math:`X = F^H F` of a factor, never formed.

    The eigenvectors of X are the right singular vectors of F and its eigenvalues the squared singular values, so
    ``ied(Gram(F), k)`` is a principal component analysis of the rows of F and ``ied(Gram(F), 1, largest=False)`` its
    null vector. Gradients reach F: :math:`\bar F = (F U) W^H + (F W) U^H`.

    Args:
        F: the factor, ``(*, r, n)``.

    Example:
        >>> import torch, pmaf
        >>> F = torch.tensor([[3.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
        >>> pmaf.ied(pmaf.Gram(F), 1).eigenvalues
        tensor([9.])
    """

    core_dims = (2,)

    def __init__(self, F: Tensor) -> None:
        check_tensor("Gram", "F", F, 2, "(*, r, n)")
        self.tensors = (F,)
        self.n = F.shape[-1]

    @property
    def factor(self) -> Tensor:
        """F."""
        return self.tensors[0]

    @property
    def batch_shape(self) -> torch.Size:
        """The leading dimensions of F."""
        return self.factor.shape[:-2]

    def with_tensors(self, tensors: Sequence[Tensor]) -> Gram:
        """The same with another F, which need not be looked at again."""
        same = object.__new__(Gram)
        same.tensors, same.n = (tensors[0],), tensors[0].shape[-1]
        return same

    def matmat(self, V: Tensor) -> Tensor:
        """Fᴴ(F V)."""
        return self.factor.mH @ (self.factor @ V)

    def dense(self) -> Tensor:
        """FᴴF."""
        return self.factor.mH @ self.factor

    def pullback(self, W: Tensor, U: Tensor) -> tuple[Tensor | None, ...]:
        """(F U) Wᴴ + (F W) Uᴴ, as one product of rank 2k."""
        left = torch.cat((self.factor @ U, self.factor @ W), -1)
        right = torch.cat((W, U), -1)
        return (left @ right.mH,)

    def pushforward(self, tangents: Sequence[Tensor | None], U: Tensor) -> Tensor:
        """dFᴴ(F U) + Fᴴ(dF U)."""
        (dF,) = tangents
        if dF is None:
            return torch.zeros_like(U)
        return dF.mH @ (self.factor @ U) + self.factor.mH @ (dF @ U)


class Sparse(Operator):
    """A sparse symmetric matrix: a fixed pattern and a tensor of values.

    Args:
        pattern: where the entries stand.
        values: the entries, ``(e,)``.
    """

    def __init__(self, pattern: Pattern, values: Tensor) -> None:
        self.pattern, self.n = pattern, pattern.shape[0]
        self.tensors = (values,)

    @classmethod
    def from_tensor(cls, X: Tensor) -> Sparse:
        """The operator of a torch sparse matrix of any layout; gradients reach its values."""
        return cls(*pattern_and_values(X))

    def with_tensors(self, tensors: Sequence[Tensor]) -> Sparse:
        """The same pattern with other values."""
        return Sparse(self.pattern, tensors[0])

    def matmat(self, V: Tensor) -> Tensor:
        """X V."""
        return self.pattern.matmat(self.tensors[0], V)

    def hermitian_matmat(self, V: Tensor) -> Tensor:
        """½(X + Xᴴ) V."""
        return (self.matmat(V) + self.pattern.adjoint(self.tensors[0], V)) / 2

    def pullback(self, W: Tensor, U: Tensor) -> tuple[Tensor | None, ...]:
        """The entries of sym(W Uᴴ) on the pattern."""
        return (self.pattern.pullback(torch.cat((W, U), -1), torch.cat((U, W), -1)) / 2,)

    def pushforward(self, tangents: Sequence[Tensor | None], U: Tensor) -> Tensor:
        """The Hermitian part of the same pattern with other values, times U."""
        (dvalues,) = tangents
        return torch.zeros_like(U) if dvalues is None else self.with_tensors((dvalues,)).hermitian_matmat(U)


class MatVec(Operator):
    r"""A symmetric matrix given by a function that multiplies a block of vectors by it.

    Args:
        fn: ``fn(*params, V)`` returns :math:`X(\theta)\,V` for ``V`` of shape ``(n, p)``; it must be linear in ``V``,
            symmetric, and written in differentiable torch operations.
        n: the order of the matrix.
        params: a tensor, or a tuple of tensors, that gradients are wanted for. The first of them with floating-point
            or complex entries gives the type of the blocks; integers, such as indices, are passed on as they are.

    Example:
        >>> import torch, pmaf
        >>> d = torch.tensor([1.0, 5.0, 2.0], requires_grad=True)
        >>> X = pmaf.MatVec(lambda d, V: d[:, None] * V, 3, d)
        >>> eigenvalues, _ = pmaf.ied(X, 1)
        >>> eigenvalues.sum().backward()
        >>> d.grad
        tensor([0., 1., 0.])
    """

    def __init__(self, fn: Callable[..., Tensor], n: int, params: Tensor | Sequence[Tensor]) -> None:
        given = (params,) if isinstance(params, Tensor) else tuple(params)
        for param in given:
            if not isinstance(param, Tensor):
                raise TypeError(f"pmaf.MatVec: params must be tensors, got {describe(param)}; wrap it in torch.tensor")
        self.tensors = tuple(param for param in given if differentiable(param))
        if not callable(fn) or not self.tensors:
            raise ValueError(
                "pmaf.MatVec: needs a callable fn(*params, V) and at least one parameter tensor that is floating-point "
                "or complex"
            )
        self.fn = fn if len(self.tensors) == len(given) else with_constants(fn, given)
        self.n = check_integer("MatVec", "n", n)

    def with_tensors(self, tensors: Sequence[Tensor]) -> MatVec:
        """The same function of other parameters."""
        return MatVec(self.fn, self.n, tuple(tensors))

    def matmat(self, V: Tensor) -> Tensor:
        """The function's value."""
        return multiplied(self.fn, self.tensors, V, self.n)

    def pullback(self, W: Tensor, U: Tensor) -> tuple[Tensor | None, ...]:
        """One vector–Jacobian product of ``fn`` with respect to its parameters."""
        vjp = torch.func.vjp(lambda *params: self.fn(*params, U), *self.tensors)[1]
        gradients: tuple[Tensor, ...] = vjp(W)
        return gradients

    def pushforward(self, tangents: Sequence[Tensor | None], U: Tensor) -> Tensor:
        """One Jacobian–vector product of ``fn`` with respect to its parameters."""
        filled = tuple(torch.zeros_like(p) if t is None else t for p, t in zip(self.tensors, tangents, strict=True))
        change: Tensor = pushforward(lambda *params: self.fn(*params, U), self.tensors, filled)
        return change


def as_operator(X: Tensor | Operator) -> Operator:
    """X itself if it is an operator, else the operator of a dense or sparse tensor."""
    if isinstance(X, Operator):
        return X
    return Dense(X) if X.layout == torch.strided else Sparse.from_tensor(X)
