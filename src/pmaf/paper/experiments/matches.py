"""Two views of a photograph, and what a descriptor takes for the same point in both: many matches are wrong."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from pmaf.checks.extras import needs
from pmaf.paper.experiments.photographs import photograph
from pmaf.paper.experiments.weights import Pieces

__all__ = ["SIDE", "corner_errors", "matches", "ransac"]

SIDE = 160
_TRAIN = ("astronaut", "chelsea", "coffee", "hubble_deep_field", "brick", "grass")
_TEST = ("rocket", "retina", "gravel", "ihc")
_KEPT = 80  # matches of a pair


@functools.cache
def matches(train: bool, pairs: int) -> Pieces:
    """Matches of ORB features between a crop and the same crop seen through a random homography, darker and noisy.

    The rows are those of the direct linear transform in coordinates from −1 to 1, the target is the true homography as
    a vector of nine numbers with unit length; features are the coordinates, the descriptors' distance and its ratio to
    the second nearest. Training and testing see different photographs.
    """
    with needs("examples", "Matching photographs"):
        import numpy as np
        from skimage.transform import ProjectiveTransform, warp
    random = np.random.default_rng(0 if train else 1)
    names = _TRAIN if train else _TEST
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    number = 0
    scale = np.diag([2 / SIDE, 2 / SIDE, 1.0]) - [[0, 0, 1], [0, 0, 1], [0, 0, 0]]
    while len(found) < pairs:
        picture = photograph(names[number % len(names)]).mean(0).numpy()
        number += 1
        top, left = (int(random.integers(size - SIDE)) for size in picture.shape)
        first = picture[top : top + SIDE, left : left + SIDE]
        square = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], dtype=float)
        H = ProjectiveTransform.from_estimate(square, square + random.uniform(-0.25, 0.25, (4, 2))).params
        second = warp(first, np.linalg.inv(np.linalg.inv(scale) @ H @ scale), mode="reflect")
        second = np.clip(0.8 * second + random.normal(0, 0.02, second.shape), 0, 1)
        try:
            (p, d), (q, e) = (_descriptors(view) for view in (first, second))
        except RuntimeError:
            continue  # nothing to see here
        if min(len(p), len(q)) < _KEPT:
            continue
        distance = (d[:, None] != e[None]).mean(-1)
        nearest = distance.argsort(1)[:, :2]
        close, next_best = np.take_along_axis(distance, nearest, 1).T
        chosen = close.argsort(kind="stable")[:_KEPT]
        x, y = p[chosen], q[nearest[chosen, 0]]
        cues = np.stack((close[chosen], close[chosen] / np.maximum(next_best[chosen], 1e-3)), 1)
        features, target = np.concatenate((x, y, y - x, 4 * cues - 2), 1), H.ravel() / np.linalg.norm(H)
        rows = _dlt(torch.from_numpy(x.copy()), torch.from_numpy(y.copy()))
        found.append((torch.from_numpy(features), rows, torch.from_numpy(target)))
    return Pieces(*(torch.stack(parts).float() for parts in zip(*found, strict=True)))


def _descriptors(view: Any) -> tuple[Any, Any]:
    """Where something is to be seen, (x, y) from −1 to 1, and what."""
    from skimage.feature import ORB

    orb: Any = ORB(n_keypoints=150, fast_threshold=0.02, n_scales=4)
    orb.detect_and_extract(view)
    return orb.keypoints[:, ::-1] * 2 / SIDE - 1, orb.descriptors


def _dlt(x: Tensor, y: Tensor) -> Tensor:
    """Two rows for each match, (N, 2, 9): zero on the homography that takes x to y."""
    one = torch.cat((x, torch.ones_like(x[:, :1])), 1)
    none = torch.zeros_like(one)
    return torch.stack((torch.cat((one, none, -y[:, :1] * one), 1), torch.cat((none, one, -y[:, 1:] * one), 1)), 1)


def corner_errors(found: Tensor, pieces: Pieces) -> Tensor:
    """How far the corners of a view land from where they belong, in pixels, mean over the four, at most the side."""
    corners = torch.tensor([[-1.0, -1, 1], [1, -1, 1], [1, 1, 1], [-1, 1, 1]]).mT
    landed = [h.unflatten(-1, (3, 3)) @ corners for h in (found, pieces.target)]
    ours, true = (points[:, :2] / points[:, 2:] for points in landed)
    off: Tensor = (ours - true).norm(dim=1).mean(-1) * SIDE / 2
    return off.nan_to_num(SIDE).clamp_max(SIDE)


def ransac(pieces: Pieces, seed: int) -> Tensor:
    """Homographies by random sampling and consensus, without weights and without a gradient."""
    from skimage.measure import ransac as consensus
    from skimage.transform import ProjectiveTransform

    found = []
    for match in pieces.features.double().numpy():
        x, y = match[:, :2], match[:, 2:4]
        model, _ = consensus((x, y), ProjectiveTransform, 4, 6 / SIDE, max_trials=300, rng=seed)
        found.append(torch.tensor(model.params if model else [[0.0] * 3] * 3).flatten().float())
    return torch.stack(found)
