"""Units: answers and gradients from the smallest subnormal to the largest number; Gram matrices from their factor."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pmaf
from cases import EIGEN_SOLVERS, randn
from pmaf import RangeWarning, Status

ROW = torch.tensor([1.0, 2, 3])
M = torch.tensor([[2.0, 1, 0], [1, 3, 1], [0, 1, 5]], dtype=torch.float64)
ONE = [case for case in EIGEN_SOLVERS if case.name == case.short]
EXTREMES = [(torch.float32, e) for e in (-149, -140, -126, -60, 60, 125)] + [
    (torch.float64, e) for e in (-1074, -1060, -1022, -400, 400, 1021)
]


@pytest.mark.parametrize("case", ONE, ids=lambda case: case.name)
@pytest.mark.parametrize("largest", [True, False], ids=["largest", "smallest"])
@pytest.mark.parametrize(("dtype", "exponent"), EXTREMES, ids=str)
def test_every_solver_at_the_ends_of_the_range(case, largest, dtype, exponent):
    """Whole numbers times a power of two are exact, down to the smallest subnormal."""
    unit = torch.ldexp(
        torch.ldexp(torch.ones((), dtype=dtype), torch.tensor(exponent // 2)), torch.tensor(-(-exponent // 2))
    )
    near, far = (pmaf.ied_ex(X, 1, largest=largest, solver=case.make()) for X in (M.to(dtype), M.to(dtype) * unit))
    assert int(far.status) == int(near.status)
    torch.testing.assert_close(far.eigenvectors, near.eigenvectors, rtol=0, atol=2 * max(case.error, 1e-6))
    torch.testing.assert_close(far.eigenvalues, near.eigenvalues * unit)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**31),
    exponent=st.integers(-100, 100),
    n=st.integers(2, 6),
    kind=st.sampled_from(("dense", "gram", "sparse")),
    largest=st.booleans(),
)
def test_a_power_of_two_changes_nothing_but_the_units(seed, exponent, n, kind, largest):
    A = randn(n, n, seed=seed, dtype=torch.float32)
    A = A + A.mT if kind != "gram" else A
    unit = 2.0**exponent

    def solve(A):
        A = A.clone().requires_grad_()
        X = pmaf.Gram(A) if kind == "gram" else A.to_sparse() if kind == "sparse" else A
        found = pmaf.ied_ex(X, 1, largest=largest)
        (gradient,) = torch.autograd.grad(found.eigenvectors[:, 0] @ torch.arange(1.0, n + 1), A)
        return found.eigenvectors, gradient

    (u, g), (v, h) = solve(A), solve(A * unit)
    if float(pmaf.ied_ex(pmaf.Gram(A) if kind == "gram" else A, 1, largest=largest).gap) < 1e-2:
        return
    torch.testing.assert_close(v, u, rtol=0, atol=1e-4)
    torch.testing.assert_close(h * unit, g, rtol=1e-3, atol=1e-3 * float(g.abs().max()))


@pytest.mark.parametrize("scale", [1e19, 1e-24, 1e-38, 1e30])
@pytest.mark.parametrize("solver", [None, "cholesky_inverse_iteration", "block_lanczos"])
def test_gram_does_not_mind_that_its_squares_leave_the_range(scale, solver):
    F = randn(7, 4, dtype=torch.float32)

    def solve(F):
        F = F.clone().requires_grad_()
        found = pmaf.ied_ex(pmaf.Gram(F), 1, solver=solver)
        found.eigenvectors[0, 0].backward()
        return found, F.grad

    (near, g), (far, h) = solve(F), solve(F * scale)
    torch.testing.assert_close(far.eigenvectors, near.eigenvectors, rtol=0, atol=1e-6)
    torch.testing.assert_close(h.double() * scale, g.double(), rtol=0, atol=1e-5)
    assert int(far.status) == (Status.OUT_OF_RANGE if scale > 1 else Status.CONVERGED)


def test_half_precision_features_whose_energy_leaves_the_range():
    F = 10 * torch.randn(800, 6).half()
    with pytest.warns(RangeWarning, match="vectors are right"):
        values, U = pmaf.ied(pmaf.Gram(F), 2)
    assert bool(values.isinf().all())
    torch.testing.assert_close(U.float(), pmaf.ied(pmaf.Gram(F.float()), 2).eigenvectors, rtol=0, atol=1e-3)
    assert bool(pmaf.nn.PrincipalPool2d(2)(F.T.reshape(6, 40, 20)).isfinite().all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("scale", [1.0, 1e-2, 1e-8, 1e-10, 1e-15, 1e-30])
def test_gradient_of_a_tiny_row(dtype, scale):
    """u = (1, 2)/√5; its first entry moves by (2, −1)·2/√5³ for each unit of F."""
    F = (scale * torch.tensor([[1.0, 2.0]], dtype=dtype)).requires_grad_()
    pmaf.ied_ex(pmaf.Gram(F), 1).eigenvectors[0, 0].backward()
    torch.testing.assert_close(F.grad * scale, torch.tensor([[2.0, -1.0]], dtype=dtype) * 2 / 5**1.5)


@pytest.mark.parametrize("solver", [None, "cholesky_inverse_iteration", "block_lanczos", "simultaneous_iteration"])
@pytest.mark.parametrize("largest", [True, False], ids=["largest", "smallest"])
@pytest.mark.parametrize(
    "F",
    [torch.zeros(1, 2), torch.zeros(3, 2), torch.zeros(2, 5), ROW[None], torch.stack((ROW, 2 * ROW))],
    ids=["0 1×2", "0 3×2", "0 2×5", "1×3", "rank one"],
)  # fmt: skip
def test_more_pairs_than_the_rank(solver, largest, F):
    for k in range(1, F.shape[1] + 1):
        found = pmaf.ied_ex(pmaf.Gram(F), k, largest=largest, solver=solver)
        U = found.eigenvectors
        assert float((U.mT @ U - torch.eye(k)).abs().max()) <= 1e-6
        assert float((F.mT @ (F @ U) - U * found.eigenvalues).abs().max()) <= 1e-4
        rank = int(torch.linalg.matrix_rank(F))
        several = k > rank + 1 or (k == rank + 1 < F.shape[1]) if largest else F.shape[1] - rank > 1
        if solver in (None, "cholesky_inverse_iteration"):  # the others multiply, and know zero to ε‖X‖ only
            assert int(found.status) == (Status.NOT_UNIQUE if several else Status.CONVERGED)


@pytest.mark.parametrize("scale", [1e-38, 3e-39, 1e-41])
def test_complex_entries_below_the_normal_range(scale):
    """Torch divides complex numbers by multiplying with the reciprocal, which is infinite for a subnormal unit."""
    A = randn(5, 3, dtype=torch.complex64)
    b, small = A[:, 0] + 1, torch.view_as_complex(torch.view_as_real(A) * scale)
    b_small = torch.view_as_complex(torch.view_as_real(b) * scale)
    found, right = pmaf.svd_ex(small, 2), torch.linalg.svd(A)
    assert int(found.status) == Status.CONVERGED
    torch.testing.assert_close(found.S.double() / scale, right.S[:2].double(), rtol=1e-3, atol=0)
    left = right.U[:, :2]
    torch.testing.assert_close(found.U @ found.U.mH, left @ left.mH, rtol=0, atol=1e-3)
    u = pmaf.ied_ex(pmaf.Gram(small), 1).eigenvectors
    torch.testing.assert_close(u @ u.mH, right.Vh[:1].mH @ right.Vh[:1], rtol=0, atol=1e-3)
    torch.testing.assert_close(pmaf.less_ex(small, b_small).u, pmaf.less_ex(A, b).u, rtol=0, atol=1e-3)


@pytest.mark.parametrize(("dtype", "exponent"), EXTREMES, ids=str)
def test_other_functions_at_the_ends_of_the_range(dtype, exponent):
    unit = torch.ldexp(
        torch.ldexp(torch.ones((), dtype=dtype), torch.tensor(exponent // 2)), torch.tensor(-(-exponent // 2))
    )
    X, s = M.to(dtype), torch.linalg.eigvalsh(M)
    whole = {"rtol": 1e-5, "atol": 2 * float(unit)}
    expected = s.to(dtype) * unit
    pair = pmaf.dominant_pair_ex(X * unit)
    torch.testing.assert_close(pair.eigenvalue, expected[-1], **whole)
    sparse = pmaf.dominant_pair_ex((X * unit).to_sparse())
    torch.testing.assert_close(sparse.eigenvalue, expected[-1], **whole)
    product = pmaf.MatVec(lambda X, V: X @ V, 3, (X * unit,))
    if float(unit) < 1:  # a product of a function may overflow, and says so
        torch.testing.assert_close(pmaf.dominant_pair_ex(product).eigenvalue, expected[-1], **whole)
    torch.testing.assert_close(pmaf.svd_ex(X * unit, 2).S, expected.flip(0)[:2], **whole)
    torch.testing.assert_close(pmaf.ied_ex(X * unit, 2, near=0.0).eigenvalues, expected[:2], **whole)
    metric = pmaf.ied_ex(X * unit, 1, metric=X)
    torch.testing.assert_close(metric.eigenvalues, unit[None], **whole)
    for k in (3, 2):
        Y = pmaf.spectral_function_ex(X * unit, "abs", k)
        assert int(Y.status) == Status.CONVERGED
    torch.testing.assert_close(pmaf.spectral_function_ex(X * unit, "abs").matrix, X * unit, **whole)


def test_a_function_of_a_matrix_that_leaves_the_range_is_said_to():
    found = pmaf.spectral_function_ex(torch.diag(torch.tensor([100.0, 1.0])), "exp")
    assert int(found.status) == Status.NON_FINITE


def test_an_item_of_zeros_leaves_the_others_their_gradient():
    X = torch.stack((M, torch.zeros_like(M))).requires_grad_()
    for mode in (pmaf.FixedPoint(), pmaf.FixedPoint(dense=True)):
        found = pmaf.dominant_pair_ex(X, backward=mode)
        (gradient,) = torch.autograd.grad(found.eigenvalue.sum() + found.eigenvector[0, 0], X)
        assert bool(gradient.isfinite().all())
        assert float(gradient[0].abs().max()) > 0.1


def test_repeated_values_near_a_number_are_not_unique_however_small():
    X = torch.zeros(8, 8, dtype=torch.float64)
    X[0, 0] = 1
    for layout in (X, X.to_sparse_csr()):
        assert int(pmaf.ied_ex(layout, 1, near=0.0).status) == Status.NOT_UNIQUE
