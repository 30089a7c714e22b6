"""Positional encodings of many graphs in one call."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import pmaf

REAL = torch.float64


def ring(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """A ring with a chord, both directions of each edge, and random weights."""
    i = torch.arange(n)
    a, b = torch.cat((i, i[:1])), torch.cat(((i + 1) % n, i[n // 2 : n // 2 + 1]))
    w = 0.5 + torch.rand(len(a), dtype=REAL, generator=torch.Generator().manual_seed(seed))
    return torch.cat((torch.stack((a, b)), torch.stack((b, a))), 1), w.repeat(2)


def together(sizes: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Rings as one graph."""
    parts = [ring(n, seed) for seed, n in enumerate(sizes)]
    starts = torch.tensor([0, *sizes]).cumsum(0).tolist()
    edges = torch.cat([e + s for (e, _), s in zip(parts, starts[:-1], strict=True)], 1)
    batch = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    return edges, batch, torch.cat([w for _, w in parts])


def dense(edges: Tensor, w: Tensor, n: int, normalised: bool) -> Tensor:
    W = torch.zeros(n, n, dtype=w.dtype).index_put((edges[0], edges[1]), w, accumulate=True)
    d = W.sum(0)
    return torch.eye(n, dtype=w.dtype) - W / (d[:, None] * d).sqrt() if normalised else d.diag() - W


@pytest.mark.parametrize("normalised", [True, False])
def test_each_graph_has_the_answer_it_has_alone(normalised: bool) -> None:
    sizes = [7, 12, 7, 300, 9, 12]
    edges, batch, w = together(sizes)
    found = pmaf.nn.LaplacianEncoding(3, normalised=normalised)(edges, batch, w)
    start = 0
    for g, n in enumerate(sizes):
        e, own = ring(n, g)
        values, U = pmaf.ied(dense(e, own, n, normalised), 4, largest=False)
        assert (found.eigenvalues[g] - values[1:]).abs().max() < 1e-9
        part = found.encodings[start : start + n]
        assert torch.linalg.vector_norm(part @ part.mT - U[:, 1:] @ U[:, 1:].mT) < 1e-8
        start += n
    assert not found.status.any()


def test_gradients_reach_the_weights() -> None:
    edges, batch, w = together([6, 8, 6])
    half = w.requires_grad_()
    found = pmaf.nn.LaplacianEncoding(2)(edges, batch, half)
    (gradient,) = torch.autograd.grad(found.encodings.pow(4).sum() + found.eigenvalues.sum(), half)
    direction = torch.cos(torch.minimum(*edges).double() * 3 + torch.maximum(*edges))  # the same both ways

    def total(t: float) -> Tensor:
        f = pmaf.nn.LaplacianEncoding(2)(edges, batch, half.detach() + t * direction)
        return f.encodings.pow(4).sum() + f.eigenvalues.sum()

    slope = (total(1e-5) - total(-1e-5)) / 2e-5
    assert abs(gradient @ direction - slope) < 1e-6 * abs(slope)


def test_graphs_that_are_too_small_are_filled_up() -> None:
    edges = torch.tensor([[0, 1, 3, 4, 4, 5], [1, 0, 4, 3, 5, 4]])
    found = pmaf.nn.LaplacianEncoding(2)(edges, torch.tensor([0, 0, 1, 2, 2, 2]))
    assert (found.encodings[:3, 1] == 0).all()
    assert (found.encodings[2] == 0).all()
    assert found.eigenvalues.isnan().tolist() == [[False, True], [True, True], [False, False]]


def test_a_symmetric_graph_is_not_unique() -> None:
    i = torch.arange(6)
    edges = torch.cat((torch.stack((i, (i + 1) % 6)), torch.stack(((i + 1) % 6, i))), 1)
    assert pmaf.nn.LaplacianEncoding(2)(edges).status.tolist() == [pmaf.Status.NOT_UNIQUE]


@pytest.mark.parametrize(
    ("edges", "batch", "weights", "error", "match"),
    [
        (torch.zeros(3, 2, dtype=torch.int64), None, None, ValueError, r"shape \(2, E\)"),
        (torch.zeros(2, 2), None, None, TypeError, "integers"),
        (torch.tensor([[0, 1], [1, 0]]), torch.tensor([1, 0]), None, ValueError, "ascending"),
        (torch.tensor([[0, 1], [1, 0]]), torch.tensor([0, 1]), None, ValueError, "within its graph"),
        (torch.tensor([[0, 5], [5, 0]]), torch.tensor([0, 0]), None, ValueError, "from 0 to 1"),
        (torch.tensor([[0, 1], [1, 0]]), torch.tensor([0, 0]), torch.ones(3), ValueError, "one for each edge"),
    ],
)
def test_what_is_no_batch_of_graphs(
    edges: Tensor, batch: Tensor | None, weights: Tensor | None, error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        pmaf.nn.LaplacianEncoding(1)(edges, batch, weights)


def test_it_prints_its_configuration() -> None:
    assert repr(pmaf.nn.LaplacianEncoding(4, normalised=False)) == "LaplacianEncoding(k=4, normalised=False)"
