r"""Pooling heads: the features of one image, a matrix F of 49 places by 32 channels, made into a few numbers.

Every head returns vectors of d entries with length :math:`\sqrt{d}`, so that their entries have the size that the layer
behind expects and the heads differ in nothing but how they pool.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

import pmaf

__all__ = [
    "HEADS",
    "AveragePool",
    "EighPool",
    "Head",
    "LESSPool",
    "PrincipalPool",
    "ProjectorPool",
    "SecondOrderPool",
]


class AveragePool(nn.Module):
    """The mean over the places, scaled to length √C."""

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C)."""
        return _scaled(nn.functional.normalize(features.mean((-2, -1)), dim=-1))


class PrincipalPool(nn.Module):
    """The leading right singular vector of F through pmaf, differentiated implicitly."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = pmaf.nn.PrincipalPool2d(1)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C)."""
        return _scaled(self.pool(features))


class ProjectorPool(nn.Module):
    """The projector onto the k principal directions of the places: no signs and no order that could change."""

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = k

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C(C + 1)/2)."""
        F = features.flatten(-2).mT  # (B, H·W, C)
        P = pmaf.principal_projector(pmaf.Gram(F - F.mean(-2, keepdim=True)), self.k)
        return _scaled(nn.functional.normalize(_upper(P), dim=-1))


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


class SecondOrderPool(nn.Module):
    r"""The square root of the covariance of the channels, :math:`\Sigma^{1/2}`, its upper triangle as a vector.

    Σ is divided by its trace, five steps of the coupled Newton–Schulz iteration take the root, without an
    eigendecomposition, and the root of the trace is put back (iSQRT-COV).

    References:
        Li, Xie, Wang, Gao: Towards faster training of global covariance pooling networks by iterative matrix square
        root normalization, CVPR 2018.
    """

    def __init__(self, steps: int = 5) -> None:
        super().__init__()
        self.steps = steps

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C(C + 1)/2)."""
        F = features.flatten(-2)  # (B, C, H·W)
        F = F - F.mean(-1, keepdim=True)
        S = F @ F.mT / F.shape[-1]
        trace = S.diagonal(dim1=-2, dim2=-1).sum(-1)[:, None, None] + 1e-6  # a blank map has none
        eye = torch.eye(S.shape[-1], dtype=S.dtype, device=S.device)
        Y, Z = S / trace, eye.expand_as(S)  # Y → (Σ/tr Σ)^½, Z → its inverse
        for _ in range(self.steps):
            T = (3 * eye - Z @ Y) / 2
            Y, Z = Y @ T, T @ Z
        return _scaled(nn.functional.normalize(_upper(trace.sqrt() * Y), dim=-1))


class Head(NamedTuple):
    """A row of the table: how it is called and how it is built."""

    label: str
    build: Callable[[], nn.Module]
    size: Callable[[int], int]
    "Pooled numbers for so many channels."
    vector: bool = True
    "Whether what is pooled is one vector of the channels."


HEADS = {
    "average": Head("average pooling", AveragePool, lambda channels: channels),
    "second": Head("second-order pooling", SecondOrderPool, lambda channels: channels * (channels + 1) // 2, False),
    "eigh": Head("principal vector, eigh + autograd", EighPool, lambda channels: channels),
    "principal": Head("principal vector, pmaf", PrincipalPool, lambda channels: channels),
    "projector": Head("projector of rank 3, pmaf", lambda: ProjectorPool(3), lambda c: c * (c + 1) // 2, False),
    "less": Head("LESS pooling, pmaf", lambda: LESSPool(49), lambda channels: channels),
}


def _upper(S: Tensor) -> Tensor:
    """The upper triangle as a vector, (B, C, C) → (B, C(C + 1)/2)."""
    row, column = torch.triu_indices(S.shape[-1], S.shape[-1], device=S.device)
    return S[..., row, column]


def _scaled(unit: Tensor) -> Tensor:
    return unit * math.sqrt(unit.shape[-1])
