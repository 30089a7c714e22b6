"""Matrices that are there entry by entry: a symmetric one, or the Gram matrix of a factor."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pmaf.checks.values import check_tensor
from pmaf.linalg.batched import interleaved
from pmaf.linalg.entrywise import SMALL
from pmaf.operators.base import Operator

__all__ = ["Dense", "Gram"]


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
