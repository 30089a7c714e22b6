"""
Eight points with learned weights
=================================

The fundamental matrix of two views is the null vector of a matrix with one row for each match, and half of the matches
that descriptors propose are wrong. Instead of drawing samples until one is clean, a network can weight the matches and
learn from the error of the answer (Yi et al., *Learning to find good correspondences*, 2018; Ranftl and Koltun, *Deep
fundamental matrix estimation*, 2018):

.. math:: f = \\operatorname{argmin}_{\\|f\\| = 1} \\sum_i w_i\\, (a_i^\\top f)^2 .

With :func:`pmaf.ied` of :class:`pmaf.Gram` the nine-dimensional problem is solved from its factor, and its gradient
does not mind that unwanted singular values come together.

The matches are ORB features of the stereo pair that comes with scikit-image, by the nearest descriptor and nothing
else. Each sample is a window of the left view, seen through a random homography, as is the right one, so that the
fundamental matrix is another each time. Which matches may be right is known from the rectified pair. The upper half
is for training, the lower half for the test. RANSAC on the same matches is the baseline that people have.
"""

import warnings

import matplotlib.pyplot as plt
import numpy as np
import skimage
import torch
from skimage import color, feature, io, measure, transform
from torch import nn

import pmaf

torch.manual_seed(0)
folder = skimage.__path__[0] + "/data/"
left, right = (color.rgb2gray(io.imread(f"{folder}motorcycle_{side}.png")) for side in ("left", "right"))
height, width = left.shape

# %%
# Matches: for each feature on the left the nearest on the right. In a rectified pair a right match lies in the same
# row. Features are found tile by tile, so that they cover the picture.
TILE = 125


def features(view: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places (x, y), and descriptors of 32 bytes."""
    places, descriptors = [], []
    for top in range(0, height - TILE + 1, TILE // 2):
        for start in range(0, width - TILE, TILE - 25):
            orb = feature.ORB(n_keypoints=60, fast_threshold=0.02, n_scales=4)
            try:
                orb.detect_and_extract(view[top : top + TILE, start : start + TILE])
            except RuntimeError:
                continue  # nothing to see here
            places.append(orb.keypoints[:, ::-1] + [start, top])
            descriptors.append(np.packbits(orb.descriptors, axis=1))
    return np.concatenate(places), np.concatenate(descriptors)


(p, d), (q, e) = features(left), features(right)
bits = np.unpackbits(d[:, None] ^ e[None], axis=-1).sum(-1, dtype=np.int16)
nearest = np.argsort(bits, 1, kind="stable")[:, :2]
close, second = np.take_along_axis(bits, nearest, 1).T
x, y = torch.from_numpy(p).float(), torch.from_numpy(q[nearest[:, 0]]).float()
cues = torch.from_numpy(np.stack((close / 64.0, close / np.maximum(second, 1)), 1)).float() - 0.7
right_row = (x[:, 1] - y[:, 1]).abs() < 2
print(f"{len(x)} matches, at most {100 * float(right_row.float().mean()):.0f} % right")

# %%
# Samples: 120 matches of a window, both views turned and tilted. Coordinates go from −1 to 1.
MATCHES, WINDOW = 120, 260
centre = torch.tensor([width / 2, height / 2])


def homographies(count: int) -> torch.Tensor:
    """Turned by up to 45 degrees, tilted a little."""
    angle, zero = (torch.rand(count) - 0.5) * torch.pi / 2, torch.zeros(count)
    c, s = angle.cos(), angle.sin()
    turn = torch.stack((c, -s, zero, s, c, zero, zero, zero, zero + 1), -1).unflatten(-1, (3, 3))
    tilt = torch.eye(3).repeat(count, 1, 1)
    tilt[:, 2, :2] = 0.2 * (torch.rand(count, 2) - 0.5)
    return turn @ tilt


def through(H: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    moved = torch.cat((points, torch.ones_like(points[..., :1])), -1) @ H.mT
    return moved[..., :2] / moved[..., 2:]


def samples(count: int, train: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Matches ``(B, 120, 4)``, their cues, and which of them lie in the right row."""
    half = (x[:, 1] < height / 2) if train else (x[:, 1] >= height / 2)
    chosen = []
    while len(chosen) < count:
        at = torch.rand(()) * (width - WINDOW)
        inside = (half & (x[:, 0] > at) & (x[:, 0] < at + WINDOW)).nonzero()[:, 0]
        if len(inside) >= MATCHES:
            chosen.append(inside[torch.randperm(len(inside))[:MATCHES]])
    chosen = torch.stack(chosen)
    views = [through(homographies(count), (points[chosen] - centre) / (width / 2)) for points in (x, y)]
    return torch.cat(views, -1), cues[chosen], right_row[chosen]


# %%
# The layer, and the network: each match is looked at together with the mean and the spread of all (context
# normalisation).
def fundamental(matches: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """F with bᵀ F a = 0, of unit length, ``(B, 3, 3)``."""
    one = torch.ones_like(matches[..., :1])
    a, b = torch.cat((matches[..., :2], one), -1), torch.cat((matches[..., 2:], one), -1)
    rows = (b[..., :, None] * a[..., None, :]).flatten(-2)
    return pmaf.ied(pmaf.Gram(rows, weights=w), 1, largest=False).eigenvectors[..., 0].unflatten(-1, (3, 3))


class Weights(nn.Module):
    def __init__(self, size: int = 48, blocks: int = 4) -> None:
        super().__init__()
        self.first = nn.Linear(6, size)
        self.blocks = nn.ModuleList(nn.Linear(size, size) for _ in range(blocks))
        self.last = nn.Linear(size, 1)

    def forward(self, matches: torch.Tensor, cues: torch.Tensor) -> torch.Tensor:
        h = self.first(torch.cat((matches, 3 * cues), -1))
        for block in self.blocks:
            h = h + torch.relu(block((h - h.mean(1, keepdim=True)) / (h.std(1, keepdim=True) + 1e-3)))
        return torch.sigmoid(self.last(h))[..., 0] + 1e-4


# %%
# What is trained for: the matches in the right row should lie near their epipolar lines.
def distances(F: torch.Tensor, matches: torch.Tensor) -> torch.Tensor:
    """Of the second point from the line that the first draws, in pixels."""
    one = torch.ones_like(matches[..., :1])
    a, b = torch.cat((matches[..., :2], one), -1), torch.cat((matches[..., 2:], one), -1)
    lines = a @ F.mT
    return (b * lines).sum(-1).abs() / (lines[..., :2].norm(dim=-1) + 1e-6) * width / 2


network = Weights()
optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
history = []
for _ in range(150):
    matches, seen_cues, good = samples(32, train=True)
    found = fundamental(matches, network(matches, seen_cues))
    loss = distances(found, matches).log1p()[good].mean()
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    history.append(float(loss.detach()))


# %%
# The test: the median distance of the matches in the right row, in each sample.
matches, seen_cues, good = samples(60, train=False)
with torch.no_grad():
    w = network(matches, seen_cues)
    answers = {"all alike": fundamental(matches, torch.ones_like(w)), "learned weights": fundamental(matches, w)}
robust = []
for match in matches.double().numpy():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, _ = measure.ransac(
            (match[:, :2], match[:, 2:]), transform.FundamentalMatrixTransform, 8, 4 / width, max_trials=500, rng=0
        )
    robust.append(torch.from_numpy(model.params).float())
answers["RANSAC, 500 draws"] = torch.stack(robust)
# RANSAC is a little better on these matches. What it cannot do is to hand a gradient on, to features that are learned
# together with the weights.
errors = {name: torch.where(good, distances(F, matches), torch.nan).nanmedian(-1).values for name, F in answers.items()}
for name, error in errors.items():
    print(f"{name:18} {error.median():5.1f} px, {100 * float((error < 5).float().mean()):.0f} % below 5 px")
assert errors["learned weights"].median() < 0.5 * errors["all alike"].median()

# %%
figure, drawn = plt.subplot_mosaic([["seen", "seen"], ["loss", "shares"]], figsize=(11, 5.6), layout="constrained")
axes = list(drawn.values())
axes[0].imshow(np.concatenate((left, right), 1), cmap="gray")
inside = ((x[:, 1] > height / 2) & (x[:, 0] > 150) & (x[:, 0] < 150 + WINDOW)).nonzero()[:, 0]
inside = inside[torch.randperm(len(inside))[:MATCHES]]
flat = torch.cat(((x[inside] - centre) / (width / 2), (y[inside] - centre) / (width / 2)), -1)[None]
with torch.no_grad():
    shown = network(flat, cues[inside][None])[0]
for i, weight in zip(inside[shown.argsort()], shown.sort().values, strict=True):
    line = dict(color=plt.cm.viridis(float(weight)), alpha=0.25 + 0.7 * float(weight), linewidth=0.9)
    axes[0].plot([x[i, 0], y[i, 0] + width], [x[i, 1], y[i, 1]], **line)
axes[0].set(xlim=(0, 2 * width), ylim=(height, height // 2), title="matches of the test half; yellow: believed")
axes[0].axis("off")
axes[1].plot(history)
axes[1].set(xlabel="step", ylabel="log(1 + distance in px)", ylim=(0, None))
for name, error in errors.items():
    axes[2].plot(error.sort().values, torch.linspace(0, 100, len(error)), label=name)
axes[2].set(xlabel="median distance from the epipolar line, px", ylabel="share of the samples, %", xscale="log")
axes[2].legend(fontsize=8)
