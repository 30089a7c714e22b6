"""
A linear discriminant layer
===========================

Fisher's discriminant directions are the leading pairs of S_b u = λ S_w u, the scatter between classes against that
within: :func:`pmaf.ied` with a ``metric``. As a layer at the end of a network it is trained through (Deep LDA): the
sum of its eigenvalues says how well the classes are apart, and its gradient reaches the features through both
matrices, where ``torch.linalg.eigh`` would differentiate through all other pairs as well. On handwritten digits, 8×8
pixels.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits

import pmaf

torch.manual_seed(0)
digits = load_digits()
images = torch.tensor(digits.data, dtype=torch.float32) / 16
labels = torch.tensor(digits.target)
order = torch.randperm(len(images))
train, test = order[:1200], order[1200:]


def scatter(features: torch.Tensor, classes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The scatter between classes, and within them, kept definite by a stated multiple of the identity."""
    one_hot = torch.nn.functional.one_hot(classes, 10).to(features)
    counts = one_hot.sum(0)
    means = one_hot.T @ features / counts[:, None]
    inside = features - one_hot @ means
    centred = (means - features.mean(0)) * (counts / len(features)).sqrt()[:, None]
    within = inside.T @ inside / len(features) + 1e-3 * torch.eye(features.shape[1])
    return centred.T @ centred, within


def nearest_mean(project: torch.nn.Module, directions: torch.Tensor) -> float:
    """The share of test images that lie nearest to the mean of their own class."""
    with torch.no_grad():
        known, new = project(images[train]) @ directions, project(images[test]) @ directions
        means = torch.stack([known[labels[train] == c].mean(0) for c in range(10)])
        return float((torch.cdist(new, means).argmin(1) == labels[test]).float().mean())


# %%
# First the directions of the pixels themselves, then of features that are trained to be discriminated.
between, within = scatter(images[train], labels[train])
found = pmaf.ied_ex(between, 9, metric=within)
print(f"pixels:   accuracy {nearest_mean(torch.nn.Identity(), found.eigenvectors):.3f}, residual {found.residual:.0e}")

network = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 32))
optimiser = torch.optim.Adam(network.parameters(), lr=2e-3, weight_decay=1e-4)
history = []
for _ in range(150):
    batch = train[torch.randperm(len(train))[:600]]
    between, within = scatter(network(images[batch]), labels[batch])
    eigenvalues, U = pmaf.ied(between, 9, metric=within)
    loss = -(eigenvalues / (1 + eigenvalues)).sum()  # each direction counts, and none without bound
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    history.append(-float(loss.detach()))

with torch.no_grad():
    between, within = scatter(network(images[train]), labels[train])
directions = pmaf.ied(between, 9, metric=within).eigenvectors
accuracy = nearest_mean(network, directions)
print(f"features: accuracy {accuracy:.3f}")
assert history[-1] > history[0]
assert accuracy > 0.9

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5))
left.plot(history)
left.set(xlabel="step", ylabel="Σ λ/(1 + λ), at most 9")
with torch.no_grad():
    points = network(images[test]) @ directions[:, :2]
right.scatter(points[:, 0], points[:, 1], c=labels[test], cmap="tab10", s=8)
right.set(title="test digits in the first two directions")
figure.tight_layout()
