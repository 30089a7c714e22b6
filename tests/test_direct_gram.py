"""The short way of Gram matrices: the same answers as the general path, items that do not see their neighbours."""

import warnings

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

import pmaf
from cases import randn, rng
from pmaf.kernels import available
from pmaf.layers import direct_gram

DTYPES = [torch.float32, torch.float64]


@pytest.fixture(autouse=True)
def built():
    if not available():
        pytest.skip("the short way needs compiled kernels")


def factors(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def general(monkeypatch, F, *args, **kwargs):
    """The answer of the general path."""
    with monkeypatch.context() as patch:
        patch.setattr(direct_gram, "available", lambda: False)
        return pmaf.ied_ex(pmaf.Gram(F), *args, **kwargs)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize(
    ("shape", "k"), [((16, 3), 1), ((20, 100, 9), 2), ((2, 3, 5, 4), 4), ((3, 40, 24), 3), ((4, 5), 1)]
)
def test_agrees_with_the_general_path(monkeypatch, shape, k, largest, dtype):
    F = factors(*shape, dtype=dtype)
    U_bar, values_bar = (factors(*shape[:-2], *core, dtype=dtype, seed=2) for core in ((shape[-1], k), (k,)))
    results = []
    for path in (
        lambda X: pmaf.ied_ex(pmaf.Gram(X), k, largest=largest),
        lambda X: general(monkeypatch, X, k, largest=largest),
    ):
        leaf = F.clone().requires_grad_()
        found = path(leaf)
        loss = (found.eigenvectors * U_bar).sum() + (found.eigenvalues * values_bar).sum()
        (gradient,) = torch.autograd.grad(loss, leaf)
        results.append((type(found)(*(x.detach() for x in found)), gradient))
        short = "DirectGram" in str(found.eigenvectors.grad_fn)
        assert short == (len(results) == 1) or shape == (4, 5)
    (ours, gradient), (theirs, expected) = results
    eps = torch.finfo(dtype).eps
    size = torch.linalg.matrix_norm(F, 2).square().max()
    assert torch.equal(ours.status, theirs.status)
    assert torch.equal(ours.steps, theirs.steps)
    assert float((ours.eigenvalues - theirs.eigenvalues).abs().max()) < 100 * eps * float(size)
    assert torch.allclose(ours.gap, theirs.gap, rtol=1e-3, atol=100 * eps * float(size))
    assert torch.allclose(ours.eigenvectors, theirs.eigenvectors, atol=1e5 * eps)
    assert float((gradient - expected).norm() / expected.norm()) < 1e5 * eps
    assert float(ours.residual.max()) < 100 * eps


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128, torch.float64], ids=str)
@pytest.mark.parametrize(
    ("shape", "k", "largest"), [((3, 20, 9), 2, True), ((2, 50, 40), 1, False), ((9, 4, 7), 2, True)]
)
def test_complex_and_wide_factors_through_their_square(monkeypatch, shape, k, largest, dtype):
    weights = torch.rand(*shape[:-1], dtype=dtype.to_real(), generator=rng(1)) + 0.1
    along = factors(*shape[:-2], shape[-1], k, dtype=dtype, seed=2)
    F = factors(*shape, dtype=dtype)
    if not largest:
        F[0] = torch.linalg.qr(F[0])[0] * torch.linspace(1, 2, shape[-1], dtype=dtype)
    F[1, :, 0] = 0  # singular: what squares do not tell in double precision is left to the general path

    def answers(F, weights, along):
        parts = F.clone().requires_grad_(), weights.clone().requires_grad_()
        found = pmaf.ied_ex(pmaf.Gram(parts[0], weights=parts[1]), k, largest=largest)
        loss = (found.eigenvectors * along.conj()).real.sum() + found.eigenvalues.sum()
        return *(x.detach() for x in found), *torch.autograd.grad(loss, parts)

    ours = answers(F, weights, along)
    for x, alone in zip(ours, answers(F[:1], weights[:1], along[:1]), strict=True):
        if not dtype.is_complex:  # whose phases torch rounds as it likes
            assert torch.equal(x[:1], alone)
    monkeypatch.setattr(direct_gram, "available", lambda: False)
    for name, x, expected in zip(
        (*pmaf.IEDSolution._fields, "F", "weights"), ours, answers(F, weights, along), strict=True
    ):
        if name not in ("residual", "gap"):
            assert torch.allclose(x, expected, rtol=0, atol=1e5 * torch.finfo(dtype).eps), name


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_an_item_alone_has_the_bits_it_has_among_others(dtype):
    F = factors(19, 20, 6, dtype=dtype)
    F[4, 1, 0], F[7] = torch.nan, torch.eye(20, 6, dtype=dtype)
    F[9, :, 1] = F[9, :, 0]
    H = factors(19, 6, 6, dtype=dtype, seed=1)

    def solve(some, cotangent):
        leaf = some.clone().requires_grad_()
        found = pmaf.ied_ex(pmaf.Gram(leaf), 2, largest=False)
        projector = found.eigenvectors @ found.eigenvectors.mT  # which does not see the basis where there are many
        return found, *torch.autograd.grad((projector * cotangent).nansum(), leaf)

    whole, gradient = solve(F, H)
    assert [int(i) for i in whole.status.nonzero()[:, 0]] == [4, 7]
    for item in (0, 9, 11, 18):
        alone, own = solve(F[item : item + 1], H[item : item + 1])
        assert torch.equal(own[0], gradient[item])
        for name, x in alone._asdict().items():
            assert torch.equal(x[0], getattr(whole, name)[item]), name


def test_small_singular_values_of_single_precision():
    U, V = (torch.linalg.qr(factors(n, n, seed=seed))[0] for n, seed in ((30, 1), (6, 2)))
    s = torch.tensor([1.0, 0.5, 0.1, 1e-2, 1e-3, 3e-5], dtype=torch.float64)
    F = ((U[:, :6] * s) @ V.mT).float()
    exact = torch.linalg.svd(F.double())
    value, u = pmaf.ied(pmaf.Gram(F), largest=False)
    assert float(value.sqrt()) == pytest.approx(float(exact.S[-1]), rel=1e-6)
    assert float((u[:, 0].double() @ exact.Vh[-1]).abs()) == pytest.approx(1.0, abs=1e-7)


@pytest.mark.parametrize("scale", [1e-18, 1e-14, 1e17, 1e19])
def test_squares_beyond_the_range_take_the_general_path(monkeypatch, scale):
    F = factors(2, 8, 3, dtype=torch.float32) * scale
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pmaf.RangeWarning)
        U = pmaf.ied(pmaf.Gram(F)).eigenvectors
    assert torch.allclose(U, pmaf.ied(pmaf.Gram(F / scale)).eigenvectors, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize("largest", [True, False])
def test_second_derivatives(largest, dtype):
    F = factors(2, 7, 4, dtype=dtype).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda X: tuple(pmaf.ied(pmaf.Gram(X), 2, largest=largest)), F)


def test_batched_cotangents():
    F = factors(3, 7, 4).requires_grad_()
    U = pmaf.ied(pmaf.Gram(F), 2).eigenvectors
    H = factors(5, 3, 4, 2, seed=3)
    together = torch.autograd.grad(U, F, H, is_grads_batched=True, retain_graph=True)[0]
    for h, expected in zip(H, together, strict=True):
        (one,) = torch.autograd.grad(U, F, h, retain_graph=True)
        assert torch.allclose(one, expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("largest", [True, False])
def test_weights(dtype, largest):
    F = randn(3, 20, 5, seed=1, dtype=dtype)
    for weights in (torch.rand(20, generator=rng(2), dtype=dtype), torch.rand(3, 20, generator=rng(3), dtype=dtype)):
        weights[..., 4] = 0
        found = []
        for solver in (None, "eigh"):
            parts = F.clone().requires_grad_(), weights.clone().requires_grad_()
            solution = pmaf.ied_ex(pmaf.Gram(*parts), 2, largest=largest, solver=solver)
            assert ("DirectGram" in str(solution.eigenvalues.grad_fn)) == (solver is None)
            loss = solution.eigenvectors.pow(3).sum() + (solution.eigenvalues * torch.tensor([1, 2])).sum()
            found.append((*solution[:2], *torch.autograd.grad(loss, parts)))
        for short, general in zip(*found, strict=True):
            scale = general.abs().max()
            torch.testing.assert_close(short / scale, general / scale, rtol=0, atol=3000 * torch.finfo(dtype).eps)


def test_derivatives_with_weights():
    parts = randn(6, 4, seed=1, dtype=torch.float64), torch.rand(6, generator=rng(2), dtype=torch.float64)
    given = [x.requires_grad_() for x in parts]
    assert gradcheck(lambda F, w: pmaf.ied(pmaf.Gram(F, w), 2), given)
    assert gradgradcheck(lambda F, w: pmaf.ied(pmaf.Gram(F, w), 2), given)


def test_a_negative_weight_is_named_by_its_place():
    weights = torch.ones(3, 7, dtype=torch.float64)
    weights[2, 5] = -1
    with pytest.raises(ValueError, match=r"non-negative, got -1 at index \(2, 5\)"):
        pmaf.ied(pmaf.Gram(randn(3, 7, 4, seed=1), weights))


@pytest.mark.parametrize(("m", "n", "k"), [(5, 9, 2), (9, 5, 1), (12, 40, 3)])
def test_the_kernel_by_name_differentiates_what_is_not_a_dense_matrix(m, n, k):
    """The tridiagonal form belongs to X, not to the tensors that X is made of."""
    F = factors(2, m, n).requires_grad_()
    X = factors(n, n, seed=1)
    X = torch.where((X + X.mT).abs() > 1, X + X.mT, 0).to_sparse().requires_grad_()

    def gradient(X, leaf, solver):
        U = pmaf.ied_ex(X, k, solver=solver).eigenvectors
        weights = torch.linspace(-1, 1, n, dtype=U.dtype)[:, None]
        return torch.autograd.grad((U.square().square() * weights).sum(), leaf)[0].to_dense()

    for problem, leaf in ((pmaf.Gram(F), F), (X, X)):
        torch.testing.assert_close(gradient(problem, leaf, "tridiagonal"), gradient(problem, leaf, "eigh"))
