"""The Gram matrix of a factor, with or without weights on its rows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pmaf.checks.tensors import check_broadcast, check_sizes, common_dtype
from pmaf.checks.values import check_tensor, describe
from pmaf.operators.base import Operator

__all__ = ["Gram"]


class Gram(Operator):
    r"""The Gram matrix :math:`X = F^H \operatorname{diag}(w) F` of a factor, never formed.

    The eigenvectors of :math:`X = F^H F` are the right singular vectors of F and its eigenvalues the squared singular
    values, so ``ied(Gram(F), k)`` is a principal component analysis of the rows of F and
    ``ied(Gram(F), 1, largest=False)`` its null vector. With weights each row counts :math:`w_i` times. Gradients reach
    both: :math:`\bar F = w \circ ((F U) W^H + (F W) U^H)`, :math:`\bar w_i = \operatorname{Re} \langle (F W)_i, (F
    U)_i \rangle`, right also where a weight is zero.

    F may be a DTensor whose rows are divided among ranks, its weights likewise: one all-reduce of n²/2 numbers a
    matrix makes the answer the same on all of them, and the gradient lies where the rows lie.

    Args:
        F: the factor, ``(*, r, n)``.
        weights: w ≥ 0, ``(*, r)``, real, of the precision of F; leading dimensions broadcast. All one if not given.

    Example:
        >>> import torch, pmaf
        >>> F = torch.tensor([[3.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
        >>> pmaf.ied(pmaf.Gram(F), 1).eigenvalues
        tensor([9.])
        >>> pmaf.ied(pmaf.Gram(F, weights=torch.tensor([0.0, 0.5, 1.0])), 1).eigenvalues
        tensor([2.])
    """

    core_dims: tuple[int, ...] = (2,)

    def __init__(self, F: Tensor, weights: Tensor | None = None) -> None:
        check_tensor("Gram", "F", F, 2, "(*, r, n)")
        self.tensors = (F,)
        if weights is None:
            return
        check_tensor("Gram", "weights", weights, 1, "(*, r)")
        if weights.is_complex():
            raise TypeError(f"pmaf.Gram: weights must be real, got {describe(weights)}")
        check_sizes("Gram", weights=("the rows of F", F.shape[-2], weights.shape[-1]))
        check_broadcast("Gram", F=F.shape[:-2], weights=weights.shape[:-1])
        common_dtype("Gram", F=F, weights=weights)
        batch = torch.broadcast_shapes(F.shape[:-2], weights.shape[:-1])
        self.tensors = F.expand(*batch, *F.shape[-2:]), weights.expand(*batch, weights.shape[-1])
        self.core_dims = (2, 1)

    @property
    def weights(self) -> Tensor | None:
        """W, if there are weights."""
        return self.tensors[1] if len(self.tensors) > 1 else None

    @property
    def factor(self) -> Tensor:
        """A matrix whose Gram matrix this is: F, its rows multiplied by √w. Not to be differentiated where w is 0."""
        F, w = self.tensors[0], self.weights
        return F if w is None else F * w.sqrt()[..., None]

    def plain(self) -> Gram:
        """The same matrix as that of one factor."""
        if self.weights is None:
            return self
        same = self.with_tensors((self.factor,))
        same.core_dims = (2,)
        return same

    @property
    def n(self) -> int:
        """The columns of F."""
        return self.tensors[0].shape[-1]

    def weighted(self, V: Tensor) -> Tensor:
        """diag(w) V."""
        w = self.weights
        return V if w is None else w[..., None] * V

    def matmat(self, V: Tensor) -> Tensor:
        """Fᴴ(w ∘ (F V))."""
        F = self.tensors[0]
        return F.mH @ self.weighted(F @ V)

    def dense(self) -> Tensor:
        """FᴴF, or Fᴴ diag(w) F."""
        F = self.tensors[0]
        return F.mH @ self.weighted(F)

    def vjp(self, W: Tensor, U: Tensor) -> tuple[Tensor | None, ...]:
        """W ∘ ((F U) Wᴴ + (F W) Uᴴ), as one product of rank 2k, and Re Σ conj(F W) ∘ (F U)."""
        F, w = self.tensors[0], self.weights
        FU, FW = F @ U, F @ W
        of_F = self.weighted(torch.cat((FU, FW), -1)) @ torch.cat((W, U), -1).mH
        return (of_F,) if w is None else (of_F, (FW.conj() * FU).sum(-1).real)

    def jvp(self, tangents: Sequence[Tensor | None], U: Tensor) -> Tensor:
        """dFᴴ(w ∘ F U) + Fᴴ(w ∘ dF U) + Fᴴ(dw ∘ F U)."""
        (dF, *rest), F = tangents, self.tensors[0]
        FU = F @ U
        change = torch.zeros_like(U)
        if dF is not None:
            change = dF.mH @ self.weighted(FU) + F.mH @ self.weighted(dF @ U)
        if rest and rest[0] is not None:
            change = change + F.mH @ (rest[0][..., None] * FU)
        return change
