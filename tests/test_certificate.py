"""A certificate proves global minima and refutes everything else, whatever the data look like."""

from __future__ import annotations

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pmaf
from cases import randn

DTYPES = [torch.float32, torch.float64, torch.complex64, torch.complex128]
WIDE = [torch.float64, torch.complex128]
often = settings(max_examples=60)


def unit(x: torch.Tensor) -> torch.Tensor:
    return x / torch.linalg.vector_norm(x, dim=-1, keepdim=True)


def spectrum(kind: str, n: int) -> torch.Tensor:
    ramp = torch.arange(1, n + 1, dtype=torch.float64)
    return {
        "even": ramp,
        "repeated": torch.ones(n, dtype=torch.float64),
        "clustered": 1 + 1e-9 * ramp,
        "graded": 10.0 ** (-6 * (ramp - 1) / max(n - 1, 1)),
        "pairs": torch.ceil(ramp / 2),
    }[kind]


def orthogonal(n: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.linalg.qr(torch.randn(n, n, dtype=dtype))[0]


def planted(n: int, kind: str, shift: float, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A square problem with a stationary point of known multiplier: λ_min + shift·(σ₁² + σₙ²) above the pole."""
    sigma = spectrum(kind, n)
    A = (orthogonal(n, dtype) * sigma) @ orthogonal(n, dtype)
    u = unit(torch.randn(n, dtype=dtype))
    low, high = sigma.square().min(), sigma.square().max()
    multiplier = -low + shift * (low + high)
    b = A @ u + multiplier * torch.linalg.solve(A.mH, u)
    return A, b, u


def exact_excess(A: torch.Tensor, b: torch.Tensor, u: torch.Tensor, ball: bool = False) -> mpmath.mpf:
    """f(u) less the global minimum on the unit sphere or ball, to 60 digits; u is scaled to the constraint."""
    with mpmath.workdps(60):
        M, y, x = (mpmath.matrix(t.tolist()) for t in (A, b, u))
        length = mpmath.norm(x)
        if not ball or length > 1:
            x = x / length
        s, V = mpmath.eigsy(M.T * M)
        gamma = V.T * (M.T * y)
        n = len(s)

        def size(t: mpmath.mpf) -> mpmath.mpf:
            return mpmath.sqrt(sum((gamma[i] / (s[i] - s[0] + t)) ** 2 for i in range(n)))

        low, high = mpmath.mpf(10) ** -50, 2 * mpmath.norm(gamma) + 1
        if ball:
            low = max(low, s[0])
        if size(low) > 1:
            for _ in range(250):
                middle = (low + high) / 2
                low, high = (middle, high) if size(middle) > 1 else (low, middle)
        p = mpmath.matrix([gamma[i] / (s[i] - s[0] + low) for i in range(n)])
        if not ball:
            rest = 1 - sum(q**2 for q in p)
            p[0] += (
                mpmath.sign(p[0] + mpmath.mpf(10) ** -55) * (mpmath.sqrt(p[0] ** 2 + rest) - abs(p[0]))
                if rest > 0
                else 0
            )
        best = V * p
        return (mpmath.norm(M * x - y) ** 2 - mpmath.norm(M * best - y) ** 2) / 2


@often
@given(
    seed=st.integers(0, 2**31),
    m=st.integers(0, 9),
    n=st.integers(1, 7),
    dtype=st.sampled_from(DTYPES),
    rank=st.integers(0, 7),
    log_length=st.floats(-3, 3),
    log_radius=st.floats(-2, 2),
)
def test_whatever_converged_is_certified(
    seed: int, m: int, n: int, dtype: torch.dtype, rank: int, log_length: float, log_radius: float
) -> None:
    torch.manual_seed(seed)
    A = torch.randn(3, m, rank, dtype=dtype) @ torch.randn(3, rank, n, dtype=dtype)
    b = torch.randn(3, m, dtype=dtype) * 10**log_length
    radius = 10**log_radius
    solution = pmaf.less_ex(A, b, radius=radius)
    found = pmaf.certify(A, b, solution.u, radius=radius)
    done = solution.status == pmaf.Status.CONVERGED
    assert bool(found.is_global[done].all()), found
    assert bool((found.suboptimality >= 0).all())


@often
@given(seed=st.integers(0, 2**31), kind=st.sampled_from(["even", "repeated", "clustered", "graded", "pairs"]))
def test_whatever_converged_on_a_prescribed_spectrum_is_certified(seed: int, kind: str) -> None:
    torch.manual_seed(seed)
    n = 1 + seed % 9
    for dtype in DTYPES:
        wide = torch.complex128 if dtype.is_complex else torch.float64
        A, b, _ = planted(n, kind, 0.1, wide)
        A, b = A.to(dtype), b.to(dtype)
        solution = pmaf.less_ex(A, b)
        found = pmaf.certify(A, b, solution.u)
        assert int(solution.status) != pmaf.Status.CONVERGED or bool(found.is_global), found


@often
@given(
    seed=st.integers(0, 2**31),
    n=st.integers(2, 7),
    dtype=st.sampled_from(WIDE),
    kind=st.sampled_from(["even", "repeated", "pairs"]),
    exponent=st.sampled_from([-18, 0, 18]),
    shift=st.floats(1e-3, 3),
)
def test_stationary_points_are_told_apart(
    seed: int, n: int, dtype: torch.dtype, kind: str, exponent: int, shift: float
) -> None:
    torch.manual_seed(seed)
    scale = 10.0**exponent
    for sign in (1, -1):
        A, b, u = planted(n, kind, sign * shift, dtype)
        found = pmaf.certify(scale * A, scale * b, u)
        assert float(found.residual) < 1e-12
        assert bool(found.is_global) == (sign > 0), found
        unit_gap = shift * (spectrum(kind, n).square().min() + spectrum(kind, n).square().max())
        torch.testing.assert_close(found.gap / scale / scale, sign * unit_gap, rtol=1e-8, atol=1e-10)
        best = pmaf.less(A, b)
        excess = ((A @ u - b).abs().square().sum() - (A @ best - b).abs().square().sum()) / 2
        bound = float(found.suboptimality) / scale / scale
        assert bound >= float(excess) - 1e-10
        assert bound <= float(excess) * (1 + 1e-6) + 1e-9
        assert bool(pmaf.certify(scale * A, scale * b, best).is_global)


@often
@given(
    seed=st.integers(0, 2**31),
    n=st.integers(1, 4),
    m=st.integers(1, 5),
    perturbation=st.sampled_from([1e-9, 1e-5, 1e-2, 1.0]),
    log_length=st.floats(-2, 2),
    kind=st.sampled_from(["gaussian", "hard", "graded", "homogeneous"]),
    ball=st.booleans(),
)
def test_the_bound_holds_against_60_digits(
    seed: int, n: int, m: int, perturbation: float, log_length: float, kind: str, ball: bool
) -> None:
    torch.manual_seed(seed)
    A, b = torch.randn(m, n, dtype=torch.float64), torch.randn(m, dtype=torch.float64) * 10**log_length
    if kind == "hard":  # g is orthogonal to the last singular vector
        A, b = torch.diag(torch.arange(1.0, n + 1).double()), 1e-2 * b.new_ones(n)
        b[0] = 0
    elif kind == "graded":
        A = A * 10.0 ** -torch.arange(n, dtype=torch.float64)
    elif kind == "homogeneous":
        b = torch.zeros_like(b)
    constraint = "ball" if ball else "sphere"
    best = pmaf.less_ex(A, b, constraint=constraint).u
    u = best + perturbation * torch.randn(n, dtype=torch.float64)
    found = pmaf.certify(A, b, u, constraint=constraint)
    excess = exact_excess(A, b, u, ball)
    assert mpmath.mpf(float(found.suboptimality)) >= excess
    size = float(torch.linalg.matrix_norm(A, 2))
    noise = 1e-12 * size * (size + float(torch.linalg.vector_norm(b)))
    assert float(found.suboptimality) <= float(excess) * (1 + 1e-5) + noise


class TestEdges:
    def test_everything_on_the_sphere_is_optimal_for_zero(self) -> None:
        u = unit(torch.randn(5, 3, dtype=torch.float64))
        for A in (torch.zeros(4, 3, dtype=torch.float64), torch.zeros(0, 3, dtype=torch.float64)):
            found = pmaf.certify(A, torch.ones(A.shape[0], dtype=torch.float64), u)
            assert bool(found.is_global.all())
            assert found.suboptimality.tolist() == [0.0] * 5

    def test_null_vectors(self) -> None:
        A = torch.diag(torch.tensor([1.0, 2.0, 3.0]))
        found = pmaf.certify(A, torch.zeros(3), torch.eye(3))
        assert found.is_global.tolist() == [True, False, False]
        torch.testing.assert_close(found.suboptimality, torch.tensor([0, 1.5, 4.0], dtype=torch.float64))
        torch.testing.assert_close(found.multiplier, torch.tensor([-1.0, -4.0, -9.0], dtype=torch.float64))

    def test_both_answers_of_the_hard_case(self) -> None:
        A, b = torch.diag(torch.tensor([1.0, 2.0])), torch.tensor([0.0, 0.75])
        u = torch.tensor([[0.75**0.5, 0.5], [-(0.75**0.5), 0.5], [0.0, 1.0]])
        found = pmaf.certify(A, b, u)
        assert found.is_global.tolist() == [True, True, False]
        assert abs(float(found.gap[0])) < 1e-6

    def test_off_the_sphere(self) -> None:
        A, b = torch.eye(2), torch.tensor([3.0, 4.0])
        found = pmaf.certify(A, b, torch.tensor([[0.66, 0.88], [0.0, 0.0]]))
        assert found.is_global.tolist() == [False, False]
        assert float(found.suboptimality[0]) < 1e-12
        assert float(found.suboptimality[1]) == float("inf")
        torch.testing.assert_close(found.feasibility, torch.tensor([0.1, 1.0]).double(), atol=1e-6, rtol=0)

    @pytest.mark.parametrize("constraint", ["sphere", "ball"])
    def test_weights_and_radius(self, constraint: str) -> None:
        torch.manual_seed(0)
        A, b = torch.randn(6, 8, 3), torch.randn(6, 8)
        weights, radius = torch.rand(8), torch.linspace(0.1, 3, 6)
        u = pmaf.less(A, b, radius=radius, weights=weights, constraint=constraint)
        assert bool(pmaf.certify(A, b, u, radius=radius, weights=weights, constraint=constraint).is_global.all())
        assert not bool(pmaf.certify(A, b, u, radius=radius, constraint=constraint).is_global.any())

    def test_inside_and_on_the_ball(self) -> None:
        A, b = torch.eye(2), torch.tensor([[0.3, 0.4], [3.0, 4.0]])
        u = torch.tensor([[0.3, 0.4], [0.6, 0.8]])
        found = pmaf.certify(A, b, u, constraint="ball")
        assert found.is_global.tolist() == [True, True]
        assert found.multiplier[0] == 0
        assert not bool(pmaf.certify(A, b, u.flip(0), constraint="ball").is_global.any())

    def test_one_bad_item_is_alone(self) -> None:
        A, b, u = torch.eye(2).repeat(3, 1, 1), torch.tensor([3.0, 4.0]), torch.tensor([0.6, 0.8])
        A[1, 0, 0] = torch.nan
        found = pmaf.certify(A, b, u)
        assert found.is_global.tolist() == [True, False, True]
        assert bool(found.suboptimality[1].isnan())

    def test_iterative_solvers_are_judged_by_what_they_reached(self) -> None:
        torch.manual_seed(0)
        A, b = torch.randn(300, 2, 2), torch.randn(300, 2)
        solver = pytest.importorskip("pmaf.solvers.sphere.gradient_descent").RiemannianGradient(tol=0.0, max_steps=1000)
        local = pmaf.less_ex(A, b, solver=solver).u
        found, best = pmaf.certify(A, b, local), pmaf.less(A, b)
        A, b = A.double(), b.double()
        f, f_best = ((A @ v.double()[..., None])[..., 0].sub(b).square().sum(-1) / 2 for v in (local, best))
        missed = f > f_best + 1e-3
        assert 10 < int(missed.sum()) < 60
        assert not bool(found.is_global[missed].any())
        torch.testing.assert_close(found.suboptimality[missed], (f - f_best)[missed], rtol=1e-4, atol=1e-5)

    def test_bad_arguments(self) -> None:
        A, b, u = torch.eye(2), torch.ones(2), torch.ones(2)
        with pytest.raises(ValueError, match="u must have size 2"):
            pmaf.certify(A, b, torch.ones(3))
        with pytest.raises(ValueError, match="radius must be positive"):
            pmaf.certify(A, b, u, radius=0.0)
        with pytest.raises(TypeError, match=r"u must be a torch\.Tensor"):
            pmaf.certify(A, b, [1.0, 0.0])  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="constraint must be one of"):
            pmaf.certify(A, b, u, constraint="cube")


class TestFreeUnknowns:
    @pytest.mark.parametrize("weighted", [False, True])
    def test_the_answer_passes_and_another_does_not(self, weighted):
        A, b, C = randn(3, 8, 3), randn(3, 8, seed=1), randn(3, 8, 2, seed=2)
        weights = randn(3, 8, seed=3).square() if weighted else None
        u = pmaf.less(A, b, weights=weights, free=C)
        found = pmaf.certify(A, b, u, weights=weights, free=C)
        assert bool(found.is_global.all())
        assert float(found.suboptimality.max()) < 1e-10
        assert not bool(pmaf.certify(A, b, u, weights=weights).is_global.any())  # the other problem's answer
        assert not bool(pmaf.certify(A, b, -u, weights=weights, free=C).is_global.any())


class TestQuadratics:
    @pytest.mark.parametrize("constraint", ["sphere", "ball"])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex128])
    def test_indefinite(self, constraint, dtype):
        H, g = randn(20, 4, 4, dtype=dtype), randn(20, 4, seed=1, dtype=dtype)
        H = H + H.mH
        u = pmaf.sphere_quadratic(H, g, radius=0.7, constraint=constraint)
        found = pmaf.certify_quadratic(H, g, u, radius=0.7, constraint=constraint)
        assert bool(found.is_global.all())
        size = float(H.abs().max())
        assert float(found.suboptimality.max()) < 1e3 * torch.finfo(dtype).eps * size
        wrong = pmaf.certify_quadratic(H, g, -u, radius=0.7, constraint=constraint)
        assert not bool(wrong.is_global.any())
        value = (u.conj() * (H @ u[..., None])[..., 0]).sum(-1).real / 2 - (g.conj() * u).sum(-1).real
        worse = value + 2 * (g.conj() * u).sum(-1).real
        assert bool((wrong.suboptimality >= (worse - value) * 0.99).all())

    def test_the_interior_of_the_ball(self):
        H, g = torch.diag(torch.tensor([2.0, 4.0])), torch.tensor([0.2, 0.4])
        inside = torch.tensor([0.1, 0.1])
        assert bool(pmaf.certify_quadratic(H, g, inside, constraint="ball").is_global)
        assert not bool(pmaf.certify_quadratic(H, g, inside).is_global)
        indefinite = torch.diag(torch.tensor([-2.0, 4.0]))
        stationary = torch.tensor([-0.1, 0.1])
        assert not bool(pmaf.certify_quadratic(indefinite, g, stationary, constraint="ball").is_global)

    def test_scale_does_not_matter_and_nan_is_not_certified(self):
        H, g = torch.diag(torch.tensor([-1.0, 2.0, 5.0], dtype=torch.float64)), torch.ones(3, dtype=torch.float64)
        for scale in (1e-200, 1e200):
            u = pmaf.sphere_quadratic(H, g)
            assert bool(pmaf.certify_quadratic(scale * H, scale * g, u).is_global)
        assert not bool(pmaf.certify_quadratic(H, g, torch.full((3,), torch.nan, dtype=torch.float64)).is_global)

    def test_the_zero_problem(self):
        found = pmaf.certify_quadratic(torch.zeros(2, 2), torch.zeros(2), torch.tensor([1.0, 0.0]))
        assert bool(found.is_global)
        assert float(found.suboptimality) < 1e-12
