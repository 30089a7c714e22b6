"""Selected eigenvalues that repeat: exact derivatives of what does not see the basis, a warning for what does."""

from __future__ import annotations

import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pmaf
from cases import orthogonal, randn
from pmaf import DegeneracyWarning

SOLVERS = (None, "eigh", "cholesky_inverse_iteration", "block_lanczos")
TURN = torch.tensor([[0.0, 1, 2], [-1, 0, 3], [-2, -3, 0]], dtype=torch.float64)
WEIGHT = torch.diag(torch.tensor([1.0, 2, 4], dtype=torch.float64))
SHEAR = torch.tensor([[0.0, 1, 0], [1, 0, 0], [0, 0, 0]], dtype=torch.float64)


def turned(t):
    Q = torch.matrix_exp(t * TURN)
    X = (Q * torch.tensor([2.0, 2, 1], dtype=t.dtype)) @ Q.mT
    return (X + X.mT) / 2


def of_the_plane(t, solver=None):
    U = pmaf.ied_ex(turned(t), 2, solver=solver).eigenvectors
    return (WEIGHT * (U @ U.mT)).sum()


def twice(f, t):
    t = t.clone().requires_grad_()
    (first,) = torch.autograd.grad(f(t), t, create_graph=True)
    return torch.autograd.grad(first, t)[0]


WAYS = {
    "reverse twice": twice,
    "hessian": lambda f, t: torch.func.hessian(f)(t),
    "grad of grad": lambda f, t: torch.func.grad(torch.func.grad(f))(t),
    "reverse over forward": lambda f, t: torch.func.jacrev(torch.func.jacfwd(f))(t),
    "forward over forward": lambda f, t: torch.func.jacfwd(torch.func.jacfwd(f))(t),
}
NAMED = r"pmaf\.spectral_function"


@pytest.mark.parametrize("way", WAYS)
def test_second_derivative_of_a_rotating_plane(way):
    """No warning fits: nothing is left out."""
    value = WAYS[way](of_the_plane, torch.tensor(0.3, dtype=torch.float64))
    assert float(value) == pytest.approx(-30.04708845000339, rel=1e-11)


@pytest.mark.parametrize("solver", SOLVERS)
def test_third_derivative_agrees_with_the_projector(solver):
    t = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    values = []
    for f in (
        lambda t: of_the_plane(t, solver),
        lambda t: (WEIGHT * pmaf.principal_projector(turned(t), 2)).sum(),
    ):
        (first,) = torch.autograd.grad(f(t), t, create_graph=True)
        (second,) = torch.autograd.grad(first, t, create_graph=True)
        values.append(torch.stack((first, second, torch.autograd.grad(second, t)[0])).detach())
    torch.testing.assert_close(values[0], values[1], rtol=1e-9, atol=0)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**31),
    spectrum=st.lists(st.sampled_from((3.0, 2.0, 1.0)), min_size=2, max_size=3).map(lambda s: (*s, -1.0, -2.0)),
    dtype=st.sampled_from((torch.float64, torch.complex128)),
    solver=st.sampled_from(SOLVERS),
)
def test_hessians_of_projectors_of_blocks(seed, spectrum, dtype, solver):
    """Σ f(block) of the projectors onto each eigenspace: what eigenvectors have in common with principal_projector."""
    spectrum = tuple(sorted(spectrum, reverse=True))
    k, n = len(spectrum) - 2, len(spectrum)
    torch.manual_seed(seed)
    Q = orthogonal(n, seed=seed, dtype=dtype)
    X = (Q * torch.tensor(spectrum, dtype=dtype)) @ Q.mH
    E, C = (M + M.mH for M in (randn(n, n, seed=seed + 1, dtype=dtype), randn(n, n, seed=seed + 2, dtype=dtype)))
    ends = [i + 1 for i in range(k) if spectrum[i + 1] < spectrum[i]]

    def quantity(P):
        return (C.conj() * P).real.sum()

    def ours(t):
        U = pmaf.ied_ex(X + t * E, k, solver=solver).eigenvectors
        return sum(quantity(U[:, :end] @ U[:, :end].mH) for end in ends)

    def theirs(t):
        return sum(quantity(pmaf.principal_projector(X + t * E, end)) for end in ends)

    t = torch.zeros((), dtype=torch.float64)
    for derivative in (torch.func.grad, lambda f: torch.func.grad(torch.func.grad(f))):
        torch.testing.assert_close(derivative(ours)(t), derivative(theirs)(t), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("transform", ["plain", "grad", "vmap"])
def test_values_and_vectors_together_warn(transform):
    """The square root of 2I through its pairs: the off-diagonal part, ½·2^−½, is not in the cotangents."""

    def loss(X):
        values, U = pmaf.ied_ex(X, 2)[:2]
        return ((U * values.sqrt()) @ U.mT).sum()

    X = 2 * torch.eye(2, dtype=torch.float64)
    calls = {
        "plain": lambda: loss(X.requires_grad_()).backward(),
        "grad": lambda: torch.func.grad(loss)(X),
        "vmap": lambda: torch.func.vmap(torch.func.grad(loss))(torch.stack((X, X))),
    }
    with pytest.warns(DegeneracyWarning, match=NAMED):
        calls[transform]()


@pytest.mark.parametrize("way", ["reverse twice", "hessian", "grad of grad"])
def test_second_derivatives_of_values_warn(way):
    def loss(t):
        return (pmaf.ied_ex(2 * torch.eye(3, dtype=t.dtype) + t * SHEAR, 3).eigenvalues ** 2).sum()

    with pytest.warns(DegeneracyWarning, match=NAMED):
        WAYS[way](loss, torch.zeros((), dtype=torch.float64))


def test_a_loss_of_the_basis_warns():
    X = torch.eye(3, dtype=torch.float64).requires_grad_()
    with pytest.warns(DegeneracyWarning, match=NAMED):
        (randn(3, 2) * pmaf.ied_ex(X, 2).eigenvectors).sum().backward()


@pytest.mark.parametrize("way", ["reverse twice", "hessian", "grad of grad"])
def test_nothing_is_said_where_nothing_is_missing(way):
    X = 2 * torch.eye(3, dtype=torch.float64)
    E = randn(3, 3, seed=1)
    zero = torch.zeros((), dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DegeneracyWarning)
        torch.func.grad(lambda X: pmaf.ied_ex(X, 3).eigenvalues.square().sum())(X)
        # by eigh, whose vectors of a multiple of the identity are exact: nothing tells a cotangent of rounding from one
        WAYS[way](lambda t: pmaf.ied_ex(X + t * (E + E.mT), 3, solver="eigh").eigenvalues.sum() + t**2, zero)
        WAYS[way](lambda t: pmaf.ied_ex(turned(t), 3, degenerate="nan").eigenvalues.square().sum(), zero + 0.3)
