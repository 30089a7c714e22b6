"""Every eigen solver against prescribed spectra: eigenvalues, residual, orthonormality, batches, bad items."""

import math

import pytest
import torch

import pmaf
from pmaf.implicit.complement.small import solve_small
from pmaf.linalg.projected_cg import complement_cg
from pmaf.operators.dense import Dense
from pmaf.solvers.eigen.block_lanczos import BlockLanczos
from pmaf.solvers.eigen.cholesky_inverse_iteration import CholeskyInverseIteration
from pmaf.solvers.eigen.closed_form import ClosedForm
from pmaf.solvers.eigen.eigh import Eigh
from pmaf.solvers.eigen.lanczos_eigh import LanczosEigh
from pmaf.solvers.eigen.power_iteration import PowerIteration
from pmaf.solvers.eigen.simultaneous_iteration import SimultaneousIteration

SOLVERS = {
    "eigh": Eigh(),
    "power_iteration": PowerIteration(max_steps=300),
    "simultaneous_iteration": SimultaneousIteration(max_steps=150),
    "block_lanczos": BlockLanczos(),
    "block_lanczos_narrow": BlockLanczos(block_size=1, max_basis=24),
    "cholesky_inverse_iteration": CholeskyInverseIteration(),
    "closed_form": ClosedForm(),
    "lanczos_eigh": LanczosEigh(),
    "lanczos_eigh_long": LanczosEigh(max_steps=60),
}
DTYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128)
TOLERANCE = {torch.float32: 3e-6, torch.complex64: 3e-6, torch.float64: 1e-11, torch.complex128: 1e-11}


def generator(seed):
    return torch.Generator().manual_seed(seed)


def with_spectrum(values, dtype, seed=3):
    values = torch.as_tensor(values, dtype=torch.float64)
    wide = torch.complex128 if dtype.is_complex else torch.float64
    Q = torch.linalg.qr(torch.randn(len(values), len(values), dtype=wide, generator=generator(seed)))[0]
    X = (Q * values) @ Q.mH
    return ((X + X.mH) / 2).to(dtype)


def wilkinson(n, dtype):
    side = torch.ones(n - 1, dtype=torch.float64)
    return (torch.diag((torch.arange(n) - (n - 1) / 2).abs().double()) + side.diag(1) + side.diag(-1)).to(dtype)


def positive(n, dtype):
    X = torch.randn(n, n, dtype=torch.float64, generator=generator(1)).abs()
    return (X + X.T).to(dtype)


def linspace(a, b, n):
    return torch.linspace(a, b, n, dtype=torch.float64)


PROBLEMS = {
    "random": lambda dtype: with_spectrum(torch.randn(65, dtype=torch.float64, generator=generator(5)), dtype),
    "clustered": lambda dtype: with_spectrum(torch.cat((1 - 1e-9 * torch.arange(4), linspace(-1, 0.5, 40))), dtype),
    "repeated": lambda dtype: with_spectrum([3.0] * 2 + [2.0] * 2 + [-1.0] * 15 + [0.5] * 9, dtype),
    "graded": lambda dtype: with_spectrum(10 ** -linspace(0, 12, 30), dtype),
    "wilkinson": lambda dtype: wilkinson(21, dtype),
    "low_rank": lambda dtype: with_spectrum([5.0, 4.0, 3.0] + [0.0] * 40, dtype),
    "positive": lambda dtype: positive(128, dtype),
    "identity": lambda dtype: torch.eye(30, dtype=dtype),
    "zero": lambda dtype: torch.zeros(30, 30, dtype=dtype),
    "indefinite": lambda dtype: with_spectrum([2.0, -3.0, 1.0], dtype),
    "rotation": lambda dtype: with_spectrum([1.0, -1 / 3, -1 / 3, -1 / 3], dtype),
    "homography": lambda dtype: with_spectrum([0, 1.53, 1.53, 4, 4, 4, 10.47, 10.47, 12], dtype),
    "one": lambda dtype: with_spectrum([-2.0], dtype),
    "two": lambda dtype: with_spectrum([-2.0, -1.0], dtype),
}
# What a plain iteration need not reach in its budget; everything else must finish.
SLOW = {"power_iteration", "simultaneous_iteration"}


def applies(name, n, k, dtype):
    if name == "power_iteration":
        return k == 1
    if name == "closed_form":
        return k == 1 and n <= 4 and not dtype.is_complex
    return not (name == "block_lanczos_narrow" and k > 1)


def counts(n):
    return sorted({1, min(2, n), min(5, n), n})


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d)[6:])
@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("name", SOLVERS)
def test_pairs_are_the_leading_ones(name, problem, dtype):
    X = PROBLEMS[problem](dtype)
    n = X.shape[-1]
    wide = X.to(torch.complex128 if dtype.is_complex else torch.float64)
    exact = torch.linalg.eigvalsh(wide)
    norm = exact.abs().max().clamp_min(torch.finfo(torch.float64).tiny)
    for k in counts(n):
        if not applies(name, n, k, dtype):
            continue
        for largest in (True, False):
            answer = SOLVERS[name].solve(Dense(X), k, largest)
            assert answer.eigenvalues.shape == (k,)
            assert answer.eigenvectors.shape == (n, k)
            assert answer.eigenvectors.dtype == dtype
            assert bool(answer.finished) or name in SLOW
            if not answer.finished:
                continue
            expected = exact.flip(-1)[:k] if largest else exact[:k]
            U = answer.eigenvectors.to(wide.dtype)
            residual = torch.linalg.vector_norm(wide @ U - U * answer.eigenvalues, dim=-2).max() / norm
            assert (answer.eigenvalues - expected).abs().max() / norm <= TOLERANCE[dtype]
            assert residual <= TOLERANCE[dtype]
            assert (U.mH @ U - torch.eye(k, dtype=wide.dtype)).abs().max() <= TOLERANCE[dtype]


@pytest.mark.parametrize("name", [n for n in SOLVERS if n != "closed_form"])
def test_batch_equals_items_solved_singly(name):
    X = torch.stack(
        [positive(40, torch.float64), with_spectrum(linspace(-1, 1, 40), torch.float64), torch.eye(40).double()]
    )
    together = SOLVERS[name].solve(Dense(X), 1, True)
    for i in range(3):
        alone = SOLVERS[name].solve(Dense(X[i]), 1, True)
        assert alone.finished == together.finished[i]
        assert alone.steps == together.steps[i]
        torch.testing.assert_close(together.eigenvalues[i], alone.eigenvalues, rtol=1e-12, atol=1e-12)
        if i < 2:
            overlap = (together.eigenvectors[i] * alone.eigenvectors).sum().abs()
            torch.testing.assert_close(overlap, torch.ones_like(overlap), rtol=1e-9, atol=0)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_inverse_iteration_leaves_its_start_behind(n):
    # among so many matrices some have an unwanted eigenvector right where the iteration begins
    X = torch.randn(100_000, n, n, generator=generator(0))
    answer = CholeskyInverseIteration().solve(Dense(X + X.mT), 1, True)
    assert bool(answer.finished.all())


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("name", SOLVERS)
def test_a_bad_item_does_not_spoil_the_others(name, bad):
    n = 4 if name == "closed_form" else 120
    X = positive(n, torch.float64).repeat(3, 1, 1)
    X[1, 0, 0] = bad
    answer = SOLVERS[name].solve(Dense(X), 1, True)
    assert answer.finished.tolist() == [True, False, True]
    clean = SOLVERS[name].solve(Dense(X[:1]), 1, True)
    torch.testing.assert_close(answer.eigenvalues[::2], clean.eigenvalues.expand(2, 1), rtol=1e-12, atol=0)


@pytest.mark.parametrize("scale", [1e-18, 1e18])
@pytest.mark.parametrize("name", SOLVERS)
def test_scale_does_not_matter(name, scale):
    X = positive(4 if name == "closed_form" else 120, torch.float64)
    answer = SOLVERS[name].solve(Dense(scale * X), 1, True)
    assert bool(answer.finished)
    torch.testing.assert_close(answer.eigenvalues / scale, torch.linalg.eigvalsh(X)[-1:], rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ["power_iteration", "simultaneous_iteration", "block_lanczos", "lanczos_eigh"])
def test_the_global_random_state_is_left_alone(name):
    before = torch.get_rng_state()
    SOLVERS[name].solve(Dense(positive(120, torch.float32)), 1, True)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", ["power_iteration", "simultaneous_iteration", "block_lanczos"])
def test_an_unwanted_eigenvector_as_start_is_left_again(name):
    X = torch.diag(torch.tensor([3.0, -5.0] + [0.1] * 30))
    start = torch.eye(32)[:, 1:2]
    answer = SOLVERS[name].solve(Dense(X), 1, True, start)
    assert bool(answer.finished)
    torch.testing.assert_close(answer.eigenvalues, torch.tensor([3.0]))


@pytest.mark.parametrize(
    "solver", [PowerIteration(rtol=1e-13, max_steps=3000), SimultaneousIteration(rtol=1e-13), BlockLanczos(rtol=1e-13)]
)
def test_unrolling_gives_the_gradient(solver):
    values = [3.0, 1.0, 0.7, 0.5, 0.3, 0.1, 0.0, -0.2, -0.4, -0.7, -1.0, -1.2]
    X = with_spectrum(values, torch.float64).requires_grad_()
    c = torch.randn(12, dtype=torch.float64, generator=generator(0))

    def loss(value, u):
        return value + (c @ u).square()

    answer = solver.solve(Dense(X), 1, True)
    (gradient,) = torch.autograd.grad(loss(answer.eigenvalues[0], answer.eigenvectors[:, 0]), X)
    s, V = torch.linalg.eigh(X.detach())
    u, ubar = V[:, -1], 2 * c * (c @ V[:, -1])
    w = V[:, :-1] @ ((V[:, :-1].T @ ubar) / (s[-1] - s[:-1])) + u
    expected = torch.outer(w, u)
    torch.testing.assert_close((gradient + gradient.T) / 2, (expected + expected.T) / 2, rtol=0, atol=1e-8)


def test_power_iteration_refuses_more_than_one_pair():
    with pytest.raises(ValueError, match="SimultaneousIteration"):
        PowerIteration().solve(Dense(torch.eye(3)), 2, True)


def test_closed_form_refuses_what_it_cannot_do():
    for X, k in ((torch.eye(5), 1), (torch.eye(3), 2), (torch.eye(3, dtype=torch.complex64), 1)):
        with pytest.raises(ValueError, match="ClosedForm"):
            ClosedForm().solve(Dense(X), k, True)


def test_dominant_pair_of_a_general_matrix():
    P = torch.rand(2, 30, 30, dtype=torch.float64, generator=generator(0))
    P = P / P.sum(-2, keepdim=True)
    answer = PowerIteration(symmetric=False).solve(Dense(P), 1, True)
    assert answer.finished.all()
    torch.testing.assert_close(answer.eigenvalues, torch.ones(2, 1, dtype=torch.float64))
    turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    assert not PowerIteration(symmetric=False, max_steps=50).solve(Dense(turn), 1, True).finished
    tied = PowerIteration(symmetric=False).solve(Dense(torch.diag(torch.tensor([2.0, 2.0, 1.0]))), 1, True)
    torch.testing.assert_close(tied.next, tied.eigenvalues[0])


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex128], ids=lambda d: str(d)[6:])
def test_conjugate_gradients_solve_on_the_complement(dtype, k, largest):
    wide = torch.complex128 if dtype.is_complex else torch.float64
    X = torch.stack([with_spectrum(linspace(-1, 1, 50) ** 3, dtype, seed) for seed in (0, 1)]).to(wide)
    s, V = torch.linalg.eigh(X)
    chosen = list(range(49, 49 - k, -1)) if largest else list(range(k))
    H = torch.randn(2, 50, k, dtype=wide, generator=generator(2))
    difference = s[:, None, chosen] - s[:, :, None]
    inverse = torch.where(difference == 0, 0, 1 / difference)
    inverse[:, chosen] = 0
    expected = V @ (inverse * (V.mH @ H))
    low = X.to(dtype)
    W, converged = complement_cg(
        lambda Y: low @ Y, s[:, chosen].to(low.real.dtype), V[..., chosen].to(dtype), H.to(dtype), largest=largest
    )
    assert converged.all()
    error = torch.linalg.vector_norm(W - expected) / torch.linalg.vector_norm(expected)
    assert error < 300 * torch.finfo(dtype).eps


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_small_bordered_solve(n, largest):
    X = torch.randn(2, 50, n, n, dtype=torch.float64, generator=generator(n))
    X = X + X.mT
    s, V = torch.linalg.eigh(X)
    i = -1 if largest else 0
    h = torch.randn(2, 50, n, dtype=torch.float64, generator=generator(9))
    difference = s[..., i, None] - s
    inverse = torch.where(difference == 0, 0, 1 / difference)
    expected = (V @ (inverse * (V.mT @ h[..., None])[..., 0])[..., None])[..., 0]
    torch.testing.assert_close(solve_small(X, s[..., i], V[..., i], h)[0], expected, rtol=1e-9, atol=1e-9)


def test_small_bordered_solve_drops_what_has_no_meaning():
    X = torch.diag(torch.tensor([2.0, 2.0, 1.0]))
    w, _ = solve_small(X, torch.tensor(2.0), torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 3.0, 5.0]))
    torch.testing.assert_close(w, torch.tensor([0.0, 0.0, 5.0]))


@pytest.mark.parametrize("seed", range(4))
def test_items_that_exhaust_their_krylov_space_beside_items_that_do_not(seed):
    F = torch.randn(64, 9, 128, generator=generator(seed))
    X = F.mT @ F / 128
    values, U, status, _, residual, _ = pmaf.ied_ex(X, 1, solver=LanczosEigh())
    expected = torch.linalg.eigvalsh(X.double())[:, -1:]
    assert (status == pmaf.Status.CONVERGED).all()
    assert residual.max() < 3e-6
    torch.testing.assert_close(values.double(), expected, rtol=3e-6, atol=0)
    misfit = (X @ U - U * values[..., None]).norm(dim=-2) / expected
    torch.testing.assert_close(residual.double(), misfit[:, 0].double(), rtol=0.5, atol=3e-7)
