"""Encodings of the nodes of many graphs as a module."""

from __future__ import annotations

from torch import Tensor, nn

from pmaf.checks.values import POLICIES, check_choice, check_flags, check_integer
from pmaf.layers.graphs import LaplacianEncodings, laplacian_encoding
from pmaf.nn.configuration import non_default

__all__ = ["LaplacianEncoding"]


class LaplacianEncoding(nn.Module):
    r"""Positional encodings of the nodes of many graphs: the smallest eigenvectors of each graph's Laplacian.

    .. math:: L = D - W \quad\text{or}\quad L = I - D^{-1/2} W D^{-1/2}

    The graphs come as one, nodes in a row and the number of the graph of each, as PyTorch Geometric batches them.
    Graphs of the same order are solved together; those of more than 256 nodes as sparse matrices. The first vector,
    which is constant on a connected graph (in proportion to the roots of the degrees where L is normalised), is left
    out.
    Gradients reach the weights. Signs are decided as in :func:`pmaf.ied`, the same for the same graph every time.

    Where eigenvalues of a graph repeat, as those of symmetric molecules do, its ``status`` is NOT_UNIQUE: the encodings
    are then one of several bases of the same spaces.

    Args:
        k: how many vectors.
        normalised: whether by degrees.
        degenerate: what becomes of a gradient that is not determined: ``"drop"`` it and warn, ``"nan"`` or ``"raise"``.

    Example:
        >>> import torch, pmaf
        >>> edges = torch.tensor([[0, 1, 1, 2, 3, 4], [1, 0, 2, 1, 4, 3]])  # a path of three nodes, and one of two
        >>> found = pmaf.nn.LaplacianEncoding(1)(edges, torch.tensor([0, 0, 0, 1, 1]))
        >>> found.eigenvalues.round(decimals=4)
        tensor([[1.],
                [2.]])
        >>> found.encodings.shape
        torch.Size([5, 1])
    """

    def __init__(self, k: int, *, normalised: bool = True, degenerate: str = "drop") -> None:
        super().__init__()
        self.k = check_integer("nn.LaplacianEncoding", "k", k)
        check_flags("nn.LaplacianEncoding", normalised=normalised)
        check_choice("nn.LaplacianEncoding", "degenerate", degenerate, POLICIES)
        self.normalised, self.degenerate = normalised, degenerate

    def forward(
        self, edge_index: Tensor, batch: Tensor | None = None, weights: Tensor | None = None, nodes: int | None = None
    ) -> LaplacianEncodings:
        """Encodings ``(N, k)``, eigenvalues ``(G, k)`` and a status for each graph.

        Args:
            edge_index: the ends of the edges, each edge in both directions, ``(2, E)``.
            batch: the number of the graph of each node, ascending, ``(N,)``; a single graph if not given.
            weights: of the edges, the same in both directions, ``(E,)``; one if not given.
            nodes: how many nodes there are, where ``batch`` is not given and the last ones have no edge.

        Returns:
            The named triple. Of a graph of n ≤ k nodes only n − 1 vectors are there; the others are zero, their
            eigenvalues NaN.
        """
        return laplacian_encoding(
            "nn.LaplacianEncoding", edge_index, batch, weights, nodes, self.k, self.normalised, self.degenerate
        )

    def extra_repr(self) -> str:
        """The configuration."""
        return non_default(k=(self.k, None), normalised=(self.normalised, True), degenerate=(self.degenerate, "drop"))
