"""The Krylov solver on the sphere: global answers from products alone, hard cases included."""

import pytest
import torch
from torch import Tensor

from pmaf.operators.dense import Dense
from pmaf.operators.function import MatVec
from pmaf.operators.sparse import Sparse
from pmaf.solvers.base import LeastSquares, SphereAnswer, SphereQuadratic
from pmaf.solvers.sphere.krylov_trust_region import KrylovTrustRegion
from pmaf.solvers.sphere.secular import Secular

DTYPES = [torch.float32, torch.float64, torch.complex64, torch.complex128]
REAL = DTYPES[:2]


def gaussian(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def quadratic(
    s: Tensor, gamma: Tensor, batch: int = 4, dtype: torch.dtype = torch.float64, radius: float = 1.0
) -> SphereQuadratic:
    """H with the spectrum s in a random basis, and g with the coefficients gamma in it."""
    wide = torch.complex128 if dtype.is_complex else torch.float64
    V = torch.linalg.qr(gaussian(batch, len(s), len(s), dtype=wide))[0]
    H = (V * s.double()) @ V.mH
    g = (V @ gamma.to(wide)[:, None])[..., 0]
    return SphereQuadratic(((H + H.mH) / 2).to(dtype), g.to(dtype), torch.full((batch,), radius, dtype=dtype.to_real()))


def assert_optimal(problem: LeastSquares | SphereQuadratic, answer: SphereAnswer, units: float = 200) -> None:
    """Stationary, of the right length, and with a positive semidefinite Q + λI: the certificate of a global minimum."""
    A, _, radius = problem
    eps = units * torch.finfo(A.dtype).eps
    Q = A.mH @ A if isinstance(problem, LeastSquares) else A
    norm = torch.linalg.matrix_norm(Q.to(torch.complex128), 2)
    smallest = torch.linalg.eigvalsh(Q.to(torch.complex128))[..., 0]
    multiplier = answer.multiplier
    assert answer.finished.all()
    torch.testing.assert_close(torch.linalg.vector_norm(answer.u, dim=-1), radius.expand(multiplier.shape))
    residual = torch.linalg.vector_norm(problem.gradient(answer.u) + multiplier[..., None] * answer.u, dim=-1)
    assert (residual <= eps * (norm + multiplier.abs()) * radius).all()
    assert (multiplier + smallest >= -eps * (norm + multiplier.abs())).all()
    assert (answer.gap >= 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("m", "n"), [(2, 2), (4, 1), (5, 3), (3, 5), (0, 3), (64, 32), (120, 100), (20, 60)])
def test_least_squares(m: int, n: int, dtype: torch.dtype) -> None:
    problem = LeastSquares(
        gaussian(6, m, n, dtype=dtype), gaussian(6, m, dtype=dtype), torch.ones(6).to(dtype.to_real())
    )
    answer = KrylovTrustRegion().solve(problem)
    assert answer.u.dtype == dtype
    assert answer.multiplier.dtype == answer.gap.dtype == dtype.to_real()
    assert_optimal(problem, answer)
    if m >= n:
        expected = Secular().solve(problem)
        tolerance = 1e4 * torch.finfo(dtype).eps
        torch.testing.assert_close(answer.u, expected.u, atol=tolerance, rtol=tolerance)


SPECTRA = {
    "spread": torch.linspace(-1, 1, 40),
    "definite": torch.linspace(0.1, 1, 40),
    "geometric": torch.logspace(-8, 0, 40),
    "cluster at the bottom": torch.cat((torch.tensor([-1.0, -1 + 1e-5, -1 + 1e-4]), torch.linspace(0, 1, 37))),
    "identity": torch.ones(40),
    "zero": torch.zeros(40),
    "rank two": torch.cat((torch.zeros(38), torch.ones(2))),
}
ONES = torch.ones(40)
NO_BOTTOM = torch.cat((torch.zeros(5), torch.ones(35)))
ONE_VECTOR = torch.eye(40)[7]
SIDES = {
    "long": 3 * ONES,
    "short": 1e-3 * ONES,
    "hard": 1e-3 * NO_BOTTOM,
    "nearly hard": 1e-3 * NO_BOTTOM + 1e-9,
    "zero": 0 * ONES,
    "an eigenvector, long": 3 * ONE_VECTOR,
    "an eigenvector, short": 1e-2 * ONE_VECTOR,
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex128])
@pytest.mark.parametrize("gamma", SIDES.values(), ids=SIDES.keys())
@pytest.mark.parametrize("s", SPECTRA.values(), ids=SPECTRA.keys())
def test_prescribed_spectra(s: Tensor, gamma: Tensor, dtype: torch.dtype) -> None:
    problem = quadratic(s, gamma, dtype=dtype, radius=2.0)
    assert_optimal(problem, KrylovTrustRegion().solve(problem))


def test_a_stationary_point_that_g_spans_alone_is_not_taken_for_the_minimum() -> None:
    """g is an eigenvector, so u = g/‖g‖ has no residual and the Krylov space of g is a line."""
    problem = SphereQuadratic(torch.diag(torch.linspace(-1, 1, 300)), 1e-2 * torch.eye(300)[20], torch.tensor(1.0))
    answer = KrylovTrustRegion().solve(problem)
    assert answer.finished
    torch.testing.assert_close(answer.multiplier, torch.tensor(1.0))
    assert answer.u[0].abs() > 0.9


def test_an_item_that_runs_out_of_steps_says_so_and_the_others_do_not() -> None:
    hard = quadratic(torch.linspace(-1, 1, 200), 1e-3 * torch.cat((torch.zeros(1), torch.ones(199))), batch=1)
    easy = quadratic(torch.linspace(-1, 1, 200), torch.ones(200), batch=1)
    both = SphereQuadratic(*(torch.cat(pair) for pair in zip(hard, easy, strict=True)))
    answer = KrylovTrustRegion(max_steps=16).solve(both)
    assert answer.finished.tolist() == [False, True]
    assert answer.steps[0] == 16
    assert answer.steps[1] < 16
    torch.testing.assert_close(torch.linalg.vector_norm(answer.u, dim=-1), torch.ones(2, dtype=torch.float64))
    enough = KrylovTrustRegion().solve(both)
    assert_optimal(both, enough)
    assert torch.equal(enough.u[1], answer.u[1])


def test_one_bad_item_does_not_spoil_the_others() -> None:
    A, b, radius = gaussian(3, 8, 6), gaussian(3, 8), torch.ones((), dtype=torch.float64)
    clean = KrylovTrustRegion().solve(LeastSquares(A, b, radius))
    A[0, 1, 1], b[2, 0] = torch.nan, torch.inf
    answer = KrylovTrustRegion().solve(LeastSquares(A, b, radius))
    assert answer.finished.tolist() == [False, True, False]
    torch.testing.assert_close(answer.u[1], clean.u[1])
    assert answer.u[::2].isnan().any(-1).all()


def test_batches_broadcast_and_may_be_empty() -> None:
    A, b, radius = gaussian(3, 1, 8, 5), gaussian(4, 8), torch.full((), 2.0, dtype=torch.float64)
    answer = KrylovTrustRegion().solve(LeastSquares(A, b, radius))
    assert answer.u.shape == (3, 4, 5)
    assert answer.finished.shape == answer.steps.shape == answer.multiplier.shape == answer.gap.shape == (3, 4)
    torch.testing.assert_close(answer.u[2, 1], KrylovTrustRegion().solve(LeastSquares(A[2, 0], b[1], radius)).u)
    assert KrylovTrustRegion().solve(LeastSquares(A[:0], b, radius)).u.shape == (0, 4, 5)


@pytest.mark.parametrize("scale", [1e-15, 1e15])
@pytest.mark.parametrize("dtype", REAL)
def test_the_unit_of_the_data_does_not_matter(dtype: torch.dtype, scale: float) -> None:
    A, b, radius = gaussian(3, 12, 9, dtype=dtype), gaussian(3, 12, dtype=dtype), torch.ones((), dtype=dtype)
    plain = KrylovTrustRegion().solve(LeastSquares(A, b, radius))
    scaled = KrylovTrustRegion().solve(LeastSquares(scale * A, scale * b, radius))
    tolerance = 1e3 * torch.finfo(dtype).eps
    torch.testing.assert_close(scaled.u, plain.u, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(scaled.multiplier / scale / scale, plain.multiplier, atol=tolerance, rtol=tolerance)
    wide = KrylovTrustRegion().solve(LeastSquares(A, scale * b, scale * radius))
    torch.testing.assert_close(wide.u / scale, plain.u, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_an_operator_is_known_by_its_products(scale: float) -> None:
    n, width = 5000, []
    d, g, radius = torch.linspace(-1, 3, n).double() * scale, gaussian(n) * scale, torch.tensor(3.0).double()

    def multiply(d: Tensor, V: Tensor) -> Tensor:
        width.append(V.shape[-1])
        return d[:, None] * V

    answer = KrylovTrustRegion().solve_operator(MatVec(multiply, n, d), g, radius)
    assert answer.finished
    assert sum(width) < n / 10
    residual = torch.linalg.vector_norm(d * answer.u + answer.multiplier * answer.u - g)
    assert residual < 1e-12 * torch.linalg.vector_norm(g)
    assert answer.multiplier > -d[0]
    torch.testing.assert_close(torch.linalg.vector_norm(answer.u), radius)


def test_operators_agree_with_matrices() -> None:
    problem = quadratic(SPECTRA["spread"], SIDES["long"])
    expected = Secular().solve(problem).u
    solver = KrylovTrustRegion()
    torch.testing.assert_close(solver.solve_operator(Dense(problem.H), problem.g, problem.radius).u, expected)
    sparse = Sparse.from_tensor(problem.H[0].to_sparse_coo())
    torch.testing.assert_close(solver.solve_operator(sparse, problem.g[0], problem.radius[0]).u, expected[0])


def test_a_good_start_saves_steps_and_a_bad_one_costs_no_more() -> None:
    problem = quadratic(torch.linspace(0, 1, 400), 0.1 * torch.ones(400), batch=2)
    cold = KrylovTrustRegion().solve(problem)
    warm = KrylovTrustRegion().solve(problem, 3 * cold.u)
    assert (warm.steps < cold.steps).all()
    assert_optimal(problem, warm)
    for start in (torch.full((400,), torch.nan), torch.zeros(400), problem.g, gaussian(400)):
        answer = KrylovTrustRegion().solve(problem, start)
        assert_optimal(problem, answer)
        assert (answer.steps <= 1.5 * cold.steps).all()


@pytest.mark.parametrize("setting", [{"rtol": 0.0}, {"rtol": float("nan")}, {"max_steps": 0}])
def test_settings_out_of_range_are_refused(setting: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"pmaf\.solvers\.KrylovTrustRegion: (rtol|max_steps) must be "):
        KrylovTrustRegion(**setting)
