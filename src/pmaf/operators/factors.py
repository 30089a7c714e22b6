"""Factors of sparse matrices, kept with the operator from the forward pass to the backward one, and freed with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from pmaf.linalg.multigrid import Multigrid
    from pmaf.linalg.sparse_factor import SparseFactor

__all__ = ["Factors"]

KEPT = 2  # one for each end of the spectrum


class Factors:
    """The newest factors of matrices with one pattern, found again by the values they were made of.

    What a graph holds on to is the operator's structure, which this belongs to: any pass through the same graph, first
    derivative or second, finds the factors, and they go when the graph goes. Values are compared, not the tensors that
    hold them, so that a change in place cannot bring up the factors of another matrix.
    """

    def __init__(self) -> None:
        self.known: list[tuple[Tensor, SparseFactor | Multigrid]] = []

    def put(self, values: Tensor, factor: SparseFactor | Multigrid) -> None:
        """Keep the factors of the matrix with these values."""
        others = [(v, f) for v, f in self.known if f.sign != factor.sign or not same(v, values)]
        self.known = [(values.detach().clone(), factor), *others][:KEPT]

    def get(self, values: Tensor, sign: float) -> SparseFactor | Multigrid | None:
        """The factors of ±X − σI, exact or not, for the matrix X with these values, if they are there."""
        return next((f for v, f in self.known if f.sign == sign and same(v, values)), None)


def same(left: Tensor, right: Tensor) -> bool:
    """Whether two tensors hold the same numbers."""
    return left.dtype == right.dtype and left.device == right.device and torch.equal(left, right)
