"""Least squares and quadratics on the sphere from products alone, against the same problem with a dense matrix."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

import pmaf
from cases import randn

M, N = 9, 5


def product(A, V):
    return A @ V


def problem(dtype):
    A, b = randn(M, N, dtype=dtype, seed=1), randn(M, dtype=dtype, seed=2)
    return A.requires_grad_(), b.requires_grad_(), torch.tensor(1.3, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_a_function_gives_the_answer_and_gradient_of_its_matrix(dtype):
    A, b, r = problem(dtype)
    ours = pmaf.less_ex(pmaf.MatVec(product, N, A), b, radius=r)
    truth = pmaf.less_ex(A, b, radius=r)
    assert int(ours.status) == pmaf.Status.CONVERGED
    torch.testing.assert_close(ours.u, truth.u)
    torch.testing.assert_close(ours.multiplier, truth.multiplier)
    torch.testing.assert_close(ours.gap, truth.gap, rtol=0.1, atol=0)  # of the smallest Ritz value, from above
    weight = randn(N, dtype=dtype, seed=3)
    for solution in (ours, truth):
        (solution.u.conj() * weight).real.sum().backward(inputs=(A, b, r), retain_graph=True)
    (first, second) = (
        torch.autograd.grad((s.u.conj() * weight).real.sum() + s.multiplier, (A, b, r)) for s in (ours, truth)
    )
    torch.testing.assert_close(first, second)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_derivatives_of_both_orders_and_modes(dtype):
    A, b, r = problem(dtype)
    H, g = randn(N, N, dtype=dtype, seed=4).requires_grad_(), randn(N, dtype=dtype, seed=5).requires_grad_()

    def least_squares(A, b, r):
        return pmaf.less_ex(pmaf.MatVec(product, N, A), b, radius=r)[:2]

    def quadratic(H, g, r):
        return pmaf.sphere_quadratic_ex(pmaf.MatVec(lambda H, V: (H + H.mH) @ V, N, H), g, radius=r)[:2]

    for function, inputs in ((least_squares, (A, b, r)), (quadratic, (H, g, r))):
        assert gradcheck(function, inputs, check_forward_ad=True, fast_mode=True)
        assert gradgradcheck(function, inputs, check_fwd_over_rev=True, fast_mode=True)


@pytest.mark.filterwarnings("ignore:Sparse:UserWarning")
@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
def test_a_sparse_matrix_keeps_its_layout_in_the_gradient(layout):
    dense = torch.where(randn(60, 20, seed=6) > 0.8, randn(60, 20, seed=7), 0)
    b = randn(60, seed=8)
    A = (dense.to_sparse_coo() if layout == torch.sparse_coo else dense.to_sparse_csr()).requires_grad_()
    D = dense.clone().requires_grad_()
    u = pmaf.less(A, b)
    torch.testing.assert_close(u, pmaf.less(D, b))
    u[:3].sum().backward()
    pmaf.less(D, b)[:3].sum().backward()
    assert A.grad.layout == layout
    torch.testing.assert_close(A.grad.to_dense(), torch.where(dense != 0, D.grad, 0))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    dense = torch.where(randn(60, 20, seed=6) > 0.8, randn(60, 20, seed=7), 0).to(dtype)
    b = randn(60, seed=8).to(dtype)
    d = torch.linspace(1, 2, 60).to(dtype)
    for A, same in (
        (dense.to_sparse_coo(), dense),
        (dense.to_sparse_csr(), dense),
        (pmaf.MatVec(lambda d, V: d[:, None] * V, 60, d), d.diag()),
    ):
        solution = pmaf.less_ex(A, b)
        assert solution.u.dtype == dtype
        assert {solution.multiplier.dtype, solution.gap.dtype} == {pmaf.less_ex(same, b).gap.dtype} == {torch.float32}
        torch.testing.assert_close(solution.u, pmaf.less(same, b))


def test_indices_among_the_parameters_are_passed_on():
    """A graph's Laplacian from its edges and their weights: the edges are integers and carry no gradient."""
    edges = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])
    weights = torch.tensor([1.0, 2.0, 3.0, 5.0], dtype=torch.float64, requires_grad=True)

    def laplacian(edges, weights, V):
        difference = weights[:, None] * (V[edges[0]] - V[edges[1]])
        return torch.zeros_like(V).index_add(0, edges[0], difference).index_add(0, edges[1], -difference)

    X = pmaf.MatVec(laplacian, 4, (edges, weights))
    assert X.dtype == torch.float64
    (values, _) = pmaf.ied(X, 1)
    (gradient,) = torch.autograd.grad(values.sum(), weights)
    dense = laplacian(edges, weights, torch.eye(4, dtype=torch.float64))
    (expected,) = torch.autograd.grad(torch.linalg.eigvalsh(dense)[-1], weights)
    torch.testing.assert_close(gradient, expected)
    shifted = pmaf.MatVec(lambda edges, weights, V: V + laplacian(edges, weights, V), 4, (edges, weights))
    u = pmaf.less(shifted, torch.arange(4).double())
    assert torch.autograd.grad(u[0], weights)[0].isfinite().all()


def test_a_million_rows_are_never_multiplied_out():
    """AᵀA of this problem would hold 10¹⁰ entries."""
    n = 100_000
    d = torch.linspace(1, 2, n, dtype=torch.float64)
    solution = pmaf.less_ex(pmaf.MatVec(lambda d, V: d[:, None] * V, n, d), torch.ones(n, dtype=torch.float64))
    assert int(solution.status) == pmaf.Status.CONVERGED
    u, multiplier = solution.u, solution.multiplier
    torch.testing.assert_close((d * d + multiplier) * u, d, rtol=1e-9, atol=1e-9)


def test_what_does_not_go_with_an_operator_is_refused():
    A = pmaf.MatVec(product, N, randn(M, N))
    with pytest.raises(ValueError, match=r"weights needs a dense A"):
        pmaf.less(A, randn(M), weights=torch.ones(M, dtype=torch.float64))
    with pytest.raises(ValueError, match="constraint='ball' needs a dense A"):
        pmaf.less(A, randn(M), constraint="ball")
    with pytest.raises(ValueError, match="solver must be 'krylov_trust_region'"):
        pmaf.less(A, randn(M), solver="secular")
    with pytest.raises(ValueError, match="no batch dimensions"):
        pmaf.less(A, randn(2, M))
    with pytest.raises(TypeError, match="must share one dtype"):
        pmaf.less(A, randn(M).float())


def test_too_few_steps_are_reported():
    d = torch.logspace(-4, 0, 400, dtype=torch.float64)
    A = pmaf.MatVec(lambda d, V: d[:, None] * V, 400, d)
    solution = pmaf.less_ex(A, randn(400), solver=pmaf.solvers.KrylovTrustRegion(max_steps=3))
    assert int(solution.status) == pmaf.Status.MAX_STEPS
    with pytest.raises(pmaf.ConvergenceError, match="MAX_STEPS"):
        pmaf.less(A, randn(400), solver=pmaf.solvers.KrylovTrustRegion(max_steps=3))


@pytest.mark.parametrize("layer", ["less", "ied"])
def test_batched_cotangents_are_refused_in_words(layer):
    d = torch.linspace(1, 2, 300, dtype=torch.float64, requires_grad=True)
    X = pmaf.MatVec(lambda d, V: d[:, None] * V, 300, d)
    u = pmaf.less(X, 3 * randn(300)) if layer == "less" else pmaf.ied(X, 1).eigenvectors[:, 0]
    with pytest.raises(RuntimeError, match=r"is_grads_batched=True\) and .* cannot look at values"):
        torch.autograd.grad(u, d, torch.eye(300, dtype=torch.float64)[:3], is_grads_batched=True)
