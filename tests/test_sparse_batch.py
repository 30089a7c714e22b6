"""Batches of sparse matrices: every item as it would be alone, gradients on the values."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor

import pmaf

REAL = torch.float64
K = 2


def path(n: int) -> tuple[Tensor, Tensor, Tensor]:
    """A path with a chord in compressed rows: starts, columns, and which entries stand on the diagonal."""
    A = torch.eye(n) + torch.eye(n).roll(1, 0).tril() + torch.eye(n).roll(1, 0).tril().T
    A[0, n - 1] = A[n - 1, 0] = 1
    rows, columns = A.nonzero().T
    starts = torch.nn.functional.pad(torch.bincount(rows, minlength=n).cumsum(0), (1, 0))
    return starts, columns, rows == columns


def rows_of(starts: Tensor) -> Tensor:
    return torch.repeat_interleave(torch.arange(len(starts) - 1), starts.diff())


def symmetric_values(n: int, *batch: int, seed: int = 0) -> Tensor:
    """Values of definite matrices on the pattern of :func:`path`, ``(*, e)``."""
    starts, columns, diagonal = path(n)
    rows = rows_of(starts)
    pair = torch.minimum(rows, columns) * n + torch.maximum(rows, columns)
    w = torch.rand(*batch, n * n, dtype=REAL, generator=torch.Generator().manual_seed(seed))
    return torch.where(diagonal, 4 + w[..., pair], -w[..., pair])


def compressed(values: Tensor, n: int, layout: torch.layout = torch.sparse_csr) -> Tensor:
    starts, columns, _ = path(n)
    batch = values.shape[:-1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the layout is in beta
        return torch.sparse_compressed_tensor(
            starts.expand(*batch, -1), columns.expand(*batch, -1), values, (*batch, n, n), layout=layout
        )


def dense(values: Tensor, n: int) -> Tensor:
    starts, columns, _ = path(n)
    matrices = [values.new_zeros(n, n).index_put((rows_of(starts), columns), v) for v in values]
    return torch.stack(matrices)


CASES = {
    "smallest": {"largest": False},
    "largest": {},
    "near": {"near": 4.3},
    "in a metric": {"largest": False, "metric": True},
}


@pytest.mark.parametrize("n", [8, 300])
@pytest.mark.parametrize("case", CASES)
def test_pairs_and_gradients_are_those_of_the_dense_batch(case: str, n: int) -> None:
    options = dict(CASES[case])
    values = symmetric_values(n, 3).requires_grad_()
    other = symmetric_values(n, 3, seed=1).requires_grad_()
    metric = options.pop("metric", None) is not None
    sparse = pmaf.ied_ex(compressed(values, n), K, **options, metric=compressed(other, n) if metric else None)
    plain = pmaf.ied_ex(dense(values, n), K, **options, metric=dense(other, n) if metric else None)
    assert sparse.status.tolist() == [0, 0, 0]
    assert sparse.residual.shape == sparse.gap.shape == sparse.steps.shape == (3,)
    torch.testing.assert_close(sparse.eigenvalues, plain.eigenvalues)
    torch.testing.assert_close(sparse.eigenvectors, plain.eigenvectors, atol=1e-7, rtol=0)
    if case == "near":  # of which the sparse way knows a bound
        assert bool((sparse.gap <= plain.gap * (1 + 1e-6)).all())
    else:
        torch.testing.assert_close(sparse.gap, plain.gap, atol=1e-6, rtol=1e-3)
    wrt = (values, other) if metric else (values,)
    gradients = [
        torch.autograd.grad(s.eigenvalues.sum() + s.eigenvectors[..., :20, :].pow(3).sum(), wrt)
        for s in (sparse, plain)
    ]
    for mine, theirs in zip(*gradients, strict=True):
        theirs = dense(theirs, n)
        theirs = ((theirs + theirs.mT) / 2)[:, rows_of(path(n)[0]), path(n)[1]]
        torch.testing.assert_close(mine, theirs, atol=1e-7, rtol=1e-6)


def test_derivatives_by_differences() -> None:
    n = 280
    weights = (1 + torch.rand(2, n - 1, dtype=REAL, generator=torch.Generator().manual_seed(2))).requires_grad_()
    i = torch.arange(n - 1)
    where = torch.stack((torch.cat((i, i + 1, i, i + 1)), torch.cat((i + 1, i, i, i + 1))))

    def smallest(w: Tensor) -> Tensor:
        entries = torch.cat((-w, -w, w, w), -1)
        items = [torch.sparse_coo_tensor(where, e, (n, n), check_invariants=False).coalesce() for e in entries]
        starts = torch.nn.functional.pad(torch.bincount(items[0].indices()[0]).cumsum(0), (1, 0))
        columns, values = items[0].indices()[1], torch.stack([x.values() for x in items])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            X = torch.sparse_csr_tensor(starts.expand(2, -1), columns.expand(2, -1), values, (2, n, n))
        solution = pmaf.ied_ex(X, 2, largest=False)
        return torch.cat((solution.eigenvalues, solution.eigenvectors[:, ::90, 1]), -1)

    assert torch.autograd.gradcheck(smallest, (weights,), eps=1e-5, atol=1e-5, rtol=1e-3, fast_mode=True)


@pytest.mark.parametrize("n", [8, 300])
def test_an_item_that_fails_spoils_no_other(n: int) -> None:
    values = symmetric_values(n, 2, 2)
    alone = pmaf.ied_ex(compressed(values[1, 0], n), K, largest=False)
    values[0, 1] = torch.nan
    values.requires_grad_()
    solution = pmaf.ied_ex(compressed(values, n), K, largest=False)
    assert solution.status.tolist() == [[0, int(pmaf.Status.NON_FINITE)], [0, 0]]
    torch.testing.assert_close(solution.eigenvalues[1, 0], alone.eigenvalues)
    torch.testing.assert_close(solution.eigenvectors[1, 0], alone.eigenvectors, atol=1e-7, rtol=0)
    (gradient,) = torch.autograd.grad(solution.eigenvectors[..., 0].pow(3).nansum(), values)
    assert bool(gradient.isfinite().all())
    assert not bool(gradient[0, 1].any())
    assert bool(gradient[1, 1].any())
    with pytest.raises(pmaf.ConvergenceError, match=r"\(0, 1\)"):
        pmaf.ied(compressed(values, n), K, largest=False)


@pytest.mark.parametrize("n", [6, 270])
def test_coordinates_may_differ_from_item_to_item(n: int) -> None:
    items = [torch.diag(torch.arange(n, dtype=REAL)), torch.diag(torch.arange(n, dtype=REAL) + 1)]
    items[1][0, 3] = items[1][3, 0] = 0.5
    X = torch.stack(items).to_sparse().requires_grad_()
    eigenvalues, _ = pmaf.ied(X, K)
    torch.testing.assert_close(eigenvalues, pmaf.ied(torch.stack(items), K).eigenvalues)
    eigenvalues.sum().backward()
    gradient = X.grad.coalesce()
    assert gradient.shape == X.shape
    assert gradient.indices().shape[0] == 3


def test_columns_starts_and_references() -> None:
    n = 300
    values = symmetric_values(n, 2)
    X = compressed(values, n, torch.sparse_csc)
    expected = pmaf.ied_ex(compressed(values, n), K, largest=False)
    other = pmaf.ied_ex(X, K, largest=False, reference=-torch.ones(n, dtype=REAL), solver="shift_invert")
    torch.testing.assert_close(other.eigenvalues, expected.eigenvalues)
    each = -expected.eigenvectors
    turned = pmaf.ied_ex(X, K, largest=False, reference=each, start=each, solver="shift_invert")
    torch.testing.assert_close(turned.eigenvectors, each, atol=1e-7, rtol=0)


def test_a_shared_metric_and_a_shared_matrix() -> None:
    n = 300
    values, other = symmetric_values(n, 2), symmetric_values(n, seed=3)
    many = pmaf.ied_ex(compressed(values, n), K, metric=compressed(other, n))
    one = pmaf.ied_ex(compressed(values[1], n), K, metric=compressed(other, n))
    torch.testing.assert_close(many.eigenvalues[1], one.eigenvalues)
    many = pmaf.ied_ex(compressed(other, n), K, metric=compressed(values, n))
    one = pmaf.ied_ex(compressed(other, n), K, metric=compressed(values[1], n))
    torch.testing.assert_close(many.eigenvalues[1], one.eigenvalues)


def test_an_empty_batch_and_no_pairs() -> None:
    values = symmetric_values(300, 2)[:0].requires_grad_()
    solution = pmaf.ied_ex(compressed(values, 300), K)
    assert solution.eigenvectors.shape == (0, 300, K)
    solution.eigenvalues.sum().backward()
    assert values.grad.shape == values.shape
    assert pmaf.ied(compressed(symmetric_values(300, 2), 300), 0).eigenvectors.shape == (2, 300, 0)


def test_what_is_no_batch() -> None:
    n = 8
    starts, columns, _ = path(n)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        short = torch.sparse_csr_tensor(starts, columns, symmetric_values(n, 2), (2, n, n), check_invariants=False)
    with pytest.raises(ValueError, match=r"indices of a batch .* need its dimensions, \(2,\), got \(9,\)"):
        pmaf.ied(short)
    with pytest.raises(ValueError, match="entries of a sparse X must be numbers"):
        pmaf.ied(torch.rand(3, 3, 2).to_sparse(2))
    with pytest.raises(ValueError, match="batch shapes must broadcast"):
        pmaf.ied(compressed(symmetric_values(n, 2), n), metric=compressed(symmetric_values(n, 3), n))
    with pytest.raises(TypeError, match="metric must be a sparse tensor"):
        pmaf.ied(compressed(symmetric_values(n, 2), n), metric=torch.eye(n, dtype=REAL))
    with pytest.raises(ValueError, match="batch shapes must broadcast"):
        pmaf.ied(compressed(symmetric_values(n, 2), n), start=torch.ones(3, n, 1, dtype=REAL))
