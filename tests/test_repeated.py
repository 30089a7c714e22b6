"""Selected eigenvalues that repeat: exact derivatives of what does not see the basis, a warning for what does."""

from __future__ import annotations

import itertools
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


def recorded(f):
    def first(t):
        t = t if t.requires_grad else t.clone().requires_grad_()
        return torch.autograd.grad(f(t), t, create_graph=True)[0]

    return first


ONCE = {
    "jacrev": torch.func.jacrev,
    "jacfwd": torch.func.jacfwd,
    "grad": torch.func.grad,
    "vjp": lambda f: lambda t: torch.func.vjp(f, t)[1](torch.ones_like(t))[0],
    "jvp": lambda f: lambda t: torch.func.jvp(f, (t,), (torch.ones_like(t),))[1],
    "autograd": recorded,
}
FORWARD = ("jacfwd", "jvp")
NESTED = [(o, i) for o, i in itertools.product(ONCE, ONCE) if not (o in FORWARD and i == "autograd")]
FACES = {
    "ied": lambda X: pmaf.ied_ex(X, 3)[:2],
    "eigh": lambda X: pmaf.ied_ex(X, 3, solver="eigh")[:2],
    "metric": lambda X: pmaf.ied_ex(X, 3, metric=torch.eye(3, dtype=X.dtype))[:2],
    "Gram": lambda X: pmaf.ied_ex(pmaf.Gram(X), 3)[:2],
    "near": lambda X: pmaf.ied_ex(X, 3, near=2.1)[:2],
    "svd": lambda X: (pmaf.svd_ex(X, 3).S, pmaf.svd_ex(X, 3).Vh.mT),
}
ZERO = torch.zeros((), dtype=torch.float64)


@pytest.mark.parametrize("face", FACES)
def test_second_derivatives_of_values_warn(face):
    """In every order of two derivatives: d²/dt² Σ f(λ) along a shear is in how the block moves off its diagonal."""

    def loss(t):
        return (FACES[face](2 * torch.eye(3, dtype=t.dtype) + t * SHEAR)[0] ** 2).sum()

    for outer, inner in NESTED:
        with pytest.warns(DegeneracyWarning, match=NAMED):
            ONCE[outer](ONCE[inner](loss))(ZERO)


@pytest.mark.parametrize("face", FACES)
def test_second_derivatives_of_what_does_not_see_the_basis_do_not_warn(face):
    """Traces, projectors, and blocks that stay multiples of the identity; forward mode twice cannot know the first."""
    E = randn(3, 3, seed=1)

    def twofold(t):
        return 2 * torch.eye(3, dtype=t.dtype) + t * (E + E.mT)

    def projector(U):
        return (WEIGHT * (U @ U.mT)).sum() + (WEIGHT * (U[:, :2] @ U[:, :2].mT)).sum()

    # f(t), its second derivative at zero for squares or not, and whether forward mode over forward mode is sure
    losses = (
        (lambda t: FACES[face](twofold(t))[0].sum() + t**2, None, False),
        (lambda t: (WEIGHT * (lambda U: U @ U.mT)(FACES[face](twofold(t))[1])).sum() + t**2, 2.0, False),
        (lambda t: (FACES[face](2 * torch.eye(3, dtype=t.dtype) * (1 + t))[0] ** 2).sum(), 24.0, True),
        (lambda t: projector(FACES[face](turned(t))[1]) + t**2, 62.0, True),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", DegeneracyWarning)
        for loss, right, sure in losses:
            right = 576.0 if face == "Gram" and right == 24.0 else right
            for outer, inner in NESTED:
                if sure or not (outer in FORWARD and inner in FORWARD):
                    value = float(ONCE[outer](ONCE[inner](loss))(ZERO).detach())
                    assert right is None or value == pytest.approx(right, rel=1e-9)


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
