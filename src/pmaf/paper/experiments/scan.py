"""Neighbourhoods in a real scan: a motorcycle under structured light, whose surfaces end abruptly everywhere."""

from __future__ import annotations

import functools
from pathlib import Path

import torch
from torch import Tensor

from pmaf.checks.extras import needs
from pmaf.paper.experiments.weights import Pieces

__all__ = ["angles", "neighbourhoods"]

_FOCAL, _BASELINE, _OFFSET = 994.978, 0.193001, 31.086  # pixels, metres, pixels: the camera's, as the data set says
_REACH, _KEPT = 7, 64  # pixels to each side of a point; neighbours
_NOISE = 0.15  # of the disparity, in pixels


@functools.cache
def neighbourhoods(train: bool, points: int) -> Pieces:
    """Neighbours of points of the left half of the scan to train with, of its right half to test.

    The disparities get noise; the true normal is that of the noiseless neighbours on the point's own surface, found by
    reweighting. The rows are the neighbours' coordinates about the point, in units of the neighbourhood's size;
    features are the same and their squared length.
    """
    with needs("examples", "The scan"):
        import numpy as np
        import skimage
    disparity = torch.from_numpy(np.load(Path(skimage.__file__).parent / "data" / "motorcycle_disp.npz")["arr_0"])
    height, width = disparity.shape
    generator = torch.Generator().manual_seed(0 if train else 1)
    middle, span = width // 2, 2 * _REACH + 1
    left, right = (0, middle) if train else (middle, width)
    rows = torch.randint(_REACH, height - _REACH, (4 * points,), generator=generator)
    columns = torch.randint(left + _REACH, right - _REACH, (4 * points,), generator=generator)
    step = torch.arange(-_REACH, _REACH + 1)
    r, c = (rows[:, None] + step.repeat_interleave(span)), (columns[:, None] + step.repeat(span))
    d = disparity[r, c].double()
    whole = d.isfinite().all(-1)
    r, c, d = r[whole], c[whole], d[whole]
    clean = _points(r, c, d)
    normal, share = _own_surface(clean)
    use = (share > 0.25).nonzero()[:points, 0]  # a surface of its own at all
    noisy = _points(r, c, d + _NOISE * torch.randn(d.shape, generator=generator, dtype=d.dtype))[use]
    chosen = torch.stack([torch.randperm(span * span, generator=generator)[:_KEPT] for _ in use])
    near = noisy.gather(1, chosen[..., None].expand(-1, -1, 3)) - clean[use, span * span // 2, None]
    near = (near / near.norm(dim=-1).median(dim=1).values[:, None, None]).float()
    features = torch.cat((near, near.square().sum(-1, keepdim=True)), -1)
    return Pieces(features.clamp(-8, 8), near[:, :, None], normal[use].float())


def _points(r: Tensor, c: Tensor, disparity: Tensor) -> Tensor:
    """Pixels and their disparities as points in space, (*, 3), in metres."""
    depth = _FOCAL * _BASELINE / (disparity + _OFFSET)
    return torch.stack((c * depth / _FOCAL, r * depth / _FOCAL, depth), -1)


def _own_surface(points: Tensor) -> tuple[Tensor, Tensor]:
    """The normal of the plane through the middle point that its own surface lies in, and how much lies there."""
    about = points - points[:, points.shape[1] // 2, None]
    size = about.norm(dim=-1).median(dim=1).values[:, None]
    weights = torch.exp(-((about.norm(dim=-1) / (0.35 * size)) ** 2))
    for width in (0.1, 0.05, 0.03, 0.02, 0.02, 0.02):
        weighted = about * weights[..., None]
        normal = torch.linalg.eigh(weighted.mT @ about).eigenvectors[..., 0]
        off = (about @ normal[..., None])[..., 0].abs() / size
        weights = torch.exp(-((off / width) ** 2))
    return normal, (off < 0.05).double().mean(-1)


def angles(found: Tensor, pieces: Pieces) -> Tensor:
    """The angles between the normals and the true ones, in degrees."""
    along = (found * pieces.target).sum(-1).abs() / found.norm(dim=-1).clamp_min(1e-12)
    return torch.rad2deg(torch.arccos(along.clamp(max=1)))
