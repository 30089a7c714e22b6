r"""Pooling heads: the features of one image, a matrix F of 49 places by 32 channels, made into a few numbers.

Every head returns vectors of length :math:`\sqrt{C}` for C channels, so that their entries have the size that the
layer behind expects and the heads differ in nothing but how they pool.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

import pmaf

__all__ = ["HEADS", "AveragePool", "EighPool", "Head", "LESSPool", "PrincipalPool"]


class AveragePool(nn.Module):
    """The mean over the places, scaled to length √C."""

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C)."""
        return _scaled(nn.functional.normalize(features.mean((-2, -1)), dim=-1))


class PrincipalPool(nn.Module):
    """The k leading right singular vectors of F through pmaf, differentiated implicitly."""

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = k
        self.pool = pmaf.nn.PrincipalPool2d(k)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) → (B, k·C)."""
        pooled = self.pool(features).unflatten(-1, (self.k, -1))
        return _scaled(pooled).flatten(-2)


class EighPool(nn.Module):
    """The leading right singular vector of F through torch.linalg.eigh and torch's own derivative of it."""

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C)."""
        F = features.flatten(-2).mT  # (B, H·W, C)
        u = torch.linalg.eigh(F.mT @ F).eigenvectors[..., -1]
        along = (u * F.mean(-2)).sum(-1, keepdim=True)
        return _scaled(torch.where(along < 0, -u, u))


class LESSPool(nn.Module):
    """The unit vector u for which F u is nearest to a learned picture b of the places, through pmaf."""

    def __init__(self, places: int) -> None:
        super().__init__()
        self.b = nn.Parameter(torch.randn(places))
        self.layer = pmaf.nn.LESS()

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C)."""
        u: Tensor = self.layer(features.flatten(-2).mT, self.b)
        return _scaled(u)


class Head(NamedTuple):
    """A row of the table: how it is called and how it is built."""

    label: str
    build: Callable[[], nn.Module]
    width: int
    "Pooled numbers for each channel."


HEADS = {
    "average": Head("average pooling", AveragePool, 1),
    "principal": Head("principal vector, pmaf", lambda: PrincipalPool(1), 1),
    "eigh": Head("principal vector, torch eigh", EighPool, 1),
    "less": Head("LESS pooling, pmaf", lambda: LESSPool(49), 1),
    "principal4": Head("4 principal vectors, pmaf", lambda: PrincipalPool(4), 4),
}


def _scaled(unit: Tensor) -> Tensor:
    return unit * math.sqrt(unit.shape[-1])
