"""The matrices of the eigen decomposition experiments: the paper's four distributions, and features of photographs."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["BATCH", "DISTRIBUTIONS", "random_matrices"]

BATCH = 5
DISTRIBUTIONS = ("gaussian", "uniform", "von Mises", "integers", "features")


def random_matrices(distribution: str, m: int, seed: int, batch: int = BATCH) -> Tensor:
    """A batch of symmetric matrices with non-negative entries, as the paper draws them.

    Entries are drawn, replaced by their absolute value, and X + Xᵀ is formed. ``"features"`` takes the entries from the
    last feature maps that EfficientNet-lite0 makes of photographs instead.

    Raises:
        ValueError: if the distribution is unknown.
    """
    shape = (batch, m, m)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        if distribution == "gaussian":
            X = torch.randn(shape)
        elif distribution == "uniform":
            X = torch.rand(shape)
        elif distribution == "von Mises":
            X = torch.distributions.VonMises(torch.tensor(0.0), torch.tensor(1.0)).sample(shape)
        elif distribution == "integers":
            X = torch.randint(0, 10, shape).float()
        elif distribution == "features":
            from pmaf.paper.experiments.photographs import feature_stream

            X = feature_stream(seed, batch * m * m).reshape(shape)
        else:
            raise ValueError(f"there is no distribution {distribution!r}, only {', '.join(DISTRIBUTIONS)}")
    X = X.abs()
    return X + X.mT
