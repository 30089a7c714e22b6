"""What is right on the sphere and in the ball where rounding has most to say, by certificates of their own."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pmaf
from pmaf import Status

SOLVERS = ("secular", "more_sorensen")
DTYPES = (torch.float32, torch.float64, torch.complex128)
ANSWERS = (Status.CONVERGED, Status.NOT_UNIQUE)
seeds = st.integers(0, 10**6)
solvers = st.sampled_from(SOLVERS)
dtypes = st.sampled_from(DTYPES)


def draw(seed: int, *shape: int, dtype: torch.dtype = torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def eps(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).eps


def has_answer(status: torch.Tensor) -> torch.Tensor:
    return torch.stack([status == answer for answer in ANSWERS]).any(0)


def nearly_hard(seed: int, n: int, distance: float, dtype: torch.dtype, batch: int = 16):
    """Quadratics whose solution at λ = −λ_min has the length 1 − distance, and no part along the bottom eigenvector."""
    work = torch.complex128 if dtype.is_complex else torch.float64
    V = torch.linalg.qr(draw(seed, batch, n, n, dtype=work))[0]
    s = draw(seed + 1, batch, n).sort(-1)[0]
    p = draw(seed + 2, batch, n, dtype=work) * (torch.arange(n) > 0)
    p = p / torch.linalg.vector_norm(p, dim=-1, keepdim=True) * (1 - distance)
    g = (V @ ((s - s[:, :1]) * p)[..., None])[..., 0]
    H = (V * s[:, None, :]) @ V.mH
    return ((H + H.mH) / 2).to(dtype), g.to(dtype)


class TestEdgeOfTheHardCase:
    @pytest.mark.parametrize("solver", SOLVERS)
    def test_a_refinement_does_not_lead_away(self, solver):
        a, b = 0.46412069317545157, 0.885771969621041
        H = torch.tensor([[a, b], [b, -a]], dtype=torch.float64)
        g = torch.tensor([-1.7112105032259766, -1.0352577522767437], dtype=torch.float64)
        solution = pmaf.sphere_quadratic_ex(H, g, solver=solver)
        assert int(solution.status) in ANSWERS
        assert solution.residual < 1e-14
        measured = torch.linalg.vector_norm(H @ solution.u + solution.multiplier * solution.u - g)
        assert measured < 1e-14
        assert pmaf.certify_quadratic(H, g, solution.u).is_global

    @given(seed=seeds, n=st.integers(2, 12), k=st.floats(1, 17), dtype=dtypes, solver=solvers)
    @settings(max_examples=60)
    def test_solved_to_rounding(self, seed, n, k, dtype, solver):
        H, g = nearly_hard(seed, n, 10.0**-k, dtype)
        solution = pmaf.sphere_quadratic_ex(H, g, solver=solver)
        assert has_answer(solution.status).all()
        assert (solution.residual < 100 * n**0.5 * eps(dtype)).all()
        assert pmaf.certify_quadratic(H, g, solution.u).is_global.all()

    @pytest.mark.parametrize("solver", SOLVERS)
    def test_an_eigenvalue_as_large_as_the_norm(self, solver):
        """Scaled to norm one in float32, a matrix of rank one may exceed one by a rounding, which is no bound then."""
        w = draw(5, 500, 3).float()
        H, g = -w[:, :, None] * w[:, None, :], torch.linalg.cross(w, draw(6, 500, 3).float())
        g = g / (2 * torch.linalg.vector_norm(g, dim=-1, keepdim=True)) * w.square().sum(-1, keepdim=True)
        solution = pmaf.sphere_quadratic_ex(H, g, solver=solver)
        assert has_answer(solution.status).all()
        assert (solution.residual < 1e-6).all()
        assert pmaf.certify_quadratic(H, g, solution.u).is_global.all()

    @pytest.mark.parametrize("solver", SOLVERS)
    @pytest.mark.parametrize("tiny", [1e-30, 1e-100])
    def test_the_climb_to_a_root_far_above_its_start(self, solver, tiny):
        """The root is at (γ²/2)^⅓, many orders of magnitude above γ, where the climb begins."""
        H, g = torch.diag(torch.tensor([0.0, 1.0], dtype=torch.float64)), torch.tensor([tiny, 1.0], dtype=torch.float64)
        solution = pmaf.sphere_quadratic_ex(H, g, solver=solver)
        assert int(solution.status) in ANSWERS
        torch.testing.assert_close(solution.u, torch.tensor([0.0, 1.0], dtype=torch.float64), rtol=0, atol=1e-7)

    @pytest.mark.parametrize("solver", SOLVERS)
    @pytest.mark.parametrize("layer", ["less", "sphere_quadratic"])
    def test_the_mirror_answer_is_not_chosen_by_rounding(self, solver, layer):
        """The bottom vector is orthogonal to the all-ones vector but for rounding, and the side is open."""
        n = 6
        j = torch.arange(n, dtype=torch.float64)
        V = torch.cos(math.pi * (j[:, None] + 0.5) * j / n)  # rows sum to zero but for the first
        V = V / torch.linalg.vector_norm(V, dim=0)
        s = torch.tensor([4.0, 1.0, 2.0, 3.0, 5.0, 6.0], dtype=torch.float64)  # bottom: the second
        A = (V * s.sqrt()) @ V.T
        sides = []
        for seed in range(20):
            noise = draw(seed, n, n) * 1e-6
            noise = noise - noise.mean(-1, keepdim=True)

            noise = noise - noise.mean(0)
            B = A + noise + noise.T  # all rows still have the same sum
            v = torch.linalg.eigh(B @ B)[1][:, 0]
            b = V[:, 2] * 0.3
            b = b - v * (v @ b)
            found = (
                pmaf.less_ex(B, b, solver=solver)
                if layer == "less"
                else pmaf.sphere_quadratic_ex(B @ B, B @ b, solver=solver)
            )
            assert int(found.status) == Status.NOT_UNIQUE
            sides.append(torch.sign(found.u @ V[:, 1]).item())
        assert len(set(sides)) == 1, sides


def dependent_columns(dtype: torch.dtype):
    A, b = draw(0, 20, 5), draw(1, 20)
    A[:, 4] = A[:, 3]
    return A.to(dtype), b.to(dtype), (torch.linalg.pinv(A) @ b).to(dtype)


class TestBall:
    @pytest.mark.parametrize("solver", [*SOLVERS, "riemannian_gradient"])
    @pytest.mark.parametrize("radius", [1.0, 1e3, 1e6, 1e12])
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("layer", ["less", "sphere_quadratic"])
    def test_least_norm_where_columns_depend(self, layer, dtype, radius, solver):
        A, b, shortest = dependent_columns(dtype)
        if layer == "less":
            solution = pmaf.less_ex(A, b, radius=radius, constraint="ball", solver=solver)
        elif solver == "riemannian_gradient":
            return  # knows least squares alone
        else:
            solution = pmaf.sphere_quadratic_ex(A.mH @ A, A.mH @ b, radius=radius, constraint="ball", solver=solver)
        torch.testing.assert_close(solution.u, shortest, rtol=0, atol=100 * eps(dtype))
        assert int(solution.status) in (Status.NOT_UNIQUE, Status.MAX_STEPS)

    @given(
        seed=seeds,
        m=st.integers(1, 8),
        n=st.integers(1, 8),
        k=st.floats(-6, 6),
        r=st.floats(-3, 3),
        dtype=dtypes,
        solver=solvers,
    )
    @settings(max_examples=100)
    def test_the_constraint_holds_and_both_layers_agree(self, seed, m, n, k, r, dtype, solver):
        """Any shape, so any rank, with every size of b and of the ball."""
        rank = 1 + seed % min(m, n)
        A = draw(seed, 8, m, rank, dtype=dtype) @ draw(seed + 1, 8, rank, n, dtype=dtype)
        b, radius = 10.0**k * draw(seed + 2, 8, m, dtype=dtype), 10.0**r
        found = pmaf.less_ex(A, b, radius=radius, constraint="ball", solver=solver)
        assert has_answer(found.status).all()
        length = torch.linalg.vector_norm(found.u, dim=-1)
        assert (length <= radius * (1 + 8 * n**0.5 * eps(dtype))).all()
        assert pmaf.certify(A, b, found.u, radius=radius, constraint="ball").is_global.all()
        assert (found.residual < 1e3 * eps(dtype)).all()
        same = pmaf.sphere_quadratic_ex(
            A.mH @ A, (A.mH @ b[..., None])[..., 0], radius=radius, constraint="ball", solver=solver
        )
        unique = (found.status == Status.CONVERGED) & (same.status == Status.CONVERGED)
        smallest = torch.linalg.svdvals(A)[..., min(m, n) - 1].square()
        known = unique & (found.gap > 1e-3 * smallest) & (rank == n)
        condition = (torch.linalg.svdvals(A)[..., 0].square() + found.multiplier) / found.gap
        size = condition * (1 + torch.linalg.vector_norm(b, dim=-1) / torch.linalg.svdvals(A)[..., 0] / length)
        off = torch.linalg.vector_norm(found.u - same.u, dim=-1) / length
        assert (off[known] <= 100 * eps(dtype) * size[known]).all()

    @pytest.mark.parametrize("solver", SOLVERS)
    @pytest.mark.parametrize("constraint", ["sphere", "ball"])
    def test_a_root_among_the_rounding_of_a_missing_rank(self, constraint, solver):
        A = draw(4, 1000, 4, 1, dtype=torch.float32) @ draw(5, 1000, 1, 4, dtype=torch.float32)
        b = 10.0**-4.25 * draw(6, 1000, 4, dtype=torch.float32)
        found = pmaf.less_ex(A, b, radius=10.0**0.75, constraint=constraint, solver=solver)
        assert has_answer(found.status).all()
        assert (found.residual < 1e-5).all()

    @given(seed=seeds, size=st.floats(0, 7), dtype=dtypes, solver=solvers)
    @settings(max_examples=40)
    def test_what_rounding_leaves_open_is_told(self, seed, size, dtype, solver):
        """b is orthogonal to the range of A, so Aᵀb is a rounding error."""
        A = draw(seed, 4, 3, dtype=dtype)
        b = 10**size * torch.linalg.qr(A, mode="complete")[0][:, 3]
        found = pmaf.less_ex(A, b, radius=0.7, constraint="ball", solver=solver)
        assert torch.linalg.vector_norm(found.u) <= 0.7 * (1 + 8 * eps(dtype))
        assert has_answer(found.status)
        assert found.residual < 100 * eps(dtype) or found.status == Status.NOT_UNIQUE
        sigma = torch.linalg.svdvals(A)
        if 10**size * sigma[0] * eps(dtype) > 0.7 * sigma[2] ** 2:
            assert found.status == Status.NOT_UNIQUE

    @pytest.mark.parametrize("solver", SOLVERS)
    def test_small_eigenvalues_are_not_none(self, solver):
        H = torch.diag(torch.tensor([0.0, 1e-9, 1.0], dtype=torch.float64))
        g = torch.tensor([0.0, 5e-10, 1e-3], dtype=torch.float64)
        solution = pmaf.sphere_quadratic_ex(H, g, constraint="ball", solver=solver)
        right = torch.tensor([0.0, 0.5, 0.001], dtype=torch.float64)
        torch.testing.assert_close(solution.u, right, rtol=1e-12, atol=1e-15)
        assert solution.residual < 1e-14

    @pytest.mark.parametrize("solver", SOLVERS)
    def test_one_row(self, solver):
        A, b = torch.tensor([[0.3, 0.4]], dtype=torch.float64), torch.tensor([0.1], dtype=torch.float64)
        solution = pmaf.less_ex(A, b, constraint="ball", solver=solver)
        torch.testing.assert_close(solution.u, torch.tensor([0.12, 0.16], dtype=torch.float64))
        assert solution.residual < 1e-14

    @pytest.mark.parametrize("solver", SOLVERS)
    def test_zero_matrix(self, solver):
        H, g = torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
        solution = pmaf.sphere_quadratic_ex(H, g, constraint="ball", solver=solver)
        assert (solution.u.item(), solution.multiplier.item(), solution.residual.item()) == (1.0, 1.0, 0.0)


class TestEdgeOfTheBall:
    """The minimum lies on the sphere but for rounding, along a direction in which the objective hardly changes."""

    def test_refinement_does_not_leave_the_ball(self):
        H = torch.tensor(
            [
                [
                    0.06289945863258566,
                    -0.02755278152461071,
                    0.05131785125328339,
                    -0.03784591889790652,
                ],
                [
                    -0.02755278152461071,
                    0.012081463553051643,
                    -0.022500698384149496,
                    0.016586586246478893,
                ],
                [
                    0.05131785125328339,
                    -0.022500698384149496,
                    0.041906401607814246,
                    -0.030892248256432928,
                ],
                [
                    -0.03784591889790652,
                    0.016586586246478893,
                    -0.030892248256432928,
                    0.02277734140667415,
                ],
            ],
            dtype=torch.float64,
        )
        g = torch.tensor(
            [0.09756010500630224, -0.04276939065074125, 0.07965613223362858, -0.0587244077146787], dtype=torch.float64
        )
        radius = 1.3144573371103492
        for solver in (None, *SOLVERS):
            found = pmaf.sphere_quadratic_ex(H, g, radius=radius, constraint="ball", solver=solver)
            assert float(torch.linalg.vector_norm(found.u)) <= radius * (1 + 1e-14)
            assert bool(pmaf.certify_quadratic(H, g, found.u, radius=radius, constraint="ball").is_global)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
    @pytest.mark.parametrize("n", [4, 7])
    @pytest.mark.parametrize("solver", [None, *SOLVERS])
    def test_converged_is_proved_and_inside(self, solver, n, dtype):
        generator, items, rounding = torch.Generator().manual_seed(n), 1000, eps(dtype)
        rand, normal = (
            lambda *shape, make=make: make(items, *shape, dtype=torch.float64, generator=generator)
            for make in (torch.rand, torch.randn)
        )
        Q = torch.linalg.qr(normal(n, n))[0]
        s = (10 ** (-(8 if dtype == torch.float64 else 4) * rand(n))).sort().values
        s[:, 0] = rounding * 10 ** (3 * rand() - 0.3)
        x = torch.nn.functional.normalize(normal(n)) * (1 + 10 ** (-12 * rand(1)) * normal(1))
        A = (Q * s.sqrt()[:, None]).mT
        b, H = (A @ x[..., None])[..., 0], A.mT @ A
        H, g = ((H + H.mT) / 2).to(dtype), (H @ x[..., None])[..., 0].to(dtype)
        A, b = A.to(dtype), b.to(dtype)
        sphere = pmaf.less_ex(A, b, constraint="ball", solver=solver)
        quadratic = pmaf.sphere_quadratic_ex(H, g, constraint="ball", solver=solver)
        for found, proof in (
            (sphere, pmaf.certify(A, b, sphere.u, constraint="ball")),
            (quadratic, pmaf.certify_quadratic(H, g, quadratic.u, constraint="ball")),
        ):
            outside = torch.linalg.vector_norm(found.u.double(), dim=-1) > 1 + 8 * rounding * n**0.5
            assert not bool(((found.status == Status.CONVERGED) & (outside | ~proof.is_global)).any())


class TestWhereNothingMayWait:
    """Without an eigenbasis and without looking at values, as on accelerators: the filter alone."""

    @pytest.fixture(autouse=True)
    def device(self, monkeypatch):
        monkeypatch.setattr("pmaf.forward.inside.cheap", lambda x: False)

    @pytest.mark.parametrize("excess", [1e-14, 1e-11, 1e-8, 1e-5, 1e-2])
    @pytest.mark.parametrize("layer", ["less", "sphere_quadratic"])
    def test_least_norm_just_inside(self, layer, excess):
        """To rounding, whatever rounding has made of the eigenvalue zero; not the ball's edge, to which it pushes."""
        if layer == "sphere_quadratic":
            excess = max(excess, 1e-11)  # H knows the length of the answer to ε times its condition
        for seed in range(12):
            left, right = (torch.linalg.qr(draw(seed, 7, 4))[0], torch.linalg.qr(draw(seed + 50, 4, 4))[0])
            sigma, b = torch.tensor([1, 0.1, 0.03, 0], dtype=torch.float64), draw(seed + 99, 7)
            A = (left * sigma) @ right.mT
            shortest = right[:, :3] @ ((left[:, :3].mT @ b) / sigma[:3])
            given = (A, b) if layer == "less" else (A.mT @ A, A.mT @ b)
            function = pmaf.less_ex if layer == "less" else pmaf.sphere_quadratic_ex
            radius = torch.linalg.vector_norm(shortest) * (1 + excess)
            found = function(*given, radius=radius, constraint="ball", solver="more_sorensen")
            error = torch.linalg.vector_norm(found.u - shortest) / torch.linalg.vector_norm(shortest)
            assert float(error) < 1e-10, (seed, error)
            assert float(found.multiplier) < 1e-15
            assert int(found.status) == Status.NOT_UNIQUE

    @pytest.mark.parametrize("distance", [1e-14, 1e-11, 1e-8, 1e-5, 0.0, -1e-14, -1e-11, -1e-8])
    def test_multiplier_and_length_where_the_optimum_is_nearly_on_the_sphere(self, distance):
        A, b = torch.linalg.qr(draw(3, 7, 4))[0] * torch.tensor([1, 0.5, 0.1, 0.02]), draw(4, 7)
        shortest = torch.linalg.pinv(A) @ b
        radius = torch.linalg.vector_norm(shortest) * (1 - distance)
        found = pmaf.less_ex(A, b, radius=radius, constraint="ball", solver="more_sorensen")
        right = pmaf.less_ex(A, b, radius=radius, constraint="ball", solver="secular")
        assert float(torch.linalg.vector_norm(found.u)) <= float(radius) * (1 + 1e-15)
        torch.testing.assert_close(found.multiplier, right.multiplier, rtol=0, atol=1e-15)
        torch.testing.assert_close(found.u, right.u, rtol=1e-11, atol=0)
        assert int(found.status) == Status.CONVERGED


@pytest.mark.parametrize("condition", [1e3, 1e6])
def test_factorisations_alone_claim_no_more_digits_than_squares_leave(condition):
    """A of rank three, the least norm beyond the radius by next to nothing: λ is small, and rounding of AᵀA is not."""
    torch.manual_seed(0)
    U, V = (torch.linalg.qr(torch.randn(400, n, n, dtype=torch.float64))[0] for n in (20, 5))
    sigma = condition ** -torch.linspace(0, 1, 3, dtype=torch.float64)
    A, b = (U[..., :3] * sigma) @ V[..., :3].mT, torch.randn(400, 20, dtype=torch.float64)
    least = torch.linalg.vector_norm((U[..., :3].mT @ b[..., None])[..., 0] / sigma, dim=-1)
    radius = least * (1 + 10.0 ** torch.linspace(-12, -1, 400, dtype=torch.float64) * (-1.0) ** torch.arange(400))
    ways = {"radius": radius, "constraint": "ball"}
    found, right = (pmaf.less_ex(A, b, solver=name, **ways) for name in ("more_sorensen", "secular"))
    off = torch.linalg.vector_norm(found.u - right.u, dim=-1) / least
    claimed = found.status == Status.CONVERGED
    assert float(torch.where(claimed, off, 0).max()) < 1e-3
    answered = claimed | (found.status == Status.NOT_UNIQUE)
    assert bool(pmaf.certify(A, b, found.u, **ways).is_global[answered].all())


def test_what_is_not_unique_is_solved_all_the_same():
    """Ten digits of A are rounding to AᴴA: what factorisations make of it is proven, or said not to be."""
    torch.manual_seed(0)
    U, V = (torch.linalg.qr(torch.randn(200, 12, 12, dtype=torch.complex128))[0] for _ in range(2))
    sigma = torch.ones(200, 12, dtype=torch.float64)
    sigma[:, -1] = 10 ** -torch.linspace(0, 16, 200, dtype=torch.float64)
    A = (U * sigma[:, None, :]) @ V.mH
    x = torch.randn(200, 12, dtype=torch.complex128) * (sigma == 1)
    x = x / torch.linalg.vector_norm(x, dim=-1, keepdim=True) * torch.rand(200, 1, dtype=torch.float64)
    b = (A @ (V @ x[..., None]))[..., 0]
    found = pmaf.less_ex(A, b, constraint="ball", solver="more_sorensen")
    answered = (found.status == Status.CONVERGED) | (found.status == Status.NOT_UNIQUE)
    assert bool(pmaf.certify(A, b, found.u, constraint="ball").is_global[answered].all())
