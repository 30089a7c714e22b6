"""The Gram matrix of a factor."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pmaf.checks.values import check_tensor
from pmaf.operators.base import Operator

__all__ = ["Gram"]


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

    @property
    def factor(self) -> Tensor:
        """F."""
        return self.tensors[0]

    @property
    def n(self) -> int:
        """The columns of F."""
        return self.factor.shape[-1]

    def matmat(self, V: Tensor) -> Tensor:
        """Fᴴ(F V)."""
        return self.factor.mH @ (self.factor @ V)

    def dense(self) -> Tensor:
        """FᴴF."""
        return self.factor.mH @ self.factor

    def vjp(self, W: Tensor, U: Tensor) -> tuple[Tensor | None, ...]:
        """(F U) Wᴴ + (F W) Uᴴ, as one product of rank 2k."""
        left = torch.cat((self.factor @ U, self.factor @ W), -1)
        right = torch.cat((W, U), -1)
        return (left @ right.mH,)

    def jvp(self, tangents: Sequence[Tensor | None], U: Tensor) -> Tensor:
        """dFᴴ(F U) + Fᴴ(dF U)."""
        (dF,) = tangents
        if dF is None:
            return torch.zeros_like(U)
        return dF.mH @ (self.factor @ U) + self.factor.mH @ (dF @ U)
