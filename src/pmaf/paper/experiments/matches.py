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
        import skimage.feature
        import skimage.transform
    import numpy as np

    transforms: Any = skimage.transform
    finder: Any = skimage.feature.ORB
    random = np.random.default_rng(0 if train else 1)
    names = _TRAIN if train else _TEST
    features: list[Any] = []
    targets: list[Any] = []
    rows, number = [], 0
    scale = np.diag([2 / SIDE, 2 / SIDE, 1.0]) - [[0, 0, 1], [0, 0, 1], [0, 0, 0]]
    while len(targets) < pairs:
        picture = photograph(names[number % len(names)]).mean(0).numpy()
        number += 1
        top, left = (int(random.integers(size - SIDE)) for size in picture.shape)
        first = picture[top : top + SIDE, left : left + SIDE]
        square = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], dtype=float)
        transform = transforms.ProjectiveTransform.from_estimate(square, square + random.uniform(-0.25, 0.25, (4, 2)))
        H = transform.params
        second = transforms.warp(first, np.linalg.inv(np.linalg.inv(scale) @ H @ scale), mode="reflect")
        second = np.clip(0.8 * second + random.normal(0, 0.02, second.shape), 0, 1)
        seen = []
        for view in (first, second):
            orb = finder(n_keypoints=150, fast_threshold=0.02, n_scales=4)
            try:
                orb.detect_and_extract(view)
            except RuntimeError:
                break  # nothing to see here
            seen.append((orb.keypoints[:, ::-1] * 2 / SIDE - 1, orb.descriptors))
        if len(seen) < 2 or min(len(points) for points, _ in seen) < _KEPT:
            continue
        (p, d), (q, e) = seen
        distance = (d[:, None] != e[None]).mean(-1)
        nearest = distance.argsort(1)[:, :2]
        close, next_best = np.take_along_axis(distance, nearest, 1).T
        chosen = close.argsort(kind="stable")[:_KEPT]
        x, y = p[chosen], q[nearest[chosen, 0]]
        cues = np.stack((close[chosen], close[chosen] / np.maximum(next_best[chosen], 1e-3)), 1)
        features.append(np.concatenate((x, y, y - x, 4 * cues - 2), 1))
        rows.append(_dlt(torch.from_numpy(x.copy()), torch.from_numpy(y.copy())))
        targets.append(H.ravel() / np.linalg.norm(H))
    stacked = [torch.tensor(np.stack(arrays)).float() for arrays in (features, targets)]
    return Pieces(stacked[0], torch.stack(rows).float(), stacked[1])


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
    import skimage.measure
    import skimage.transform

    measure: Any = skimage.measure

    found = []
    for match in pieces.features.double().numpy():
        x, y = match[:, :2], match[:, 2:4]
        model, _ = measure.ransac((x, y), skimage.transform.ProjectiveTransform, 4, 6 / SIDE, max_trials=300, rng=seed)
        found.append(torch.tensor(model.params if model else [[0.0] * 3] * 3).flatten().float())
    return torch.stack(found)
