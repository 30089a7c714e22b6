"""The smallest pairs with something that nearly inverts the matrix, forward and backward."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

import pmaf

REAL = torch.float64
N = 400


def path(d: Tensor, V: Tensor) -> Tensor:
    """The Laplacian of a path with fixed ends and weights d of its n + 1 edges, times a block."""
    change = torch.nn.functional.pad(V, (0, 0, 1, 1)).diff(dim=0) * d[:, None]
    return -change.diff(dim=0)


def unweighted(d: Tensor, R: Tensor) -> Tensor:
    """The inverse for edges of the mean weight, by two sums."""
    n = R.shape[0]
    below = torch.nn.functional.pad(R, (0, 0, 1, 0)).cumsum(0)
    falling = below - below.mean(0)
    return -falling.cumsum(0)[:n] / d.mean()


def weights(seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 1 + 0.5 * torch.rand(N + 1, dtype=REAL, generator=generator)


def function(solve: Callable[..., Tensor] | None = unweighted, d: Tensor | None = None) -> pmaf.MatVec:
    return pmaf.MatVec(path, N, weights() if d is None else d, solve=solve)


def dense(d: Tensor) -> Tensor:
    return path(d, torch.eye(N, dtype=REAL))


def test_the_inverse_of_a_near_matrix_finds_the_pairs_in_a_few_steps() -> None:
    found = pmaf.ied_ex(function(), 3, largest=False)
    assert isinstance(pmaf.solvers.select("ied", function(), 3, False), pmaf.solvers.Davidson)
    assert found.status == pmaf.Status.CONVERGED
    assert found.steps < 40
    s = torch.linalg.eigvalsh(dense(weights()))
    assert (found.eigenvalues - s[:3]).abs().max() < 1e-12
    assert abs(found.gap - (s[3] - s[2])) < 0.1 * (s[3] - s[2])


def test_the_largest_pairs_have_no_use_for_it() -> None:
    assert isinstance(pmaf.solvers.select("ied", function(), 3), pmaf.solvers.BlockLanczos)
    with pytest.raises(ValueError, match="use BlockLanczos"):
        pmaf.ied(function(), 3, solver="davidson")


def test_gradients_are_those_of_a_dense_decomposition_after_few_products() -> None:
    counted = []

    def watched(d: Tensor, V: Tensor) -> Tensor:
        counted.append(V.shape[1])
        return path(d, V)

    d = weights().requires_grad_()
    found = pmaf.ied(pmaf.MatVec(watched, N, d, solve=unweighted), 2, largest=False)
    total = found.eigenvalues.sum() + found.eigenvectors.pow(4).sum()
    counted.clear()
    (gradient,) = torch.autograd.grad(total, d)
    assert len(counted) < 60  # without it several hundred
    s, V = torch.linalg.eigh(dense(d))
    (exact,) = torch.autograd.grad(s[:2].sum() + V[:, :2].pow(4).sum(), d)
    assert (gradient - exact).abs().max() < 1e-9 * exact.abs().max()


def test_gradients_by_differences() -> None:
    units = torch.rand(3, N + 1, dtype=REAL, generator=torch.Generator().manual_seed(1))

    def total(t: Tensor) -> Tensor:
        found = pmaf.ied(function(d=weights() + 0.1 * t @ units), 2, largest=False)
        return torch.stack((found.eigenvalues.sum(), found.eigenvectors.pow(4).sum()))

    assert gradcheck(total, torch.zeros(3, dtype=REAL, requires_grad=True))


def test_what_is_not_definite_is_reported_not_believed() -> None:
    d = weights().requires_grad_()
    wrong = pmaf.MatVec(path, N, d, solve=lambda d, R: -unweighted(d, R))
    found = pmaf.ied(wrong, 1, largest=False)  # any direction will do for the pairs
    with pytest.warns(pmaf.GradientWarning, match="stopped at a residual"):
        torch.autograd.grad(found.eigenvectors.pow(4).sum(), d)


@pytest.mark.parametrize(
    ("solve", "error"),
    [(lambda d, R: R[:3], ValueError), (lambda d, R: R.float(), ValueError), ("inverse", ValueError)],
)
def test_what_solve_returns_is_looked_at(solve: Callable[..., Tensor], error: type[Exception]) -> None:
    with pytest.raises(error, match="solve"):
        pmaf.ied(function(solve), 1, largest=False)


def test_repeated_values_are_found() -> None:
    d = torch.cat((torch.tensor([1.0, 1.0, 1.0], dtype=REAL), torch.linspace(2, 9, 397, dtype=REAL)))
    X = pmaf.MatVec(lambda d, V: d[:, None] * V, N, d, solve=lambda d, R: R / (1 + d[:, None]))
    found = pmaf.ied_ex(X, 2, largest=False)
    assert (found.eigenvalues - 1).abs().max() < 1e-12
    assert found.status == pmaf.Status.NOT_UNIQUE


def box(*sides: int) -> Tensor:
    """The Laplacian of a grid with random weights, coalesced."""
    index = torch.arange(int(torch.tensor(sides).prod())).reshape(sides)
    ends = [(index.narrow(d, 0, m - 1).flatten(), index.narrow(d, 1, m - 1).flatten()) for d, m in enumerate(sides)]
    a, b = (torch.cat(parts) for parts in zip(*ends, strict=True))
    w = 0.5 + torch.rand(len(a), dtype=REAL, generator=torch.Generator().manual_seed(0))
    where, values = torch.stack((torch.cat((a, b, a, b)), torch.cat((b, a, a, b)))), torch.cat((-w, -w, w, w))
    return torch.sparse_coo_tensor(where, values, (index.numel(),) * 2, check_invariants=False).coalesce()


class TestMultigrid:
    @pytest.fixture(autouse=True)
    def installed(self) -> None:
        pytest.importorskip("pyamg")

    @pytest.mark.parametrize("shift", [0.0, -0.3, 2.0])
    @pytest.mark.parametrize("dtype", [REAL, torch.float32])
    def test_pairs_and_gradients_are_those_of_a_factorisation(self, shift: float, dtype: torch.dtype) -> None:
        X = box(9, 10, 11).to(dtype)
        n = X.shape[0]
        X = (X + shift * torch.sparse.spdiags(torch.ones(1, n, dtype=dtype), torch.tensor([0]), (n, n))).coalesce()
        results = []
        for solver in ("davidson", "shift_invert"):
            Y = X.clone().requires_grad_()
            found = pmaf.ied_ex(Y, 3, largest=False, solver=solver)
            assert found.status == pmaf.Status.CONVERGED
            (gradient,) = torch.autograd.grad(found.eigenvalues.sum() + found.eigenvectors.pow(4).sum(), Y)
            results.append((found.eigenvalues.detach(), gradient.coalesce().values()))
        (ours, g), (exact, h) = results
        eps = torch.finfo(dtype).eps
        assert (ours - exact).abs().max() < 1e3 * eps
        assert torch.linalg.vector_norm(g - h) < (1e-7 if dtype == REAL else 1e-3) * torch.linalg.vector_norm(h)

    def test_a_wide_and_deep_graph_is_for_it(self) -> None:
        solver, why = pmaf.solvers.select("ied", box(26, 26, 26), 4, False, why=True)
        assert isinstance(solver, pmaf.solvers.Davidson)
        assert "multigrid" in why

    def test_not_finite_is_reported(self) -> None:
        X = box(5, 6, 7)
        X.values()[3] = torch.nan
        assert pmaf.ied_ex(X, 2, largest=False, solver="davidson").status == pmaf.Status.NON_FINITE

    def test_a_limit_on_steps_ends_with_what_to_try(self) -> None:
        solver = pmaf.solvers.Davidson(max_steps=2)
        with pytest.raises(pmaf.ConvergenceError, match=r"raise max_steps.*multigrid"):
            pmaf.ied(box(7, 8, 9), 3, largest=False, solver=solver)
