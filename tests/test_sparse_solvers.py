"""The ends of the spectrum of sparse matrices by factorisation: every pair, its multiplicity, and its gradient."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import pmaf
from pmaf.errors import MissingExtraError
from pmaf.linalg import sparse_factor
from pmaf.operators.sparse import Sparse

pytest.importorskip("scipy")

REAL = torch.float64
HOW = {"largest": False, "solver": "shift_invert"}


def laplacian(edges: Tensor, weights: Tensor, n: int) -> Tensor:
    """A graph's Laplacian as a coalesced sparse tensor that gradients reach."""
    a, b = edges
    rows, columns = torch.cat((a, b, a, b)), torch.cat((b, a, a, b))
    values = torch.cat((-weights, -weights, weights, weights))
    return torch.sparse_coo_tensor(torch.stack((rows, columns)), values, (n, n), check_invariants=False).coalesce()


def grid(height: int, width: int) -> tuple[Tensor, int]:
    """The edges of a grid."""
    index = torch.arange(height * width).reshape(height, width)
    across = torch.stack((index[:, :-1].reshape(-1), index[:, 1:].reshape(-1)))
    return torch.cat((across, torch.stack((index[:-1].reshape(-1), index[1:].reshape(-1)))), 1), height * width


def weighted(height: int = 12, width: int = 17, seed: int = 0) -> Tensor:
    """The Laplacian of a grid with random weights."""
    edges, n = grid(height, width)
    generator = torch.Generator().manual_seed(seed)
    return laplacian(edges, 0.5 + torch.rand(edges.shape[1], dtype=REAL, generator=generator), n)


def indefinite(n: int = 150, dtype: torch.dtype = REAL) -> Tensor:
    """A random sparse Hermitian matrix."""
    generator = torch.Generator().manual_seed(3)
    where = torch.randint(n, (2, 4 * n), generator=generator)
    values = torch.randn(4 * n, dtype=dtype, generator=generator)
    whole = torch.sparse_coo_tensor(where, values, (n, n), check_invariants=False).to_dense()
    return (whole + whole.mH).to_sparse().coalesce()


def loss(values: Tensor, U: Tensor) -> Tensor:
    """Sees values and vectors, and not the signs of the vectors."""
    total: Tensor = values.sum() + U.abs().pow(4).sum()
    return total


def by_eigh(X: Tensor, k: int, largest: bool) -> tuple[Tensor, Tensor]:
    """The wanted values and the gradient of the loss on the pattern, from a dense decomposition."""
    M = X.detach().to_dense().requires_grad_()
    s, V = torch.linalg.eigh(M)
    at = torch.arange(k) if not largest else len(s) - 1 - torch.arange(k)
    (gradient,) = torch.autograd.grad(loss(s[at], V[:, at]), M)
    rows, columns = X.detach().indices()
    return s[at].detach(), ((gradient + gradient.mH) / 2)[rows, columns]


class TestPairs:
    @pytest.mark.parametrize("largest", [False, True])
    @pytest.mark.parametrize("dtype", [REAL, torch.complex128])
    def test_values_and_gradients_are_those_of_a_dense_decomposition(self, largest: bool, dtype: torch.dtype) -> None:
        for X in (indefinite(dtype=dtype), weighted() if dtype == REAL else indefinite(200, dtype)):
            values, gradient = by_eigh(X, 3, largest)
            X = X.detach().requires_grad_()
            found = pmaf.ied_ex(X, 3, largest=largest, solver="shift_invert")
            assert found.status == pmaf.Status.CONVERGED
            assert (found.eigenvalues - values).abs().max() < 1e-11 * found.eigenvalues.abs().max().clamp_min(1)
            (ours,) = torch.autograd.grad(loss(found.eigenvalues, found.eigenvectors), X)
            error = torch.linalg.vector_norm(ours.coalesce().values() - gradient)
            assert error < 1e-8 * torch.linalg.vector_norm(gradient)

    def test_single_precision_is_solved_in_double(self) -> None:
        X = weighted()
        narrow, wide = pmaf.ied(X.float(), 3, **HOW), pmaf.ied(X.float().double(), 3, **HOW)
        assert narrow.eigenvalues.dtype == torch.float32
        assert (narrow.eigenvalues - wide.eigenvalues).abs().max() < 1e-6 * wide.eigenvalues.max()

    def test_gaps_are_known(self) -> None:
        X = weighted()
        s = torch.linalg.eigvalsh(X.to_dense())
        assert abs(pmaf.ied_ex(X, 3, **HOW).gap - (s[3] - s[2])) < 0.1 * (s[3] - s[2])

    @pytest.mark.parametrize("k", [1, 2, 3, 4, 5, 6])
    def test_repeated_values_are_all_found(self, k: int) -> None:
        edges, n = grid(15, 15)  # a square's eigenvalues repeat
        X = laplacian(edges, torch.ones(edges.shape[1], dtype=REAL), n)
        s = torch.linalg.eigvalsh(X.to_dense())
        found = pmaf.ied_ex(X, k, **HOW)
        assert (found.eigenvalues - s[:k]).abs().max() < 1e-12
        assert (found.status == pmaf.Status.NOT_UNIQUE) == bool((s[1 : k + 1] - s[:k]).min() < 1e-9)

    @pytest.mark.parametrize("k", [2, 7, 8, 9])
    def test_of_a_graph_in_pieces_zero_is_found_once_a_piece(self, k: int) -> None:
        pieces = [weighted(4, 5, seed).to_dense() for seed in range(8)]
        X = torch.block_diag(*pieces).to_sparse()
        s = torch.linalg.eigvalsh(X.to_dense())
        found = pmaf.ied_ex(X, k, **HOW)
        assert (found.eigenvalues - s[:k]).abs().max() < 1e-12
        assert found.status == pmaf.Status.NOT_UNIQUE

    @pytest.mark.parametrize("shift", [-1e6, -3.0, 0.0, 1e6])
    def test_where_the_spectrum_lies_does_not_matter(self, shift: float) -> None:
        X = weighted()
        moved = (X.to_dense() + shift * torch.eye(X.shape[0], dtype=REAL)).to_sparse()
        found = pmaf.ied_ex(moved, 3, **HOW)
        assert found.status == pmaf.Status.CONVERGED
        s = torch.linalg.eigvalsh(X.to_dense())
        assert (found.eigenvalues - shift - s[:3]).abs().max() < 1e-13 * max(1, abs(shift)) * 100

    def test_a_long_path_whose_values_are_far_below_the_norm(self) -> None:
        n = 20_000
        edges = torch.stack((torch.arange(n - 1), torch.arange(1, n)))
        found = pmaf.ied_ex(laplacian(edges, torch.ones(n - 1, dtype=REAL), n), 3, **HOW)
        exact = 2 - 2 * torch.cos(torch.pi * torch.arange(3, dtype=REAL) / n)
        assert found.status == pmaf.Status.CONVERGED
        assert (found.eigenvalues - exact).abs().max() < 1e-6 * exact[-1]

    def test_nan_is_reported(self) -> None:
        X = weighted()
        X.values()[3] = torch.nan
        assert pmaf.ied_ex(X, 2, **HOW).status == pmaf.Status.NON_FINITE

    def test_a_limit_on_solves_is_kept(self) -> None:
        solver = pmaf.solvers.ShiftInvert(max_steps=3)
        assert pmaf.ied_ex(weighted(), 3, largest=False, solver=solver).status == pmaf.Status.MAX_STEPS

    def test_a_start_is_taken(self) -> None:
        X = weighted()
        cold = pmaf.ied_ex(X, 2, **HOW)
        warm = pmaf.ied_ex(X, 2, start=cold.eigenvectors, **HOW)
        assert (warm.eigenvalues - cold.eigenvalues).abs().max() < 1e-12
        assert warm.status == pmaf.Status.CONVERGED


class TestCount:
    def test_pivots_count_the_eigenvalues_below(self) -> None:
        X = indefinite()
        s = torch.linalg.eigvalsh(X.to_dense())
        matrix = sparse_factor.SparseMatrix(*sparse_of(X).pattern.compressed, X.values(), symmetric=True)
        for sign in (1.0, -1.0):
            for shift in (-3.0, -0.5, 0.7, 2.0):
                factor = matrix.factor(sign, shift)
                assert factor is not None
                if factor.count() >= 0 and factor.margin < float((sign * s - shift).abs().min()):
                    assert factor.count() == int((sign * s < shift).sum())

    def test_a_wide_graph_costs_more(self) -> None:
        def work(edges: Tensor, n: int) -> float:
            X = sparse_of(laplacian(edges, torch.ones(edges.shape[1], dtype=REAL), n))
            return sparse_factor.predicted_work(*X.pattern.compressed)[1]

        edges, n = grid(40, 40)
        random = torch.randint(n, (2, edges.shape[1]), generator=torch.Generator().manual_seed(0))
        assert work(random[:, random[0] != random[1]], n) > 30 * work(edges, n)


def test_hubs_are_symmetric_but_for_the_rounding_of_their_long_sums() -> None:
    n, hubs = 20_000, 20
    leaves = torch.arange(hubs, n)
    ends = torch.stack((torch.arange(hubs).repeat_interleave(len(leaves)), leaves.repeat(hubs)))
    w = torch.rand(ends.shape[1], dtype=REAL, generator=torch.Generator().manual_seed(0))
    both = torch.cat((ends, ends.flip(0)), 1)
    X = torch.sparse_coo_tensor(both, w.repeat(2), (n, n), check_invariants=False).coalesce()
    assert sparse_of(X).symmetric()
    exact, single = pmaf.ied_ex(X, 1), pmaf.ied_ex(X.float(), 1)
    assert single.status == pmaf.Status.CONVERGED
    assert single.eigenvectors.dtype == torch.float32
    assert abs(float(single.eigenvalues / exact.eigenvalues) - 1) < 1e-6
    X.values()[5] *= 1 + 1e-3
    assert not sparse_of(X).symmetric()


def sparse_of(X: Tensor) -> Sparse:
    """The operator of a sparse tensor."""
    from pmaf.operators.convert import as_operator

    operator = as_operator(X)
    assert isinstance(operator, Sparse)
    return operator


class TestDerivatives:
    @staticmethod
    def of_weights(k: int = 2) -> tuple[Callable[[Tensor], Tensor], Tensor]:
        """The loss as a function of the weights of a grid's edges."""
        edges, n = grid(9, 14)
        weights = 0.5 + torch.rand(edges.shape[1], dtype=REAL, generator=torch.Generator().manual_seed(1))

        units = torch.eye(edges.shape[1], dtype=REAL)
        linear = torch.stack([laplacian(edges, unit, n).values() for unit in units], -1)
        pattern = sparse_of(laplacian(edges, units[0], n)).pattern

        def function(w: Tensor) -> Tensor:
            found = pmaf.ied(Sparse(pattern, linear @ w), k, **HOW)
            return torch.stack((found.eigenvalues.sum(), found.eigenvectors.pow(4).sum()))

        return function, weights.requires_grad_()

    def test_of_weights_to_second_order(self) -> None:
        function, weights = self.of_weights()
        assert gradcheck(function, weights, fast_mode=True)
        assert gradgradcheck(function, weights, fast_mode=True)

    def test_a_graph_that_is_kept_gives_the_same_gradient_again(self) -> None:
        function, weights = self.of_weights()
        total = function(weights).sum()
        first, second = (torch.autograd.grad(total, weights, retain_graph=True)[0] for _ in range(2))
        assert torch.equal(first, second)

    def test_no_conjugate_gradients_are_spent_on_rounding(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The cotangent of the constant vector under ΣU⁴ is along it: what is left outside is rounding."""
        import pmaf.implicit.complement.factorised as factorised

        columns = []
        original = factorised.in_one_space
        monkeypatch.setattr(
            factorised, "in_one_space", lambda f, d, R, *rest: columns.append(R.shape[1]) or original(f, d, R, *rest)
        )
        X = weighted().requires_grad_()
        U = pmaf.ied(X, 3, **HOW).eigenvectors
        torch.autograd.grad((U**4).sum(), X)
        assert columns == [2]

    def test_a_loss_of_the_subspace_has_cotangents_of_low_rank(self) -> None:
        X, m = weighted().requires_grad_(), torch.linspace(0, 1, 12 * 17, dtype=REAL)
        (gradient,) = torch.autograd.grad((pmaf.ied(X, 3, **HOW).eigenvectors.mT @ m).square().sum(), X)
        M = X.detach().to_dense().requires_grad_()
        (dense,) = torch.autograd.grad((torch.linalg.eigh(M)[1][:, :3].mT @ m).square().sum(), M)
        rows, columns = X.detach().indices()
        exact = ((dense + dense.mT) / 2)[rows, columns]
        assert (gradient.coalesce().values() - exact).abs().max() < 1e-8 * exact.abs().max()

    def test_rounding_does_not_keep_conjugate_gradients_busy(self) -> None:
        X = weighted(8, 9).requires_grad_()
        U = pmaf.ied(X, 2, largest=False, solver="block_lanczos").eigenvectors
        (gradient,) = torch.autograd.grad((U**4).sum(), X)  # warnings are errors here
        exact = (
            by_eigh(X, 2, False)[1]
            - torch.autograd.grad(pmaf.ied(X, 2, **HOW).eigenvalues.sum(), X)[0].coalesce().values()
        )
        assert (gradient.coalesce().values() - exact).abs().max() < 1e-8 * exact.abs().max()

    def test_a_change_of_values_in_place_does_not_bring_up_old_factors(self) -> None:
        X = sparse_of(weighted())
        values = X.tensors[0].detach().clone()
        X = X.with_tensors((values,))
        pmaf.solvers.ShiftInvert().solve(X, 2, largest=False)
        assert X.factors.get(values, 1.0) is not None
        values.mul_(1.5)
        assert X.factors.get(values, 1.0) is None

    def test_factors_go_with_the_graph(self) -> None:
        X = weighted().requires_grad_()
        found = pmaf.ied(X, 2, **HOW)
        equations = found.eigenvectors.grad_fn
        while equations is not None and not hasattr(equations, "equations"):
            equations = equations.next_functions[0][0]
        assert equations is not None
        factor = weakref.ref(equations.equations.operator.factors.known[0][1])
        assert factor() is not None
        del found, equations
        gc.collect()
        assert factor() is None

    def test_a_csr_tensor_gets_its_gradient(self) -> None:
        X = weighted()
        values = [
            torch.autograd.grad(pmaf.ied(Y, 2, **HOW).eigenvectors.pow(4).sum(), Y)[0].to_dense()
            for Y in (X.clone().requires_grad_(), X.to_sparse_csr().requires_grad_())
        ]
        assert torch.allclose(*values, atol=1e-10)


class TestChoice:
    def test_a_plane_graph_is_factorised_and_a_random_one_is_not(self) -> None:
        edges, n = grid(80, 80)
        X = laplacian(edges, torch.ones(edges.shape[1], dtype=REAL), n)
        solver, why = pmaf.solvers.select("ied", X, 4, False, why=True)
        assert isinstance(solver, pmaf.solvers.ShiftInvert)
        assert "factors stay sparse" in why
        random = torch.randint(n, (2, 5 * n), generator=torch.Generator().manual_seed(0))
        X = laplacian(random, torch.ones(5 * n, dtype=REAL), n)
        solver, why = pmaf.solvers.select("ied", X, 4, False, why=True)
        assert isinstance(solver, pmaf.solvers.BlockLanczos)
        assert "too full" in why
        assert isinstance(pmaf.solvers.select("ied", X, 4), pmaf.solvers.BlockLanczos)

    def test_a_start_does_not_change_the_choice(self) -> None:
        n = 3000  # nodes of a path, whose smallest pairs products do not find
        edges = torch.stack((torch.arange(n - 1), torch.arange(1, n)))
        X = laplacian(edges, torch.ones(n - 1, dtype=REAL), n)
        first = pmaf.ied_ex(X, 2, largest=False)
        again = pmaf.ied_ex(X, 2, largest=False, start=first.eigenvectors)
        assert again.status == pmaf.Status.CONVERGED
        assert again.steps <= first.steps

    def test_without_scipy_products_are_used_and_the_solver_says_what_to_install(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import sys

        X = weighted(18, 18)
        for module in [name for name in sys.modules if name.split(".")[0] == "scipy"]:
            monkeypatch.setitem(sys.modules, module, None)
        sparse_factor.available.cache_clear()
        try:
            solver, why = pmaf.solvers.select("ied", X, 2, False, why=True)
            assert isinstance(solver, pmaf.solvers.BlockLanczos)
            assert "pmaf[sparse]" in why
            with pytest.raises(MissingExtraError, match=r"pmaf\[sparse\]"):
                pmaf.ied(X, 2, **HOW)
        finally:
            sparse_factor.available.cache_clear()

    def test_factors_that_are_too_large_say_what_needs_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        linalg = pytest.importorskip("scipy.sparse.linalg")

        def full(*_: object, **__: object) -> None:
            raise MemoryError

        monkeypatch.setattr(linalg, "splu", full)
        with pytest.raises(MemoryError, match=r"order 204 do not fit into memory; solver='davidson' .*block_lanczos"):
            pmaf.ied(weighted(), 2, **HOW)

    def test_a_function_is_refused(self) -> None:
        X = pmaf.MatVec(lambda d, V: d[:, None] * V, 300, torch.arange(300.0))
        with pytest.raises(ValueError, match="needs a matrix on the CPU, got MatVec"):
            pmaf.ied(X, 1, solver="shift_invert")
