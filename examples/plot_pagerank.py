r"""
Differentiable PageRank
=======================

PageRank is the dominant eigenvector of the *Google matrix*

.. math:: G = \alpha\, S + \frac{1 - \alpha}{n}\, \mathbf 1 \mathbf 1^\top,

whose columns sum to one: S moves a random surfer along the links, and with probability 1 − α he jumps anywhere. G is
not symmetric, so this is ``pmaf.dominant_pair(G)``, and its gradient, which is one linear solve, says how the
rank of every node answers to every link.

The graph is Zachary's karate club: 34 members and 78 friendships, observed for two years before the club split around
its instructor (1) and its president (34).

A second graph is directed, and too large for a full matrix to be sensible: which module of Python's standard library
and of torch imports which. There G is a function that multiplies; only products with it and its transpose are taken.

- W. W. Zachary, *An information flow model for conflict and fission in small groups*, Journal of Anthropological
  Research 33 (1977) 452–473, figure 1.
- L. Page, S. Brin, R. Motwani, T. Winograd, *The PageRank citation ranking*, Stanford (1999).
"""

import re
import sysconfig
from pathlib import Path

import matplotlib.pyplot as plt
import torch

import pmaf

FRIENDS = {
    1: [2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 18, 20, 22, 32],
    2: [3, 4, 8, 14, 18, 20, 22, 31],
    3: [4, 8, 9, 10, 14, 28, 29, 33],
    4: [8, 13, 14],
    5: [7, 11],
    6: [7, 11, 17],
    7: [17],
    9: [31, 33, 34],
    10: [34],
    14: [34],
    15: [33, 34],
    16: [33, 34],
    19: [33, 34],
    20: [34],
    21: [33, 34],
    23: [33, 34],
    24: [26, 28, 30, 33, 34],
    25: [26, 28, 32],
    26: [32],
    27: [30, 34],
    28: [34],
    29: [32, 34],
    30: [33, 34],
    31: [33, 34],
    32: [33, 34],
    33: [34],
}
edges = torch.tensor([(i - 1, j - 1) for i, friends in FRIENDS.items() for j in friends])
n = 34
print(f"{n} members, {len(edges)} friendships")


# %%
# The rank is a function of the weights of the friendships. Its eigenvalue is exactly 1, and the first component of
# what follows from it is a probability distribution.
def pagerank(weights: torch.Tensor, damping: float = 0.85) -> torch.Tensor:
    """The stationary distribution of the surfer, from a weight for each friendship."""
    W = torch.zeros(n, n, dtype=weights.dtype).index_put((edges[:, 0], edges[:, 1]), weights)
    W = W + W.T
    G = damping * W / W.sum(0) + (1 - damping) / n
    eigenvalue, u = pmaf.dominant_pair(G)
    assert abs(eigenvalue.item() - 1) < 1e-12
    return u / u.sum()


weights = torch.ones(len(edges), dtype=torch.float64, requires_grad=True)
rank = pagerank(weights)
for member in rank.argsort(descending=True)[:5]:
    print(f"member {member + 1:2d}: {rank[member]:.4f}")

# %%
# Which friendship matters most for the instructor's rank? One backward pass tells for all of them. Doubling one weight
# confirms it.
(gradient,) = torch.autograd.grad(rank[0], weights)
best = int(gradient.argmax())
i, j = (int(v) + 1 for v in edges[best])
more = weights.detach().clone()
step = 1e-4
more[best] += step
measured = (pagerank(more)[0] - rank[0]).item() / step
print(f"most useful to the instructor: {i}–{j}, gradient {gradient[best]:.6f}, finite difference {measured:.6f}")

# %%
# The inverse problem: how strong must the friendships be for all members to rank alike, as far as the graph lets them?
# Weights are positive by their logarithm and fitted by gradient descent through the eigenvector.
logs = torch.zeros(len(edges), dtype=torch.float64, requires_grad=True)
optimiser = torch.optim.Adam([logs], lr=0.1)
spread = []
for _ in range(150):
    optimiser.zero_grad()
    fair = pagerank(logs.exp())
    loss = (n * fair - 1).square().mean()
    loss.backward()
    optimiser.step()
    spread.append(loss.item() ** 0.5)
print(f"relative spread of the ranks: {spread[0]:.3f} before, {spread[-1]:.3f} after")

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
members = torch.arange(1, n + 1)
left.bar(members - 0.2, rank.detach().numpy(), 0.4, label="equal friendships")
left.bar(members + 0.2, fair.detach().numpy(), 0.4, label="fitted friendships")
left.set(xlabel="member", ylabel="PageRank", title="Zachary's karate club")
left.legend()
right.semilogy(spread)
right.set(xlabel="step of Adam", ylabel="relative spread of the ranks", title="Learning through the eigenvector")
plt.show()

# %%
# Python's modules and torch's: an edge for each import statement, from the module that imports to the one it needs.
statement = re.compile(r"^[ \t]*(?:from[ \t]+([\w.]+)[ \t]+import|import[ \t]+([\w.]+))", re.MULTILINE)
roots = [Path(sysconfig.get_path("stdlib")), Path(torch.__file__).parents[1]]
files = {}
for root, pattern in ((roots[0], "**/*.py"), (roots[1], "torch/**/*.py")):
    for file in root.glob(pattern):
        parts = file.relative_to(root).with_suffix("").parts
        if not {"test", "tests", "idlelib", "site-packages", "dist-packages"} & set(parts):
            files[".".join(parts).removesuffix(".__init__")] = file
names = sorted(files)
index = {name: i for i, name in enumerate(names)}
links = set()
for name, file in files.items():
    for groups in statement.findall(file.read_text("utf-8", "ignore")):
        needed = index.get(groups[0] or groups[1])
        if needed is not None and needed != index[name]:
            links.add((needed, index[name]))
to, of = torch.tensor(sorted(links)).T
n = len(names)
imports = torch.bincount(of, minlength=n)
print(f"{n} modules, {len(links)} imports, {int((imports == 0).sum())} modules that import none of the others")


# %%
# A module without imports leads anywhere. G has n² entries, none of which is zero; this function needs one number for
# each import.
def google(weights: torch.Tensor, V: torch.Tensor, damping: float = 0.85) -> torch.Tensor:
    """G V: along the imports, or anywhere."""
    total = torch.zeros(n, dtype=weights.dtype).index_add(0, of, weights)
    along = torch.zeros_like(V).index_add(0, to, (weights / total[of])[:, None] * V[of])
    lost = V[imports == 0].sum(0)
    return damping * (along + lost / n) + (1 - damping) / n * V.sum(0)


weights = torch.ones(len(links), dtype=torch.float64, requires_grad=True)
eigenvalue, u = pmaf.dominant_pair(pmaf.MatVec(google, n, weights))
rank = u / u.sum()
print(f"eigenvalue {eigenvalue.item():.12f}")
for module in rank.argsort(descending=True)[:8]:
    print(f"{names[module]:24s} {rank[module]:.4f}")

# %%
# Which single import supports the standing of ``re`` most? One backward pass through 10⁷ entries that are never formed.
(gradient,) = torch.autograd.grad(rank[index["re"]], weights)
for edge in gradient.argsort(descending=True)[:3]:
    print(f"{names[of[edge]]} imports {names[to[edge]]}: {gradient[edge]:.2e}")
best = int(gradient.argmax())
more = weights.detach().clone()
more[best] += 1e-4
_, moved = pmaf.dominant_pair(pmaf.MatVec(google, n, more))
measured = ((moved / moved.sum())[index["re"]] - rank[index["re"]]).item() / 1e-4
print(f"gradient {gradient[best]:.6e}, finite difference {measured:.6e}")
