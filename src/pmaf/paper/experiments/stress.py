"""What becomes of the gradient when features lose rank: torch's own derivative of eigh against pmaf's."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.linalg import LinAlgError  # type: ignore[attr-defined]

import pmaf

__all__ = ["RANKS", "Stress", "stress"]

RANKS = (32, 24, 16, 8, 4, 2)
_PLACES, _CHANNELS, _BATCH = 49, 32, 20

Direction = Callable[[Tensor], Tensor]
METHODS: dict[str, Direction] = {
    "torch.linalg.eigh": lambda F: torch.linalg.eigh(F.mT @ F).eigenvectors[..., -1],
    "pmaf": lambda F: pmaf.ied(pmaf.Gram(F), 1).eigenvectors[..., 0],
}


class Stress(NamedTuple):
    """One method on features of one rank.

    Attributes:
        rank: how many of the 32 channels are alive.
        method: who differentiated.
        lost: batches with a gradient that is not finite, or a forward pass that failed.
        batches: how many there were.
        error: largest relative error of the finite gradients, against float64; none if there were none.
    """

    rank: int
    method: str
    lost: int
    batches: int
    error: float | None


def stress(batches: int) -> list[Stress]:
    """Differentiate the leading right singular vector of rectified features of which some channels are dead.

    Args:
        batches: how many batches of twenty for each rank.

    Returns:
        A row for each rank and method.
    """
    rows = []
    for rank in RANKS:
        for name, direction in METHODS.items():
            lost, errors = 0, []
            for seed in range(batches):
                generator = torch.Generator().manual_seed(seed)
                F = torch.randn(_BATCH, _PLACES, _CHANNELS, generator=generator).relu()
                F[..., rank:] = 0
                c = torch.randn(_CHANNELS, generator=generator)
                gradient = _gradient(direction, F, c)
                if gradient is None:
                    lost += 1
                    continue
                exact = _exact(F.double(), c.double())
                errors.append(float((gradient.double() - exact).norm() / exact.norm()))
            rows.append(Stress(rank, name, lost, batches, max(errors, default=None)))
    return rows


def _gradient(direction: Direction, F: Tensor, c: Tensor) -> Tensor | None:
    leaf = F.clone().requires_grad_()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", pmaf.DegeneracyWarning)
            loss = ((direction(leaf) @ c) ** 2).sum()  # the sign of the vector does not matter
            (gradient,) = torch.autograd.grad(loss, leaf)
    except LinAlgError:
        return None
    return gradient if bool(torch.isfinite(gradient).all()) else None


def _exact(F: Tensor, c: Tensor) -> Tensor:
    """The gradient by the sum over all other eigenvectors, which only divides by differences from the leading one."""
    values, vectors = torch.linalg.eigh(F.mT @ F)
    u, V = vectors[..., -1:], vectors[..., :-1]
    w = V @ ((V.mT @ c[:, None]) / (values[..., -1:] - values[..., :-1])[..., None]) * (2 * u.mT @ c[:, None])
    gradient: Tensor = (F @ u) @ w.mT + (F @ w) @ u.mT
    return gradient
