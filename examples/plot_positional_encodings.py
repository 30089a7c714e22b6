r"""
Positional encodings for a batch of graphs
==========================================

A network that passes messages along edges cannot tell two graphs apart in which every node looks the same from close
by, such as graphs where all nodes have three neighbours. Positional encodings can: the smallest eigenvectors of the
Laplacian see how a graph hangs together (Dwivedi et al., *Benchmarking Graph Neural Networks*, JMLR 2023).
:class:`pmaf.nn.LaplacianEncoding` takes many graphs of different sizes in one call, as PyTorch Geometric batches them,
and its gradient reaches the weights of edges.

Half of the graphs here are random and 3-regular, the other half are two such graphs whose only connection is a pair of
exchanged edges.
"""

import matplotlib.pyplot as plt
import networkx as nx
import torch

import pmaf

torch.manual_seed(0)


def community(nodes: int, seed: int) -> nx.Graph:
    """Two 3-regular graphs, one edge of each exchanged for two edges between them."""
    left, right = (nx.random_regular_graph(3, nodes // 2, seed + i) for i in (0, 1))
    both = nx.disjoint_union(left, right)
    (a, b), (c, d) = next(iter(left.edges)), next(iter(right.edges))
    both.remove_edges_from([(a, b), (c + nodes // 2, d + nodes // 2)])
    both.add_edges_from([(a, c + nodes // 2), (b, d + nodes // 2)])
    return both


def batched(graphs: list[nx.Graph]) -> tuple[torch.Tensor, torch.Tensor]:
    """Both directions of all edges, and the number of the graph of each node."""
    size = torch.tensor([len(g) for g in graphs])
    starts = (size.cumsum(0) - size).tolist()
    edges = torch.cat([torch.tensor(list(g.edges)).T + s for g, s in zip(graphs, starts, strict=True)], 1)
    return torch.cat((edges, edges.flip(0)), 1), torch.repeat_interleave(torch.arange(len(graphs)), size)


sizes = torch.randint(6, 15, (200,)) * 4
graphs = [community(n, 2 * i) if i % 2 else nx.random_regular_graph(3, n, 2 * i) for i, n in enumerate(sizes.tolist())]
labels = (torch.arange(200) % 2).float()
edges, batch = batched(graphs)

# %%
# One call for all 200 graphs.
encode = pmaf.nn.LaplacianEncoding(4, normalised=True)
found = encode(edges, batch)
print(encode, found.encodings.shape, "unique:", int((found.status == pmaf.Status.CONVERGED).sum()), "of 200")


# %%
# The same small network twice, with the encodings and with degrees alone. Squares do not see the signs of eigenvectors;
# √n makes up for the size of a graph.
def message(h: torch.Tensor) -> torch.Tensor:
    """The mean over the neighbours, of which every node has three."""
    return torch.zeros_like(h).index_add(0, edges[1], h[edges[0]]) / 3


def trained(features: torch.Tensor) -> tuple[list[float], float]:
    """Losses, and the accuracy on the graphs that were held out."""
    first, second = torch.nn.Linear(features.shape[1], 32), torch.nn.Linear(32, 1)
    optimiser = torch.optim.Adam([*first.parameters(), *second.parameters()], lr=0.02)
    seen, losses = torch.arange(200) < 150, []
    for _ in range(150):
        hidden = torch.relu(first(features + message(features)))
        pooled = torch.zeros(200, 32).index_add(0, batch, hidden) / sizes[:, None]
        logits = second(pooled)[:, 0]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits[seen], labels[seen])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    right = ((logits > 0) == (labels > 0.5))[~seen]
    return losses, right.float().mean().item()


squares = found.encodings.square() * sizes[batch, None]
degrees = torch.full((len(batch), 1), 3.0)
with_encodings, without = trained(squares), trained(degrees)
print(f"held-out graphs that are told apart: {with_encodings[1]:.0%} with encodings, {without[1]:.0%} without")
assert with_encodings[1] > 0.9

# %%
# One graph of each kind, coloured by its first encoding, and what the networks learn. The width of an edge is how much
# its weight moves the second smallest eigenvalue of D − W: where the graph is easiest to cut.
weights = torch.ones(edges.shape[1], requires_grad=True)
plain = pmaf.nn.LaplacianEncoding(1, normalised=False)
(influence,) = torch.autograd.grad(plain(edges, batch, weights).eigenvalues.sum(), weights)
figure, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
for axis, g, title in ((axes[0], 0, "random"), (axes[1], 1, "two halves")):
    nodes = (batch == g).nonzero()[:, 0]
    place = nx.kamada_kawai_layout(graphs[g])
    mine, back = (batch[edges[0]] == g).nonzero()[:, 0].chunk(2)  # the same edges in both directions
    ends = [tuple((edges[:, e] - nodes[0]).tolist()) for e in mine]
    wide = influence[mine] + influence[back]  # (uᵢ − uⱼ)²
    nx.draw_networkx_edges(
        graphs[g], place, ends, ax=axis, width=(0.5 + 5 * wide / wide.max()).tolist(), edge_color="gray"
    )
    colour = found.encodings[nodes, 0].tolist()
    nx.draw_networkx_nodes(graphs[g], place, ax=axis, node_size=70, node_color=colour, cmap="coolwarm")
    axis.set_title(f"3-regular, {title}: λ₂ = {found.eigenvalues[g, 0]:.3f}")
    axis.axis("off")
axes[2].plot(with_encodings[0], label="with encodings")
axes[2].plot(without[0], label="without")
axes[2].set(xlabel="step", ylabel="loss", ylim=(0, None))
axes[2].legend()
plt.show()
