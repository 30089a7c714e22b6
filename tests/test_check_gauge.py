"""A loss that looks at an arbitrary basis is told so, and no other."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import pmaf

DTYPES = [torch.float32, torch.float64, torch.complex128]


def repeated(dtype: torch.dtype) -> Tensor:
    """Eigenvalues {3, 3, 2, 1, 1} and, in a second item, none that repeats."""
    torch.manual_seed(0)
    V = torch.linalg.qr(torch.randn(5, 5, dtype=dtype))[0]
    s = torch.tensor([[3, 3, 2, 1, 1], [5, 4, 3, 2, 1]], dtype=V.real.dtype)
    X = (V * s[:, None, :].to(dtype)) @ V.mH
    return ((X + X.mH) / 2).requires_grad_()


def projector(U: Tensor) -> Tensor:
    return U @ U.mH


def warned(X: Tensor, loss: Callable[[Tensor, Tensor], Tensor], k: int, **options: object) -> bool:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        found = pmaf.ied_ex(X, k, backward=pmaf.Implicit(check_gauge=True), **options)  # type: ignore[arg-type]
        torch.autograd.grad(loss(found.eigenvalues, found.eigenvectors), X)
    return any(issubclass(w.category, pmaf.GaugeWarning) for w in seen)


@pytest.mark.parametrize("dtype", DTYPES)
class TestRepeatedBlock:
    def test_projectors_are_fine(self, dtype: torch.dtype) -> None:
        assert not warned(repeated(dtype), lambda s, U: projector(U)[:, 0, 1].abs().sum(), 2)
        assert not warned(repeated(dtype), lambda s, U: (projector(U)[:, 0, 1].abs() + s.sum(-1)).sum(), 3)

    def test_functions_of_the_matrix_are_fine(self, dtype: torch.dtype) -> None:
        def loss(s: Tensor, U: Tensor) -> Tensor:
            return ((U * s.exp()[..., None, :].to(U.dtype)) @ U.mH)[:, 0, 2].abs().sum()

        assert not warned(repeated(dtype), loss, 5)

    def test_single_vectors_are_not(self, dtype: torch.dtype) -> None:
        assert warned(repeated(dtype), lambda s, U: U[:, 0, 0].abs().sum(), 2)
        assert warned(repeated(dtype), lambda s, U: projector(U[..., :1])[:, 0, 1].abs().sum(), 3)

    def test_single_vectors_of_single_eigenvalues_are(self, dtype: torch.dtype) -> None:
        assert not warned(repeated(dtype), lambda s, U: U[1, 0, 0].abs(), 2)
        assert not warned(repeated(dtype), lambda s, U: U[:, 0, 2].abs().sum(), 3)

    def test_a_selection_that_cuts_through_the_block(self, dtype: torch.dtype) -> None:
        assert warned(repeated(dtype), lambda s, U: projector(U)[:, 0, 1].abs().sum(), 1)
        assert warned(repeated(dtype), lambda s, U: projector(U)[:, 0, 1].abs().sum(), 4)


@pytest.mark.filterwarnings("ignore::pmaf.DegeneracyWarning")  # said in any case
def test_names_the_item_and_the_way_out() -> None:
    found = pmaf.ied_ex(repeated(torch.float64), 2, backward=pmaf.Implicit(check_gauge=True))
    with pytest.warns(pmaf.GaugeWarning, match=r"item \(0,\).*principal_projector"):
        found.eigenvectors[:, 0, 0].sum().backward()


def test_eigenvalues_alone_and_no_gradient_at_all() -> None:
    assert not warned(repeated(torch.float64), lambda s, U: s.sum(), 2)
    pmaf.ied_ex(repeated(torch.float64).detach(), 2, backward=pmaf.Implicit(check_gauge=True))


@pytest.mark.parametrize("solver", ["simultaneous_iteration", "block_lanczos"])
def test_with_solvers_that_know_only_the_selection(solver: str) -> None:
    X = repeated(torch.float64)
    assert warned(X, lambda s, U: U[:, 0, 0].sum(), 2, solver=solver)
    assert not warned(X, lambda s, U: projector(U)[:, 0, 1].sum(), 2, solver=solver)


@pytest.mark.filterwarnings("ignore::pmaf.DegeneracyWarning")  # said in any case
def test_steps_aside_where_values_cannot_be_read() -> None:
    X = repeated(torch.float64).detach()

    def loss(X: Tensor) -> Tensor:
        return pmaf.ied_ex(X, 2, backward=pmaf.Implicit(check_gauge=True)).eigenvectors[0, 0]

    assert torch.func.vmap(torch.func.grad(loss))(X).shape == X.shape
    with pytest.warns(pmaf.GaugeWarning):
        torch.func.grad(loss)(X[0])
    torch.func.grad(loss)(X[1])
