"""The matrices of the eigen decomposition experiments: the paper's four distributions, and features of photographs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Size, Tensor
from torch.distributions import VonMises

from pmaf.paper.experiments.base import Options
from pmaf.paper.experiments.photographs import feature_stream

__all__ = ["DISTRIBUTIONS", "orders", "random_matrices"]

DISTRIBUTIONS: dict[str, Callable[[Size, int], Tensor]] = {
    "gaussian": lambda shape, seed: torch.randn(shape),
    "uniform": lambda shape, seed: torch.rand(shape),
    "von Mises": lambda shape, seed: VonMises(torch.tensor(0.0), torch.tensor(1.0)).sample(shape),
    "integers": lambda shape, seed: torch.randint(0, 10, shape).float(),
    "features": lambda shape, seed: feature_stream(seed, shape.numel()).reshape(shape),
}
"""Of entries with a shape; the last feature maps that EfficientNet-lite0 makes of photographs begin at the seed."""


def orders(options: Options) -> list[int]:
    """The orders of the matrices."""
    return [32, 64, 128, 256, 512] + ([] if options.quick else [1024])


def random_matrices(distribution: str, m: int, seed: int, batch: int = 5) -> Tensor:
    """A batch of symmetric matrices with non-negative entries, as the paper draws them.

    Entries are drawn, replaced by their absolute value, and X + Xᵀ is formed.
    """
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        X = DISTRIBUTIONS[distribution](Size((batch, m, m)), seed).abs()
    return X + X.mT
