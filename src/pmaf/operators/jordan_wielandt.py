r"""Singular triplets as eigenpairs: [0 A; Aᴴ 0] (u; v) = σ (u; v)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pmaf.operators.base import Operator

__all__ = ["JordanWielandt"]


class JordanWielandt(Operator):
    r"""The Hermitian matrix J = [0 A; Aᴴ 0] of order m + n, never formed.

    Its eigenvectors (u; ±v)/√2 belong to ±σ, and the rest to zero.

    Args:
        A: ``(*, m, n)``.
    """

    core_dims = (2,)

    def __init__(self, A: Tensor) -> None:
        self.tensors = (A,)

    @property
    def n(self) -> int:
        """The order."""
        return sum(self.tensors[0].shape[-2:])

    def parts(self, Z: Tensor) -> tuple[Tensor, Tensor]:
        """The m upper and the n lower rows."""
        m = self.tensors[0].shape[-2]
        return Z[..., :m, :], Z[..., m:, :]

    def matmat(self, V: Tensor) -> Tensor:
        """(A v; Aᴴu)."""
        (A,) = self.tensors
        u, v = self.parts(V)
        return torch.cat((A @ v, A.mH @ u), -2)

    def vjp(self, W: Tensor, U: Tensor) -> tuple[Tensor | None, ...]:
        """w₁vᴴ + u w₂ᴴ, as one product of rank 2k."""
        (above, below), (u, v) = self.parts(W), self.parts(U)
        return (torch.cat((above, u), -1) @ torch.cat((v, below), -1).mH,)

    def jvp(self, tangents: Sequence[Tensor | None], U: Tensor) -> Tensor:
        """(dA v; dAᴴu)."""
        (dA,) = tangents
        if dA is None:
            return torch.zeros_like(U)
        u, v = self.parts(U)
        return torch.cat((dA @ v, dA.mH @ u), -2)
