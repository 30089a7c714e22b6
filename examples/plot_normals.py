"""
Normals of a noisy scan, with learned weights
=============================================

The normal of a surface at a point is the direction in which its neighbours vary least, the smallest eigenpair of their
weighted covariance:

.. math:: n = \\operatorname{argmin}_{\\|n\\| = 1} \\sum_i w_i\\, (n^\\top (p_i - p))^2 .

Near an edge half of the neighbours belong to another surface. A small network looks at each neighbour and chooses its
weight, and learns from the error of the normal: :func:`pmaf.ied` of :class:`pmaf.Gram` with ``weights`` hands the
gradient through. The scan is the motorcycle that comes with scikit-image, measured by structured light (Middlebury
2014), with noise on its disparities. The left half is for training, the right half for the test.
"""

import matplotlib.pyplot as plt
import numpy as np
import skimage
import torch
from torch import nn

import pmaf

torch.manual_seed(0)
FOCAL, BASELINE, OFFSET = 994.978, 0.193001, 31.086  # pixels, metres, pixels; as the data set says
REACH, NOISE = 6, 0.15  # pixels to each side; noise of the disparity in pixels

folder = skimage.__path__[0] + "/data/"
disparity = torch.from_numpy(np.load(folder + "motorcycle_disp.npz")["arr_0"])
disparity = disparity.nan_to_num(posinf=float("nan"), neginf=float("nan"))
rows, columns = torch.meshgrid(*(torch.arange(float(size)) for size in disparity.shape), indexing="ij")


# %%
# Points in space, and the neighbourhood of each pixel: 13 by 13 pixels about it, every second one, in units of its
# size.
def points(d: torch.Tensor) -> torch.Tensor:
    """(height, width, 3), in metres."""
    depth = FOCAL * BASELINE / (d + OFFSET)
    return torch.stack((columns * depth / FOCAL, rows * depth / FOCAL, depth), -1)


noisy, clean = points(disparity + NOISE * torch.randn(disparity.shape)), points(disparity)
step = torch.arange(-REACH, REACH + 1, 2)


def neighbours(cloud: torch.Tensor, r: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """(pixels, 49, 3), about the noiseless point."""
    near = cloud[r[:, None] + step.repeat_interleave(len(step)), c[:, None] + step.repeat(len(step))]
    near = near - clean[r, c][:, None]
    return near / near.norm(dim=-1).nanmedian(-1).values[:, None, None]


def normals(near: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """Those that look at the camera, (pixels, 3)."""
    towards = torch.tensor([0.0, 0.0, -1.0])
    return pmaf.ied(pmaf.Gram(near, weights=w), 1, largest=False, reference=towards).eigenvectors[..., 0]


# %%
# The truth, as far as it is known: the plane that the noiseless neighbours on the point's *own* surface lie in, found
# by weighting them anew a few times.
def truth(r: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    near = neighbours(clean, r, c)
    w = torch.exp(-((near.norm(dim=-1) / 0.5) ** 2))
    for width in (0.1, 0.05, 0.03, 0.03):
        n = normals(near, w + 1e-6)
        w = torch.exp(-(((near @ n[..., None])[..., 0] / width) ** 2))
    return n


# %%
# Training: the network sees a neighbour's position and distance. Its mean over the neighbourhood tells of the others.
class Weights(nn.Module):
    """A weight for each neighbour."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(5, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU())
        self.second = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1), nn.Sigmoid())

    def forward(self, near: torch.Tensor) -> torch.Tensor:
        n = normals(near, torch.ones(near.shape[:-1]))  # a first guess, and how far off it each one is
        off = (near @ n[..., None]).abs()
        h = self.first(torch.cat((near, near.norm(dim=-1, keepdim=True), off), -1).clamp(-5, 5))
        return self.second(torch.cat((h, h.mean(-2, keepdim=True).expand_as(h)), -1))[..., 0] + 1e-3


whole = -nn.functional.max_pool2d(-disparity.isfinite().float()[None], 2 * REACH + 1, 1, REACH)[0] > 0
inner = torch.zeros_like(whole)
inner[REACH:-REACH, REACH:-REACH] = True
whole &= inner
middle = disparity.shape[1] // 2
known = whole[:, :middle].nonzero()
network = Weights()
optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
history = []
for _ in range(200):
    r, c = known[torch.randint(len(known), (300,))].T
    near, target = neighbours(noisy, r, c), truth(r, c)
    found = normals(near, network(near))
    loss = (1.0001 - (found * target).sum(-1).square()).sqrt().mean()  # the sine, smooth at zero
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    history.append(float(loss.detach()))


# %%
# A window of the other half.
r, c = torch.meshgrid(torch.arange(150, 330), torch.arange(400, 640), indexing="ij")
r, c = r.reshape(-1), c.reshape(-1)
seen = whole[r, c]
with torch.no_grad():
    near = neighbours(noisy, r[seen], c[seen])
    found = {
        "truth": truth(r[seen], c[seen]),
        "all alike": normals(near, torch.ones(near.shape[:-1])),
        "learned weights": normals(near, network(near)),
    }
good = {}
for name, n in found.items():
    angle = torch.rad2deg(torch.arccos((n * found["truth"]).sum(-1).abs().clamp(max=1)))
    good[name] = float((angle < 15).float().mean())
    print(f"{name:16} median error {angle.median():5.2f}°, within 15°: {100 * good[name]:.0f} %")
assert good["learned weights"] > good["all alike"]

# %%
figure, axes = plt.subplots(1, 4, figsize=(13, 2.7), layout="constrained")
axes[0].imshow(skimage.io.imread(folder + "motorcycle_left.png")[150:330, 400:640])
axes[0].set_title("the photograph")
for axis, (name, n) in zip(axes[1:], found.items(), strict=True):
    picture = torch.ones(len(seen), 3)
    picture[seen] = (n * torch.tensor([1.0, 1.0, -1.0]) + 1) / 2
    axis.imshow(picture.reshape(180, 240, 3))
    axis.set_title(name if name == "truth" else f"{name}: {100 * good[name]:.0f} % within 15°")
for axis in axes:
    axis.axis("off")
# sphinx_gallery_thumbnail_number = 1
