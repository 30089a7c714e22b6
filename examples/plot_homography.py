"""
A homography from its null vector
=================================

Four or more point pairs determine a homography as the null vector of a matrix F with two rows a pair: the eigenvector
of FᵀF for the smallest eigenvalue. For a regular pattern of points the *other* eigenvalues repeat, and then the
gradient of ``torch.linalg.eigh`` is NaN although the wanted vector is unique. :func:`pmaf.ied` needs only the wanted
eigenvalue to be separated, and :class:`pmaf.Gram` takes F itself.
"""

import matplotlib.pyplot as plt
import torch

import pmaf

torch.manual_seed(0)


def design(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The direct linear transform: two rows for each pair, ``(*, 2 n, 9)``."""
    ones = torch.ones_like(source[..., :1])
    homogeneous = torch.cat((source, ones), -1)
    zeros = torch.zeros_like(homogeneous)
    first = torch.cat((homogeneous, zeros, -target[..., :1] * homogeneous), -1)
    second = torch.cat((zeros, homogeneous, -target[..., 1:] * homogeneous), -1)
    return torch.cat((first, second), -2)


# %%
# A square and its own image: the identity, whose matrix has the spectrum that repeats.
square = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
F = design(square, square)
print("eigenvalues of FᵀF:", torch.linalg.eigvalsh(F.mT @ F).clamp(min=0).round(decimals=3).tolist())

for name, solve in {
    "torch.linalg.eigh": lambda F: torch.linalg.eigh(F.mT @ F)[1][..., 0],
    "pmaf.ied": lambda F: pmaf.ied(pmaf.Gram(F), 1, largest=False).eigenvectors[..., 0],
}.items():
    target = square.clone().requires_grad_()
    (solve(design(square, target)) * torch.arange(9.0)).sum().backward()
    print(f"{name:18} gradient finite: {bool(target.grad.isfinite().all())}")

# %%
# Learn where the points are: move the target until its homography is the wanted one, from a start at the identity.
wanted = torch.tensor([1.0, 0.25, 0.2, -0.1, 0.9, -0.1, 0.1, 0.05, 1.0])
wanted = wanted / torch.linalg.vector_norm(wanted)
target = square.clone().requires_grad_()
optimiser = torch.optim.Adam([target], lr=0.03)
history = []
for _ in range(200):
    h = pmaf.ied(pmaf.Gram(design(square, target)), 1, largest=False, reference=wanted).eigenvectors[..., 0]
    loss = (h - wanted).square().sum()
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    history.append(float(loss.detach()))
assert history[-1] < 1e-3 * history[0]

H = wanted.reshape(3, 3)
image = torch.cat((square, torch.ones(4, 1)), -1) @ H.mT
image = image[:, :2] / image[:, 2:]

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5))
left.semilogy(history)
left.set(xlabel="step", ylabel="squared error of the homography")
for points, label, style in ((square, "start", "k:"), (target.detach(), "learned", "C0-"), (image, "wanted", "C1--")):
    closed = torch.cat((points, points[:1])).numpy()
    right.plot(closed[:, 0], closed[:, 1], style, label=label)
right.set_aspect("equal")
right.legend()
figure.tight_layout()
