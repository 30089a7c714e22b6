"""Forward mode over forward mode, where torch itself takes the inner derivative of a custom Function as zero."""

from __future__ import annotations

import pytest
import torch

import pmaf
from cases import layer, randn, separated, sym

CASES = ("less, all arguments", "sphere_quadratic", "ied, k = 3", "ied(Gram)", "principal_projector")


@pytest.mark.parametrize("name", CASES)
def test_third_derivatives_in_every_order(name):
    case = layer(name)
    x, *rest = case.inputs(torch.float64)
    direction = randn(*x.shape, seed=41)

    weight = randn(*case.call(x, *rest).shape, seed=42)

    def function(t):
        return (weight * case.call(x + t * direction, *rest)).sum()

    zero = torch.zeros((), dtype=torch.float64)
    forward, reverse = torch.func.jacfwd, torch.func.grad
    truth = reverse(reverse(reverse(function)))(zero)
    assert float(truth.abs()) > 1e-6
    for outer in (forward, reverse):
        for middle in (forward, reverse):
            for inner in (forward, reverse):
                torch.testing.assert_close(outer(middle(inner(function)))(zero), truth, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("name", CASES)
def test_without_vmap(name):
    case = layer(name)
    x, *rest = case.inputs(torch.float64)
    direction = randn(*x.shape, seed=41)
    second = lambda x: torch.func.jvp(  # noqa: E731
        lambda y: torch.func.jvp(lambda z: case.call(z, *rest), (y,), (direction,))[1], (x,), (direction,)
    )[1]
    step = 1e-4
    values = [case.call(x + t * direction, *rest) for t in (-step, 0, step)]
    difference = (values[0] - 2 * values[1] + values[2]) / step**2
    torch.testing.assert_close(second(x), difference, rtol=1e-4, atol=1e-4 * float(difference.abs().max()))


@pytest.mark.parametrize("dtype", [torch.complex128], ids=str)
def test_complex(dtype):
    X, E = separated(dtype), sym(randn(4, 4, seed=3, dtype=dtype))
    for call in (lambda X: pmaf.ied(X, 2).eigenvectors, lambda X: pmaf.principal_projector(X, 2)):
        weight = randn(*call(X).shape, seed=5, dtype=dtype)
        function = lambda t: (weight.conj() * call(X + t * E)).real.sum()  # noqa: B023, E731
        zero = torch.zeros((), dtype=torch.float64)
        truth = torch.func.grad(torch.func.grad(function))(zero)
        torch.testing.assert_close(torch.func.jacfwd(torch.func.jacfwd(function))(zero), truth)


def test_an_item_without_an_answer_spoils_no_other():
    X = separated(torch.float64, 3)
    X[1, 0, 0] = torch.nan
    function = lambda t: pmaf.ied_ex(X + t * torch.ones(4, 4), 1).eigenvalues[:, 0]  # noqa: E731
    found = torch.func.jacfwd(torch.func.jacfwd(function))(torch.zeros((), dtype=torch.float64))
    assert found[::2].isfinite().all()
    assert (found[::2] != 0).all()


def test_reverse_mode_outside_of_functorch_is_refused():
    x = torch.zeros((), dtype=torch.float64, requires_grad=True)
    X = separated(torch.float64)
    function = lambda t: pmaf.ied(X * (1 + t), 1).eigenvalues.sum()  # noqa: E731
    with pytest.raises(RuntimeError, match=r"require a gradient outside of torch\.func"):
        torch.func.jacfwd(torch.func.jacfwd(function))(x)


@pytest.mark.parametrize("call", ["less", "ied"])
def test_operators_known_by_their_products_are_refused(call):
    def function(d):
        X = pmaf.MatVec(lambda d, V: d[:, None] * V, 300, d)
        return (pmaf.less(X, 3 * randn(300)) if call == "less" else pmaf.ied(X, 1).eigenvectors).sum()

    d = torch.linspace(1, 2, 300, dtype=torch.float64)
    with pytest.raises(RuntimeError, match="forward mode over forward mode"):
        torch.func.jvp(lambda d: torch.func.jvp(function, (d,), (d,))[1], (d,), (d,))


def test_other_backward_modes_are_refused():
    X, mode = separated(torch.float64), pmaf.DenseJacobian()
    function = lambda t: pmaf.ied(X * (1 + t), 1, backward=mode).eigenvectors.sum()  # noqa: E731
    with pytest.raises(RuntimeError, match="forward mode over forward mode"):
        torch.func.jacfwd(torch.func.jacfwd(function))(torch.zeros((), dtype=torch.float64))


def test_forward_mode_twice_keeps_the_policy():
    X = torch.diag(torch.tensor([2.0, 2, 1], dtype=torch.float64))
    f = lambda t: pmaf.ied_ex(X + t * X.roll(1, 0), 1, degenerate="nan").eigenvectors.square().sum()  # noqa: E731
    assert bool(torch.func.jacfwd(torch.func.jacfwd(f))(torch.zeros((), dtype=torch.float64)).isnan())
