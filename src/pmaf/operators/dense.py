"""A matrix that is there entry by entry."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pmaf.linalg.batched import interleaved
from pmaf.linalg.entrywise import SMALL
from pmaf.operators.base import Operator
from pmaf.transforms import untracked

__all__ = ["Dense"]


class Dense(Operator):
    """A full matrix; where what counts is its Hermitian part, its gradient is Hermitian.

    Args:
        X: ``(*, n, n)``.
        exact: X is known to equal its Hermitian part up to rounding, which then need not be formed.
    """

    core_dims = (2,)
    exact = False
    known: Tensor | None = None  # the Hermitian part, once it has been formed

    def __init__(self, X: Tensor, *, exact: bool = False) -> None:
        self.tensors, self.exact = (X,), exact

    @property
    def n(self) -> int:
        """The number of columns."""
        return self.tensors[0].shape[-1]

    def dense(self) -> Tensor:
        """The Hermitian part of X, or X where all of it counts."""
        X = self.tensors[0]
        if not self.hermitian:
            return X
        if not untracked(X):  # derivatives are those of the Hermitian part, also where X equals it
            return (X + X.mH) / 2
        if self.exact:
            return X
        if self.known is None:
            self.known = (X + X.mH) / 2
        return self.known

    def matmat(self, V: Tensor) -> Tensor:
        """X V, entry by entry for the smallest matrices, else as a product of rows: both batch faster than X @ V."""
        X = self.dense()
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

    def rmatmat(self, Y: Tensor) -> Tensor:
        """Xᴴ Y."""
        return self.matmat(Y) if self.hermitian else self.tensors[0].mH @ Y

    def vjp(self, W: Tensor, U: Tensor) -> tuple[Tensor | None, ...]:
        """sym(W Uᴴ), or W Uᴴ where all of X counts."""
        if not self.hermitian:
            return (W @ U.mH,)
        W = W / 2
        if U.shape[-1] == 1:
            return ((W * U.mH).add_(U * W.mH),)  # no fused multiplication: symmetric to the last digit
        half = W @ U.mH
        return (half + half.mH,)

    def jvp(self, tangents: Sequence[Tensor | None], U: Tensor) -> Tensor:
        """sym(dX) U, or dX U where all of X counts."""
        (dX,) = tangents
        if dX is None:
            return torch.zeros_like(U)
        return (dX @ U + dX.mH @ U) / 2 if self.hermitian else dX @ U

    def jvp_adjoint(self, tangents: Sequence[Tensor | None], Y: Tensor) -> Tensor:
        """The same for Xᴴ."""
        return self.jvp([None if dX is None else dX.mH for dX in tangents], Y)
