"""
The Fiedler vector, and a network that is hard to cut
=====================================================

The second smallest eigenvalue of a graph's Laplacian, its *algebraic connectivity* λ₂, says how hard the graph is to
cut, and its eigenvector, the Fiedler vector, where. The derivative with respect to the weight of an edge is
:math:`(u_i - u_j)^2`: the edges across the cut count. Here a fixed amount of weight is laid out anew so that λ₂
grows, by gradient ascent through :func:`pmaf.ied`. λ₃ holds λ₂ down: they meet at the optimum (Fiedler's *absolute*
algebraic connectivity), where the graph has no single best cut any more.

The graph is who meets whom in *Les Misérables*, 77 characters and 254 pairs (Knuth, *The Stanford GraphBase*, 1993),
which comes with networkx.
"""

import matplotlib.pyplot as plt
import networkx as nx
import torch

import pmaf

graph = nx.les_miserables_graph()
names = sorted(graph)
index = {name: i for i, name in enumerate(names)}
edges = torch.tensor([(index[a], index[b]) for a, b in graph.edges])
i, j = edges.T
n, m = len(names), len(edges)


# %%
# The Laplacian as a function of the weights. For graphs with thousands of nodes make it a sparse tensor, see
# :doc:`/howto/graphs`; the rest stays as it is.
def laplacian(w: torch.Tensor) -> torch.Tensor:
    """Degrees on the diagonal, minus the weights beside it."""
    W = torch.zeros(n, n, dtype=w.dtype).index_put((i, j), w)
    W = W + W.mT
    return W.sum(0).diag() - W


even = torch.full((m,), 1 / m, dtype=torch.float64, requires_grad=True)
found = pmaf.ied_ex(laplacian(even), 2, largest=False)
before = found.eigenvectors[:, 1].detach()
(gradient,) = torch.autograd.grad(found.eigenvalues[1], even)
torch.testing.assert_close(gradient, (before[i] - before[j]).square())  # as the formula says
for e in gradient.argsort(descending=True)[:4].tolist():
    print(f"{names[i[e]]:12} – {names[j[e]]:12} {gradient[e]:.3f}")

# %%
# Ascent in λ₂ with weights that are positive and sum to one.
logits = torch.zeros(m, dtype=torch.float64, requires_grad=True)
optimiser = torch.optim.Adam([logits], lr=0.05)
history = []
for _ in range(600):
    eigenvalues, _ = pmaf.ied(laplacian(logits.softmax(0)), 3, largest=False)
    optimiser.zero_grad()
    (-eigenvalues[1]).backward()
    optimiser.step()
    history.append(eigenvalues[1:].tolist())
best = logits.detach().softmax(0)
after = pmaf.ied(laplacian(best), 2, largest=False).eigenvectors[:, 1]
print(f"λ₂ from {history[0][0]:.5f} to {history[-1][0]:.5f}; λ₃ is {history[-1][1]:.5f} now")
assert history[-1][0] > 3 * history[0][0]

# %%
# The colour is the Fiedler vector: where it changes its sign the graph is cut most easily. Width is weight.
place = nx.spring_layout(graph, seed=3, iterations=200)
figure, axes = plt.subplots(1, 3, figsize=(13, 4.2), layout="constrained", width_ratios=(1, 1, 0.7))
for axis, u, w, title in ((axes[0], before, even.detach(), "even weights"), (axes[1], after, best, "weights for λ₂")):
    for (a, b), width in zip(edges.tolist(), (w / w.mean()).sqrt().tolist(), strict=True):
        ends = [place[names[a]], place[names[b]]]
        axis.plot(*zip(*ends, strict=True), color="gray", linewidth=0.8 * width, zorder=1)
    x, y = zip(*(place[name] for name in names), strict=True)
    reach = float(u.abs().max())
    axis.scatter(x, y, c=u.numpy(), cmap="coolwarm", vmin=-reach, vmax=reach, s=45, edgecolors="gray", zorder=2)
    axis.set_title(title)
    axis.axis("off")
axes[2].plot([row[0] for row in history], label="λ₂")
axes[2].plot([row[1] for row in history], label="λ₃")
axes[2].set(xlabel="step")
axes[2].legend()
