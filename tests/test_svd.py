"""Leading singular triplets."""

from __future__ import annotations

import pytest
import torch

import pmaf
from cases import WORKING, eps, orthogonal, randn, with_singular_values
from pmaf import Status

SHAPES = [(6, 4), (4, 6), (4, 4), (3, 9), (40, 3), (1, 5), (5, 1)]
SMALL = (1.0, 1e-2, 1e-4, 1e-6)


def stacked(k, **options):
    """U, S and V as one tensor ``(*, 1 + m + n, k)``."""

    def function(A):
        U, S, Vh = pmaf.svd(A, k, **options)
        return torch.cat((S[..., None, :].to(U.dtype), U, Vh.mT), -2)

    return function


@pytest.mark.parametrize("dtype", WORKING, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("largest", [True, False])
def test_the_answer_is_that_of_torch(dtype, shape, largest):
    A = randn(3, *shape, dtype=dtype)
    k = min(2, *shape)
    found = pmaf.svd_ex(A, k, largest=largest)
    assert bool((found.status == Status.CONVERGED).all())
    truth = torch.linalg.svdvals(A)
    truth = truth if largest else truth.flip(-1)
    torch.testing.assert_close(found.S, truth[..., :k], rtol=1000 * eps(dtype), atol=0)
    U, S, V = found.U, found.S, found.Vh.mH
    assert U.shape == (3, shape[0], k)
    assert S.shape == (3, k)
    assert found.Vh.shape == (3, k, shape[1])
    eye = torch.eye(k, dtype=dtype).expand(3, k, k)
    for X in (U, V):
        torch.testing.assert_close(X.mH @ X, eye, rtol=0, atol=100 * eps(dtype))
    torch.testing.assert_close(A @ V, U * S[..., None, :].to(dtype), rtol=0, atol=100 * eps(dtype) * float(truth.max()))
    assert float(found.residual.max()) < 100 * eps(dtype)
    inner = V.sum(-2)
    assert bool((inner.real >= 0).all())
    assert float((inner - inner.abs()).abs().max()) < 100 * eps(dtype)
    if k < min(shape):
        torch.testing.assert_close(found.gap, (truth[..., k - 1] - truth[..., k]).abs(), rtol=1e-5, atol=1e-5)
    else:
        assert bool(found.gap.isinf().all())


@pytest.mark.parametrize("largest", [True, False])
def test_small_singular_values_keep_their_digits(largest):
    left, right = orthogonal(50, 1)[:, :4], orthogonal(4, 2)
    s = torch.tensor(SMALL, dtype=torch.float64)
    found = pmaf.svd((left * s) @ right.mT, 4, largest=largest)
    torch.testing.assert_close(found.S, s if largest else s.flip(-1), rtol=1e-9, atol=0)
    eye = torch.eye(4, dtype=torch.float64)
    torch.testing.assert_close(found.U.mT @ found.U, eye, rtol=0, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize("shape", SHAPES[:4], ids=str)
@pytest.mark.parametrize(("k", "options"), [(1, {}), (3, {}), (2, {"largest": False})], ids=str)
def test_derivatives(dtype, shape, k, options):
    A = randn(*shape, dtype=dtype).requires_grad_()
    assert torch.autograd.gradcheck(stacked(k, **options), A, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(stacked(k, **options), A, fast_mode=True)


@pytest.mark.parametrize("shape", [(6, 4), (4, 6)], ids=str)
def test_both_routes_give_one_gradient(shape):
    A = with_singular_values(*shape[:1], (3.0, 2.0, 1.5, 1.0, 0.0, 0.0)[: shape[1]]).requires_grad_()
    weight = randn(1 + sum(shape), 2, seed=4)
    (short,) = torch.autograd.grad((stacked(2)(A) * weight).sum().square(), A)
    (whole,) = torch.autograd.grad((stacked(2, backward=pmaf.Unrolled())(A) * weight).sum().square(), A)
    torch.testing.assert_close(short, whole, rtol=1e-10, atol=1e-10)


def test_unwanted_values_may_repeat_or_vanish():
    left, right = orthogonal(6, 1)[:, :5], orthogonal(5, 2)
    s = torch.tensor([4.0, 3.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    A = ((left * s) @ right.mT).requires_grad_()
    assert torch.autograd.gradcheck(stacked(2), A)
    assert torch.autograd.gradgradcheck(stacked(2), A, fast_mode=True)


def test_the_null_vector_has_a_gradient():
    left, right = orthogonal(6, 1)[:, :4], orthogonal(4, 2)
    A = ((left * torch.tensor([4.0, 3.0, 1.0, 1e-3], dtype=torch.float64)) @ right.mT).requires_grad_()
    assert torch.autograd.gradcheck(lambda A: pmaf.svd(A, 1, largest=False).Vh, A)


@pytest.mark.parametrize("rank", [0, 3])
def test_the_sum_of_singular_values_of_too_low_a_rank(rank):
    F = (randn(12, rank, seed=1) @ randn(rank, 6, seed=2)).requires_grad_()
    with pytest.warns(pmaf.DegeneracyWarning):
        S = pmaf.svd(F, 6).S
    (g,) = torch.autograd.grad(S.sum(), F)
    assert bool(g.isfinite().all())
    assert float(torch.linalg.matrix_norm(g, 2)) < 1 + 1e-12
    assert int(torch.linalg.matrix_rank(g)) == rank


def test_repeated_wanted_values_leave_the_approximation_differentiable():
    left, right = orthogonal(6, 1)[:, :4], orthogonal(4, 2)
    A = ((left * torch.tensor([3.0, 3.0, 1.0, 0.5], dtype=torch.float64)) @ right.mT).requires_grad_()
    with pytest.warns(pmaf.DegeneracyWarning):
        found = pmaf.svd(A, 2)
    assert float(found.S.detach().diff().abs()) < 1e-12
    (g,) = torch.autograd.grad((found.U @ found.Vh * randn(6, 4, seed=3)).sum(), A)
    assert torch.autograd.gradcheck(lambda A: A @ pmaf.principal_projector(pmaf.Gram(A), 2), A)
    assert bool(g.isfinite().all())


def test_one_bad_item_spoils_no_other():
    A = randn(3, 5, 4)
    A[1, 2, 2] = torch.nan
    A.requires_grad_()
    found = pmaf.svd_ex(A, 2)
    assert found.status.tolist() == [0, int(Status.NON_FINITE), 0]
    (g,) = torch.autograd.grad(found.S.nansum() + found.U.nan_to_num().sum(), A)
    assert bool(g.isfinite().all())
    assert not bool(g[1].any())
    assert bool(g[0].any())
    with pytest.raises(pmaf.ConvergenceError, match="item \\(1,\\)"):
        pmaf.svd(A, 2)


@pytest.mark.parametrize("scale", [1e-150, 1e150])
def test_scale_does_not_matter(scale):
    A = randn(6, 4)
    plain, scaled = pmaf.svd(A, 2), pmaf.svd(scale * A, 2)
    torch.testing.assert_close(scaled.S / scale, plain.S)
    torch.testing.assert_close(scaled.U, plain.U)


def test_reference_start_solver_and_half():
    A = randn(2, 8, 5)
    reference = randn(5, seed=3)
    assert bool(((pmaf.svd(A, 2, reference=reference).Vh * reference).sum(-1) >= 0).all())
    each = randn(2, 5, 2, seed=4)
    assert bool(((pmaf.svd(A, 2, reference=each).Vh * each.mT).sum(-1) >= 0).all())
    for options in ({"start": randn(5, seed=5)}, {"solver": "eigh"}, {"solver": "block_lanczos"}):
        torch.testing.assert_close(pmaf.svd(A, 1, **options).S, pmaf.svd(A, 1).S, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(pmaf.svd(A.mT, 1, **({} if "start" in options else options)).S, pmaf.svd(A, 1).S)
    found = pmaf.svd(A.to(torch.bfloat16), 1)
    assert found.U.dtype == found.S.dtype == torch.bfloat16


def test_refusals():
    A = randn(4, 3)
    with pytest.raises(ValueError, match=r"k must lie between 0 and min\(m, n\) = 3"):
        pmaf.svd(A, 4)
    with pytest.raises(TypeError, match="A must be a tensor"):
        pmaf.svd([[1.0]], 1)
    with pytest.raises(ValueError, match=r"k must lie between 1 and min\(m, n\) = 3"):
        pmaf.svd(A.to_sparse_coo(), 4)
    with pytest.raises(ValueError, match="reference must have size 3"):
        pmaf.svd(A, 1, reference=randn(4))
    with pytest.raises(ValueError, match="does not apply to singular triplets"):
        pmaf.svd(A, 1, backward=pmaf.DenseJacobian())
    with pytest.raises(ValueError, match="unknown solver"):
        pmaf.svd(A, 1, solver="gesdd")


def test_the_module():
    layer = pmaf.nn.SVD(2, largest=False)
    assert repr(layer) == "SVD(k=2, largest=False)"
    A = randn(5, 3)
    assert all(torch.equal(x, y) for x, y in zip(layer(A), pmaf.svd(A, 2, largest=False), strict=True))


def test_nothing_square_of_the_long_side_is_formed():
    A = randn(20_000, 4, dtype=torch.float32).requires_grad_()
    found = pmaf.svd(A, 2)
    (g,) = torch.autograd.grad(found.U.sum() + found.Vh.sum(), A)  # a square would take 1.6 gigabytes
    assert g.shape == A.shape
    assert bool(g.isfinite().all())


FORMS = {
    "sparse": lambda A: A.to_sparse_csr(),
    "function": lambda A: pmaf.MatVec(lambda A, V: A @ V, A.shape[1], A),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", WORKING, ids=str)
@pytest.mark.parametrize("shape", [(30, 12), (9, 25), (6, 1)], ids=str)
@pytest.mark.parametrize("largest", [True, False])
def test_a_matrix_known_by_its_products(form, dtype, shape, largest):
    A, k = randn(*shape, dtype=dtype), min(2, *shape)
    found, truth = pmaf.svd_ex(FORMS[form](A), k, largest=largest), pmaf.svd_ex(A, k, largest=largest)
    assert int(found.status) == 0
    assert float(found.residual) < 1e4 * eps(dtype)
    for x, y in zip(found[:3], truth[:3], strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=eps(dtype) ** 0.5)
    torch.testing.assert_close(found.gap, truth.gap, rtol=1e-3, atol=1e-3, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize("shape", [(7, 4), (3, 6)], ids=str)
def test_derivatives_of_a_function(dtype, shape):
    A = randn(*shape, dtype=dtype).requires_grad_()
    solver = pmaf.solvers.Eigh()  # to the last digit, as finite differences need
    function = lambda A: stacked(2, solver=solver)(FORMS["function"](A))  # noqa: E731
    assert torch.autograd.gradcheck(function, A)
    assert torch.autograd.gradgradcheck(function, A, fast_mode=True)


def test_the_gradient_of_a_sparse_matrix_stays_on_its_pattern():
    dense = randn(12, 7) * (randn(12, 7, seed=2) > 0)
    sparse, dense = dense.to_sparse_coo().coalesce().requires_grad_(), dense.requires_grad_()
    weight = randn(20, 2, seed=4)
    (ours,) = torch.autograd.grad((stacked(2)(sparse) * weight).sum(), sparse)
    (theirs,) = torch.autograd.grad((stacked(2)(dense) * weight).sum(), dense)
    torch.testing.assert_close(ours.to_dense(), theirs * (dense.detach() != 0), rtol=1e-6, atol=1e-8)


def test_what_squares_lose_is_not_called_found():
    left, right = orthogonal(9, 1)[:, :4], orthogonal(4, 2)
    A = (left * torch.tensor([1.0, 0.5, 1e-3, 1e-12], dtype=torch.float64)) @ right.mT
    assert int(pmaf.svd_ex(A.to_sparse_csr(), 1, largest=False).status) == Status.MAX_STEPS
    assert int(pmaf.svd_ex(A.to_sparse_csr(), 3).status) == 0


@pytest.mark.parametrize("shape", [(4, 3), (0, 3), (3, 0), (0, 4, 3), (2, 0, 0)], ids=str)
def test_nothing_selected(shape):
    A = randn(*shape).requires_grad_()
    found = pmaf.svd_ex(A, 0)
    batch, (m, n) = shape[:-2], shape[-2:]
    assert [tuple(x.shape) for x in found] == [(*batch, m, 0), (*batch, 0), (*batch, 0, n), *(4 * [batch])]
    (g,) = torch.autograd.grad(sum(x.sum() for x in pmaf.svd(A, 0)), A)
    assert not bool(g.any())


def test_an_empty_batch():
    U, S, Vh = pmaf.svd(randn(0, 4, 3).requires_grad_(), 2)
    assert (U.shape, S.shape, Vh.shape) == ((0, 4, 2), (0, 2), (0, 2, 3))


@pytest.mark.parametrize("shape", [(5, 30, 6), (2, 3, 4, 9)], ids=str)
@pytest.mark.parametrize("wanted", ["U", "S", "Vh"])
def test_the_gradient_in_single_precision(shape, wanted):
    A = randn(*shape, dtype=torch.float32)
    gradients = []
    for leaf in (A.clone().requires_grad_(), A.double().requires_grad_()):
        part = getattr(pmaf.svd(leaf, 2), wanted)
        weight = randn(*part.shape, seed=3).to(part.dtype)
        gradients += torch.autograd.grad((part * weight).sum().square(), leaf)
    ours, truth = gradients
    assert float((ours - truth).norm() / truth.norm()) < 1e-4


def test_unknown_arguments_are_refused():
    for call in (
        lambda: pmaf.svd(randn(3, 2), measured=True),
        lambda: pmaf.ied(torch.eye(2), metric=torch.eye(2), measured=True),
    ):
        with pytest.raises(TypeError, match="unexpected keyword argument 'measured'"):
            call()


@pytest.mark.parametrize("kind", ["sparse", "MatVec"])
def test_no_triplets_of_what_is_known_by_its_products(kind):
    dense = torch.arange(1.0, 7, dtype=torch.float64).reshape(3, 2).requires_grad_()
    A = dense.to_sparse() if kind == "sparse" else pmaf.MatVec(lambda A, V: A @ V, 2, dense)
    found = pmaf.svd_ex(A, 0)
    assert [tuple(x.shape) for x in found[:3]] == [(3, 0), (0,), (0, 2)]
    assert int(found.status) == 0
    (found.U.sum() + found.S.sum() + found.Vh.sum()).backward()
    assert dense.grad is not None
    assert bool((dense.grad == 0).all())
