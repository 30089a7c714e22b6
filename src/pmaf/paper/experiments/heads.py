r"""Pooling heads: the features of one image, a matrix F of 49 places by 32 channels, made into a few numbers.

Every head returns vectors of d entries with length :math:`\sqrt{d}`, so that their entries have the size that the layer
behind expects and the heads differ in nothing but how they pool. Features are (B, C, H, W).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

import pmaf

__all__ = ["HEADS", "Head", "average", "eigh", "principal", "projector", "second_order"]


def average(features: Tensor) -> Tensor:
    """The mean over the places, (B, C)."""
    return _scaled(nn.functional.normalize(features.mean((-2, -1)), dim=-1))


def principal(features: Tensor) -> Tensor:
    """The leading right singular vector of F through pmaf, differentiated implicitly, (B, C)."""
    return _scaled(pmaf.nn.PrincipalPool2d(1)(features))


def eigh(features: Tensor) -> Tensor:
    """The same vector through torch.linalg.eigh and torch's own derivative of it, (B, C)."""
    F = features.flatten(-2).mT  # (B, H·W, C)
    u = torch.linalg.eigh(F.mT @ F).eigenvectors[..., -1]
    along = (u * F.mean(-2)).sum(-1, keepdim=True)
    return _scaled(torch.where(along < 0, -u, u))


def projector(features: Tensor, k: int = 3) -> Tensor:
    """The projector onto the k principal directions of the places, without signs or an order, (B, C(C + 1)/2)."""
    F = features.flatten(-2).mT  # (B, H·W, C)
    P = pmaf.principal_projector(pmaf.Gram(F - F.mean(-2, keepdim=True)), k)
    return _scaled(nn.functional.normalize(_upper(P), dim=-1))


def second_order(features: Tensor, steps: int = 5) -> Tensor:
    r"""The square root of the covariance of the channels, :math:`\Sigma^{1/2}`, (B, C(C + 1)/2).

    Σ is divided by its trace, some steps of the coupled Newton–Schulz iteration take the root, without an
    eigendecomposition, and the root of the trace is put back (iSQRT-COV).

    References:
        Li, Xie, Wang, Gao: Towards faster training of global covariance pooling networks by iterative matrix square
        root normalization, CVPR 2018.
    """
    F = features.flatten(-2)  # (B, C, H·W)
    F = F - F.mean(-1, keepdim=True)
    S = F @ F.mT / F.shape[-1]
    trace = S.diagonal(dim1=-2, dim2=-1).sum(-1)[:, None, None] + 1e-6  # a blank map has none
    eye = torch.eye(S.shape[-1], dtype=S.dtype, device=S.device)
    Y, Z = S / trace, eye.expand_as(S)  # Y → (Σ/tr Σ)^½, Z → its inverse
    for _ in range(steps):
        T = (3 * eye - Z @ Y) / 2
        Y, Z = Y @ T, T @ Z
    return _scaled(nn.functional.normalize(_upper(trace.sqrt() * Y), dim=-1))


class LESSPool(nn.Module):
    """The unit vector u for which F u is nearest to a learned picture b of the places, through pmaf."""

    def __init__(self, places: int) -> None:
        super().__init__()
        self.b = nn.Parameter(torch.randn(places))

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C)."""
        return _scaled(pmaf.less(features.flatten(-2).mT, self.b))


class Head(NamedTuple):
    """How a head is called and built, and whether what it pools is one vector of the channels, or a matrix of them."""

    label: str
    build: Callable[[], Callable[[Tensor], Tensor]]
    vector: bool = True

    def size(self, channels: int) -> int:
        """Pooled numbers for so many channels."""
        return channels if self.vector else channels * (channels + 1) // 2


HEADS = {
    "average": Head("average pooling", lambda: average),
    "second": Head("second-order pooling", lambda: second_order, vector=False),
    "eigh": Head("principal vector, eigh + autograd", lambda: eigh),
    "principal": Head("principal vector, pmaf", lambda: principal),
    "projector": Head("projector of rank 3, pmaf", lambda: projector, vector=False),
    "less": Head("LESS pooling, pmaf", lambda: LESSPool(49)),
}


def _upper(S: Tensor) -> Tensor:
    """The upper triangle as a vector, (B, C, C) → (B, C(C + 1)/2)."""
    row, column = torch.triu_indices(S.shape[-1], S.shape[-1], device=S.device)
    return S[..., row, column]


def _scaled(unit: Tensor) -> Tensor:
    return unit * math.sqrt(unit.shape[-1])
