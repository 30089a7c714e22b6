"""Gram matrices with weights: everywhere a factor goes, with gradients that hold where a weight is zero."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

import pmaf
from cases import pair, randn, rng, sym

FUNCTIONS = {
    "ied": lambda X: pair(*pmaf.ied(X, 2)),
    "ied, smallest": lambda X: pair(*pmaf.ied(X, 1, largest=False)),
    "ied, block_lanczos": lambda X: pair(*pmaf.ied(X, 2, solver="block_lanczos")),
    "ied, cholesky": lambda X: pair(*pmaf.ied(X, 2, solver="cholesky_inverse_iteration")),
    "ied, unrolled": lambda X: pair(*pmaf.ied(X, 1, solver="eigh", backward=pmaf.Unrolled())),
    "ied, dense Jacobian": lambda X: pair(*pmaf.ied(X, 1, backward=pmaf.DenseJacobian())),
    "projector": lambda X: pmaf.principal_projector(X, 2),
    "function": lambda X: pmaf.spectral_function(X, "exp"),
    "function of two": lambda X: pmaf.spectral_function(X, "sqrt", 2),
}


def data(*batch, m=7, n=4, dtype=torch.float64):
    weights = torch.rand(*batch, m, generator=rng(3), dtype=torch.float64) + 0.2
    weights[..., 1] = 0
    return randn(*batch, m, n, seed=2, dtype=dtype), weights.to(dtype.to_real())


def dense(F, w):
    return sym(F.mH @ (w[..., None] * F))


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_values_and_gradients_are_those_of_the_matrix(name, dtype):
    if dtype.is_complex and name in ("ied, dense Jacobian",):
        pytest.skip("for real dtypes")
    function = FUNCTIONS[name]
    F, w = (x.requires_grad_() for x in data(2, dtype=dtype))
    ours, truth = function(pmaf.Gram(F, weights=w)), function(dense(F, w))
    torch.testing.assert_close(ours.abs(), truth.abs(), rtol=1e-8, atol=1e-8)
    loss = lambda Y: (Y.abs().square() * randn(*Y.shape, seed=4)).sum()  # noqa: E731
    for a, b in zip(*(torch.autograd.grad(loss(Y), (F, w)) for Y in (ours, truth)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-7)


def test_the_gradient_of_a_weight_that_is_zero():
    """Of the largest eigenvalue: |F u|² of that row, which the root of the weight would not let through."""
    F, w = data()
    w.requires_grad_()
    values, U = pmaf.ied(pmaf.Gram(F, weights=w), 1)
    (gradient,) = torch.autograd.grad(values.sum(), w)
    torch.testing.assert_close(gradient, (F @ U.detach())[:, 0].square())
    assert float(gradient[1]) > 0


@pytest.mark.parametrize("size", [(7, 4), (3, 5)])
def test_derivatives_by_finite_differences(size):
    F, w = data(m=size[0], n=size[1])
    w = w + 0.3  # differences need room on both sides
    inputs = (F.requires_grad_(), w.requires_grad_())

    def function(F, w):
        return pair(*pmaf.ied(pmaf.Gram(F, weights=w), 2))

    assert gradcheck(function, inputs, check_forward_ad=True, fast_mode=True)
    assert gradgradcheck(function, inputs, fast_mode=True)


def test_transforms_and_broadcasting():
    F, w = data(3)
    function = lambda F, w: pmaf.ied(pmaf.Gram(F, weights=w), 1).eigenvalues[..., 0]  # noqa: E731
    truth = function(F, w)
    torch.testing.assert_close(torch.func.vmap(function)(F, w), truth)
    torch.testing.assert_close(torch.func.vmap(function, in_dims=(None, 0))(F[0], w), function(F[0], w))
    torch.testing.assert_close(function(F, w[0]), torch.stack([function(f, w[0]) for f in F]))
    shared = w[0].clone().requires_grad_()
    (ours,) = torch.autograd.grad(function(F, shared).sum(), shared)
    torch.testing.assert_close(ours, sum(torch.func.grad(function, argnums=1)(f, w[0]) for f in F))
    one, hessians = F[0], [torch.func.hessian, lambda f: torch.func.jacfwd(torch.func.jacfwd(f))]
    first, second = (h(lambda w: function(one, w))(w[0]) for h in hessians)
    torch.testing.assert_close(first, second)


def test_half_precision_and_extreme_scales():
    F, w = data()
    truth = pmaf.ied(pmaf.Gram(F, weights=w), 1).eigenvalues
    half = pmaf.ied(pmaf.Gram(F.half(), weights=w.half()), 1).eigenvalues
    torch.testing.assert_close(half, truth.half(), rtol=1e-2, atol=1e-2)
    single = pmaf.ied(pmaf.Gram(F.float() * 1e15, weights=w.float()), 1)
    torch.testing.assert_close(single.eigenvalues.double() / 1e30, truth, rtol=1e-4, atol=1e-4)


def test_compiled_as_one_graph():
    F, w = (x.requires_grad_() for x in data())
    function = lambda F, w: pmaf.ied_ex(pmaf.Gram(F, weights=w), 1).eigenvalues.sum()  # noqa: E731
    value = torch.compile(function, backend="aot_eager", fullgraph=True)(F, w)
    for a, b in zip(*(torch.autograd.grad(v, (F, w)) for v in (value, function(F, w))), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        (torch.ones(3), ValueError, "weights must have size 4"),
        (torch.ones(4, dtype=torch.complex64), TypeError, "weights must be real"),
        (torch.ones(4, dtype=torch.float64), TypeError, "must share one dtype"),
        (-torch.ones(4), ValueError, r"weights of pmaf\.Gram must be non-negative"),
        ([1.0], TypeError, "weights must be a torch.Tensor"),
    ],
)
def test_refusals(weights, error, message):
    with pytest.raises(error, match=message):
        pmaf.ied(pmaf.Gram(torch.ones(4, 2), weights=weights))
