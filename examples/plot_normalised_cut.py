r"""
Segmenting a picture by a learned affinity
==========================================

The normalised cut of Shi and Malik splits a picture where neighbouring pixels are least alike. With weights
:math:`w_{ij}` between neighbours and degrees :math:`d_i = \sum_j w_{ij}` it is read off the smallest eigenvectors of

.. math:: X = I - D^{-1/2}\, W\, D^{-1/2},

a sparse matrix with five entries a row. What "alike" means is usually set by hand: here

.. math:: w_{ij} = \exp\bigl(-\textstyle\sum_c e^{\theta_c} (f_{ic} - f_{jc})^2\bigr)

has a weight for each feature c — the colour channels, and brightness smoothed over a larger neighbourhood — and the
weights are learned from one picture with its mask. The loss is the part of the mask outside the span of the first
eigenvectors, :math:`\|m\|^2 - \|U^\top m\|^2`, a function of the subspace alone; its gradient reaches θ through the
eigenvectors, at about the cost of a few solves with the factors that the forward pass has made anyway.

- J. Shi, J. Malik, *Normalized cuts and image segmentation*, IEEE TPAMI 22 (2000) 888–905.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from skimage import color, data, filters, transform

import pmaf

torch.set_num_threads(1)

# %%
# A picture and the mask to learn from: the coffee cup, whose saucer is roughly an ellipse, at 80 × 120 pixels.

picture = transform.resize(data.coffee(), (80, 120), anti_aliasing=True)
height, width, _ = picture.shape
lab = color.rgb2lab(picture) / 100
smooth = np.stack([filters.gaussian(lab[..., 0], 3), filters.gaussian(filters.sobel(lab[..., 0]), 2)], -1)
features = torch.from_numpy(np.concatenate((lab, smooth), -1)).reshape(height * width, -1)
y, x = np.mgrid[:height, :width]
mask = torch.from_numpy(((x - 58) / 45) ** 2 + ((y - 49) / 30) ** 2 < 1).double().reshape(-1)

# %%
# The pattern of the matrix is that of the grid and does not change; its values are differentiable functions of θ.

index = torch.arange(height * width).reshape(height, width)
ends = torch.cat(
    (
        torch.stack((index[:, :-1].reshape(-1), index[:, 1:].reshape(-1))),
        torch.stack((index[:-1].reshape(-1), index[1:].reshape(-1))),
    ),
    1,
)
a, b = ends
diagonal = index.reshape(-1)
where = torch.stack((torch.cat((a, b, diagonal)), torch.cat((b, a, diagonal))))


def affinity(theta: torch.Tensor) -> torch.Tensor:
    """The normalised Laplacian as a sparse matrix."""
    distance = (features[a] - features[b]).square() @ theta.exp()
    w = torch.exp(-distance) + 1e-4
    degree = torch.zeros(height * width, dtype=w.dtype).index_add(0, a, w).index_add(0, b, w)
    off = -w / (degree[a] * degree[b]).sqrt()
    values = torch.cat((off, off, torch.ones_like(degree)))
    return torch.sparse_coo_tensor(where, values, (height * width,) * 2, check_invariants=False).coalesce()


def outside(theta: torch.Tensor, k: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    """The share of the mask that the k smallest eigenvectors do not explain, and the eigenvectors."""
    U = pmaf.ied(affinity(theta), k, largest=False).eigenvectors
    return 1 - (U.mT @ mask).square().sum() / mask.square().sum(), U


theta = torch.full((features.shape[1],), 6.0, dtype=torch.float64, requires_grad=True)
print(pmaf.solvers.select("ied", affinity(theta).detach(), 6, False, why=True))

# %%
# A few dozen steps.

optimiser = torch.optim.Adam([theta], lr=0.3)
losses = []
for _ in range(30):
    loss, U = outside(theta)
    if not losses:
        before = U.detach()
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    losses.append(float(loss.detach()))
with torch.no_grad():
    _, after = outside(theta)
print(f"not explained: {losses[0]:.3f} before, {losses[-1]:.3f} after")

# %%
# The projection of the mask onto the eigenvectors, before and after.

figure, axes = plt.subplots(1, 4, figsize=(13, 2.6), layout="constrained")
axes[0].imshow(picture)
axes[0].contour(mask.reshape(height, width), [0.5], colors="w", linewidths=1)
axes[0].set_title("picture and mask")
for axis, U, title in ((axes[1], before, "before"), (axes[2], after, "after")):
    axis.imshow((U @ (U.mT @ mask)).reshape(height, width), cmap="gray", vmin=0, vmax=1)
    axis.set_title(f"what six vectors see of it, {title}")
for axis in axes[:3]:
    axis.axis("off")
axes[3].plot(losses)
axes[3].set(xlabel="step", title="share not explained", ylim=(0, None))
plt.show()
