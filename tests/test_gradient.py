"""Gradients against finite differences, ``eigh``, unrolled Newton and closed forms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import pmaf
from cases import (
    HOMOGRAPHY,
    LAYERS,
    ROTATION,
    eps,
    ids,
    randn,
    symmetric,
    with_spectrum,
)
from oracles import (
    central_difference,
    eigh_pairs,
    exact_pullback,
    newton_eigenpair,
    newton_less,
    relative_error,
)

DOUBLE = (torch.float64, torch.complex128)
COMPLEX_LAYERS = [
    layer
    for layer in LAYERS
    if layer.name not in ("ied(sparse)", "ied(MatVec)", "dominant_pair") and "Pool" not in layer.name
]


def grad(output: Tensor, inputs, weight: Tensor | None = None, **options):
    """Gradients of a fixed linear function of the output."""
    weight = randn(*output.shape, seed=99, dtype=output.dtype) if weight is None else weight
    return torch.autograd.grad((weight.conj() * output).real.sum(), inputs, **{"retain_graph": True} | options)


class TestFiniteDifferences:
    @pytest.mark.parametrize("layer", **ids(LAYERS))
    def test_first_derivatives(self, layer):
        inputs = layer.inputs(torch.float64, *([2] if layer.batched else []), requires_grad=True)
        assert torch.autograd.gradcheck(layer.call, inputs)

    @pytest.mark.parametrize("layer", **ids(COMPLEX_LAYERS))
    def test_first_derivatives_complex(self, layer):
        assert torch.autograd.gradcheck(layer.call, layer.inputs(torch.complex128, requires_grad=True))

    @pytest.mark.parametrize("layer", **ids([layer for layer in LAYERS if layer.twice]))
    def test_second_derivatives(self, layer):
        inputs = layer.inputs(torch.float64, requires_grad=True)
        assert torch.autograd.gradgradcheck(layer.call, inputs, fast_mode=True)

    @pytest.mark.parametrize("layer", **ids(COMPLEX_LAYERS))
    def test_second_derivatives_complex(self, layer):
        assert torch.autograd.gradgradcheck(
            layer.call, layer.inputs(torch.complex128, requires_grad=True), fast_mode=True
        )

    @pytest.mark.parametrize("name", ["less", "ied, k = 1"])
    def test_third_derivatives(self, name):
        (layer,) = [layer for layer in LAYERS if layer.name == name]
        inputs = layer.inputs(torch.float64, requires_grad=True)

        def first(*inputs):
            return grad(layer.call(*inputs), inputs, create_graph=True)

        assert torch.autograd.gradgradcheck(first, inputs, fast_mode=True)

    @pytest.mark.parametrize("m", [3, 5], ids=["m < n", "m > n"])
    @pytest.mark.parametrize("constraint", ["sphere", "ball"])
    def test_multiplier(self, m, constraint):
        A, b = randn(2, m, 4).requires_grad_(), (4 * randn(2, m, seed=1)).requires_grad_()
        radius = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(
            lambda A, b, r: pmaf.less_ex(A, b, radius=r, constraint=constraint).multiplier, (A, b, radius)
        )

    def test_ball_inside_and_outside(self):
        A, b = randn(8, 5, 3).requires_grad_(), (2 * randn(8, 5, seed=1)).requires_grad_()
        inside = pmaf.less_ex(A, b, constraint="ball").multiplier == 0
        assert 0 < int(inside.sum()) < 8
        assert torch.autograd.gradcheck(lambda A, b: pmaf.less(A, b, constraint="ball"), (A, b))
        radius = torch.ones(8, dtype=torch.float64, requires_grad=True)
        (slope,) = grad(pmaf.less(A, b, radius=radius, constraint="ball"), radius)
        assert (slope[inside] == 0).all()
        assert (slope[~inside] != 0).all()

    def test_zero_weight(self):
        A, b = randn(6, 3).requires_grad_(), randn(6, seed=1).requires_grad_()
        weights = torch.tensor([1.0, 0.5, 0.0, 2.0, 1.0, 0.0], dtype=torch.float64, requires_grad=True)
        grad_A, grad_b, grad_W = grad(pmaf.less(A, b, weights=weights), (A, b, weights))
        assert (grad_A[[2, 5]] == 0).all()
        assert (grad_b[[2, 5]] == 0).all()
        # the derivative at weight zero, from one side
        w = randn(3, seed=99)
        for i in (2, 5):
            bump = torch.zeros(6, dtype=torch.float64)
            bump[i] = 1e-6
            change = (pmaf.less(A, b, weights=weights + bump) - pmaf.less(A, b, weights=weights)).detach()
            assert float(grad_W[i]) == pytest.approx(float(w @ change) / 1e-6, rel=1e-4)

    def test_one_radius_for_the_batch(self):
        A, b = randn(3, 5, 3).requires_grad_(), (3 * randn(3, 5, seed=1)).requires_grad_()
        radius = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda A, b, r: pmaf.less(A, b, radius=r), (A, b, radius))

    def test_shared_matrix(self):
        A, b = randn(5, 3).requires_grad_(), (3 * randn(4, 5, seed=1)).requires_grad_()
        assert torch.autograd.gradcheck(pmaf.less, (A, b))
        assert torch.autograd.gradgradcheck(pmaf.less, (A, b), fast_mode=True)

    def test_entry_by_entry(self):
        A, b = randn(6, 4), 3 * randn(6, seed=1)
        weight = randn(4, seed=2)
        numeric = central_difference(lambda A: weight @ pmaf.less(A, b), A)
        (analytic,) = grad(pmaf.less(A.requires_grad_(), b), A, weight)
        assert relative_error(analytic, numeric) <= 1e-8


class TestUnrolledNewton:
    @pytest.mark.parametrize(("m", "n"), [(6, 4), (3, 5), (4, 1)])
    def test_less(self, m, n):
        radius = 0.3
        A, b = randn(3, m, n, seed=1).requires_grad_(), (2 * randn(3, m, seed=2)).requires_grad_()
        r = torch.full((3,), radius, dtype=torch.float64, requires_grad=True)
        solution = pmaf.less_ex(A, b, radius=r)
        implicit = torch.cat((solution.u, solution.multiplier[..., None]), -1)
        unrolled = newton_less(A, b, r, solution.u, solution.multiplier)
        weight = randn(3, n + 1, seed=3)
        for ours, theirs in zip(
            grad(implicit, (A, b, r), weight), grad(unrolled, (A, b, r), weight), strict=True
        ):  # fmt: skip
            assert relative_error(ours, theirs) <= 1e-11

    def test_less_second_order(self):
        A, b = randn(4, 3, seed=1), 2 * randn(4, seed=2)
        r = torch.tensor(0.5, dtype=torch.float64)
        weight = randn(3, seed=3)
        solution = pmaf.less_ex(A, b, radius=r)
        ours = torch.autograd.functional.hessian(lambda A, b: weight @ pmaf.less(A, b, radius=r), (A, b))
        theirs = torch.autograd.functional.hessian(
            lambda A, b: weight @ newton_less(A, b, r, solution.u, solution.multiplier)[:3], (A, b)
        )
        for row, expected in zip(ours, theirs, strict=True):
            for block, truth in zip(row, expected, strict=True):
                assert relative_error(block, truth) <= 1e-10

    def test_eigenpair_where_the_others_repeat(self):
        X, _, _ = with_spectrum((3.0, 1.0, 1.0, 1.0, -2.0), seed=4)
        values, U = pmaf.ied(X, 1)
        weight = randn(6, seed=5)

        def ours(X):
            values, U = pmaf.ied((X + X.mT) / 2, 1)
            return weight @ torch.cat((U[:, 0], values))

        def theirs(X):
            return weight @ newton_eigenpair(X, U[:, 0], values[0])

        assert relative_error(torch.func.grad(ours)(X), torch.func.grad(theirs)(X)) <= 1e-11
        hessian = torch.autograd.functional.hessian
        assert relative_error(hessian(ours, X), hessian(theirs, X)) <= 1e-10


class TestEighAutograd:
    @pytest.mark.parametrize("dtype", DOUBLE, ids=str)
    @pytest.mark.parametrize("largest", [True, False], ids=["largest", "smallest"])
    @pytest.mark.parametrize("k", [1, 3, 5])
    def test_ied(self, dtype, largest, k):
        X = symmetric(3, n=5, dtype=dtype).requires_grad_()
        ours, theirs = pmaf.ied(X, k, largest=largest), eigh_pairs(X, k, largest)
        torch.testing.assert_close(ours.eigenvectors, theirs[1])
        for one, other in zip(ours, theirs, strict=True):
            (mine,), (reference,) = grad(one, X), grad(other, X)
            assert relative_error(mine, reference) <= 1e-10

    @pytest.mark.parametrize(("r", "n"), [(7, 4), (4, 7)])
    @pytest.mark.parametrize("dtype", DOUBLE, ids=str)
    def test_gram(self, r, n, dtype):
        F = randn(2, r, n, dtype=dtype).requires_grad_()
        ours, theirs = pmaf.ied(pmaf.Gram(F), 2), eigh_pairs(F.mH @ F, 2)
        if r >= n:
            for one, other in zip(ours, theirs, strict=True):
                assert relative_error(grad(one, F)[0], grad(other, F)[0]) <= 1e-9
        else:  # the null space repeats a zero, where eigh's own gradient is not finite
            (mine,) = grad(ours.eigenvectors, F)
            through = pmaf.ied(F.mH @ F, 2).eigenvectors
            assert relative_error(mine, grad(through, F)[0]) <= 1e-9

    def test_projector(self):
        X = symmetric(3, n=5).requires_grad_()
        U = eigh_pairs(X, 2)[1]
        assert relative_error(grad(pmaf.principal_projector(X, 2), X)[0], grad(U @ U.mT, X)[0]) <= 1e-11

    def test_less_by_a_power_series_of_the_sphere(self):
        # without a right-hand side, least squares on the sphere is the smallest singular vector
        A = randn(6, 3, seed=8).requires_grad_()
        v = pmaf.ied(pmaf.Gram(A), 1, largest=False).eigenvectors[:, 0]
        (reference,) = grad(v, A)
        tiny = 1e-7 * (A.detach() @ v.detach())
        (ours,) = grad(pmaf.less(A, tiny), A)
        assert relative_error(ours, reference) <= 1e-5


class TestSinglePrecision:
    @pytest.mark.parametrize(
        ("spectrum", "largest"), [(ROTATION, True), (HOMOGRAPHY, False)], ids=["rotation", "homography"]
    )
    @pytest.mark.parametrize("seed", range(8))
    def test_repeated_unwanted_eigenvalues(self, spectrum, largest, seed):
        X64, s, Q = with_spectrum(spectrum, seed=seed)
        X = X64.float().requires_grad_()
        values, U = pmaf.ied(X, 1, largest=largest)
        weight = randn(len(s), 1, seed=seed + 50)
        (ours,) = torch.autograd.grad((weight.float() * U).sum() + values.sum(), X)
        index = int(s.argmax() if largest else s.argmin())
        sign = 1 if float(Q[:, index].sum()) >= 0 else -1
        truth = exact_pullback(s, Q * sign, [index], weight, torch.ones(1, dtype=torch.float64))
        assert ours.isfinite().all()
        assert relative_error(ours, truth) <= 2e-4

    @pytest.mark.parametrize("solver", ["secular", "more_sorensen"])
    @pytest.mark.parametrize(("m", "n"), [(64, 32), (20, 3)])
    def test_less(self, m, n, solver):
        A, b = randn(50, m, n), randn(50, m, seed=1)
        weight = randn(50, n, seed=2)
        wide = A.float().double().requires_grad_()
        (truth,) = grad(pmaf.less(wide, b.float().double()), wide, weight)
        narrow = A.float().requires_grad_()
        (ours,) = grad(pmaf.less(narrow, b.float(), solver=solver), narrow, weight.float())
        errors = torch.tensor([relative_error(x, y) for x, y in zip(ours, truth, strict=True)])
        assert float(errors.median()) <= 2e-7

    def test_sphere_quadratic(self):
        H, g = symmetric(50, n=16), randn(50, 16, seed=1)
        weight = randn(50, 16, seed=2)
        wide = H.float().double().requires_grad_()
        (truth,) = grad(pmaf.sphere_quadratic(wide, g.float().double()), wide, weight)
        narrow = H.float().requires_grad_()
        (ours,) = grad(pmaf.sphere_quadratic(narrow, g.float()), narrow, weight.float())
        errors = torch.tensor([relative_error(x, y) for x, y in zip(ours, truth, strict=True)])
        assert float(errors.median()) <= 2e-7

    @pytest.mark.parametrize("k", [1, 3])
    def test_well_separated_pairs(self, k):
        errors = []
        for seed in range(10):
            X, _, _ = with_spectrum((9.0, 7.0, 5.0, 3.0, 1.0, -1.0, -3.0, -5.0), seed=seed, dtype=torch.float32)
            wide, narrow = X.double().requires_grad_(), X.clone().requires_grad_()
            weight = randn(8, k, seed=seed)
            (truth,) = grad(eigh_pairs(wide, k)[1], wide, weight)
            (ours,) = grad(pmaf.ied(narrow, k).eigenvectors, narrow, weight.float())
            errors.append(relative_error(ours, truth))
        assert max(errors) <= 100 * eps(torch.float32)

    @pytest.mark.parametrize("layer", **ids(LAYERS))
    def test_agrees_with_double_precision(self, layer):
        narrow = layer.inputs(torch.float32, requires_grad=True)
        wide = tuple(x.detach().double().requires_grad_() for x in narrow)
        weight = randn(*layer.call(*wide).shape, seed=5)
        ours = grad(layer.call(*narrow), narrow, weight.float())
        for mine, truth in zip(ours, grad(layer.call(*wide), wide, weight), strict=True):
            assert mine.dtype == torch.float32
            assert relative_error(mine, truth) <= 500 * eps(torch.float32)


class TestProperties:
    @pytest.mark.parametrize("dtype", [torch.float32, *DOUBLE], ids=str)
    def test_gradient_of_a_symmetric_matrix_is_symmetric(self, dtype):
        X = symmetric(4, n=5, dtype=dtype).requires_grad_()
        for output in (*pmaf.ied(X, 2), pmaf.principal_projector(X, 2)):
            (gradient,) = grad(output, X)
            assert torch.equal(gradient, gradient.mH)
        (gradient,) = grad(pmaf.sphere_quadratic(X, randn(5, dtype=dtype)), X)
        assert torch.equal(gradient, gradient.mH)

    def test_directional_derivative_of_a_symmetric_change(self):
        X, D = symmetric(n=4).requires_grad_(), symmetric(n=4, seed=1)
        weight = randn(4, 2, seed=2)
        (gradient,) = grad(pmaf.ied(X, 2).eigenvectors, X, weight)
        step = 1e-6
        with torch.no_grad():
            change = (pmaf.ied(X + step * D, 2).eigenvectors - pmaf.ied(X - step * D, 2).eigenvectors) / (2 * step)
        assert float((gradient * D).sum()) == pytest.approx(float((weight * change).sum()), rel=1e-7)

    @pytest.mark.parametrize("exponent", [-18, -9, 9, 18])
    def test_gradients_scale_with_the_units(self, exponent):
        scale = 10.0**exponent
        A, b = randn(6, 4), randn(6, seed=1)
        X, weight = symmetric(n=4), randn(4, seed=2)

        def less_at(c):
            A_c = (A * c).requires_grad_()
            return grad(pmaf.less(A_c, b * c), A_c, weight)[0] * c

        def ied_at(c):
            X_c = (X * c).requires_grad_()
            return grad(pmaf.ied(X_c, 1).eigenvectors[:, 0], X_c, weight)[0] * c

        assert relative_error(less_at(scale), less_at(1.0)) <= 1e-12
        assert relative_error(ied_at(scale), ied_at(1.0)) <= 1e-12

    @pytest.mark.parametrize("solver", ["secular", "more_sorensen"])
    @pytest.mark.parametrize(
        ("of_A", "of_b", "of_radius"),
        [
            (1e15, 1.0, 1e-15),
            (1.0, 1e-25, 1e-25),
            (1e10, 1.0, 1e-10),
            (1e-10, 1.0, 1e10),
            (1e-22, 1e-22, 1.0),
            (1e30, 1e30, 1.0),
            (1e-30, 1e-30, 1.0),
            (1e18, 1e30, 1e12),
        ],
    )
    def test_uneven_units_in_single_precision(self, of_A, of_b, of_radius, solver):
        H, weight = symmetric(n=4), randn(4, seed=2)
        quadratic = solver == "secular"

        def at(dtype):
            scaled = randn(2, 8, 4) * of_A, randn(8, seed=1) * of_b, torch.tensor(of_radius, dtype=torch.float64)
            A, b, radius = (x.float().to(dtype).requires_grad_() for x in scaled)
            solution = pmaf.less_ex(A, b, radius=radius, solver=solver)
            assert solution.status.tolist() == [0, 0]
            gradients = grad(solution.u, (A, b, radius), weight.to(dtype) / of_radius)
            if not quadratic:
                return (solution.u, *gradients)
            of_H = min(of_A, 1e20)  # the gradient with respect to H stays in range
            H_c, g, radius = (x.float().to(dtype).requires_grad_() for x in (H * of_H, randn(4) * of_H, scaled[2]))
            solution = pmaf.sphere_quadratic_ex(H_c, g * of_radius, radius=radius)
            return (solution.u, *gradients, solution.multiplier, *grad(solution.u, (H_c, g), weight.to(dtype)))

        for ours, theirs in zip(at(torch.float32), at(torch.float64), strict=True):
            if theirs.abs().max() > 1e38 or theirs.abs().max() < 1e-37:
                continue  # λ of such data leaves the range of the type
            assert relative_error(ours.detach(), theirs.detach()) <= 300 * eps(torch.float32)

    def test_weights_and_free_unknowns_in_uneven_units(self):
        A, b, C, weights = randn(8, 4), randn(8, seed=1), randn(8, 2, seed=3), torch.linspace(0.5, 2, 8).double()

        def at(dtype, scales):
            data = zip((A, b, C, weights), scales, strict=True)
            given = tuple((x * c).to(dtype).requires_grad_() for x, c in data)
            solution = pmaf.less_ex(*given[:2], free=given[2], weights=given[3], radius=scales[1] / scales[0])
            loss = solution.u.sum() / scales[1] * scales[0] + solution.z.sum() / scales[1] * scales[2]
            return solution, torch.autograd.grad(loss, given)

        truth, slopes = at(torch.float64, (1.0, 1.0, 1.0, 1.0))
        scales = (1e-9, 1e3, 1e8, 1e14)
        solution, gradients = at(torch.float32, scales)
        tolerance = 300 * eps(torch.float32)
        assert int(solution.status) == 0
        factors = {"u": scales[0] / scales[1], "z": scales[2] / scales[1], "multiplier": scales[0] ** -2 / scales[3]}
        for name, factor in factors.items():
            ours, theirs = (getattr(x, name).detach() for x in (solution, truth))
            assert relative_error(ours * factor, theirs) <= tolerance
        for ours, theirs, scale in zip(gradients, slopes, scales, strict=True):
            assert relative_error(ours * scale, theirs) <= tolerance

    def test_hand_computed(self):
        # u = b/‖b‖ for A = I, so du = (I − uuᵀ) db/‖b‖
        b = torch.tensor([3.0, 4.0], dtype=torch.float64, requires_grad=True)
        u = pmaf.less(torch.eye(2, dtype=torch.float64), b)
        (gradient,) = torch.autograd.grad(u[0], b)
        torch.testing.assert_close(gradient, torch.tensor([0.128, -0.096], dtype=torch.float64))

    def test_eigenvalue_gradient_is_the_outer_product(self):
        X = symmetric(n=4).requires_grad_()
        values, U = pmaf.ied(X, 2)
        for i in range(2):
            (gradient,) = torch.autograd.grad(values[i], X, retain_graph=True)
            u = U[:, i].detach()
            torch.testing.assert_close(gradient, torch.outer(u, u))

    def test_reference_carries_no_gradient(self):
        X, reference = symmetric(n=4).requires_grad_(), randn(4).requires_grad_()
        U = pmaf.ied(X, 1, reference=reference).eigenvectors
        assert grad(U, (X, reference), allow_unused=True)[1] is None

    def test_reports_carry_no_gradient(self):
        A, b = randn(5, 3).requires_grad_(), randn(5, seed=1)
        solution = pmaf.less_ex(A, b)
        assert solution.u.requires_grad
        assert solution.multiplier.requires_grad
        assert not any(x.requires_grad for x in (solution.status, solution.steps, solution.residual, solution.gap))
        pair = pmaf.ied_ex(symmetric(n=3).requires_grad_(), 1)
        assert not any(x.requires_grad for x in (pair.status, pair.steps, pair.residual, pair.gap))

    def test_sparse_gradient_lives_on_the_pattern(self):
        X = torch.where(symmetric(n=6).abs() > 0.3, symmetric(n=6), 0)
        dense, sparse = X.clone().requires_grad_(), X.to_sparse().requires_grad_()
        weight = randn(6, 1, seed=3)
        (full,) = grad(pmaf.ied(dense, 1).eigenvectors, dense, weight)
        (thin,) = grad(pmaf.ied(sparse, 1).eigenvectors, sparse, weight)
        torch.testing.assert_close(thin.to_dense(), torch.where(X != 0, full, 0))

    def test_second_derivative_of_a_sparse_matrix(self):
        X = torch.where(symmetric(n=5).abs() > 0.3, symmetric(n=5), 0)
        dense, sparse = X.clone().requires_grad_(), X.to_sparse().requires_grad_()
        weight, other = randn(5, 1, seed=3), torch.where(X != 0, symmetric(n=5, seed=4), 0)
        (full,) = grad(pmaf.ied(dense, 1).eigenvectors, dense, weight, create_graph=True)
        (thin,) = grad(pmaf.ied(sparse, 1).eigenvectors, sparse, weight, create_graph=True)
        (full,) = torch.autograd.grad((full * other).sum(), dense)
        (thin,) = torch.autograd.grad((thin.to_dense() * other).sum(), sparse)
        torch.testing.assert_close(thin.to_dense(), torch.where(X != 0, full, 0))

    def test_modified_input_is_detected(self):
        for call, inputs in (
            (lambda X: pmaf.ied(X, 1).eigenvectors, (symmetric(n=3),)),
            (lambda X: pmaf.principal_projector(X, 1), (symmetric(n=3),)),
            (pmaf.sphere_quadratic, (symmetric(n=3), randn(3))),
            (pmaf.less, (randn(4, 3), randn(4))),
        ):
            inputs = tuple(x.clone().requires_grad_() for x in inputs)
            output = call(*inputs)
            with torch.no_grad():
                inputs[0].add_(1)
            with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                output.sum().backward()
