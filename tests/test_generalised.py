"""X u = λ B u, and the pairs nearest to a number."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import scipy.linalg
import torch

import pmaf
from cases import WORKING, eps, orthogonal, pair, randn, sym, symmetric
from pmaf import Status
from pmaf.kernels import available
from pmaf.layers import direct_generalised


def metric(*batch, n, seed=5, dtype=torch.float64):
    F = randn(*batch, n + 3, n, seed=seed, dtype=dtype)
    return F.mH @ F / n


def layer(k, **options):
    return lambda X, B: pair(*pmaf.ied(sym(X), k, metric=sym(B), **options))


@pytest.mark.parametrize("dtype", WORKING, ids=str)
@pytest.mark.parametrize("options", [{}, {"largest": False}, {"near": 0.3}], ids=str)
def test_the_answer_is_that_of_scipy(dtype, options):
    X, B = symmetric(3, n=7, dtype=dtype), metric(3, n=7, dtype=dtype)
    found = pmaf.ied_ex(X, 3, metric=B, **options)
    assert bool((found.status == Status.CONVERGED).all())
    for i in range(3):
        s = scipy.linalg.eigh(X[i].numpy(), B[i].numpy(), eigvals_only=True)
        order = np.argsort(abs(s - options["near"])) if "near" in options else np.arange(7)
        wanted = s[order[:3]] if options else s[::-1][:3]
        assert np.allclose(found.eigenvalues[i], wanted, rtol=300 * eps(dtype), atol=300 * eps(dtype))
        left = s[order[3:]] if options else s[::-1][3:]
        gap = abs(wanted[:, None] - left).min()
        assert abs(float(found.gap[i]) - gap) < 1000 * eps(dtype)
    U = found.eigenvectors
    torch.testing.assert_close(U.mH @ B @ U, torch.eye(3, dtype=dtype).expand(3, 3, 3), rtol=0, atol=300 * eps(dtype))
    assert float(found.residual.max()) < 30 * eps(dtype)
    inner = U.sum(-2)
    assert bool((inner.real >= 0).all())
    assert float((inner - inner.abs()).abs().max()) < 100 * eps(dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize("n", [3, 6])
@pytest.mark.parametrize(("k", "options"), [(1, {}), (2, {"largest": False}), (2, {"near": 0.3})], ids=str)
def test_derivatives_reach_both_matrices(dtype, n, k, options):
    inputs = symmetric(n=n, dtype=dtype).requires_grad_(), metric(n=n, dtype=dtype).requires_grad_()
    function = layer(k, **options)
    checks = {"check_forward_ad": True, "check_batched_grad": True}
    assert torch.autograd.gradcheck(function, inputs, **checks)
    assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)


def test_the_gradient_is_that_through_cholesky():
    X, B = symmetric(4, n=9).requires_grad_(), metric(4, n=9).requires_grad_()
    found = pmaf.ied(X, 2, metric=B)
    weight = randn(9, 2, seed=3)
    ours = torch.autograd.grad((found.eigenvectors * weight).sum().square() + found.eigenvalues.sum(), (X, B))
    L = torch.linalg.cholesky(B)
    Y = torch.linalg.solve_triangular(L, torch.linalg.solve_triangular(L, X, upper=False).mT, upper=False)
    s, V = torch.linalg.eigh(Y)
    U = torch.linalg.solve_triangular(L.mT, V[..., -2:].flip(-1), upper=True)
    U = U * torch.ones_like(U.sum(-2, keepdim=True)).copysign(U.detach().sum(-2, keepdim=True))
    truth = torch.autograd.grad((U * weight).sum().square() + s[..., -2:].sum(), (X, B))
    for g, t in zip(ours, truth, strict=True):
        assert torch.equal(g, g.mT)
        torch.testing.assert_close(g, sym(t), rtol=1e-9, atol=1e-9)


def test_one_metric_serves_a_batch_and_one_matrix_many_metrics():
    X, B = symmetric(2, 3, n=5), metric(3, n=5)
    whole = pmaf.ied(X, 2, metric=B)
    torch.testing.assert_close(whole.eigenvalues[1, 2], pmaf.ied(X[1, 2], 2, metric=B[2]).eigenvalues)
    X, B = X[0, 0].requires_grad_(), B.requires_grad_()
    (shared,) = torch.autograd.grad(pmaf.ied(X, 1, metric=B).eigenvectors.sum(), X)
    apart = sum(torch.autograd.grad(pmaf.ied(X, 1, metric=b).eigenvectors.sum(), X)[0] for b in B)
    torch.testing.assert_close(shared, apart)


def test_gram_matrices_on_either_side():
    F, G = randn(6, 4).requires_grad_(), randn(7, 4, seed=2).requires_grad_()
    ours = pmaf.ied(pmaf.Gram(F), 1, metric=pmaf.Gram(G))
    torch.testing.assert_close(ours.eigenvalues, pmaf.ied(F.mT @ F, 1, metric=G.mT @ G).eigenvalues)
    assert torch.autograd.gradcheck(lambda F, G: pair(*pmaf.ied(pmaf.Gram(F), 1, metric=pmaf.Gram(G))), (F, G))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_bad_scaling_of_the_diagonal_costs_nothing(dtype):
    n = 6
    X, B = symmetric(n=n, dtype=dtype), metric(n=n, dtype=dtype)
    d = torch.logspace(0, -6, n, dtype=torch.float64).log2().round().exp2().to(dtype)  # condition 1e12, no rounding
    plain = pmaf.ied(X, 2, metric=B)
    scaled = pmaf.ied_ex(d[:, None] * X * d, 2, metric=d[:, None] * B * d)
    torch.testing.assert_close(scaled.eigenvalues, plain.eigenvalues, rtol=30 * eps(dtype), atol=30 * eps(dtype))
    back = d[:, None] * scaled.eigenvectors
    back = back * (back * plain.eigenvectors).sum(-2).sign()
    torch.testing.assert_close(back, plain.eigenvectors, rtol=0, atol=300 * eps(dtype))


def test_an_item_whose_metric_is_not_definite_spoils_no_other():
    X, B = symmetric(6, n=4), metric(6, n=4)
    B[1] = -B[1]
    B[2] = torch.ones(4, 4)
    B[3, 2, 2] = torch.nan
    B[4] = randn(4, 2) @ randn(4, 2).mT
    X.requires_grad_()
    B.requires_grad_()
    found = pmaf.ied_ex(X, 2, metric=B)
    bad, nan = int(Status.NOT_DEFINITE), int(Status.NON_FINITE)
    assert found.status.tolist() == [0, bad, bad, nan, bad, 0]
    assert bool(found.eigenvalues[1:5].isnan().all())
    assert bool(found.eigenvectors[1:5].isnan().all())
    alone = pmaf.ied(X[0], 2, metric=B[0])
    torch.testing.assert_close(found.eigenvalues[0], alone.eigenvalues)
    grads = torch.autograd.grad(found.eigenvalues.nansum() + found.eigenvectors.nan_to_num().sum(), (X, B))
    for g in grads:
        assert bool(g.isfinite().all())
        assert not bool(g[1:5].any())
        assert bool(g[0].any())
    with pytest.raises(pmaf.ConvergenceError, match=r"item \(1,\) ended with NOT_DEFINITE"):
        pmaf.ied(X[:3], 2, metric=B[:3])


def test_the_error_names_the_first_item_without_an_answer():
    X, B = torch.eye(2).expand(4, 2, 2), torch.eye(2).repeat(4, 1, 1)
    B[1], B[2, 0, 1] = -B[1], torch.nan
    with pytest.raises(pmaf.ConvergenceError, match=r"item \(1,\) ended with NOT_DEFINITE \(1 of 4 items\)"):
        pmaf.ied(X, 1, metric=B)


def test_what_the_metric_has_swallowed_is_not_said_to_be_an_answer():
    """Of values 10¹⁷ times smaller than another one nothing is left in double precision."""
    X = torch.tensor([[1.0, 2, 1], [2, 3, 1], [1, 1, -2]], dtype=torch.float64)
    B = torch.diag(torch.tensor([1.0, 1, 1e-17], dtype=torch.float64))
    found = pmaf.ied_ex(X, 1, metric=B)
    lost = bool(found.residual > 1e-3)  # which is for the processor's rounding to say
    assert (found.status == pmaf.Status.MAX_STEPS) == lost
    with pytest.raises(pmaf.ConvergenceError) if lost else contextlib.nullcontext():
        pmaf.ied(X, 1, metric=B)
    assert pmaf.ied(X, 1, largest=False, metric=B).eigenvalues.item() == pytest.approx(-2e17)


@pytest.mark.parametrize("shape", [(0, 0), (2, 0, 0), (0, 3, 3)])
def test_a_metric_of_size_zero(shape):
    X = torch.zeros(shape, requires_grad=True)
    k = shape[-1] - 1 if shape[-1] else 0
    values, U = pmaf.ied(X, k, metric=X)
    assert (values.shape, U.shape) == ((*shape[:-2], k), (*shape[:-1], k))
    assert torch.autograd.grad(U.sum() + values.sum(), X)[0].shape == shape


def test_repeated_pairs_in_the_metric():
    B = metric(n=5)
    L = torch.linalg.cholesky(B)
    Q = orthogonal(5)
    X = L @ (Q * torch.tensor([2.0, 2.0, 1.0, 1.0, -1.0], dtype=torch.float64)) @ Q.mT @ L.mT
    X, B = sym(X).requires_grad_(), B.requires_grad_()
    with pytest.warns(pmaf.DegeneracyWarning):
        found = pmaf.ied(X, 2, metric=B)
    U = found.eigenvectors
    # U Uᴴ of the whole block does not see the basis: compare with differences
    weight = symmetric(n=5, seed=9)
    grads = torch.autograd.grad((U @ U.mT * weight).sum(), (X, B))
    directions = symmetric(n=5, seed=11), symmetric(n=5, seed=12)
    slope = sum((g * d).sum() for g, d in zip(grads, directions, strict=True))

    def value(t):
        with torch.no_grad():
            U = pmaf.ied_ex(X + t * directions[0], 2, metric=B + t * directions[1]).eigenvectors
        return (U @ U.mT * weight).sum()

    torch.testing.assert_close(slope, (value(1e-5) - value(-1e-5)) / 2e-5, rtol=1e-6, atol=1e-6)


def test_half_precision_and_complex_kinds():
    X, B = symmetric(n=4, dtype=torch.float32), metric(n=4, dtype=torch.float32)
    found = pmaf.ied(X.half(), 1, metric=B.half())
    assert found.eigenvectors.dtype == torch.float16
    torch.testing.assert_close(found.eigenvalues.float(), pmaf.ied(X, 1, metric=B).eigenvalues, rtol=2e-2, atol=2e-2)


def test_refusals():
    X, B = symmetric(n=4), metric(n=4)
    with pytest.raises(TypeError, match="metric must be a tensor"):
        pmaf.ied(X, 1, metric=2.0)
    with pytest.raises(ValueError, match="metric must have size 4"):
        pmaf.ied(X, 1, metric=metric(n=3))
    with pytest.raises(ValueError, match="metric must be symmetric"):
        pmaf.ied(X, 1, metric=B + torch.triu(torch.ones(4, 4, dtype=B.dtype)))
    with pytest.raises(TypeError, match="share one dtype"):
        pmaf.ied(X, 1, metric=B.float())
    with pytest.raises(TypeError, match="metric must be dense"):
        pmaf.ied(X, 1, metric=B.to_sparse_coo())
    with pytest.raises(TypeError, match="both sparse, or both dense"):
        pmaf.ied(X.to_sparse_coo(), 1, metric=B)
    with pytest.raises(ValueError, match="does not apply to generalised eigenpairs"):
        pmaf.ied(X, 1, metric=B, backward=pmaf.DenseJacobian())
    with pytest.raises(ValueError, match="near must be finite"):
        pmaf.ied(X, 1, near=float("inf"))
    with pytest.raises(ValueError, match="exclude each other"):
        pmaf.ied(X, 1, near=0.0, largest=False)
    with pytest.raises(ValueError, match="finds all pairs"):
        pmaf.ied(X, 1, near=0.0, solver="power_iteration")


def test_near_a_number():
    s = torch.tensor([5.0, 3.0, 1.0, -1.0, -4.0], dtype=torch.float64)
    Q = orthogonal(5)
    X = sym((Q * s) @ Q.mT)
    found = pmaf.ied_ex(X, 3, near=1.0)  # an eigenvalue; 3 and −1 are equally far
    torch.testing.assert_close(found.eigenvalues, torch.tensor([1.0, 3.0, -1.0], dtype=torch.float64))
    torch.testing.assert_close(found.gap, torch.tensor(2.0, dtype=torch.float64))
    torch.testing.assert_close(pmaf.ied(X, 1, near=2.0).eigenvalues, torch.tensor([3.0], dtype=torch.float64))
    assert float(pmaf.ied_ex(X, 5, near=0.0).gap) == float("inf")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_near_in_a_crowd(dtype):
    """Neighbours closer than what counts as repeated do not make one crowd of which any member will do."""
    n, step = 40, 15 * torch.finfo(dtype).eps
    values = 1 + step * torch.cat((torch.arange(n - 5), -torch.arange(1, 6)))
    found = pmaf.ied_ex(torch.diag(values.to(dtype)), 3, near=1.0)
    distances = (found.eigenvalues - 1).abs().sort().values / step
    torch.testing.assert_close(distances, torch.zeros(3, dtype=dtype), rtol=0, atol=6)  # to rounding


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_derivatives_near_a_number(dtype):
    X = symmetric(n=5, dtype=dtype).requires_grad_()
    function = lambda X: pair(*pmaf.ied(sym(X), 3, near=0.1))  # noqa: E731
    assert torch.autograd.gradcheck(function, X, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(function, X, fast_mode=True)
    F = randn(4, 5, dtype=dtype).requires_grad_()
    assert torch.autograd.gradcheck(lambda F: pair(*pmaf.ied(pmaf.Gram(F), 2, near=2.0)), F)


def test_unwanted_repeats_never_matter_near_a_number():
    Q = orthogonal(5)
    X = sym((Q * torch.tensor([4.0, 4.0, 1.0, -2.0, -2.0], dtype=torch.float64)) @ Q.mT).requires_grad_()
    found = pmaf.ied_ex(X, 1, near=0.9)
    assert int(found.status) == Status.CONVERGED
    (g,) = torch.autograd.grad(found.eigenvectors.sum(), X)
    assert bool(g.isfinite().all())
    assert bool(g.any())


@pytest.mark.skipif(not available(), reason="the short way needs compiled kernels")
@pytest.mark.parametrize("dtype", WORKING, ids=str)
@pytest.mark.parametrize(("batch", "n", "k"), [((3,), 5, 1), ((2, 3), 9, 2), ((), 4, 4), ((17,), 33, 1)])
@pytest.mark.parametrize("largest", [True, False])
def test_the_short_way_agrees_with_the_general_path(monkeypatch, batch, n, k, largest, dtype):
    X, B = symmetric(*batch, n=n, dtype=dtype), metric(*batch, n=n, dtype=dtype)
    weight, results = randn(n, k, seed=3, dtype=dtype), []
    for short in (True, False):
        leaves = X.clone().requires_grad_(), B.clone().requires_grad_()
        with monkeypatch.context() as patch:
            patch.setattr(direct_generalised, "available", lambda short=short: short)
            found = pmaf.ied_ex(leaves[0], k, metric=leaves[1], largest=largest)
        loss = (found.eigenvectors * weight).sum().abs().square() + found.eigenvalues.square().sum()
        results.append(((*(x.detach() for x in found),), torch.autograd.grad(loss, leaves)))
    (ours, own), (theirs, expected) = results
    unit = 1e4 * eps(dtype)
    for x, y in zip(ours, theirs, strict=True):
        torch.testing.assert_close(x, y, rtol=unit, atol=unit)
    for g, h in zip(own, expected, strict=True):
        assert torch.equal(g, g.mH)
        assert float((g - h).norm() / h.norm()) < 10 * unit
