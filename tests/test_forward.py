"""The answers: closed forms, high precision, optimality, conventions, and every kind of input."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

import pmaf
from cases import (
    EIGEN_SOLVERS,
    HALF,
    ROWS,
    SPECTRA,
    SPHERE_CASES,
    SPHERE_SOLVERS,
    WORKING,
    eps,
    ids,
    layer,
    orthogonal,
    randn,
    symmetric,
    with_singular_values,
    with_spectrum,
)
from oracles import best_of_many, less_mpmath, less_scipy
from pmaf import Status

CONVERGED, NOT_UNIQUE, NON_FINITE = Status.CONVERGED, Status.NOT_UNIQUE, Status.NON_FINITE


def norm(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, dim=-1)


def matvec(A: Tensor, x: Tensor) -> Tensor:
    return (A @ x[..., None])[..., 0]


def misfit(A: Tensor, b: Tensor, u: Tensor) -> Tensor:
    """½‖A u − b‖² in double precision."""
    return norm(matvec(A.double(), u.double()) - b.double()).square() / 2


class TestLeastSquares:
    @pytest.mark.parametrize("case", **ids(SPHERE_CASES))
    @pytest.mark.parametrize("solver", **ids([s for s in SPHERE_SOLVERS if s.certified]))
    @pytest.mark.parametrize("dtype", WORKING, ids=str)
    def test_closed_forms(self, case, solver, dtype):
        A, b = torch.tensor(case.A, dtype=dtype), torch.tensor(case.b, dtype=dtype)
        solution = pmaf.less_ex(A, b, radius=case.radius, solver=solver.make())
        tolerance = 100 * eps(dtype)
        assert solution.u.dtype == dtype
        assert solution.multiplier.dtype == A.real.dtype
        assert int(solution.status) == case.status
        assert abs(float(solution.multiplier) - case.multiplier) <= tolerance * (1 + abs(case.multiplier))
        assert float(solution.residual) <= tolerance
        assert abs(float(norm(solution.u)) - case.radius) <= tolerance * case.radius
        if case.u is None:
            assert abs(float(solution.gap)) <= tolerance
        else:
            assert norm(solution.u - torch.tensor(case.u, dtype=dtype)) <= tolerance * case.radius
            assert float(solution.gap) > 0

    @pytest.mark.parametrize(
        ("m", "n", "radius"),
        [(m, n, r) for m, n in [(6, 4), (4, 4), (20, 2)] for r in (0.01, 1.0, 9.81, 300.0)]
        + [(3, 5, 0.01), (3, 5, 0.1), (1, 3, 0.1)],  # a longer u would leave the row space: the hard case, see below
    )
    def test_agrees_with_sixty_digits(self, m, n, radius):
        A, b = randn(m, n, seed=m), randn(m, seed=n + 10)
        u, multiplier = less_mpmath(A, b, radius)
        solution = pmaf.less_ex(A, b, radius=radius)
        assert norm(solution.u - u) <= 1e-13 * radius
        scale = float(torch.linalg.matrix_norm(A)) ** 2 + abs(multiplier)
        assert abs(float(solution.multiplier) - multiplier) <= 1e-13 * scale

    @pytest.mark.parametrize("condition", [1e3, 1e6, 1e8])
    def test_ill_conditioned_agrees_with_sixty_digits(self, condition):
        # b along the weak direction: forming the Gram matrix would lose it
        A = with_singular_values(8, np.geomspace(1.0, 1 / condition, 4).tolist(), seed=3)
        x = torch.linalg.svd(A).Vh[-1]
        b = A @ (2 * x) + 1e-3 * randn(8, seed=4) / condition
        u, multiplier = less_mpmath(A, b)
        solution = pmaf.less_ex(A, b)
        assert int(solution.status) == CONVERGED
        assert norm(solution.u - u) <= 1e-12 + 1e-15 * condition
        assert float(solution.multiplier) == pytest.approx(multiplier, rel=1e-6, abs=1e-14)

    def test_agrees_with_scipy_on_a_batch(self):
        A, b = randn(50, 12, 5, seed=1), randn(50, 12, seed=2)
        radius = torch.linspace(0.1, 5, 50, dtype=torch.float64)
        solution = pmaf.less_ex(A, b, radius=radius)
        for i in range(50):
            u, multiplier = less_scipy(A[i].numpy(), b[i].numpy(), float(radius[i]))
            assert np.linalg.norm(solution.u[i].numpy() - u) <= 1e-11 * float(radius[i])
            assert float(solution.multiplier[i]) == pytest.approx(multiplier, rel=1e-10, abs=1e-10)

    @pytest.mark.parametrize("dtype", WORKING, ids=str)
    @pytest.mark.parametrize(("m", "n"), [(10, 4), (4, 10), (1, 1), (64, 32)])
    def test_random_problems_satisfy_the_certificate(self, dtype, m, n):
        A, b = randn(40, m, n, seed=m, dtype=dtype), randn(40, m, seed=n, dtype=dtype)
        radius = 0.3 if m < n else 1.0  # short enough not to leave the row space
        solution = pmaf.less_ex(A, b, radius=radius)
        wide = torch.complex128 if dtype.is_complex else torch.float64
        A, b, u, multiplier = A.to(wide), b.to(wide), solution.u.to(wide), solution.multiplier.double()
        Q, g = A.mH @ A, matvec(A.mH, b)
        scale = torch.linalg.matrix_norm(Q, 2) + norm(g) / radius
        residual = norm(matvec(Q, u) + multiplier[:, None] * u - g)
        smallest = torch.linalg.eigvalsh(Q)[..., 0]
        assert (residual <= 50 * eps(dtype) * scale * radius).all()
        assert (multiplier + smallest >= -50 * eps(dtype) * scale).all()
        assert ((norm(u) - radius).abs() <= 20 * eps(dtype) * radius).all()
        assert (solution.residual <= 50 * eps(dtype)).all()
        gap = solution.gap.double()
        assert ((gap - multiplier - smallest).abs() <= 50 * eps(dtype) * scale).all()
        assert (solution.status == CONVERGED).all()

    def test_no_random_point_is_better(self):
        A, b = randn(6, 3, seed=7), 3 * randn(6, seed=8)
        u = pmaf.less(A, b, radius=2.0)
        sampled = best_of_many(lambda u: (u @ A.T - b).square().sum(-1) / 2, 3, 2.0)
        assert float(misfit(A, b, u)) <= sampled
        assert float(misfit(A, b, u)) >= sampled - 0.05 * sampled
        exact = pmaf.less(A.to(torch.complex128), b.to(torch.complex128))
        torch.testing.assert_close(exact, pmaf.less(A, b).to(torch.complex128))

    @pytest.mark.parametrize("exponent", [-18, -9, -3, 3, 9, 18])
    @pytest.mark.parametrize("dtype", [torch.float64, torch.complex128, torch.float32], ids=str)
    def test_scale_does_not_matter(self, exponent, dtype):
        scale = 10.0**exponent
        A, b = randn(6, 4, seed=1, dtype=dtype), randn(6, seed=2, dtype=dtype)
        truth = pmaf.less_ex(A, b)
        scaled = pmaf.less_ex(A * scale, b * scale)
        assert int(scaled.status) == CONVERGED
        assert norm(scaled.u - truth.u) <= 100 * eps(dtype)
        if dtype != torch.float32:
            assert float(scaled.multiplier) == pytest.approx(float(truth.multiplier) * scale**2, rel=1e-12)
        long = pmaf.less_ex(A, b * scale, radius=scale)  # the unit of u
        assert norm(long.u / scale - truth.u) <= 100 * eps(dtype)
        assert float(long.multiplier) == pytest.approx(float(truth.multiplier), rel=1e3 * eps(dtype))

    @pytest.mark.parametrize("exponent", [-18, 18])
    def test_units_of_A_alone_do_not_matter(self, exponent):
        scale = 10.0**exponent
        A, b = randn(6, 4, seed=1), randn(6, seed=2)
        truth, scaled = pmaf.less(A, b), pmaf.less(A * scale, b, radius=1 / scale)
        assert norm(scaled * scale - truth) <= 1e-13

    @pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
    def test_rank_deficient(self, dtype):
        A = randn(8, 2, seed=1, dtype=dtype) @ randn(2, 5, seed=2, dtype=dtype)
        b = 10 * randn(8, seed=3, dtype=dtype)
        short = pmaf.less_ex(A, b, radius=0.05)
        assert int(short.status) == CONVERGED
        if not dtype.is_complex:
            u, multiplier = less_mpmath(A, b, 0.05)
            assert norm(short.u - u) <= 1e-13
            assert float(short.multiplier) == pytest.approx(multiplier, rel=1e-12)
        assert norm(short.u - torch.linalg.pinv(A) @ A @ short.u) <= 1e-13  # in the row space

    @pytest.mark.parametrize("radius", [10.0, 100.0, 1e4])
    @pytest.mark.parametrize("dtype", WORKING, ids=str)
    def test_rank_deficient_with_a_long_answer_is_the_hard_case(self, radius, dtype):
        # the best misfit is possible, at every point of a sphere in the null space
        A = randn(8, 2, seed=1, dtype=dtype) @ randn(2, 5, seed=2, dtype=dtype)
        b = 10 * randn(8, seed=3, dtype=dtype)
        solution = pmaf.less_ex(A, b, radius=radius)
        assert int(solution.status) == NOT_UNIQUE
        assert float(norm(solution.u)) == pytest.approx(radius, rel=100 * eps(dtype))
        misfit = norm(b - A @ solution.u)
        best = norm(b - A @ torch.linalg.pinv(A) @ b)
        assert float(misfit) <= float(best) * (1 + 100 * eps(dtype)) + 1e3 * eps(dtype) * radius

    def test_no_rows(self):
        solution = pmaf.less_ex(torch.zeros(3, 0, 4), torch.zeros(3, 0), radius=2.0)
        assert (solution.status == NOT_UNIQUE).all()
        torch.testing.assert_close(norm(solution.u), torch.full((3,), 2.0))
        assert (solution.multiplier == 0).all()

    @pytest.mark.parametrize("dtype", WORKING, ids=str)
    def test_hard_case_is_a_global_minimum(self, dtype):
        A = with_singular_values(6, [3.0, 2.0, 1.0], seed=4, dtype=dtype)
        left, sigma, Vh = torch.linalg.svd(A, full_matrices=False)
        p = torch.tensor([0.3, 0.4, 0.0], dtype=A.dtype)  # in the basis of right singular vectors, with λ = −1
        b = left @ ((sigma**2 - 1) * p / sigma).to(A.dtype)
        solution = pmaf.less_ex(A.to(dtype), b.to(dtype))
        assert int(solution.status) == NOT_UNIQUE
        assert float(solution.multiplier) == pytest.approx(-1.0, rel=1e3 * eps(dtype))
        assert float(norm(solution.u)) == pytest.approx(1.0, rel=10 * eps(dtype))
        coefficients = Vh @ solution.u.to(A.dtype)
        assert norm(coefficients[:2] - p[:2]) <= 1e3 * eps(dtype)
        assert abs(float(coefficients[2].abs()) - math.sqrt(0.75)) <= 1e3 * eps(dtype)

    @pytest.mark.parametrize("offset", [1e-3, 1e-6, 1e-9, 1e-12])
    def test_near_hard_case_agrees_with_sixty_digits(self, offset):
        A = torch.diag(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
        b = torch.tensor([offset, 0.9, 0.4], dtype=torch.float64)
        u, multiplier = less_mpmath(A, b)
        solution = pmaf.less_ex(A, b)
        assert int(solution.status) == CONVERGED
        assert norm(solution.u - u) <= 1e-11
        assert float(solution.gap) == pytest.approx(multiplier + 1, rel=1e-3)

    def test_number_and_tensor_radius_agree(self):
        A, b = randn(3, 6, 4), randn(3, 6, seed=1)
        each = pmaf.less(A, b, radius=torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64))
        for i, radius in enumerate([0.5, 1.0, 2.0]):
            torch.testing.assert_close(each[i], pmaf.less(A[i], b[i], radius=radius))

    def test_weights_are_row_scalings(self):
        A, b = randn(5, 7, 3), randn(5, 7, seed=1)
        weights = torch.rand(5, 7, dtype=torch.float64) + 0.1
        root = weights.sqrt()
        weighted = pmaf.less_ex(A, b, weights=weights)
        scaled = pmaf.less_ex(root[..., None] * A, root * b)
        torch.testing.assert_close(weighted.u, scaled.u)
        torch.testing.assert_close(weighted.multiplier, scaled.multiplier)

    def test_zero_weights_leave_rows_out(self):
        A, b = randn(7, 3), randn(7, seed=1)
        weights = torch.tensor([1.0, 1, 0, 1, 1, 0, 1], dtype=torch.float64)
        A[2], b[5] = 1e6, -1e6
        keep = weights > 0
        torch.testing.assert_close(pmaf.less(A, b, weights=weights), pmaf.less(A[keep], b[keep]))

    @pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
    def test_free_unknowns_are_at_their_best(self, dtype):
        A, C, b = randn(8, 3, dtype=dtype), randn(8, 2, seed=1, dtype=dtype), 4 * randn(8, seed=2, dtype=dtype)
        solution = pmaf.less_ex(A, b, free=C)
        best = torch.linalg.lstsq(C, (b - A @ solution.u)[:, None]).solution[:, 0]
        torch.testing.assert_close(solution.z, best)
        # joint stationarity of the problem before elimination
        rho = b - A @ solution.u - C @ solution.z
        assert norm(A.mH @ rho - solution.multiplier * solution.u) <= 1e-12 * float(norm(A.mH @ b))
        assert norm(C.mH @ rho) <= 1e-12 * float(norm(C.mH @ b))

    def test_free_unknowns_against_brute_force(self):
        A, C, b = randn(8, 2), randn(8, 2, seed=1), 3 * randn(8, seed=2)
        weights = torch.rand(8, dtype=torch.float64)
        solution = pmaf.less_ex(A, b, free=C, weights=weights)
        angle = torch.linspace(0, 2 * math.pi, 20_001, dtype=torch.float64)
        circle = torch.stack((angle.cos(), angle.sin()))  # (2, N)
        root = weights.sqrt()[:, None]
        rest = root * (b[:, None] - A @ circle)
        z = torch.linalg.lstsq(root * C, rest).solution
        values = (rest - root * C @ z).square().sum(0)
        value = (weights * (b - A @ solution.u - C @ solution.z).square()).sum()
        assert float(value) <= float(values.min()) * (1 + 1e-12)
        assert norm(circle[:, values.argmin()] - solution.u) <= 1e-3

    def test_dependent_free_columns_are_reported_and_give_the_shortest_z(self):
        A, b = randn(8, 3), randn(8, seed=2)
        column = randn(8, 1, seed=1)
        one = pmaf.less_ex(A, b, free=column)
        two = pmaf.less_ex(A, b, free=torch.cat((column, column), -1))
        assert int(two.status) == NOT_UNIQUE
        torch.testing.assert_close(two.u, one.u)
        torch.testing.assert_close(two.z, one.z.expand(2) / 2)

    def test_ball_is_the_sphere_or_the_unconstrained_minimum(self):
        A, b = randn(30, 6, 3), 3 * randn(30, 6, seed=1)
        free = torch.linalg.lstsq(A, b[..., None]).solution[..., 0]
        inside = norm(free) < 1
        assert 0 < int(inside.sum()) < 30
        ball, sphere = pmaf.less_ex(A, b, constraint="ball"), pmaf.less_ex(A, b)
        torch.testing.assert_close(ball.u[inside], free[inside])
        torch.testing.assert_close(ball.u[~inside], sphere.u[~inside])
        assert (ball.multiplier[inside] == 0).all()
        assert (ball.multiplier[~inside] > 0).all()
        assert (ball.status == CONVERGED).all()
        assert (ball.residual < 1e-13).all()

    @pytest.mark.parametrize("dtype", HALF, ids=str)
    def test_half_precision_is_computed_in_float32(self, dtype):
        A, b = randn(4, 8, 3).to(dtype), randn(4, 8, seed=1).to(dtype)
        solution = pmaf.less_ex(A, b)
        assert solution.u.dtype == dtype
        assert solution.multiplier.dtype == solution.residual.dtype == solution.gap.dtype == torch.float32
        torch.testing.assert_close(solution.u, pmaf.less(A.float(), b.float()).to(dtype), rtol=0, atol=0)

    def test_half_precision_overflow_is_reported(self):
        A, b = (100 * randn(2, 50, 4)).half(), randn(2, 50, seed=1).half()
        solution = pmaf.less_ex(A, b, radius=torch.tensor([1.0, 1e6]))
        assert solution.multiplier.isfinite().all()  # although it is far outside the range of the type
        assert float(solution.multiplier.abs().max()) > torch.finfo(torch.float16).max
        assert solution.status.tolist() == [CONVERGED, NON_FINITE]

    def test_complex_with_real_data_is_the_real_answer(self):
        A, b = randn(7, 4), randn(7, seed=1)
        exact = pmaf.less(A.to(torch.complex128), b.to(torch.complex128))
        torch.testing.assert_close(exact, pmaf.less(A, b).to(torch.complex128))

    def test_complex_is_the_real_problem_of_twice_the_size(self):
        A, b = randn(5, 3, dtype=torch.complex128), randn(5, seed=1, dtype=torch.complex128)
        u = pmaf.less(A, b, radius=0.7)
        big = torch.cat((torch.cat((A.real, -A.imag), 1), torch.cat((A.imag, A.real), 1)))
        v = pmaf.less(big, torch.cat((b.real, b.imag)), radius=0.7)
        torch.testing.assert_close(torch.complex(v[:3], v[3:]), u)


class TestSphereQuadratic:
    @pytest.mark.parametrize("dtype", WORKING, ids=str)
    def test_indefinite_problems_satisfy_the_certificate(self, dtype):
        H, g = symmetric(30, n=5, dtype=dtype), randn(30, 5, seed=1, dtype=dtype)
        solution = pmaf.sphere_quadratic_ex(H, g, radius=1.5)
        wide = torch.complex128 if dtype.is_complex else torch.float64
        H, g, u, multiplier = H.to(wide), g.to(wide), solution.u.to(wide), solution.multiplier.double()
        scale = torch.linalg.matrix_norm(H, 2) + norm(g)
        assert (norm(matvec(H, u) + multiplier[:, None] * u - g) <= 100 * eps(dtype) * scale).all()
        assert (multiplier + torch.linalg.eigvalsh(H)[..., 0] >= -100 * eps(dtype) * scale).all()
        assert ((norm(u) - 1.5).abs() <= 20 * eps(dtype)).all()

    def test_is_least_squares_of_the_normal_equations(self):
        A, b = randn(4, 6, 3), randn(4, 6, seed=1)
        torch.testing.assert_close(pmaf.sphere_quadratic(A.mT @ A, matvec(A.mT, b)), pmaf.less(A, b))

    def test_without_linear_term_is_an_eigenvector(self):
        X = symmetric(n=5)
        solution = pmaf.sphere_quadratic_ex(-X, torch.zeros(5, dtype=torch.float64))
        values, U = pmaf.ied(X, 1)
        assert int(solution.status) == NOT_UNIQUE  # u and −u
        torch.testing.assert_close(solution.multiplier, values[0])
        torch.testing.assert_close(solution.u, U[:, 0])

    def test_ball_solves_the_trust_region_subproblem(self):
        H, g = torch.diag(torch.tensor([1.0, 2.0, 4.0])), torch.tensor([0.3, 0.3, 0.3])
        inside = pmaf.sphere_quadratic_ex(H, g, constraint="ball")
        torch.testing.assert_close(inside.u, torch.linalg.solve(H, g))
        assert float(inside.multiplier) == 0
        outside = pmaf.sphere_quadratic_ex(-H, g, constraint="ball")
        torch.testing.assert_close(outside.u, pmaf.sphere_quadratic(-H, g))
        assert float(outside.multiplier) >= 4


class TestEigenpairs:
    @pytest.mark.parametrize("name", SPECTRA)
    @pytest.mark.parametrize("largest", [True, False], ids=["largest", "smallest"])
    @pytest.mark.parametrize("dtype", WORKING, ids=str)
    @pytest.mark.parametrize("solver", **ids(EIGEN_SOLVERS))
    def test_prescribed_spectra(self, name, largest, dtype, solver):
        if dtype.is_complex and not solver.complex:
            with pytest.raises(ValueError, match=r"complex|real"):
                pmaf.ied(torch.eye(3, dtype=dtype), 1, solver=solver.make())
            return
        X, s, Q = with_spectrum(SPECTRA[name], seed=2, dtype=dtype)
        order = s.argsort(descending=largest)
        for k in sorted({1, min(2, len(s)), min(len(s), 4)}):
            if not solver.cls.suits(len(s), k):
                continue
            solution = pmaf.ied_ex(X, k, largest=largest, solver=solver.make())
            size = float(s.abs().max())
            tolerance = 100 * eps(dtype)
            wanted = s[order[:k]]
            assert solution.eigenvalues.dtype == X.real.dtype
            assert solution.eigenvectors.shape == (len(s), k)
            assert ((solution.eigenvalues.double() - wanted).abs() <= tolerance * size).all()
            assert float(solution.residual) <= 3 * tolerance
            U = solution.eigenvectors
            assert torch.linalg.matrix_norm(U.mH @ U - torch.eye(k, dtype=dtype)) <= tolerance
            # each vector lies in the eigenspace of its eigenvalue
            for i in range(k):
                space = Q[:, (s - wanted[i]).abs() <= 1e-6 * size]
                u = U[:, i].to(Q.dtype)
                assert norm(u - space @ (space.mH @ u)) <= 1e3 * tolerance
            spread = s[order]
            seen = k if solver.gap is None else k + 1
            repeated = (spread[:seen].diff().abs() <= 10 * eps(dtype) * size).any() if len(s) > 1 else False
            assert int(solution.status) == (NOT_UNIQUE if repeated else CONVERGED)
            gap = abs(float(spread[k - 1] - spread[k])) if k < len(s) else math.inf
            if solver.gap is None:
                assert solution.gap.isnan()
            else:
                allowed = 10 * tolerance * size + (solver.gap * gap if math.isfinite(gap) else 0)
                assert float(solution.gap) == pytest.approx(gap, abs=allowed)

    def test_order_is_algebraic_never_by_magnitude(self):
        X = torch.diag(torch.tensor([2.0, -50.0, 1.0]))
        assert pmaf.ied(X, 2).eigenvalues.tolist() == [2.0, 1.0]
        assert pmaf.ied(X, 2, largest=False).eigenvalues.tolist() == [-50.0, 1.0]

    @pytest.mark.parametrize("dtype", WORKING, ids=str)
    def test_sign_follows_the_all_ones_vector(self, dtype):
        U = pmaf.ied(symmetric(20, n=5, dtype=dtype), 3).eigenvectors
        inner = U.sum(-2)
        assert (inner.real >= 0).all()
        if dtype.is_complex:
            assert (inner.imag.abs() <= 20 * eps(dtype)).all()

    @pytest.mark.parametrize("dtype", WORKING, ids=str)
    def test_sign_follows_the_reference(self, dtype):
        X, reference = symmetric(20, n=5, dtype=dtype), randn(20, 5, seed=3, dtype=dtype)
        U = pmaf.ied(X, 2, reference=reference).eigenvectors
        inner = (reference.conj()[..., None] * U).sum(-2)
        assert (inner.real >= 0).all()
        if dtype.is_complex:
            assert (inner.imag.abs() <= 100 * eps(dtype)).all()
        else:
            opposite = pmaf.ied(X, 2, reference=-reference).eigenvectors
            torch.testing.assert_close(opposite, -U)

    def test_complex_agrees_with_numpy(self):
        X = symmetric(n=6, dtype=torch.complex128)
        s, V = np.linalg.eigh(X.numpy())
        values, U = pmaf.ied(X, 2)
        np.testing.assert_allclose(values.numpy(), s[::-1][:2])
        np.testing.assert_allclose(np.abs(V[:, ::-1][:, :2].conj().T @ U.numpy()), np.eye(2), atol=1e-12)

    @pytest.mark.parametrize("exponent", [-18, -9, 9, 18])
    def test_scale_does_not_matter(self, exponent):
        X, scale = symmetric(n=5), 10.0**exponent
        truth, scaled = pmaf.ied_ex(X, 2), pmaf.ied_ex(X * scale, 2)
        assert int(scaled.status) == CONVERGED
        torch.testing.assert_close(scaled.eigenvectors, truth.eigenvectors)
        torch.testing.assert_close(scaled.eigenvalues / scale, truth.eigenvalues)
        F = randn(7, 4)
        torch.testing.assert_close(
            pmaf.ied(pmaf.Gram(F * scale), 2).eigenvectors, pmaf.ied(pmaf.Gram(F), 2).eigenvectors
        )

    @pytest.mark.parametrize("n", [3, 5, 40, 120])
    @pytest.mark.parametrize("name", pmaf.solvers.EIGEN)
    @pytest.mark.parametrize(
        ("dtype", "exponents"),
        [(torch.float32, (-30, -18, 26, 30)), (torch.float64, (-200, -150, 200, 300))],
        ids=["float32", "float64"],
    )
    def test_squares_stay_in_range(self, n, name, dtype, exponents):
        if name == "closed_form" and n > 4:
            return
        X = symmetric(n=n, seed=n).to(dtype)
        X = X.abs() if n == 120 else X  # with an eigenvalue that stands apart
        weight = randn(n, seed=1).to(dtype)

        def at(scale):
            X_c = (X * scale).requires_grad_()
            solution = pmaf.ied_ex(X_c, solver=name)
            (gradient,) = torch.autograd.grad(solution.eigenvectors[:, 0] @ weight, X_c)
            return solution, gradient * scale

        truth, slope = at(1.0)
        for exponent in exponents:
            solution, gradient = at(10.0**exponent)
            assert int(solution.status) == CONVERGED
            assert float(solution.residual) <= 300 * eps(dtype)
            assert n < 40 or float(solution.residual) > 0
            ratio = (solution.eigenvalues / 10.0**exponent / truth.eigenvalues).detach()
            assert float((ratio - 1).abs()) <= 100 * eps(dtype)
            assert (solution.eigenvectors - truth.eigenvectors).abs().max() <= 1e3 * eps(dtype)
            assert torch.linalg.vector_norm(gradient - slope) <= 1e3 * eps(dtype) * torch.linalg.vector_norm(slope)

    @pytest.mark.parametrize("dtype", HALF, ids=str)
    def test_half_precision_is_computed_in_float32(self, dtype):
        X = symmetric(3, n=4).to(dtype)
        values, U = pmaf.ied(X, 2)
        assert values.dtype == U.dtype == dtype
        torch.testing.assert_close(U, pmaf.ied(X.float(), 2).eigenvectors.to(dtype), rtol=0, atol=0)
        assert pmaf.principal_projector(X, 2).dtype == dtype

    def test_half_precision_overflow_is_reported(self):
        X = torch.stack((torch.ones(300, 300), 300 * torch.ones(300, 300))).half()
        solution = pmaf.ied_ex(X)
        assert solution.status.tolist() == [CONVERGED, pmaf.Status.OUT_OF_RANGE]
        assert solution.eigenvalues.isinf().flatten().tolist() == [False, True]
        assert float(solution.gap[1]) == pytest.approx(9e4, rel=1e-4)
        with pytest.warns(pmaf.RangeWarning, match="OUT_OF_RANGE"):
            U = pmaf.ied(X).eigenvectors
        torch.testing.assert_close(U, torch.full_like(U, 300**-0.5))

    def test_only_the_symmetric_part_counts(self):
        X = symmetric(n=4)
        skew = 1e-5 * randn(4, 4, seed=2)
        torch.testing.assert_close(pmaf.ied(X + skew - skew.mT, 2).eigenvectors, pmaf.ied(X, 2).eigenvectors)


class TestDominantPair:
    @pytest.mark.parametrize(
        "door", [pmaf.dominant_pair, pmaf.dominant_pair_ex], ids=["dominant_pair", "dominant_pair_ex"]
    )
    def test_of_a_matrix_that_is_not_symmetric(self, door):
        Q, R = randn(5, 5), torch.diag(torch.tensor([4.0, 2.0, 1.0, 0.5, -1.0], dtype=torch.float64))
        X = Q @ R @ torch.linalg.inv(Q)
        value, u, *_ = door(X)
        assert float(value) == pytest.approx(4.0, rel=1e-10)
        torch.testing.assert_close(X @ u, 4 * u)

    def test_a_stochastic_matrix_has_its_stationary_distribution(self):
        X = torch.tensor([[0.9, 0.5], [0.1, 0.5]], dtype=torch.float64)
        value, u = pmaf.dominant_pair(X)
        torch.testing.assert_close(value, torch.ones((), dtype=torch.float64))
        torch.testing.assert_close(u / u.sum(), torch.tensor([5 / 6, 1 / 6], dtype=torch.float64))


class TestSolvers:
    def test_every_solver_has_a_row_in_the_table(self):
        assert {case.short for case in SPHERE_SOLVERS} == set(pmaf.solvers.SPHERE)
        assert {case.short for case in EIGEN_SOLVERS} == set(pmaf.solvers.EIGEN)

    @pytest.mark.parametrize("row", **ids(ROWS))
    def test_agree_with_the_default(self, row):
        inputs = row.layer.inputs(torch.float64, *([3] if row.layer.batched else []))
        reference = row.layer.call(*inputs)
        torch.testing.assert_close(row(*inputs), reference, rtol=0, atol=10 * row.error * float(reference.abs().max()))

    @pytest.mark.parametrize("name", [*pmaf.solvers.SPHERE, *pmaf.solvers.EIGEN])
    def test_short_names_stand_for_the_solver(self, name):
        if name in pmaf.solvers.SPHERE:
            A, b = layer("less").inputs(torch.float64)
            by_name = pmaf.less(A, b, solver=name)
            assert torch.equal(by_name, pmaf.less(A, b, solver=pmaf.solvers.SPHERE[name]()))
        else:
            (X,) = layer("ied, k = 1").inputs(torch.float64)
            by_name = pmaf.ied(X, 1, solver=name).eigenvectors
            assert torch.equal(by_name, pmaf.ied(X, 1, solver=pmaf.solvers.EIGEN[name]()).eigenvectors)

    def test_what_is_no_eigenpair_is_not_called_one(self):
        class Blind:
            rtol = 0.05

            def __init__(self, shift: float) -> None:
                self.shift = shift

            def solve(self, X, k, largest, start=None):
                return pmaf.solvers.Eigh().solve(X, k, largest)._replace(eigenvalues=torch.full((1,), 2 - self.shift))

        X = torch.diag(torch.tensor([2.0, 0.0]))
        assert int(pmaf.ied_ex(X, solver=Blind(0.1)).status) == CONVERGED  # a residual that the solver was granted
        assert int(pmaf.ied_ex(X, solver=Blind(2.0)).status) == Status.MAX_STEPS


class TestOperators:
    @pytest.mark.parametrize(("r", "n"), [(9, 4), (4, 9), (5, 5), (1, 3), (3, 1)])
    @pytest.mark.parametrize("largest", [True, False], ids=["largest", "smallest"])
    @pytest.mark.parametrize("dtype", WORKING, ids=str)
    def test_gram_agrees_with_the_dense_matrix(self, r, n, largest, dtype):
        F = randn(3, r, n, dtype=dtype)
        wide = F.to(torch.complex128 if dtype.is_complex else torch.float64)
        k = 1
        factor, dense = pmaf.ied_ex(pmaf.Gram(F), k, largest=largest), pmaf.ied_ex(wide.mH @ wide, k, largest=largest)
        size = float(dense.eigenvalues.abs().max()) or float(wide.abs().max()) ** 2
        assert (factor.eigenvalues.double() - dense.eigenvalues).abs().max() <= 100 * eps(dtype) * max(size, 1)
        assert (factor.residual <= 100 * eps(dtype)).all()
        if not (r < n - 1 and not largest):  # one null vector, so that it is determined
            inner = (factor.eigenvectors.to(wide.dtype).conj() * dense.eigenvectors).sum(-2).abs()
            assert (1 - inner <= 1e4 * eps(dtype)).all()

    @pytest.mark.parametrize("k", [1, 2, 3, 4])
    def test_gram_wants_more_than_its_rank(self, k):
        F = randn(2, 4)
        solution = pmaf.ied_ex(pmaf.Gram(F), k)
        s = torch.linalg.svdvals(F).square()
        expected = torch.cat((s, torch.zeros(2, dtype=torch.float64)))[:k]
        torch.testing.assert_close(solution.eigenvalues, expected, atol=1e-12, rtol=1e-12)
        U = solution.eigenvectors
        torch.testing.assert_close(U.mT @ U, torch.eye(k, dtype=torch.float64))
        assert int(solution.status) == (CONVERGED if k <= 2 else NOT_UNIQUE)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.complex64], ids=str)
    def test_gram_keeps_a_tiny_singular_value_apart(self, dtype):
        F = with_singular_values(12, [1.0, 0.5, 1e-3, 3e-5], seed=6, dtype=dtype)
        truth = torch.linalg.svd(F).Vh[-1].conj()
        solution = pmaf.ied_ex(pmaf.Gram(F.to(dtype)), 1, largest=False)
        assert int(solution.status) == CONVERGED
        u = solution.eigenvectors[:, 0].to(truth.dtype)
        # the data are rounded at 6e-8, the separation is 1e-3: nothing beyond that may be lost
        assert float(1 - (u.conj() @ truth).abs()) <= 1e-7
        assert float(solution.eigenvalues[0]) == pytest.approx(9e-10, rel=1e-2)

    @pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr], ids=str)
    @pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta:UserWarning")
    def test_sparse_agrees_with_the_dense_matrix(self, layout):
        X = symmetric(n=8)
        X = torch.where(X.abs() > 0.3, X, 0)
        dense = pmaf.ied(X, 2)
        sparse = X.to_sparse() if layout == torch.sparse_coo else X.to_sparse_csr()
        values, U = pmaf.ied(sparse, 2)
        torch.testing.assert_close(values, dense.eigenvalues)
        torch.testing.assert_close(U, dense.eigenvectors)
        torch.testing.assert_close(pmaf.principal_projector(sparse, 2), pmaf.principal_projector(X, 2))

    def test_uncoalesced_entries_add_up(self):
        index = torch.tensor([[0, 0, 1], [0, 0, 1]])
        X = torch.sparse_coo_tensor(index, torch.tensor([1.0, 2.0, 1.0]), (2, 2), check_invariants=True)
        assert pmaf.ied(X, 1).eigenvalues.tolist() == [3.0]

    def test_function_agrees_with_the_dense_matrix(self):
        d, v = randn(6), randn(6, seed=1)
        X = pmaf.MatVec(lambda d, v, V: d[:, None] * V + v[:, None] * (v @ V), 6, (d, v))
        dense = pmaf.ied(torch.diag(d) + torch.outer(v, v), 2)
        values, U = pmaf.ied(X, 2)
        torch.testing.assert_close(values, dense.eigenvalues)
        torch.testing.assert_close(U, dense.eigenvectors)

    def test_half_precision_factor(self):
        F = randn(6, 3).to(torch.bfloat16)
        values, U = pmaf.ied(pmaf.Gram(F), 1)
        assert values.dtype == U.dtype == torch.bfloat16
        torch.testing.assert_close(U, pmaf.ied(pmaf.Gram(F.float()), 1).eigenvectors.to(torch.bfloat16))


class TestProjector:
    @pytest.mark.parametrize("dtype", WORKING, ids=str)
    @pytest.mark.parametrize("largest", [True, False], ids=["largest", "smallest"])
    def test_is_the_projector(self, dtype, largest):
        X, _, Q = with_spectrum((4.0, 4.0, 1.0, -2.0, -2.0), seed=1, dtype=dtype)
        P = pmaf.principal_projector(X, 2, largest=largest)
        space = Q[:, :2] if largest else Q[:, 3:]
        assert torch.linalg.matrix_norm(P.to(Q.dtype) - space @ space.mH) <= 100 * eps(dtype)

    def test_all_pairs_give_the_identity(self):
        torch.testing.assert_close(pmaf.principal_projector(symmetric(n=3), 3), torch.eye(3, dtype=torch.float64))

    def test_from_a_factor(self):
        F = randn(9, 4)
        P = pmaf.principal_projector(pmaf.Gram(F), 2)
        torch.testing.assert_close(P, pmaf.principal_projector(F.mT @ F, 2))


class TestModules:
    def test_return_what_the_functions_return(self):
        A, b, X = randn(2, 5, 3), randn(2, 5, seed=1), symmetric(2, n=4)
        assert torch.equal(pmaf.nn.LESS(radius=2.0)(A, b), pmaf.less(A, b, radius=2.0))
        pair = pmaf.nn.IED(k=2, largest=False)(X)
        assert torch.equal(pair.eigenvectors, pmaf.ied(X, 2, largest=False).eigenvectors)
        weights, free = torch.rand(2, 5, dtype=torch.float64), randn(2, 5, 1, seed=4)
        assert torch.equal(pmaf.nn.LESS()(A, b, weights, free), pmaf.less(A, b, weights=weights, free=free))

    def test_principal_pool_is_the_principal_component_of_the_pixels(self):
        features = randn(3, 4, 5, 6)
        F = features.flatten(-2).mT
        for center in (False, True):
            pooled = pmaf.nn.PrincipalPool2d(2, center=center)(features)
            G = F - F.mean(-2, keepdim=True) if center else F
            _, _, Vh = torch.linalg.svd(G, full_matrices=False)
            pooled = pooled.reshape(3, 2, 4)
            inner = (pooled * Vh[:, :2]).sum(-1).abs()
            torch.testing.assert_close(inner, torch.ones_like(inner))
            assert ((pooled * F.mean(-2)[:, None]).sum(-1) >= 0).all()

    def test_principal_pool_scales_by_the_root_mean_square(self):
        features = randn(3, 4, 5, 6)
        sigma = torch.linalg.svdvals(features.flatten(-2))
        pooled = pmaf.nn.PrincipalPool2d(2, scale=True)(features).reshape(3, 2, 4)
        torch.testing.assert_close(norm(pooled), sigma[:, :2] / math.sqrt(30))

    @pytest.mark.parametrize("center", [False, True])
    @pytest.mark.filterwarnings("ignore::pmaf.DegeneracyWarning")
    def test_principal_pool_of_a_flat_map_has_a_gradient(self, center):
        features = randn(3, 4, 5, 5, dtype=torch.float32).relu()
        features[1] = float(center)  # nothing is left of a constant map when its mean is subtracted
        features.requires_grad_()
        pooled = pmaf.nn.PrincipalPool2d(2, center=center, scale=True)(features)
        pooled.square().sum().backward()
        assert (pooled[1] == 0).all()
        assert features.grad.isfinite().all()
        assert (features.grad[1] == 0).all()
        assert features.grad[0].abs().max() > 0

    @pytest.mark.parametrize("dtype", HALF, ids=str)
    def test_principal_pool_of_large_half_features(self, dtype):
        features = (12 * torch.rand(2, 8, 28, 28)).to(dtype)
        for center in (False, True):
            pool = pmaf.nn.PrincipalPool2d(2, center=center, scale=True)
            pooled = pool(features)
            assert pooled.dtype == dtype
            torch.testing.assert_close(pooled, pool(features.float()).to(dtype), rtol=0, atol=0)

    def test_principal_pool_takes_one_map_too(self):
        features = randn(4, 5, 6)
        torch.testing.assert_close(pmaf.nn.PrincipalPool2d()(features), pmaf.nn.PrincipalPool2d()(features[None])[0])

    @pytest.mark.parametrize(
        ("module", "text"),
        [
            (lambda: pmaf.nn.LESS(radius=9.81), "LESS(radius=9.81)"),
            (lambda: pmaf.nn.LESS(constraint="ball"), "LESS(radius=1.0, constraint='ball')"),
            (lambda: pmaf.nn.IED(k=2), "IED(k=2)"),
            (lambda: pmaf.nn.IED(largest=False), "IED(k=1, largest=False)"),
            (lambda: pmaf.nn.PrincipalPool2d(3, center=True), "PrincipalPool2d(k=3, center=True)"),
        ],
    )
    def test_print_their_configuration(self, module, text):
        assert repr(module()) == text


def test_orthogonal_helper_is_orthogonal():
    Q = orthogonal(4, dtype=torch.complex64)
    torch.testing.assert_close(Q.mH @ Q, torch.eye(4, dtype=torch.complex128))
