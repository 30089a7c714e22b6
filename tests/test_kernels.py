"""Compiled kernels by themselves: eigenpairs and gradients against float64 eigh, on every instruction set there is."""

import multiprocessing
import threading

import pytest
import torch

from pmaf.kernels import loader
from pmaf.kernels.eigenpairs import Code, Eigenpairs, eigen_gradient, eigen_solve, eigenpairs

DTYPES = [torch.float32, torch.float64, torch.complex64, torch.complex128]
BOUND = {torch.float32: 3e-6, torch.complex64: 3e-6, torch.float64: 1e-11, torch.complex128: 1e-11}


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


@pytest.fixture
def built():
    if not loader.available():
        pytest.skip(loader.reason())


def wide(dtype):
    return torch.complex128 if dtype.is_complex else torch.float64


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def hermitian(*shape, dtype, seed=0):
    X = torch.randn(*shape, shape[-1], dtype=dtype, generator=generator(seed))
    return (X + X.mH) / 2


def with_spectrum(spectrum, batch, dtype, seed=0):
    n = len(spectrum)
    Q, _ = torch.linalg.qr(torch.randn(batch, n, n, dtype=wide(dtype), generator=generator(seed)))
    X = ((Q * torch.tensor(spectrum, dtype=torch.float64)) @ Q.mH).to(dtype)
    return (X + X.mH) / 2


def wilkinson(m):
    off = torch.ones(m - 1, dtype=torch.float64)
    return torch.diag((torch.arange(m) - (m - 1) / 2).abs().double()) + torch.diag(off, 1) + torch.diag(off, -1)


def glued(m, copies, strength):
    X = torch.block_diag(*[wilkinson(m)] * copies)
    for i in range(m, copies * m, m):
        X[i - 1, i] = X[i, i - 1] = strength
    return X


def rotated(X, seed=3):
    Q, _ = torch.linalg.qr(torch.randn(*X.shape, dtype=torch.float64, generator=generator(seed)))
    return Q @ X @ Q.mT


def laplacian(n):
    edges = (torch.rand(n, n, generator=generator(5)) < 0.3).double().triu(1)
    edges = edges + edges.mT
    return torch.diag(edges.sum(0)) - edges


def outer(v):
    return torch.outer(v, v)


MATRICES = {
    "wilkinson": wilkinson(21),
    "wilkinson rotated": rotated(wilkinson(21)),
    "glued": glued(21, 3, 1e-8),
    "glued rotated": rotated(glued(11, 4, 1e-4)),
    "graded": torch.diag(torch.logspace(0, -12, 24, dtype=torch.float64)),
    "graded rotated": rotated(torch.diag(torch.logspace(-12, 0, 24, dtype=torch.float64))),
    "rank one": outer(torch.randn(12, dtype=torch.float64, generator=generator(2))),
    "ones": torch.ones(9, 9, dtype=torch.float64),
    "identity": torch.eye(7, dtype=torch.float64),
    "large identity": torch.eye(40, dtype=torch.float64),
    "minus identity": -torch.eye(5, dtype=torch.float64),
    "zero": torch.zeros(6, 6, dtype=torch.float64),
    "repeated": rotated(torch.diag(torch.tensor([3.0] * 3 + [1.0] * 5 + [-2.0] * 4, dtype=torch.float64))),
    "crowded": rotated(torch.diag(torch.tensor([1, 1 - 1e-6, 1 - 2e-6] + [0.5] * 9, dtype=torch.float64))),
    "plus and minus": rotated(torch.diag(torch.tensor([1.0, -1.0] * 6, dtype=torch.float64))),
    "exchange": torch.eye(8, dtype=torch.float64).flip(0).contiguous(),
    "laplacian": laplacian(20),
    "second difference": torch.diag(torch.full((48,), 2.0, dtype=torch.float64))
    - torch.diag(torch.ones(47, dtype=torch.float64), 1)
    - torch.diag(torch.ones(47, dtype=torch.float64), -1),
    "one": torch.tensor([[-3.0]], dtype=torch.float64),
    "two": torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64),
    "large": hermitian(150, dtype=torch.float64),
}


def check(X, answer, k, largest, size=1.0):
    """Values, order, residual and orthonormality against eigh in double precision of X, whose norm is about `size`."""
    bound, dtype = BOUND[X.dtype], wide(X.dtype)
    X = X.to(dtype) / size
    spectrum = torch.linalg.eigvalsh(X)
    norm = spectrum.abs().amax(-1)
    spectrum = spectrum.flip(-1) if largest else spectrum
    values, U = answer.values.double() / size, answer.vectors.to(dtype)
    n = X.shape[-1]
    assert not answer.seen & (Code.INACCURATE | Code.NOT_FINITE | Code.ASYMMETRIC)
    assert ((values - spectrum[..., :k]).abs().amax(-1) <= bound * norm).all()
    residual = torch.linalg.vector_norm(X @ U - U * values[..., None, :], dim=-2).amax(-1)
    assert (residual <= bound * norm).all()
    assert ((U.mH @ U - torch.eye(k, dtype=dtype)).abs() <= bound).all()
    step = values[..., 1:] - values[..., :-1]
    assert ((step <= 0) if largest else (step >= 0)).logical_or(step.abs() <= bound * norm[..., None]).all()
    if k < n:
        assert ((answer.next.double() / size - spectrum[..., k]).abs() <= bound * norm).all()
    else:
        assert answer.next.isnan().all()
    assert ((answer.norm.double() / size - norm).abs() <= 0.1 * norm).all()


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("batch", "n", "k"), [(1, 1, 1), (3, 2, 1), (5, 3, 3), (33, 4, 1), (19, 9, 2), (7, 17, 4)])
def test_random_matrices(isa, dtype, batch, n, k, largest):
    X = hermitian(batch, n, dtype=dtype)
    check(X, eigenpairs(X, k, largest=largest), k, largest)


def crowded(n):
    """All kinds side by side: apart, of rank one, near a multiple of I, repeated, zero, with a sign hard to tell."""
    X = hermitian(40, n, dtype=torch.float32)
    v = torch.randn(10, n, 1, generator=generator(1))
    X[:10] = v @ v.mT
    for i in range(10, 20):
        X[i] = torch.eye(n) + 10.0 ** (10 - i) * X[i]
    for i in range(20, 28):
        spectrum = [1.0, 1.0 - 10.0 ** (19 - i), 0.0, -0.5][:n]
        X[i] = with_spectrum(spectrum, 1, torch.float32, seed=i)[0]
    X[28], X[29], X[30] = 0, torch.eye(n), torch.diag(torch.arange(float(n)))
    X[31] = torch.eye(n) - torch.ones(n, n) / n
    return torch.cat((X, -X))


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("n", [3, 4])
def test_closed_form_and_what_it_leaves_to_the_general_way(isa, n, largest):
    X = crowded(n)
    for power in (0, -90, 90):
        check(X * 2.0**power, eigenpairs(X * 2.0**power, largest=largest), 1, largest, 2.0**power)
    found = eigenpairs(X, largest=largest)
    for i in range(0, len(X), 3):
        alone = eigenpairs(X[i : i + 1], largest=largest)
        assert same(alone.vectors, found.vectors[i : i + 1])
        assert same(alone.next, found.next[i : i + 1])
    H, L = torch.randn(len(X), n, 1, generator=generator(2)), torch.randn(len(X), 1, generator=generator(3))
    gradient, code, _ = eigen_gradient(X, found, H, L, largest=largest, rtol=1e-3)
    apart = code == 0
    assert apart.sum() > 40
    assert (gradient[~apart] == 0).all()
    kept = Eigenpairs(*(part[apart] for part in found[:-1]), 0)
    _, expected = exact_gradient(X[apart], kept, H[apart], L[apart], largest)
    assert torch.equal(gradient, gradient.mT)
    gap = (found.values[:, 0] - found.next).abs() / found.norm
    error = torch.linalg.matrix_norm(gradient[apart] - expected) / torch.linalg.matrix_norm(expected)
    assert (error * gap[apart] <= 1e-5).all()


@pytest.mark.parametrize("name", list(MATRICES))
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_spectra_that_are_hard(isa, dtype, name):
    X = MATRICES[name].to(dtype)
    n = X.shape[-1]
    for k in sorted({1, min(2, n), min(5, n), n if n <= 48 else 1}):
        for largest in (True, False):
            check(X, eigenpairs(X, k, largest=largest), k, largest)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("n", [2, 3, 9, 40])
def test_scale_does_not_matter(built, dtype, n):
    X = hermitian(4, n, dtype=dtype)
    tiny = dtype in (torch.float32, torch.complex64)
    expected = eigenpairs(X, 1)
    for power in (-100, 100) if tiny else (-900, 900):
        scaled = eigenpairs(X * 2.0**power, 1)
        assert torch.equal(scaled.vectors, expected.vectors)
        assert torch.equal(scaled.values, expected.values * 2.0**power)
        assert torch.equal(scaled.residual, expected.residual)


@pytest.mark.parametrize(("dtype", "size"), [(torch.float32, 1e-42), (torch.float64, 1e-320), (torch.complex64, 1e-42)])
def test_subnormal_matrices(built, dtype, size):
    X = hermitian(5, 6, dtype=torch.float64) * size
    X = X.to(dtype)
    answer = eigenpairs(X, 2)
    up = 2.0**120 if size > 1e-50 else 2.0**1000
    U, wider = answer.vectors.to(wide(dtype)), X.to(wide(dtype)) * up
    norm = torch.linalg.matrix_norm(wider, 2)
    misfit = wider @ U - U @ (U.mH @ wider @ U)
    assert (torch.linalg.matrix_norm(misfit, 2) <= BOUND[dtype] * norm).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("n", "k"), [(3, 1), (4, 2), (9, 1), (16, 3), (40, 1), (130, 2), (170, 2)])
def test_an_item_is_the_same_wherever_it_stands(isa, dtype, n, k):
    batch = 37 if n < 100 else 5
    X = hermitian(batch, n, dtype=dtype)
    X[1] = torch.nan
    X[2] = torch.eye(n, dtype=dtype)
    H = torch.randn(batch, n, k, dtype=dtype, generator=generator(1))
    L = torch.randn(batch, k, dtype=H.real.dtype, generator=generator(2))

    def run(index, threads=1):
        found = eigenpairs(X[index], k, threads=threads)
        gradient, code, _ = eigen_gradient(X[index], found, H[index], L[index], threads=threads)
        return *found[:-1], gradient, code

    whole = run(slice(None))
    order = torch.randperm(batch, generator=generator(4))
    for mixed, straight in zip(run(order), whole, strict=True):
        assert same(mixed, straight[order])
    for first, last in ((0, 1), (0, 5), (3, 4), (2, 9), (batch - 3, batch)):
        for part, all_of_it in zip(run(slice(first, last)), whole, strict=True):
            assert same(part, all_of_it[first:last])
    for part, all_of_it in zip(run(slice(None), threads=4), whole, strict=True):
        assert same(part, all_of_it)


def same(a, b):
    """Equal to the last bit; NaN equals NaN."""
    a, b = (torch.view_as_real(x) if x.is_complex() else x for x in (a, b))
    return bool(((a == b) | (a.isnan() & b.isnan())).all())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_is_not_finite_is_told_and_disturbs_no_other(isa, dtype):
    X = hermitian(21, 5, dtype=dtype)
    alone = eigenpairs(X, 2)
    spoiled = X.clone()
    spoiled[4, 0, 3] = torch.nan
    spoiled[17, 4, 4] = torch.inf
    found = eigenpairs(spoiled, 2)
    bad = torch.zeros(21, dtype=torch.bool)
    bad[[4, 17]] = True
    assert torch.equal(found.code == Code.NOT_FINITE, bad)
    assert found.vectors[bad].isnan().all()
    assert found.values[bad].isnan().all()
    assert same(found.vectors[~bad], alone.vectors[~bad])
    gradient, code, seen = eigen_gradient(spoiled, found, torch.ones_like(found.vectors))
    assert (gradient[bad] == 0).all()
    assert seen & Code.NOT_FINITE
    assert torch.equal(code != 0, bad)
    expected, _, _ = eigen_gradient(X, alone, torch.ones_like(found.vectors))
    assert same(gradient[~bad], expected[~bad])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_asymmetry_is_told(built, dtype):
    X = hermitian(6, 7, dtype=dtype)
    X[2] = X[2] + 1e-2 * torch.randn(7, 7, dtype=dtype, generator=generator(3))
    assert eigenpairs(X).code.tolist() == [0, 0, Code.ASYMMETRIC, 0, 0, 0]
    assert eigenpairs(X, allowed=0.5).seen == 0


def test_repeated_values_are_told(built):
    X = with_spectrum([2.0, 2.0, 1.0, 0.0], 3, torch.float64)
    assert (eigenpairs(X, 1, rtol=1e-13).code == Code.REPEATED).all()
    assert (eigenpairs(X, 2, rtol=1e-13).code == Code.REPEATED).all()
    assert (eigenpairs(X, 1, rtol=1e-13, largest=False).code == 0).all()
    assert (eigenpairs(torch.zeros(2, 3, 3)).code == Code.REPEATED).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_phase_by_the_reference(built, dtype):
    X = hermitian(9, 6, dtype=dtype)
    for reference in (
        None,
        torch.randn(6, dtype=dtype, generator=generator(6)),
        torch.randn(9, 6, dtype=dtype, generator=generator(7)),
        torch.randn(9, 6, 2, dtype=dtype, generator=generator(8)),
    ):
        U = eigenpairs(X, 2, reference=reference).vectors
        R = torch.ones(6, 1, dtype=dtype) if reference is None else reference
        R = R if R.dim() == 3 else R.reshape(-1, 6, 1)
        inner = (R.conj() * U).sum(-2)
        assert (inner.real > 0).all()
        if dtype.is_complex:
            assert (inner.imag.abs() <= 1e-5 * inner.abs().clamp_min(1)).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_sign_where_all_ones_cannot_decide(built, dtype):
    X = MATRICES["laplacian"]
    noise = 1e-6 * laplacian(20) * torch.rand(1, generator=generator(9))
    one, two = eigenpairs(X.to(dtype), 3).vectors, eigenpairs((X + noise).to(dtype), 3).vectors
    assert ((one.conj() * two).sum(-2).real > 0.99).all()


def exact_gradient(X, found, H, L, largest):
    """The gradient in double precision from all eigenvectors, with the phases that the kernel chose."""
    dtype, k = wide(X.dtype), H.shape[-1]
    spectrum, V = torch.linalg.eigh(X.to(dtype))
    if largest:
        spectrum, V = spectrum.flip(-1), V.flip(-1)
    phase = torch.sgn((V[..., :k].conj() * found.vectors.to(dtype)).sum(-2, keepdim=True))
    V = torch.cat((V[..., :k] * phase, V[..., k:]), -1)
    difference = spectrum[..., None, :k] - spectrum[..., :, None]
    inverse = torch.where(difference.abs() > 1e-9, 1 / torch.where(difference == 0, 1, difference), 0)
    W = V @ (inverse * (V.mH @ H.to(dtype)))
    G = (W + V[..., :k] * (L.to(torch.float64)[..., None, :] / 1)) @ V[..., :k].mH
    return W, (G + G.mH) / 2


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("n", "k"), [(2, 1), (3, 1), (4, 2), (9, 1), (9, 9), (16, 4), (33, 1), (40, 5), (110, 1)])
def test_gradient_on_separated_spectra(isa, dtype, n, k, largest):
    X = with_spectrum([float(i) for i in range(n)], 5, dtype)
    H = torch.randn(5, n, k, dtype=dtype, generator=generator(1))
    L = torch.randn(5, k, dtype=H.real.dtype, generator=generator(2))
    found = eigenpairs(X, k, largest=largest)
    gradient, code, seen = eigen_gradient(X, found, H, L, largest=largest)
    W, expected = exact_gradient(X, found, H, L, largest)
    size = torch.linalg.matrix_norm(expected)
    eps = torch.finfo(dtype).eps
    # The gap is 1/n of the norm, and single precision is refined.
    tolerance = 20 * eps if eps > 1e-10 else 20 * n * eps
    assert seen == 0
    assert (code == 0).all()
    assert torch.equal(gradient, gradient.mH)
    assert (torch.linalg.matrix_norm(gradient - expected) <= tolerance * size).all()
    solved, _, _ = eigen_solve(X, found, H, largest=largest)
    assert (torch.linalg.matrix_norm(solved - W) <= tolerance * torch.linalg.matrix_norm(W).clamp_min(1)).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_unwanted_values_may_repeat(isa, dtype):
    X = with_spectrum([2.0] + [0.5] * 5 + [0.0] * 4, 7, dtype)
    H = torch.randn(7, 10, 1, dtype=dtype, generator=generator(1))
    L = torch.randn(7, 1, dtype=H.real.dtype, generator=generator(2))
    found = eigenpairs(X)
    gradient, _, seen = eigen_gradient(X, found, H, L, rtol=1e-5)
    _, expected = exact_gradient(X, found, H, L, True)
    assert seen == 0
    error = torch.linalg.matrix_norm(gradient - expected) / torch.linalg.matrix_norm(expected)
    assert (error <= 200 * torch.finfo(dtype).eps).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_coinciding_selected_values_leave_their_part_out(built, dtype):
    X = with_spectrum([2.0, 2.0, 1.0, 0.0, -1.0], 3, dtype)
    found = eigenpairs(X, 3, rtol=1e-12)
    H = torch.randn(3, 5, 3, dtype=dtype, generator=generator(1))
    W, _, seen = eigen_solve(X, found, H, rtol=1e-12)
    assert seen == 0
    U = found.vectors
    values, order = found.values, torch.arange(3)
    for i in order.tolist():
        w, h = W[..., i], H[..., i]
        rest = h - sum(
            U[..., j] * (U[..., j].conj() * h).sum(-1, keepdim=True)
            for j in order.tolist()
            if {i, j} in ({0}, {1}, {2}, {0, 1})
        )
        misfit = values[:, i, None] * w - (X @ w[..., None])[..., 0] - rest
        assert (misfit.abs() <= 1e-11).all()


def test_coincidence_with_an_unwanted_value_is_told(built):
    X = with_spectrum([2.0, 2.0, 1.0, 0.0], 4, torch.float64)
    X[1] = with_spectrum([3.0, 2.0, 1.0, 0.0], 1, torch.float64)[0]
    found = eigenpairs(X)
    gradient, code, seen = eigen_gradient(X, found, torch.ones(4, 4, 1, dtype=torch.float64), rtol=1e-12)
    assert code.tolist() == [Code.NEEDS_BASIS, 0, Code.NEEDS_BASIS, Code.NEEDS_BASIS]
    assert seen == Code.NEEDS_BASIS
    assert gradient.isfinite().all()


def test_threads_after_fork(built):
    X = hermitian(3000, 16, dtype=torch.float32)
    expected = eigenpairs(X, threads=4)
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()

    def child():
        queue.put(torch.equal(eigenpairs(X, threads=4).vectors, expected.vectors))

    process = context.Process(target=child)
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert queue.get()


def test_several_python_threads_at_once(built):
    X = hermitian(600, 12, dtype=torch.float64)
    expected = eigenpairs(X, 2)
    right = []

    def work():
        right.extend(torch.equal(eigenpairs(X, 2, threads=2).vectors, expected.vectors) for _ in range(5))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right == [True] * 20


def test_empty_batches(built):
    found = eigenpairs(torch.zeros(0, 4, 4))
    assert isinstance(found, Eigenpairs)
    assert found.vectors.shape == (0, 4, 1)
    assert found.seen == 0


def test_kernels_can_be_switched_off(monkeypatch):
    monkeypatch.setenv("PMAF_KERNELS", "off")
    loader.load.cache_clear()
    try:
        assert not loader.available()
        assert "PMAF_KERNELS=off" in loader.reason()
        with pytest.raises(RuntimeError, match="no compiled kernels"):
            eigenpairs(torch.eye(3))
    finally:
        monkeypatch.undo()
        loader.load.cache_clear()


def test_an_unknown_choice_is_refused(monkeypatch):
    monkeypatch.setenv("PMAF_KERNELS", "sse9")
    loader.load.cache_clear()
    try:
        with pytest.raises(ValueError, match="PMAF_KERNELS must be one of"):
            loader.available()
    finally:
        monkeypatch.undo()
        loader.load.cache_clear()
