"""What is known by its factor, its entries or its products is never made a full matrix, forward or backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import pmaf
from cases import randn, rng

N = 400


class LargestTensor(TorchDispatchMode):
    """Sees what every operation returns, those of the backward pass included."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        outputs = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(outputs):
            if isinstance(leaf, Tensor):
                entries = leaf.numel() if leaf.layout == torch.strided else leaf._nnz()
                self.numel = max(self.numel, entries)
        return outputs


def gram(**options: Any) -> tuple[Tensor, Callable[[Tensor], Any]]:
    F = randn(30, N) * torch.linspace(0.5, 3, 30, dtype=torch.float64)[:, None]
    return F, lambda F: pmaf.ied(pmaf.Gram(F), 3, **options)


def sparse(**options: Any) -> tuple[Tensor, Callable[[Tensor], Any]]:
    ends = torch.randint(N, (2, 3 * N), generator=rng(1))
    both = torch.cat((ends, ends.flip(0)), 1)
    values = torch.rand(3 * N, generator=rng(2), dtype=torch.float64).repeat(2)
    X = torch.sparse_coo_tensor(both, values, (N, N), check_invariants=False).coalesce()
    return X, lambda X: pmaf.ied(X, 3, **options)


def function(**options: Any) -> tuple[Tensor, Callable[[Tensor], Any]]:
    d = torch.linspace(0, 1, N, dtype=torch.float64) ** 2
    v = torch.ones(N, 1, dtype=torch.float64) / N**0.5
    return d, lambda d: pmaf.ied(pmaf.MatVec(lambda d, V: d[:, None] * V + v @ (v.mT @ V), N, d), 3, **options)


def general(**options: Any) -> tuple[Tensor, Callable[[Tensor], Any]]:
    X, _ = sparse()
    values = X.values() * torch.linspace(1, 2, X._nnz())
    step = torch.sparse_coo_tensor(X.indices(), values, X.shape, is_coalesced=True, check_invariants=False)
    return step, lambda X: pmaf.dominant_pair(X, **options)


@pytest.mark.parametrize(
    ("problem", "options"),
    [
        (gram, {}),
        (gram, {"solver": "block_lanczos"}),
        (gram, {"backward": pmaf.Unrolled(), "solver": "eigh"}),
        (sparse, {}),
        (sparse, {"largest": False}),
        (sparse, {"solver": "simultaneous_iteration"}),
        (function, {}),
        (function, {"backward": pmaf.Unrolled()}),
        (general, {}),
        (general, {"backward": pmaf.Unrolled()}),
    ],
    ids=lambda value: value.__name__ if callable(value) else str(value),
)
def test_no_full_matrix_appears(problem: Callable[..., Any], options: dict[str, Any]) -> None:
    leaf, solve = problem(**options)
    leaf = leaf.detach().requires_grad_()
    with LargestTensor() as seen:
        values, U = solve(leaf)
        (gradient,) = torch.autograd.grad((U**4).sum() + values.sum(), leaf)
    assert gradient.shape == leaf.shape
    assert N < seen.numel < N * N // 2


def test_the_instrument_sees_full_matrices_of_the_backward_pass() -> None:
    F, _ = gram()
    F.requires_grad_()
    with LargestTensor() as seen:
        U = pmaf.ied(pmaf.Gram(F), 1, backward=pmaf.FixedPoint()).eigenvectors  # a mode that needs the full matrix
        assert seen.numel >= N * N
        seen.numel = 0
        U.sum().backward()
    assert seen.numel >= N * N
