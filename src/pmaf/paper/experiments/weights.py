r"""Learning through the smallest eigenvector: a network weighs the rows of a homogeneous problem, the layer solves it.

For rows :math:`a_i` and weights :math:`w_i` the answer minimises
:math:`\sum_i w_i \langle a_i, u\rangle^2` subject to :math:`\|u\| = 1`: the homography of weighted matches, the normal
of weighted neighbours. What is learned is which rows to believe, from nothing but the answer: the loss is
:math:`1 - \langle u, u^\star\rangle^2`.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

import pmaf
from pmaf.paper.experiments.learning import step

__all__ = ["SOLVE", "Pieces", "moments", "train_weights"]


class Pieces(NamedTuple):
    """Problems of real data: features (M, N, f) and r rows (M, N, r, n) of N elements each, and answers (M, n)."""

    features: Tensor
    rows: Tensor
    target: Tensor


SOLVE: dict[str, Callable[[Tensor], Tensor]] = {
    "eigh + autograd": lambda X: torch.linalg.eigh(X).eigenvectors[..., 0],
    "pmaf": lambda X: pmaf.ied(X, 1, largest=False).eigenvectors[..., 0],
}


class _Weights(nn.Module):
    """A weight between 0 and 1 for each element, which sees itself and the largest of all (PointNet)."""

    def __init__(self, inputs: int, width: int = 48) -> None:
        super().__init__()
        sizes = ((inputs, width), (2 * width, width), (2 * width, width))
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in sizes)
        self.last = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, f) → (B, N)."""
        for number, layer in enumerate(self.layers):
            x = layer(x if not number else torch.cat((x, x.amax(1, keepdim=True).expand_as(x)), -1)).relu()
        weights: Tensor = self.last(x)[..., 0].sigmoid()
        return weights


def moments(pieces: Pieces, weights: Tensor, center: bool) -> tuple[Tensor, Tensor]:
    """Σ w aᵀa / Σ w, (B, n, n), about the weighted mean if asked for, and the rows about it."""
    w = (weights + 1e-6) / (weights + 1e-6).sum(-1, keepdim=True)
    rows = pieces.rows
    if center:
        rows = rows - (w[..., None, None] * rows).sum(1, keepdim=True)
    flat = rows.flatten(1, 2)
    X = (flat * w.repeat_interleave(rows.shape[2], 1)[..., None]).mT @ flat
    return (X + X.mT) / 2, rows


def _answers(network: nn.ModuleList, pieces: Pieces, solve: Callable[[Tensor], Tensor], center: bool) -> list[Tensor]:
    """One answer after the other: the weights of the next one know how far each row is off the one before."""
    off, found = torch.zeros_like(pieces.features[..., :1]), []
    for weigh in network:
        X, rows = moments(pieces, weigh(torch.cat((pieces.features, off), -1)), center)
        found.append(solve(X))
        off = ((rows @ found[-1][:, None, :, None])[..., 0].norm(dim=-1, keepdim=True) + 1e-3).log()
    return found


def train_weights(
    method: str, seed: int, train: Pieces, test: Pieces, steps: int, center: bool, batch: int = 32
) -> tuple[Tensor, dict[str, float]]:
    """Train the weights through one way to solve, skipping steps whose gradient is not finite.

    Returns the answers for the test pieces, and the steps, those lost, and milliseconds a step.
    """
    torch.manual_seed(seed)
    network, solve = nn.ModuleList(_Weights(train.features.shape[-1] + 1) for _ in range(2)), SOLVE[method]
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    lost, began = 0, time.perf_counter()

    def loss_of(index: Tensor) -> Tensor:
        some = Pieces(*(tensor[index] for tensor in train))
        found = torch.stack(_answers(network, some, solve, center))
        return (1 - (found * some.target).sum(-1) ** 2).mean()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pmaf.DegeneracyWarning)
        for _ in range(steps):
            lost += step(optimizer, loss_of, torch.randint(len(train.target), (batch,))) is None
            schedule.step()
        seconds = time.perf_counter() - began
        with torch.no_grad():
            answer = _answers(network, test, solve, center)[-1]
    return answer, {"steps": steps, "lost": lost, "ms": 1e3 * seconds / steps}
