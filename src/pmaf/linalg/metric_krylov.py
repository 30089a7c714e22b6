r"""Krylov spaces in the inner product of a positive definite B, for the pencil A − λB.

C = (A − σB)⁻¹B is self-adjoint in ⟨u, v⟩ = uᴴBv, with eigenvalues 1/(λ − σ): those nearest to σ stand apart.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["MetricSpace", "orthonormal_in"]


def orthonormal_in(metric: Callable[[Tensor], Tensor], W: Tensor) -> tuple[Tensor, Tensor]:
    """W = Q R with QᴴBQ = I, twice by the eigenvectors of WᴴBW; dependent directions are left out.

    Args:
        metric: multiplies by B.
        W: columns, ``(n, p)``.

    Returns:
        Q, ``(n, r)``, and R, ``(r, p)``.
    """
    R = torch.eye(W.shape[-1], dtype=W.dtype)
    for _ in range(2):
        gram = W.mH @ metric(W)
        size = gram.diagonal().real.clamp_min(torch.finfo(gram.real.dtype).tiny).sqrt()
        d, E = torch.linalg.eigh(gram / (size[:, None] * size))
        kept = d > 1e-14 * d[-1:].clamp_min(torch.finfo(d.dtype).tiny)
        root = d[kept].sqrt()
        W = (W / size) @ (E[:, kept] / root)
        R = ((root[:, None] * E[:, kept].mH) * size) @ R
    return W, R


class MetricSpace:
    """C V = V H + ahead · coupling · (last rows of I), VᴴBV = I, kept orthonormal in full.

    Args:
        product: maps a block to C times it.
        metric: multiplies by B.
        block: to begin with, orthonormal in B, ``(n, p)``.
    """

    def __init__(self, product: Callable[[Tensor], Tensor], metric: Callable[[Tensor], Tensor], block: Tensor) -> None:
        self.product, self.metric = product, metric
        self.V, self.BV, self.ahead = block[:, :0], block[:, :0], block
        self.H, self.coupling = block[:0, :0], block[:0]

    def extend(self) -> None:
        """Take the next block in, at the cost of one product."""
        old, p = self.V.shape[-1], self.ahead.shape[-1]
        self.V = torch.cat((self.V, self.ahead), -1)
        self.BV = torch.cat((self.BV, self.metric(self.ahead)), -1)
        W = self.product(self.ahead)
        scale = (W.mH @ self.metric(W)).diagonal().real.clamp_min(0).sqrt().amax()
        C = W.new_zeros(old + p, p)
        for _ in range(2):
            along = self.BV.mH @ W
            W, C = W - self.V @ along, C + along
        Q, coupling = orthonormal_in(self.metric, W)
        for _ in range(2):  # what was nearly dependent is all rounding now, and not orthogonal to V
            Q, again = orthonormal_in(self.metric, Q - self.V @ (self.BV.mH @ Q))
            coupling = again @ coupling
        self.coupling = coupling
        spent = torch.linalg.matrix_norm(self.coupling) <= 1e-14 * scale if Q.shape[-1] else torch.tensor(True)
        self.ahead = Q[:, :0] if bool(spent) else Q
        self.coupling = self.coupling[:0] if bool(spent) else self.coupling
        H = self.H.new_zeros(old + p, old + p)
        H[:old, :old], H[:, old:], H[old:, :old] = self.H, C, C[:old].mH
        self.H = H
