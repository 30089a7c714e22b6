"""One vector at a time: as sure of what repeats as a block, and far fewer numbers to move."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

import pmaf
from pmaf.linalg.lanczos import nothing_hidden
from pmaf.solvers.eigen import block_lanczos
from pmaf.solvers.eigen.one_at_a_time import one_at_a_time

N = 1200


def with_ends(*ends: float, dtype: torch.dtype = torch.float64) -> Tensor:
    """A sparse matrix with these largest eigenvalues and a bulk between −1 and 1, turned in pairs of coordinates."""
    values = torch.cat((torch.tensor(ends, dtype=dtype), torch.linspace(-1, 1, N - len(ends), dtype=dtype)))
    values = values[torch.randperm(N, generator=torch.Generator().manual_seed(0))]
    c, s = 0.6, 0.8
    a, b = values[0::2], values[1::2]
    i = torch.arange(0, N, 2)
    rows, columns = torch.cat((i, i + 1, i, i + 1)), torch.cat((i, i + 1, i + 1, i))
    entries = torch.cat((c * c * a + s * s * b, s * s * a + c * c * b, c * s * (a - b), c * s * (a - b)))
    return torch.sparse_coo_tensor(torch.stack((rows, columns)), entries, (N, N), check_invariants=False).coalesce()


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """What each search with one vector at a time came to."""
    outcome: list[bool] = []

    def watched(*args: object) -> object:
        found = one_at_a_time(*args)  # type: ignore[arg-type]
        outcome.append(bool(found.finished))
        return found

    monkeypatch.setattr(block_lanczos, "one_at_a_time", watched)
    return outcome


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex128])
def test_simple_values_are_found_without_a_block(largest: bool, dtype: torch.dtype, blocks: list[bool]) -> None:
    X = with_ends(3.0, 2.5, 2.0, 1.7).to(dtype) * (1 if largest else -1)
    found = pmaf.ied_ex(X, 3, largest=largest, solver="block_lanczos")
    expected = torch.tensor([3.0, 2.5, 2.0], dtype=dtype.to_real()) * (1 if largest else -1)
    assert blocks == [True]
    assert found.status == pmaf.Status.CONVERGED
    assert (found.eigenvalues - expected).abs().max() < 100 * torch.finfo(dtype).eps
    assert abs(float(found.gap) - 0.3) < 0.05


@pytest.mark.parametrize("ends", [(3.0, 3.0, 2.0, 1.7), (3.0, 2.0, 2.0, 1.7), (3.0, 2.0, 1.7, 1.7, 1.7), (3.0,) * 4])
def test_what_repeats_is_found_as_by_a_block(ends: tuple[float, ...]) -> None:
    k = 3
    found = pmaf.ied_ex(with_ends(*ends), k, solver="block_lanczos")
    assert (found.eigenvalues - torch.tensor(ends[:k], dtype=torch.float64)).abs().max() < 1e-12
    repeats = any(a == b for a, b in pairwise(ends[: k + 1]))
    assert (found.status == pmaf.Status.NOT_UNIQUE) == repeats


def test_a_start_that_is_an_unwanted_eigenvector_is_no_trap() -> None:
    X = with_ends(3.0, 2.5, 2.0)
    unwanted = pmaf.ied(X, 3).eigenvectors[:, 2:]
    assert (pmaf.ied(X, 1, start=unwanted).eigenvalues - 3).abs() < 1e-12


def test_nothing_is_hidden_or_something_is() -> None:
    d = torch.cat((torch.tensor([2.0, 2.0], dtype=torch.float64), torch.linspace(-1, 1, 998, dtype=torch.float64)))
    random = torch.randn(1000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    units = torch.eye(1000, 2, dtype=torch.float64)
    assert not nothing_hidden(lambda V: d[:, None] * V, units[:, :1], 1.99, random, 200)[0]
    sure, steps = nothing_hidden(lambda V: d[:, None] * V, units, 1.99, random, 200)
    assert sure
    assert steps < 50
    assert not nothing_hidden(lambda V: d[:, None] * V, units, 1.99, random, 3)[0]  # too few to be sure


def test_not_finite_is_reported() -> None:
    X = with_ends(3.0, 2.0)
    X.values()[7] = torch.nan
    assert pmaf.ied_ex(X, 2).status == pmaf.Status.NON_FINITE
