"""What an iteration says of its answer is true: repeated eigenvalues, unlucky starts, matrices not quite symmetric."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pmaf
from pmaf import Status
from pmaf.kernels import available
from pmaf.solvers.base import Solver

ITERATIVE = [name for name, cls in pmaf.solvers.EIGEN.items() if cls.takes_start]
BLOCKS = [name for name in ITERATIVE if pmaf.solvers.EIGEN[name].largest_k is None]
RUNS = [name for name in pmaf.solvers.EIGEN if name != "tridiagonal" or available()]
KNOWS_GAP = [name for name in RUNS if pmaf.solvers.EIGEN[name].gives_gap]


def rotated(values: torch.Tensor, seed: int) -> torch.Tensor:
    """A symmetric matrix with this spectrum."""
    n = len(values)
    Q = torch.linalg.qr(torch.randn(n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)))[0]
    X = (Q * values.double()) @ Q.mT
    return ((X + X.mT) / 2).to(values.dtype)


def projection_onto_the_first(n: int, dtype: torch.dtype) -> torch.Tensor:
    X = torch.zeros(n, n, dtype=dtype)
    X[0, 0] = 1
    return X


class TestRepeatedEigenvalues:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
    @pytest.mark.parametrize("n", [8, 40, 300])
    @pytest.mark.parametrize("solver", BLOCKS)
    def test_zero_repeated_beside_a_one(self, solver, n, dtype):
        for start in (None, torch.ones(n, dtype=dtype)):
            found = pmaf.ied_ex(projection_onto_the_first(n, dtype), 1, largest=False, solver=solver, start=start)
            assert int(found.status) == Status.NOT_UNIQUE
            assert float(found.gap) <= 1e-6

    @pytest.mark.parametrize("k", [1, 3])
    def test_sparse_and_functions_by_default(self, k):
        X = projection_onto_the_first(300, torch.float64)
        function = pmaf.MatVec(lambda d, V: d[:, None] * V, 300, X.diagonal().clone())
        for matrix in (X.to_sparse(), function):
            assert int(pmaf.ied_ex(matrix, k, largest=False).status) == Status.NOT_UNIQUE

    @pytest.mark.parametrize("solver", BLOCKS)
    def test_an_outlier_hides_nothing(self, solver):
        d = torch.cat((torch.tensor([1e12, 0.0]), 0.1 * torch.arange(1, 15)))
        found = pmaf.ied_ex(torch.diag(d), 1, largest=False, solver=solver)
        assert int(found.status) == Status.NOT_UNIQUE  # all but the outlier are one and the same in float32

    @pytest.mark.parametrize("solver", KNOWS_GAP)
    def test_a_gap_of_roundings_is_none(self, solver):
        """Where the residual allowed is larger than the distance, the distance is that of the residuals."""
        eps = torch.finfo(torch.float64).eps
        cls = pmaf.solvers.EIGEN[solver]
        n = 4 if cls.largest_n else 24
        for seed in range(20):
            x = torch.rand(n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
            X = rotated(1 + 50 * eps * x, seed)
            found = pmaf.ied_ex(X, 1, solver=solver)
            s = torch.linalg.eigvalsh(X)
            if int(found.status) == Status.CONVERGED:
                assert float(s[-1] - s[-2]) > 2 * eps

    @settings(max_examples=40)
    @given(data=st.data())
    def test_a_gap_is_the_gap(self, data):
        solver = data.draw(st.sampled_from(KNOWS_GAP), "solver")
        cls = pmaf.solvers.EIGEN[solver]
        n = data.draw(st.integers(2, 4 if cls.largest_n else 40), "n")
        k = data.draw(st.integers(1, min(n, cls.largest_k or 3)), "k")
        levels = data.draw(st.lists(st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.25, 1.0, 3.0]), min_size=n, max_size=n))
        largest = data.draw(st.booleans(), "largest")
        s = torch.tensor(sorted(levels, reverse=largest), dtype=torch.float64)
        found = pmaf.ied_ex(rotated(s, data.draw(st.integers(0, 5))), k, largest=largest, solver=solver)
        if int(found.status) == Status.MAX_STEPS:
            return
        size = float(s.abs().max())
        assert float((found.eigenvalues - s[:k]).abs().max()) <= 1e-9 * size
        gap = float((s[k - 1] - s[k]).abs()) if k < n else math.inf
        if math.isfinite(gap):
            # Known to a tenth of its distance; a gap of zero is a gap of zero.
            assert abs(float(found.gap) - gap) <= 0.11 * gap + 1e-9 * size
        repeated = bool((s[: k + 1].diff().abs() <= 1e-9 * size).any())
        assert int(found.status) == (Status.NOT_UNIQUE if repeated else Status.CONVERGED)


class TestUnluckyStarts:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
    @pytest.mark.parametrize("which", range(16))
    @pytest.mark.parametrize("solver", [None, *ITERATIVE])
    def test_an_unwanted_eigenvector(self, solver, which, dtype):
        x = -(10 ** (-0.8 * torch.arange(16, dtype=dtype)))
        x[4:] *= -1
        found = pmaf.ied_ex(torch.diag(x), 1, start=torch.eye(16, dtype=dtype)[which], solver=solver)
        if int(found.status) == Status.CONVERGED:
            assert float(found.eigenvalues) == pytest.approx(float(x.max()), abs=1e-5)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
    @pytest.mark.parametrize("solver", ITERATIVE)
    def test_two_values_closer_than_a_hundred_roundings(self, solver, dtype):
        eps = torch.finfo(dtype).eps
        angle = torch.linspace(0, torch.pi, 200, dtype=torch.float64)
        apart = eps * torch.linspace(0, 4000 if eps < 1e-10 else 100, 200, dtype=torch.float64).flip(0)
        x, y = angle.cos(), angle.sin()
        u = torch.stack((x, y), -1)
        X = (torch.eye(2, dtype=torch.float64) + apart[:, None, None] * u[:, :, None] * u[:, None, :]).to(dtype)
        found = pmaf.ied_ex(X, 1, solver=solver)
        claimed = (found.status == Status.CONVERGED) | (found.status == Status.NOT_UNIQUE)
        below = torch.linalg.eigvalsh(X.double())[:, 1] - found.eigenvalues[:, 0]
        assert float(below[claimed].max()) <= (400 if eps < 1e-10 else 30) * eps

    @pytest.mark.parametrize("solver", BLOCKS)
    def test_the_one_that_stands_apart_hides_the_crowd(self, solver):
        """Of the start nothing is wanted but what is in the crowd already: one more of the crowd has to be met."""
        X = projection_onto_the_first(24, torch.float64)
        for k in (1, 2, 3, 4):
            found = pmaf.ied_ex(X, k, largest=False, solver=solver, start=torch.eye(24, dtype=X.dtype)[:, :k])
            if int(found.status) != Status.MAX_STEPS:
                assert int(found.status) == Status.NOT_UNIQUE
                assert float(found.residual) <= 1e-12

    @pytest.mark.parametrize("solver", ITERATIVE)
    def test_a_mixture_of_two(self, solver):
        """Of two values so close that any mixture of their vectors passes for one, the larger."""
        near = 5e-12
        X = torch.diag(torch.cat((torch.tensor([1 + near, 1.0]), torch.linspace(0, 0.5, 4))).double())
        X[0, 0] = 1 + near
        start = torch.tensor([[2e-3], [1.0], [0.1], [0.1], [0.1], [0.1]], dtype=torch.float64)
        found = pmaf.ied_ex(X, 1, solver=solver, start=start)
        if int(found.status) != Status.MAX_STEPS:
            assert abs(float(found.eigenvalues[0]) - 1 - near) <= 5e-13

    @settings(max_examples=40)
    @given(data=st.data())
    def test_any_eigenvectors(self, data):
        solver = data.draw(st.sampled_from(ITERATIVE), "solver")
        n = data.draw(st.integers(2, 24), "n")
        k = data.draw(st.integers(1, min(n, pmaf.solvers.EIGEN[solver].largest_k or 3)), "k")
        dtype = data.draw(st.sampled_from([torch.float32, torch.float64]), "dtype")
        exponents = data.draw(st.lists(st.floats(-7, 0), min_size=n, max_size=n), "exponents")
        signs = data.draw(st.lists(st.sampled_from([-1.0, 1.0]), min_size=n, max_size=n), "signs")
        x = (torch.tensor(signs, dtype=torch.float64) * 10 ** torch.tensor(exponents, dtype=torch.float64)).to(dtype)
        chosen = data.draw(st.permutations(range(n)), "start")[: data.draw(st.integers(1, k), "columns")]
        start = torch.eye(n, dtype=dtype)[:, chosen]
        found = pmaf.ied_ex(torch.diag(x), k, start=start, solver=solver)
        if int(found.status) in (Status.CONVERGED, Status.NOT_UNIQUE):
            rounding = 1e3 * torch.finfo(dtype).eps * float(x.abs().max())
            assert float((found.eigenvalues - x.sort(descending=True).values[:k]).abs().max()) <= rounding


def nearly_symmetric(n: int, skew: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A matrix with a skew part of this size, and its symmetric part."""
    S = torch.randn(n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed + 1))
    H = rotated(torch.linspace(-1, 1, n, dtype=torch.float64).pow(3), seed)
    return H + skew * (S - S.mT) / n, H


class TestTheHermitianPartCounts:
    @pytest.mark.parametrize("solver", list(pmaf.solvers.EIGEN))
    def test_every_solver(self, solver):
        cls: type[Solver] = pmaf.solvers.EIGEN[solver]
        X, H = nearly_symmetric(min(20, cls.largest_n or 20), 1e-5)
        found, expected = (pmaf.ied_ex(M, 1, solver=solver) for M in (X, H))
        assert int(found.status) == Status.CONVERGED
        torch.testing.assert_close(found.eigenvalues, expected.eigenvalues, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(found.eigenvectors, expected.eigenvectors, rtol=1e-9, atol=1e-9)
        assert float(found.residual) <= 1e-12

    @pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
    def test_a_start_and_the_gradient(self, sparse):
        X, H = nearly_symmetric(20, 1e-5)
        gradients = []
        for M in (X, H):
            leaf = (M.to_sparse() if sparse else M).requires_grad_()
            found = pmaf.ied_ex(leaf, 1, start=torch.ones(20, dtype=torch.float64), solver="block_lanczos")
            assert int(found.status) == Status.CONVERGED
            (gradient,) = torch.autograd.grad(found.eigenvectors[3, 0] + found.eigenvalues.sum(), leaf)
            gradients.append(gradient.to_dense())
        torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-8)

    def test_a_product_of_single_precision(self):
        F = torch.randn(200, 20, generator=torch.Generator().manual_seed(3))
        X = ((F * torch.rand(20, generator=torch.Generator().manual_seed(4))).mT @ F).double()
        X = (X + X.mT) / 2 + 4e-8 * (X.triu(1) - X.triu(1).mT)
        expected = torch.linalg.eigvalsh((X + X.mT) / 2)[-1]
        for options in ({}, {"start": torch.ones(20, dtype=torch.float64)}, *({"solver": s} for s in ITERATIVE)):
            found = pmaf.ied_ex(X, 1, **options)
            assert int(found.status) == Status.CONVERGED
            torch.testing.assert_close(found.eigenvalues[0], expected)

    @settings(max_examples=30)
    @given(n=st.integers(2, 30), skew=st.floats(1e-15, 1e-4), largest=st.booleans(), solver=st.sampled_from(ITERATIVE))
    def test_skew_parts_of_any_size(self, n, skew, largest, solver):
        X, H = nearly_symmetric(n, skew, seed=n)
        found = pmaf.ied_ex(X, 1, largest=largest, solver=solver)
        if int(found.status) != Status.MAX_STEPS:
            s = torch.linalg.eigvalsh(H)
            torch.testing.assert_close(found.eigenvalues[0], s[-1 if largest else 0], rtol=1e-10, atol=1e-10)
