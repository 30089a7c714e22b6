"""
Diffusion tensors that stay positive
====================================

Diffusion MRI measures, for each voxel and each direction g, a signal that water molecules weaken as they move along g:

.. math:: S(g) = S_0\\, e^{-b\\, g^\\top D\\, g} .

The tensor D is a 3×3 covariance, its principal direction that of the nerve fibres. Least squares on log S is how it
is mostly fitted; with few directions noise gives it negative eigenvalues, and crooked fibres. Here D is the
*exponential* of a symmetric matrix, :func:`pmaf.spectral_function`, so it is positive whatever the fit does, and what
belongs together is smoothed by its principal *projector*, :func:`pmaf.principal_projector`, which has no sign to be
ambiguous: near isotropic tensors eigenvalues meet, and there ``torch.linalg.eigh`` has no gradient.

The data, 10 × 10 × 10 voxels in 64 directions, are the small human scan that comes with dipy. Sixteen directions are
fitted, and the other 48 judge.
"""

import importlib.util
from pathlib import Path

import matplotlib.pyplot as plt
import nibabel
import numpy as np
import torch

import pmaf

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)
folder = Path(importlib.util.find_spec("dipy").origin).parent / "data" / "files"
scan = torch.from_numpy(nibabel.load(folder / "small_64D.nii").get_fdata())
b = torch.from_numpy(np.loadtxt(folder / "small_64D.bval").reshape(-1))
g = torch.from_numpy(np.nan_to_num(np.loadtxt(folder / "small_64D.bvec"))).reshape(-1, 3)
weighted = b > 10
signal = (scan[..., weighted] / scan[..., ~weighted].mean(-1, keepdim=True)).clamp(1e-3, 1.0)
b, g = b[weighted] / 1000, g[weighted]  # diffusion in µm²/ms
brain = scan[..., ~weighted].mean(-1) > 50
print(f"{int(brain.sum())} voxels, {len(b)} directions, b = {1000 * float(b.mean()):.0f} s/mm²")

fitted = torch.zeros(len(b), dtype=torch.bool)
fitted[torch.randperm(len(b))[:16]] = True


# %%
# Least squares on the logarithm: six unknowns a voxel.
i, j = torch.triu_indices(3, 3)
design = -b[:, None] * g[:, i] * g[:, j] * torch.where(i == j, 1.0, 2.0)


def tensors(entries: torch.Tensor) -> torch.Tensor:
    """Symmetric matrices from their upper triangles."""
    return entries[..., [0, 1, 2, 1, 3, 4, 2, 4, 5]].unflatten(-1, (3, 3))


linear = torch.linalg.lstsq(design[fitted], signal.log()[..., fitted].flatten(0, 2).mT).solution.mT
linear = tensors(linear).reshape(*brain.shape, 3, 3)
negative = torch.linalg.eigvalsh(linear)[..., 0] < 0
print(f"least squares: {100 * float(negative[brain].double().mean()):.1f} % of the tensors have a negative eigenvalue")


def misfit(D: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
    """Root mean square of what the tensors leave of the signal."""
    shown = torch.exp(-b * torch.einsum("gi,...ij,gj->...g", g, D, g))
    return (shown - signal)[brain][:, which].square().mean().sqrt()


# %%
# D = exp(L), and neighbours whose principal projectors should agree. An isotropic tensor has no principal direction;
# the ``_ex`` form reports it and lets the others go on.
both = [(brain.narrow(a, 0, 9) & brain.narrow(a, 1, 9)) for a in range(3)]
start = pmaf.spectral_function(linear, lambda values: values.clamp_min(0.05).log())
L = start[..., i, j].requires_grad_()
optimiser = torch.optim.Adam([L], lr=0.05)
for _ in range(150):
    D = pmaf.spectral_function(tensors(L), "exp")
    P = pmaf.principal_projector_ex(D, 1).projector
    bends = sum((P.narrow(a, 0, 9) - P.narrow(a, 1, 9))[both[a]].square().mean() for a in range(3))
    loss = misfit(D, fitted).square() + 1e-2 * bends
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
D = D.detach()
errors = {name: float(misfit(T, ~fitted)) for name, T in (("least squares", linear), ("exponential, smooth", D))}
for name, error in errors.items():
    print(f"{name:20} error in the directions that were left out: {error:.4f}")
assert errors["exponential, smooth"] < errors["least squares"]
assert (torch.linalg.eigvalsh(D) > 0).all()


# %%
# A slice: the fractional anisotropy, and in colour and as a stroke the direction of the fibres.
def picture(axis: plt.Axes, T: torch.Tensor, title: str) -> None:
    values, vectors = pmaf.ied(T[:, :, 5], 3)
    u, spread = vectors[..., 0], values - values.mean(-1, keepdim=True)
    anisotropy = (1.5 * spread.square().sum(-1) / values.square().sum(-1)).sqrt().clamp(max=1)
    axis.imshow((u.abs() * anisotropy[..., None]).transpose(0, 1), origin="lower")
    x, y = torch.meshgrid(torch.arange(10), torch.arange(10), indexing="ij")
    axis.quiver(
        x, y, u[..., 0], u[..., 1], pivot="mid", color="w", headwidth=0, headlength=0, headaxislength=0, scale=13
    )
    axis.set_title(title)
    axis.axis("off")


figure, axes = plt.subplots(1, 3, figsize=(11, 3.7), layout="constrained")
for axis, (T, title) in zip(axes, ((linear, "least squares"), (D, "exponential, smooth")), strict=False):
    picture(axis, T, f"{title}\nheld-out error {errors[title]:.3f}")
everything = torch.linalg.lstsq(design, signal.log().flatten(0, 2).mT).solution.mT
picture(axes[2], tensors(everything).reshape(*brain.shape, 3, 3), "least squares\nof all 64 directions")
