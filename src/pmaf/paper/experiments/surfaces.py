"""Crops of pictures that ship inside scikit-image, cut so that training and testing never see the same pixel."""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch import Tensor

from pmaf.paper.experiments.photographs import TEXTURES, features_of, photograph

__all__ = ["PICTURES", "SIDE", "SURFACES", "Crops", "crops"]

SURFACES = (*TEXTURES, "moon", "hubble_deep_field", "retina", "ihc", "chelsea", "coins")
"""The three textures, and the surface of the moon, a field of stars, a retina, stained tissue, fur, and coins."""
PICTURES = {"textures": TEXTURES, "surfaces": SURFACES}
SIDE = 64
_GRID = 8  # crops a side, less where the picture is smaller


class Crops(NamedTuple):
    """Features of the crops of some pictures, by class.

    Attributes:
        train: for each picture ``(crops, 2, 1280, 7, 7)``, a crop and its mirror image, of the left half.
        test: for each picture ``(crops, 1280, 7, 7)``, of the right half.
    """

    train: tuple[Tensor, ...]
    test: tuple[Tensor, ...]

    def few(self, count: int, seed: int) -> tuple[Tensor, Tensor]:
        """So many crops of each class to train with, each with its mirror image, chosen at random: and their labels."""
        generator = torch.Generator().manual_seed(seed)
        chosen = [own[torch.randperm(len(own), generator=generator)[:count]].flatten(0, 1) for own in self.train]
        return torch.cat(chosen).float(), _labels(chosen)

    def all_test(self) -> tuple[Tensor, Tensor]:
        """All crops to test with, and their labels."""
        return torch.cat(self.test).float(), _labels(self.test)


def crops(names: tuple[str, ...]) -> Crops:
    """Cut pictures into squares that do not overlap, and take EfficientNet-lite0's last feature maps of each.

    Squares of 64 by 64 are enlarged to the 224 by 224 the network wants, without colour, and brought to one mean and
    contrast, so that neither tells a class. Those of the left half are for training, those of the right half for
    testing.

    Args:
        names: of the pictures, each a class.

    Returns:
        The features, in float16 to save memory.
    """
    halves = [_features(name) for name in names]
    return Crops(tuple(train for train, _ in halves), tuple(test for _, test in halves))


@functools.cache
def _features(name: str) -> tuple[Tensor, Tensor]:
    grey = photograph(name).mean(0)
    rows, columns = (min(_GRID, size // SIDE) for size in grey.shape)
    train, test = [], []
    for i in range(rows):
        for j in range(columns):
            square = _seen(grey[i * SIDE : (i + 1) * SIDE, j * SIDE : (j + 1) * SIDE])
            if j < columns // 2:
                train.append(torch.stack((_maps(square), _maps(square.flip(-1)))))
            else:
                test.append(_maps(square))
    return torch.stack(train), torch.stack(test)


def _seen(square: Tensor) -> Tensor:
    """A grey square with mean 0.45 and deviation 0.15, enlarged: ``(3, 224, 224)``."""
    level = (square - square.mean()) / square.std().clamp_min(1e-3)
    image = (0.45 + 0.15 * level).clamp(0, 1)[None, None]
    large = torch.nn.functional.interpolate(image, size=(224, 224), mode="bicubic", align_corners=False)
    return large[0].clamp(0, 1).expand(3, -1, -1)


def _maps(image: Tensor) -> Tensor:
    return features_of(image[None])[0].half()


def _labels(groups: tuple[Tensor, ...] | list[Tensor]) -> Tensor:
    return torch.arange(len(groups)).repeat_interleave(torch.tensor([len(group) for group in groups]))
