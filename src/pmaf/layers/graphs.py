r"""Laplacian positional encodings of many graphs at once: nodes in a row, with the number of the graph of each.

Graphs of the same order are stacked and solved as one dense batch, which is what the kernels are made for; a graph that
is too large for that is solved as a sparse matrix. No graph is padded, so no answer depends on what it is batched with.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pmaf.checks.values import describe
from pmaf.layers.eigen import ied_ex
from pmaf.solution import IEDSolution

__all__ = ["LaplacianEncodings", "laplacian_encoding"]

DENSE = 256  # nodes up to which graphs are stacked


class LaplacianEncodings(NamedTuple):
    """Encodings of nodes, and what they belong to; where a graph has fewer nodes than it takes, zero and NaN."""

    encodings: Tensor  # (N, k) of each node
    eigenvalues: Tensor  # (G, k) of each graph
    status: Tensor  # (G,) of :class:`pmaf.Status`


class Batch(NamedTuple):
    """Many graphs as one."""

    edges: Tensor  # (2, E)
    graph: Tensor  # (N,) which one each node belongs to, ascending
    weights: Tensor  # (E,)
    start: Tensor  # (G,) the first node of each graph
    size: Tensor  # (G,) how many nodes each has


def laplacian_encoding(
    function: str,
    edge_index: Tensor,
    batch: Tensor | None,
    weights: Tensor | None,
    nodes: int | None,
    k: int,
    normalised: bool,
    degenerate: str,
) -> LaplacianEncodings:
    """The k smallest nontrivial eigenvectors of each graph's Laplacian; the arguments are those of the module.

    Args:
        function: the public name, for messages.
        edge_index: the ends of the edges, each edge in both directions, ``(2, E)``.
        batch: the number of the graph of each node, ascending, ``(N,)``.
        weights: of the edges, ``(E,)``.
        nodes: how many nodes there are, where ``batch`` is not given.
        k: how many vectors.
        normalised: whether by degrees.
        degenerate: the policy for gradients of what is not unique.

    Returns:
        The encodings.
    """
    graphs = arranged(function, edge_index, batch, weights, nodes)
    own = graphs.graph[graphs.edges[0]]  # of each edge
    place = graphs.edges - graphs.start[own]
    dtype, total = graphs.weights.dtype, len(graphs.size)
    encodings = graphs.weights.new_zeros(len(graphs.graph), k)
    eigenvalues = graphs.weights.new_full((total, k), torch.nan)
    status = torch.zeros(total, dtype=torch.int64, device=graphs.size.device)
    for n in graphs.size.unique().tolist():
        wanted = min(k, n - 1)
        if wanted < 1:
            continue
        members = (graphs.size == n).nonzero()[:, 0]
        for chosen in members.split(1) if n > DENSE else (members,):
            rank = torch.full((total,), -1, device=members.device).index_copy(
                0, chosen, torch.arange(len(chosen), device=members.device)
            )
            mine = (rank[own] >= 0).nonzero()[:, 0]
            where = torch.stack((rank[own[mine]], *place[:, mine]))
            found = smallest(where, graphs.weights[mine], len(chosen), n, wanted + 1, normalised, degenerate)
            at = (graphs.start[chosen, None] + torch.arange(n, device=chosen.device)).flatten()
            vectors = found.eigenvectors[..., 1:].reshape(-1, wanted)
            encodings = encodings.index_copy(0, at, torch.nn.functional.pad(vectors, (0, k - wanted)).to(dtype))
            values = found.eigenvalues[..., 1:].reshape(-1, wanted)
            eigenvalues = eigenvalues.index_copy(
                0, chosen, torch.nn.functional.pad(values, (0, k - wanted), value=torch.nan).to(dtype)
            )
            status = status.index_copy(0, chosen, found.status.reshape(-1))
    return LaplacianEncodings(encodings, eigenvalues, status)


def smallest(
    where: Tensor, weights: Tensor, graphs: int, n: int, k: int, normalised: bool, degenerate: str
) -> IEDSolution:
    """The k smallest pairs of the Laplacians of graphs of one order, stacked, or of a single one as a sparse matrix.

    Args:
        where: graph, row and column of each edge, ``(3, e)``.
        weights: of the edges, ``(e,)``.
        graphs: how many.
        n: nodes of each.
        k: how many pairs.
        normalised: whether by degrees.
        degenerate: the policy for gradients of what is not unique.

    Returns:
        The pairs.
    """
    graph, row, column = where
    degree = weights.new_zeros(graphs, n).index_put((graph, row), weights, accumulate=True)
    there = degree > 0
    if normalised:
        root = torch.where(there, degree, 1).rsqrt()
        weights, degree = weights * root[graph, row] * root[graph, column], there.to(weights.dtype)
    if n <= DENSE:
        L = degree.diag_embed().index_put((graph, row, column), -weights, accumulate=True)
        return ied_ex(L, k, largest=False, degenerate=degenerate)
    diagonal = torch.arange(n, device=row.device)
    indices = torch.stack((torch.cat((row, diagonal)), torch.cat((column, diagonal))))
    X = torch.sparse_coo_tensor(indices, torch.cat((-weights, degree[0])), (n, n), check_invariants=False)
    return ied_ex(X.coalesce(), k, largest=False, degenerate=degenerate)


def arranged(
    function: str, edge_index: Tensor, batch: Tensor | None, weights: Tensor | None, nodes: int | None
) -> Batch:
    """The graphs, once what is given is known to be some.

    Raises:
        TypeError: if the edges or the batch are no tensors of integers, or the weights none of real numbers.
        ValueError: if shapes do not fit, nodes are not in order, or an edge leads from one graph to another.
    """
    for name, x in (("edge_index", edge_index), ("batch", batch)):
        if x is not None and not (isinstance(x, Tensor) and x.dtype in (torch.int64, torch.int32)):
            raise TypeError(f"pmaf.{function}: {name} must be a tensor of integers, got {describe(x)}")
    if edge_index.dim() != 2 or edge_index.shape[0] != 2:
        raise ValueError(f"pmaf.{function}: edge_index must have the shape (2, E), got {describe(edge_index)}")
    if batch is None:
        known = int(edge_index.max()) + 1 if edge_index.numel() else 0
        batch = torch.zeros(known if nodes is None else nodes, dtype=torch.int64, device=edge_index.device)
    elif batch.dim() != 1 or bool((batch.diff() < 0).any()) or (len(batch) > 0 and int(batch[0]) < 0):
        raise ValueError(
            f"pmaf.{function}: batch must be the number of the graph of each node, ascending, of the shape (N,), got "
            f"{describe(batch)}; sort the nodes by graph"
        )
    edges, graph = edge_index.long(), batch.long()
    if edges.numel() and (int(edges.min()) < 0 or int(edges.max()) >= len(graph)):
        raise ValueError(
            f"pmaf.{function}: edge_index must name nodes from 0 to {len(graph) - 1}, as many as batch has, got "
            f"{int(edges.min())} to {int(edges.max())}"
        )
    leaves = graph[edges[0]] != graph[edges[1]]
    if bool(leaves.any()):
        raise ValueError(
            f"pmaf.{function}: an edge must stay within its graph, but edge {int(leaves.nonzero()[0])} leads from "
            f"node {edges[:, leaves][0, 0]} to node {edges[:, leaves][1, 0]} of another"
        )
    w = torch.ones(edges.shape[1], device=edges.device) if weights is None else weights
    if not isinstance(w, Tensor) or not w.is_floating_point():
        raise TypeError(f"pmaf.{function}: weights must be a tensor of real numbers, got {describe(w)}")
    if w.shape != edges.shape[1:]:
        raise ValueError(
            f"pmaf.{function}: weights must have the shape ({edges.shape[1]},), one for each edge, got {describe(w)}"
        )
    size = torch.bincount(graph)
    return Batch(edges, graph, w, size.cumsum(0) - size, size)
