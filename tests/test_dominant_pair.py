"""The dominant real eigenpair of a general matrix: found, differentiated, or reported."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import pmaf


def general(n: int = 5, dtype: torch.dtype = torch.float64) -> Tensor:
    """A batch of two: positive matrices, one of them with its dominant eigenvalue turned negative."""
    torch.manual_seed(0)
    X = torch.rand(2, n, n, dtype=dtype) + torch.eye(n, dtype=dtype)
    return X * torch.tensor([1, -1], dtype=dtype)[:, None, None]


def layer(X: Tensor, backward: Any = None) -> tuple[Tensor, ...]:
    return tuple(pmaf.dominant_pair(X, backward=backward))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [1, 2, 5, 40])
def test_is_the_eigenvalue_of_largest_magnitude(n: int, dtype: torch.dtype) -> None:
    X = general(n, dtype)
    found = pmaf.dominant_pair_ex(X)
    every = torch.linalg.eigvals(X)
    wanted = every.gather(-1, every.abs().argmax(-1, keepdim=True)).real
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(found.eigenvalue, wanted[..., 0], rtol=200 * eps, atol=0)
    misfit = (X @ found.eigenvector[..., None])[..., 0] - found.eigenvalue[..., None] * found.eigenvector
    assert float(misfit.abs().max()) < 300 * eps * float(wanted.abs().max())
    assert found.status.tolist() == [0, 0]
    assert bool((found.eigenvector.sum(-1) >= 0).all())


def test_reference_and_half_precision() -> None:
    X = general()
    u = pmaf.dominant_pair(X).eigenvector
    turned = pmaf.dominant_pair(X, reference=-torch.ones(5, dtype=X.dtype)).eigenvector
    torch.testing.assert_close(turned, -u)
    assert pmaf.dominant_pair(X.half()).eigenvector.dtype == torch.float16


def thin(n: int = 6) -> tuple[Tensor, Tensor]:
    """A sparse positive matrix as the places of its entries, ``(2, e)``, and their values, ``(e,)``."""
    X = torch.where(torch.rand(n, n) < 0.5, torch.rand(n, n, dtype=torch.float64), 0)
    X = X + torch.diag(torch.ones(n, dtype=torch.float64))
    at = X.nonzero().T
    return at, X[at[0], at[1]]


def multiplied_by(at: Tensor) -> Any:
    """The product with such a matrix, as a function of its values."""
    return lambda values, V: torch.zeros_like(V).index_add(0, at[0], values[:, None] * V[at[1]])


def dense(at: Tensor, values: Tensor, n: int = 6) -> Tensor:
    return torch.zeros(n, n, dtype=values.dtype).index_put((at[0], at[1]), values)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta:UserWarning")
@pytest.mark.parametrize("backward", [None, pmaf.Unrolled()], ids=str)
@pytest.mark.parametrize("form", ["coo", "csr", "function"])
def test_products_alone_give_the_pair_and_gradient_of_the_dense_matrix(form: str, backward: Any) -> None:
    at, values = thin()
    full = dense(at, values).requires_grad_()
    if form == "function":
        leaf = values.clone().requires_grad_()
        X: Any = pmaf.MatVec(multiplied_by(at), 6, leaf)
    else:
        X = leaf = (full.detach().to_sparse() if form == "coo" else full.detach().to_sparse_csr()).requires_grad_()
    ours, truth = layer(X, backward), layer(full)
    weights = torch.linspace(-1, 1, 6, dtype=torch.float64)
    for x, y in zip(ours, truth, strict=True):
        torch.testing.assert_close(x, y)
    for loss in (lambda s, U: s.sum(), lambda s, U: (U * weights).sum()):
        (mine,) = torch.autograd.grad(loss(*ours), leaf, retain_graph=True)
        (theirs,) = torch.autograd.grad(loss(*truth), full, retain_graph=True)
        mine = mine if form == "function" else mine.to_dense()[at[0], at[1]]
        torch.testing.assert_close(mine, theirs[at[0], at[1]], rtol=1e-8, atol=1e-8)


def test_derivatives_from_products() -> None:
    at, values = thin()
    values.requires_grad_()

    def from_products(values: Tensor) -> tuple[Tensor, ...]:
        return layer(pmaf.MatVec(multiplied_by(at), 6, values))  # type: ignore[arg-type]

    assert gradcheck(from_products, values, check_forward_ad=True)
    assert gradgradcheck(from_products, values, fast_mode=True)
    batch = torch.stack((values, 2 * values)).detach()
    mapped = torch.func.vmap(torch.func.jacrev(lambda v: from_products(v)[1]))(batch)
    alone = torch.func.jacrev(lambda v: layer(dense(at, v))[1])(batch[1])
    torch.testing.assert_close(mapped[1], alone, rtol=1e-8, atol=1e-8)


def test_the_web_is_never_made_dense() -> None:
    """PageRank of a ring of 50,000 pages with a short cut; as a full matrix it would take 20 GB."""
    n = 50_000
    rows = torch.cat((torch.arange(n), torch.tensor([n // 2])))
    columns = torch.cat((torch.arange(n).roll(1), torch.tensor([0])))
    links = torch.ones(n + 1, dtype=torch.float64, requires_grad=True)

    def google(links: Tensor, V: Tensor) -> Tensor:
        shares = links / torch.zeros(n, dtype=links.dtype).index_add(0, columns, links)[columns]
        along = torch.zeros_like(V).index_add(0, rows, shares[:, None] * V[columns])
        return 0.85 * along + 0.15 / n * V.sum(0)

    found = pmaf.dominant_pair_ex(pmaf.MatVec(google, n, links))
    assert int(found.status) == pmaf.Status.CONVERGED
    rank = found.eigenvector / found.eigenvector.sum()
    assert float((google(links, rank[:, None])[:, 0] - rank).detach().abs().max()) < 1e-15
    (slope,) = torch.autograd.grad(n * rank[n // 2], links)
    assert float(slope[-1]) > 0 > float(slope[1])  # the short cut helps the page it leads to, at the cost of the detour
    torch.testing.assert_close(slope[-1], -slope[1])  # shares of one page do not see a common factor


@pytest.mark.parametrize("backward", [None, pmaf.FixedPoint(dense=True), pmaf.Unrolled()], ids=str)
def test_derivatives(backward: Any) -> None:
    X = general().requires_grad_()
    forward = backward is None
    assert gradcheck(lambda X: layer(X, backward), (X,), check_forward_ad=forward, check_batched_grad=forward)
    assert gradgradcheck(lambda X: layer(X, backward), (X,))


def test_derivatives_agree_with_those_of_eig() -> None:
    X = general().requires_grad_()
    values, vectors = torch.linalg.eig(X)
    at = values.abs().argmax(-1)
    u = vectors[torch.arange(2), :, at]
    u = (u / u.sum(-1, keepdim=True)).real
    weights = torch.linspace(-1, 1, 5, dtype=X.dtype)
    (wanted,) = torch.autograd.grad((u * weights).sum() + values[torch.arange(2), at].real.sum(), X)
    for backward in (None, pmaf.FixedPoint(dense=True), pmaf.Unrolled()):
        eigenvalue, U = layer(X, backward)
        u = U / U.sum(-1, keepdim=True)
        (grad,) = torch.autograd.grad((u * weights).sum() + eigenvalue.sum(), X)
        torch.testing.assert_close(grad, wanted, rtol=1e-8, atol=1e-8)


def test_transforms() -> None:
    X = general()
    reverse = torch.func.vmap(torch.func.jacrev(lambda X: layer(X)[1]))(X)
    forward = torch.func.vmap(torch.func.jacfwd(lambda X: layer(X)[1]))(X)
    torch.testing.assert_close(reverse, forward)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "X",
    [
        pytest.param([[0.0, -1.0], [1.0, 0.0]], id="complex"),
        pytest.param([[2.0, 0.0], [0.0, -2.0]], id="opposite"),
        pytest.param([[2.0, 0.0], [0.0, 2.0]], id="repeated"),
        pytest.param([[1.0, 1.0], [0.0, 1.0]], id="defective"),
        pytest.param([[0.0, 0.0], [0.0, 0.0]], id="zero"),
    ],
)
def test_what_has_no_dominant_real_pair_is_reported(X: list[list[float]], dtype: torch.dtype) -> None:
    batch = torch.stack((torch.tensor(X, dtype=dtype), torch.diag(torch.tensor([3.0, 1.0], dtype=dtype))))
    found = pmaf.dominant_pair_ex(batch)
    assert int(found.status[0]) in {pmaf.Status.MAX_STEPS, pmaf.Status.NOT_UNIQUE}
    assert int(found.status[1]) == pmaf.Status.CONVERGED


def test_the_residual_is_relative_to_the_matrix() -> None:
    turn = torch.tensor([[0.0, -3.0], [3.0, 0.0]])
    found = pmaf.dominant_pair_ex(turn)
    assert float(found.residual) == pytest.approx(1.0)
    zero = pmaf.dominant_pair_ex(torch.zeros(2, 2))
    assert float(zero.residual) == 0


@pytest.mark.parametrize("value", [-2.0, 0.0, 2.0])
def test_nothing_is_next_to_the_only_eigenvalue(value: float) -> None:
    found = pmaf.dominant_pair_ex(torch.full((1, 1), value))
    assert int(found.status) == pmaf.Status.CONVERGED
    assert float(found.eigenvalue) == value
    assert float(found.gap) == torch.inf


def test_the_plain_function_raises() -> None:
    with pytest.raises(pmaf.ConvergenceError, match="MAX_STEPS"):
        pmaf.dominant_pair(torch.tensor([[0.0, -1.0], [1.0, 0.0]]))


def test_a_bad_item_is_alone() -> None:
    X = general()
    X[0, 0, 0] = torch.nan
    X.requires_grad_()
    found = pmaf.dominant_pair_ex(X)
    assert found.status.tolist() == [pmaf.Status.NON_FINITE, pmaf.Status.CONVERGED]
    (grad,) = torch.autograd.grad(found.eigenvalue[1].sum(), X)
    assert bool(grad.isfinite().all())


def test_bad_arguments() -> None:
    X = general()
    for refused in (pmaf.Gram(X), X.to(torch.complex128)):
        with pytest.raises(TypeError, match="must be a real tensor"):
            pmaf.dominant_pair(refused)
    with pytest.raises(ValueError, match="products alone"):
        pmaf.dominant_pair(X[0].to_sparse(), backward=pmaf.FixedPoint(dense=True))
    with pytest.raises(ValueError, match="must be PowerIteration"):
        pmaf.dominant_pair(X, solver=pmaf.solvers.Eigh())
    for backward in (pmaf.Implicit(), pmaf.DenseJacobian()):
        with pytest.raises(ValueError, match="must be FixedPoint"):
            pmaf.dominant_pair(X, backward=backward)
