"""
Robust principal components of images
=====================================

A matrix of images is split into a part of low rank and a sparse one, A = L + E, by the classical alternation: L takes
the leading singular triplets of A − E, and E what sticks out of A − L. Only the leading triplets are ever needed, which
is what :func:`pmaf.svd` finds, and the last step is differentiable: how does what was found depend on a single pixel?
The images are handwritten digits of one class, spoilt by dead pixels.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits

import pmaf

torch.manual_seed(0)
digits = load_digits()
clean = torch.tensor(digits.data[digits.target == 0], dtype=torch.float64) / 16  # one image a row, (178, 64)
spoilt = torch.rand(clean.shape) < 0.1
A = torch.where(spoilt, torch.rand(clean.shape, dtype=torch.float64).round(), clean)

# %%
# Eight components are looked for. Robust means: the sparse part E is taken out before the next low-rank part is.
rank, sparse = 8, 0.4


def low_rank(M: torch.Tensor) -> torch.Tensor:
    """The best approximation by a few triplets."""
    U, S, Vh = pmaf.svd(M, rank)
    return (U * S) @ Vh


E = torch.zeros_like(A)
for step in range(60):
    threshold = max(sparse * 0.95**step, 0.05)
    L = low_rank(A - E)
    E = torch.where((A - L).abs() > threshold, A - L, 0)
plain = low_rank(A)


def error(M: torch.Tensor) -> float:
    """The distance from the clean images, relative to their size."""
    return float(torch.linalg.vector_norm(M - clean) / torch.linalg.vector_norm(clean))


print(f"relative error: spoilt {error(A):.3f}, plain components {error(plain):.3f}, robust {error(L):.3f}")
assert error(L) < error(plain) < error(A)

# %%
# The sum of the leading singular values as a function of all pixels, and its gradient :math:`U V^H`.
pixels = (A - E).requires_grad_()
(gradient,) = torch.autograd.grad(pmaf.svd(pixels, rank).S.sum(), pixels)
print(f"spectral norm of the gradient: {torch.linalg.matrix_norm(gradient, 2):.6f}")

# %%
figure, axes = plt.subplots(4, 6, figsize=(9, 6))
for row, (name, M) in zip(axes, {"spoilt": A, "plain": plain, "robust": L, "clean": clean}.items(), strict=True):
    for axis, image in zip(row, M, strict=False):
        axis.imshow(image.detach().reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
        axis.set(xticks=[], yticks=[])
    row[0].set_ylabel(name)
figure.tight_layout()
