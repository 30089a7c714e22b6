"""Sparse matrices in a sparse metric, and next to a number: values, vectors and gradients of the dense problem."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import pmaf
from pmaf.operators.convert import as_operator

pytest.importorskip("scipy")

REAL = torch.float64
N = 130
I = torch.arange(N)  # noqa: E741
CHAIN = torch.stack((torch.cat((I, I[:-1], I[1:])), torch.cat((I, I[1:], I[:-1]))))


def chain(diagonal: Tensor, beside: Tensor) -> Tensor:
    """A symmetric tridiagonal matrix."""
    values = torch.cat((diagonal, beside, beside))
    return torch.sparse_coo_tensor(CHAIN, values, (N, N), check_invariants=False).coalesce()


def drawn(seed: int, dtype: torch.dtype = REAL) -> Tensor:
    return torch.rand(N, dtype=REAL, generator=torch.Generator().manual_seed(seed)).to(dtype)


def stiffness(dtype: torch.dtype = REAL) -> Tensor:
    k = 1 + drawn(0)
    return chain(k + torch.cat((k[1:], k[:1])), -k[1:]).to(dtype)


def mass(dtype: torch.dtype = REAL) -> Tensor:
    return chain(0.7 + drawn(1), 0.1 * drawn(2)[1:]).to(dtype)


def dense(X: Tensor, B: Tensor | None, k: int, **how: object) -> tuple[Tensor, Tensor]:
    return pmaf.ied(X.to_dense(), k, metric=None if B is None else B.to_dense(), **how)  # type: ignore[arg-type]


HOW = [{"largest": False}, {"largest": True}, {"near": 1.3}]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("k", [1, 3])
def test_pairs_and_gradients_are_those_of_the_dense_problem(how: dict[str, object], k: int) -> None:
    results = []
    for sparse in (True, False):
        X, B = stiffness().requires_grad_(), mass().requires_grad_()
        values, U = pmaf.ied(X, k, metric=B, **how) if sparse else dense(X, B, k, **how)  # type: ignore[arg-type]
        if sparse:
            image = B.detach() @ U.detach()
            assert (U.detach().mT @ image - torch.eye(k, dtype=REAL)).abs().max() < 1e-12
        total = values.sum() + (U**4).sum()
        gradients = torch.autograd.grad(total, (X, B))
        results.append((values.detach(), *(g.coalesce().values() for g in gradients)))
    for ours, exact in zip(*results, strict=True):
        assert (ours - exact).abs().max() < 1e-8 * exact.abs().max()


@pytest.mark.parametrize("near", [1.3, -5.0, 40.0, "value"])
def test_without_a_metric_the_nearest_are_found(near: float | str) -> None:
    X = stiffness()
    s = torch.linalg.eigvalsh(X.to_dense())
    at = float(s[40]) if isinstance(near, str) else near
    found = pmaf.ied_ex(X, 4, near=at)
    assert (found.eigenvalues - s[(s - at).abs().argsort()[:4]]).abs().max() < 1e-11
    assert found.status == pmaf.Status.CONVERGED
    distance = (s - at).abs().sort().values
    assert abs(float(found.gap - (distance[4] - distance[3]))) < 1e-2 * float(distance[4])


def test_derivatives_by_differences() -> None:
    units = torch.stack((drawn(3), drawn(4)))

    def pairs(t: Tensor) -> Tensor:
        X = stiffness()
        values = X.values() * (1 + 0.1 * t[0] * torch.cos(X.indices().sum(0).double()))
        X = torch.sparse_coo_tensor(X.indices(), values, X.shape, is_coalesced=True, check_invariants=False)
        B = chain(1 + 0.1 * t @ units, 0.1 * drawn(2)[1:])
        found = pmaf.ied(X, 2, metric=B, largest=False)
        return torch.stack((found.eigenvalues.sum(), found.eigenvectors.pow(4).sum()))

    t = torch.tensor([0.3, -0.2], dtype=REAL, requires_grad=True)
    assert gradcheck(pairs, t)


def test_second_derivatives_by_differences() -> None:
    X = as_operator(stiffness())
    change = torch.stack([chain(drawn(s), drawn(s + 1)[1:]).values() for s in (3, 5)])

    def pairs(t: Tensor) -> Tensor:
        found = pmaf.ied(X.with_tensors((X.tensors[0] + 0.1 * t @ change,)), 2, metric=mass(), near=0.9)
        return torch.stack((found.eigenvalues.sum(), found.eigenvectors.pow(4).sum()))

    assert gradgradcheck(pairs, torch.tensor([0.3, -0.2], dtype=REAL, requires_grad=True))


def test_repeated_values_are_found_and_reported() -> None:
    ones = torch.ones(N, dtype=REAL)
    X = chain(torch.cat((2 * ones[:5], torch.linspace(3, 9, N - 5, dtype=REAL))), 0 * ones[1:])
    found = pmaf.ied_ex(X, 3, metric=chain(2 * ones, 0 * ones[1:]), largest=False)
    assert (found.eigenvalues - 1).abs().max() < 1e-12
    assert found.status == pmaf.Status.NOT_UNIQUE
    found = pmaf.ied_ex(X, 2, near=2.0)  # singular at σ
    assert (found.eigenvalues - 2).abs().max() < 1e-12
    assert found.status == pmaf.Status.NOT_UNIQUE


def test_single_precision_and_complex() -> None:
    narrow = pmaf.ied(stiffness(torch.float32), 2, metric=mass(torch.float32), largest=False)
    wide = pmaf.ied(stiffness(torch.float32).double(), 2, metric=mass(torch.float32).double(), largest=False)
    assert narrow.eigenvalues.dtype == torch.float32
    assert (narrow.eigenvalues - wide.eigenvalues).abs().max() < 1e-6
    turn = torch.polar(torch.ones(N, dtype=REAL), drawn(6) * 3)
    X = torch.sparse_coo_tensor(CHAIN, torch.zeros(3 * N - 2, dtype=REAL), (N, N), check_invariants=False).coalesce()
    rows, columns = X.indices()
    values = stiffness().values() * turn[rows] * turn[columns].conj()
    X = torch.sparse_coo_tensor(X.indices(), values, (N, N), is_coalesced=True, check_invariants=False)
    assert (pmaf.ied(X, 3, near=1.3).eigenvalues - pmaf.ied(stiffness(), 3, near=1.3).eigenvalues).abs().max() < 1e-11


def test_a_metric_that_is_none_is_reported() -> None:
    bad = mass()
    bad.values()[0] = -1.0
    assert pmaf.ied_ex(stiffness(), 2, metric=bad).status == pmaf.Status.NOT_DEFINITE
    bad.values()[0] = torch.nan
    found = pmaf.ied_ex(stiffness(), 2, metric=bad)
    assert found.status == pmaf.Status.NON_FINITE
    assert found.eigenvalues.isnan().all()


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"metric": torch.eye(N, dtype=REAL)}, TypeError, "both sparse, or both dense"),
        ({"metric": mass().float()}, TypeError, "share one dtype"),
        ({"near": 1.0, "largest": False}, ValueError, "exclude each other"),
        ({"near": 1.0, "backward": pmaf.Unrolled()}, ValueError, "use Implicit"),
        ({"near": 1.0, "solver": "block_lanczos"}, ValueError, "shift_invert"),
    ],
)
def test_what_does_not_go_together(arguments: dict[str, object], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        pmaf.ied(stiffness(), 2, **arguments)  # type: ignore[arg-type]


def test_small_matrices_and_all_of_their_pairs() -> None:
    X = torch.diag(torch.tensor([5.0, 3.0, 1.0, -1.0, -4.0], dtype=REAL)).to_sparse()
    assert (pmaf.ied(X, 3, near=1.0).eigenvalues - torch.tensor([1.0, 3.0, -1.0], dtype=REAL)).abs().max() < 1e-12
    B = (2 * torch.eye(5, dtype=REAL)).to_sparse()
    found = pmaf.ied_ex(X, 5, metric=B)
    assert (found.eigenvalues - torch.tensor([2.5, 1.5, 0.5, -0.5, -2.0], dtype=REAL)).abs().max() < 1e-12
    assert found.gap == torch.inf
