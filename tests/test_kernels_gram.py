"""Compiled kernels on factors by themselves: values and vectors against sixty digits, gradients against float64."""

import math

import mpmath
import pytest
import torch

from pmaf.kernels import loader
from pmaf.kernels.gram import (
    gram_eigenpairs,
    gram_gradient,
    gram_image,
    gram_outer,
    gram_product,
    triplet_gradient,
)

mpmath.mp.dps = 60
DTYPES = [torch.float32, torch.float64]
WIDE = torch.float64


@pytest.fixture(params=["baseline", "avx2", "avx512"])
def isa(request, monkeypatch):
    monkeypatch.setenv("PMAF_KERNELS", request.param)
    loader.load.cache_clear()
    if not loader.available():
        loader.load.cache_clear()
        pytest.skip(loader.reason())
    yield request.param
    monkeypatch.undo()
    loader.load.cache_clear()


@pytest.fixture(autouse=True)
def built():
    if not loader.available():
        pytest.skip(loader.reason())


def rounding(dtype):
    return torch.finfo(dtype).eps


def factors(batch, m, n, dtype, seed=0):
    return torch.randn(batch, m, n, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def frank(n):
    rows = [[min(n - i, n - j) if j >= i - 1 else 0 for j in range(n)] for i in range(n)]
    return torch.tensor(rows, dtype=WIDE)


def kahan(n, c=0.6):
    s = math.sqrt(1 - c * c)
    K = torch.eye(n, dtype=WIDE) - c * torch.ones(n, n, dtype=WIDE).triu(1)
    return torch.diag(s ** torch.arange(n, dtype=WIDE)) @ K


def exact_singular(F):
    """Singular values, ascending, and right vectors in columns, in sixty digits."""
    A = mpmath.matrix(F.double().tolist())
    values, vectors = mpmath.eigsy(A.T * A)
    return [mpmath.sqrt(max(v, 0)) for v in values], vectors


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize(("m", "n", "k"), [(5, 1, 1), (16, 3, 1), (7, 3, 3), (100, 9, 2), (2, 4, 2), (40, 24, 3)])
def test_agrees_with_the_singular_values_of_the_factor(isa, m, n, k, largest, dtype):
    F = factors(9, m, n, dtype)
    found = gram_eigenpairs(F, k, largest=largest)
    assert found.seen == 0
    _, S, Vh = torch.linalg.svd(F.double(), full_matrices=True)
    S = torch.nn.functional.pad(S, (0, n - S.shape[-1]))
    S, V = (S, Vh.mT) if largest else (S.flip(-1), Vh.mT.flip(-1))
    bound = 40 * rounding(dtype) * float(S.max())
    assert float((found.singular_values - S[:, :k]).abs().max()) < bound
    if k < n:
        assert float((found.next - S[:, k]).abs().max()) < bound
    assert float(found.residual.max()) < 40 * rounding(dtype)
    gram = found.vectors.double().mT @ found.vectors.double()
    assert float((gram - torch.eye(k, dtype=WIDE)).abs().max()) < 20 * rounding(dtype)
    assert bool((found.vectors.sum(-2) >= -1e-6).all())
    gaps = (S[:, :, None] - S[:, None, :]).abs() + torch.eye(n) * 9
    for c in range(k):
        clear = gaps[:, c].amin(-1) > 0.05
        aligned = (found.vectors[..., c].double() * V[..., c]).sum(-1).abs()
        assert bool((aligned[clear] > 1 - 1e-4).all())


@pytest.mark.parametrize("name", ["frank", "kahan"])
def test_the_smallest_vector_keeps_the_digits_that_squaring_loses(isa, name):
    F = frank(12) if name == "frank" else kahan(20)
    values, vectors = exact_singular(F)
    found = gram_eigenpairs(F[None], 1, largest=False)
    value, v = float(values[0]), torch.tensor([float(vectors[i, 0]) for i in range(F.shape[-1])], dtype=WIDE)
    gap = float(values[1] - values[0])
    size = float(values[-1])
    assert abs(float(found.singular_values) - value) < 20 * rounding(WIDE) * size
    assert float(found.singular_values) == pytest.approx(value, rel=1e-3)
    u = found.vectors[0, :, 0]
    assert float((u - v * torch.sign(u @ v)).norm()) < 50 * rounding(WIDE) * size / gap


def test_small_singular_values_of_single_precision():
    U, V = (torch.linalg.qr(factors(1, n, n, WIDE, seed)[0])[0] for n, seed in ((30, 1), (6, 2)))
    s = torch.tensor([1.0, 0.5, 0.1, 1e-2, 1e-3, 3e-5], dtype=WIDE)
    F = ((U[:, :6] * s) @ V.mT).float()
    values, vectors = exact_singular(F)
    found = gram_eigenpairs(F[None], 1, largest=False)
    assert float(found.singular_values) == pytest.approx(float(values[0]), rel=1e-6)
    v = torch.tensor([float(vectors[i, 0]) for i in range(6)])
    u = found.vectors[0, :, 0]
    assert float((u - v * torch.sign(u @ v)).norm()) < 1e-6


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize(("m", "n", "k"), [(16, 3, 1), (30, 9, 2), (40, 24, 3)])
def test_gradients(isa, m, n, k, largest, weighted, dtype):
    F = factors(5, m, n, dtype)
    weights = torch.rand(5, m, dtype=dtype, generator=torch.Generator().manual_seed(3)) if weighted else None
    found = gram_eigenpairs(F, k, weights, largest=largest)
    H, along = factors(5, n, k, dtype, 4), factors(5, 1, k, dtype, 5)[:, 0]
    gradient, weights_gradient, _ = gram_gradient(F, found, H, along, weights, needs=(True, weighted))

    A = F.double().requires_grad_()
    w = (torch.ones(5, m, dtype=WIDE) if weights is None else weights.double()).requires_grad_()
    values, vectors = torch.linalg.eigh(A.mT @ (w[..., None] * A))
    picked = range(n - 1, n - 1 - k, -1) if largest else range(k)
    values, vectors = values[:, list(picked)], vectors[..., list(picked)]
    vectors = vectors * torch.sign((vectors.detach() * found.vectors.double()).sum(-2, keepdim=True))
    right = torch.autograd.grad((vectors * H).sum() + (values * along).sum(), (A, w))
    error = ((gradient.double() - right[0]).norm(dim=(1, 2)) / right[0].norm(dim=(1, 2))).median()
    assert float(error) < 500 * rounding(dtype)
    if weighted:
        error = ((weights_gradient.double() - right[1]).norm(dim=1) / right[1].norm(dim=1)).median()
        assert float(error) < 500 * rounding(dtype)


def test_range_of_squares_does_not_matter():
    F = factors(4, 8, 3, torch.float32)
    usual = gram_eigenpairs(F, 1)
    for power in (63, -80):
        scaled = gram_eigenpairs(F * 2.0**power, 1)
        assert torch.equal(scaled.vectors, usual.vectors)
        assert torch.equal(scaled.singular_values, usual.singular_values * 2.0**power)
        gradient, _, _ = gram_gradient(F * 2.0**power, scaled, torch.ones(4, 3, 1))
        expected, _, _ = gram_gradient(F, usual, torch.ones(4, 3, 1))
        assert torch.allclose(gradient * 2.0**power, expected, rtol=1e-6)
    small = torch.tensor([[[1e-10, 2e-10]]])
    gradient, _, _ = gram_gradient(small, gram_eigenpairs(small, 1), torch.tensor([[[1.0], [0.0]]]))
    assert bool(gradient.isfinite().all())
    assert float(gradient.abs().max()) == pytest.approx(3.6e9, rel=0.1)


def test_rank_deficient_and_zero_factors_have_unit_vectors():
    for F in (torch.zeros(1, 1, 2), torch.ones(1, 2, 3), torch.empty(1, 0, 3), factors(1, 2, 5, torch.float32)):
        n = F.shape[-1]
        found = gram_eigenpairs(F, n, largest=False)
        assert torch.allclose(found.vectors[0].mT @ found.vectors[0], torch.eye(n), atol=1e-6)
        assert float(found.residual) < 1e-6


def test_an_item_does_not_see_its_neighbours(isa):
    F = factors(19, 20, 6, torch.float32)
    poisoned = F.clone()
    poisoned[4, 1, 0], poisoned[7, 0, -1], poisoned[11] = math.nan, math.inf, 0
    H = factors(19, 6, 2, torch.float32, 1)
    whole = gram_eigenpairs(poisoned, 2)
    gradients, _, _ = gram_gradient(poisoned, whole, H)
    assert whole.code.tolist() == [int(i in (4, 7)) for i in range(19)]
    assert bool((gradients[[4, 7]] == 0).all())
    for items in (slice(0, 1), slice(5, 7), slice(12, 19), slice(18, 19)):
        found = gram_eigenpairs(F[items], 2)
        some, _, _ = gram_gradient(F[items], found, H[items])
        for item in range(19)[items]:
            if item in (4, 7, 11):
                continue
            for name in ("singular_values", "vectors", "next", "norm", "residual", "factor"):
                assert torch.equal(getattr(found, name)[item - items.start], getattr(whole, name)[item]), name
            assert torch.equal(some[item - items.start], gradients[item])


@pytest.mark.parametrize(
    ("batch", "m", "n"), [(19, 16, 3), (3, 5, 9), (20, 100, 9), (9, 7, 24), (9, 70, 30), (1, 1, 1)]
)
def test_the_square_in_double_precision(isa, batch, m, n):
    F = factors(batch, m, n, torch.float32)
    X = gram_product(F)
    assert torch.allclose(X, F.double().mT @ F.double(), rtol=1e-13, atol=1e-13)
    assert torch.equal(X, X.mT)
    assert torch.equal(X[-1:], gram_product(F[-1:]))


@pytest.mark.parametrize(("batch", "m", "n", "k"), [(3, 16, 3, 1), (2, 13, 9, 2), (5, 8, 24, 3), (1, 1, 1, 1)])
def test_the_gradient_of_the_square(isa, batch, m, n, k):
    F, U, W = factors(batch, m, n, torch.float32), factors(batch, n, k, WIDE, 1), factors(batch, n, k, WIDE, 2)
    code = torch.zeros(batch, dtype=torch.int32)
    code[1:2] = 1
    F[1:2] = math.nan
    gradient = gram_outer(F, U, W, code)
    A = F.double()
    expected = (A @ U) @ W.mT + (A @ W) @ U.mT
    expected[1:2] = 0
    assert torch.allclose(gradient.double(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("batch", "m", "n", "k"),
    [(3, 16, 3, 1), (2, 13, 9, 2), (5, 9, 24, 3), (1, 1, 1, 1), (2, 4100, 11, 4), (2, 0, 3, 1)],
)
def test_one_pass_over_the_rows_of_a_factor(isa, dtype, batch, m, n, k):
    F, U, H = factors(batch, m, n, dtype), factors(batch, m, k, dtype, 1), factors(batch, m, k, dtype, 2)
    w, P, Q = (factors(batch, n, k, WIDE, seed) for seed in (3, 4, 5))
    A, close = F.double(), {"rtol": 2 * torch.finfo(dtype).eps, "atol": 40 * torch.finfo(torch.float64).eps * n}
    image = gram_image(F, w)
    assert torch.allclose(image.double(), A @ w, **close)
    gradient = triplet_gradient(F, U, H, w, P, Q)
    expected = U.double() @ P.mT + (H.double() + A @ w) @ Q.mT
    assert torch.allclose(gradient.double(), expected, **close)
    assert torch.allclose(triplet_gradient(F, U, None, w, P, Q).double(), expected - H.double() @ Q.mT, **close)
    # A row has the same bits alone.
    last = (slice(batch - 1, batch), slice(m - 1, m))
    if m:
        own = slice(batch - 1, batch)
        assert torch.equal(image[last], gram_image(F[last], w[own]))
        assert torch.equal(gradient[last], triplet_gradient(F[last], U[last], H[last], w[own], P[own], Q[own]))
