"""Answers that are not unique: policies, warnings, and gradients that stay exact where they are determined."""

from __future__ import annotations

import math
import warnings

import pytest
import torch

import pmaf
from cases import HOMOGRAPHY, ROTATION, orthogonal, randn, with_spectrum
from oracles import exact_pullback, relative_error
from pmaf import DegeneracyError, DegeneracyWarning, Status

REPEATED = (4.0, 4.0, 4.0, 1.0, -2.0)  # the three largest are one block
DOUBLE = (torch.float64, torch.complex128)


def hard_case(dtype: torch.dtype = torch.float64):
    return torch.diag(torch.tensor([1.0, 2.0], dtype=dtype)), torch.tensor([0.0, 0.9], dtype=dtype)


class TestPolicies:
    def test_drop_warns_and_stays_finite(self):
        X = with_spectrum(REPEATED)[0].requires_grad_()
        with pytest.warns(DegeneracyWarning, match=r"pmaf\.ied: the problem ended with NOT_UNIQUE.*leaves out"):
            U = pmaf.ied(X, 1).eigenvectors
        U.sum().backward()
        assert X.grad.isfinite().all()
        assert float(X.grad.abs().max()) < 10

    def test_the_warning_points_at_the_caller(self):
        X = with_spectrum(REPEATED)[0].requires_grad_()
        with pytest.warns(DegeneracyWarning) as record:
            pmaf.ied(X, 1)
        assert record[0].filename == __file__

    def test_no_warning_where_no_gradient_is_wanted(self):
        X = with_spectrum(REPEATED)[0]
        assert int(pmaf.ied_ex(X, 1).status) == Status.NOT_UNIQUE
        pmaf.ied(X, 1)
        with torch.no_grad():
            pmaf.ied(X.requires_grad_(), 1)

    def test_the_ex_form_never_warns_or_raises_forward(self):
        X = with_spectrum(REPEATED)[0].requires_grad_()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            solution = pmaf.ied_ex(X, 1, degenerate="raise")
        with pytest.raises(DegeneracyError, match="not unique"):
            solution.eigenvectors.sum().backward()

    def test_nan(self):
        X = with_spectrum(REPEATED)[0].requires_grad_()
        pmaf.ied(X, 1, degenerate="nan").eigenvectors.sum().backward()
        assert X.grad.isnan().all()

    def test_nan_leaves_the_other_items_alone(self):
        X = torch.stack((with_spectrum(REPEATED)[0], with_spectrum((5.0, 3.0, 1.0, 0.0, -1.0))[0])).requires_grad_()
        pmaf.ied(X, 1, degenerate="nan").eigenvectors.sum().backward()
        assert X.grad[0].isnan().all()
        assert X.grad[1].isfinite().all()

    @pytest.mark.parametrize(
        ("call", "remedy"),
        [
            (lambda: pmaf.ied(with_spectrum(REPEATED)[0], 1, degenerate="raise"), "one of principal_projector"),
            (lambda: pmaf.principal_projector(with_spectrum(REPEATED)[0], 2, degenerate="raise"), "choose a k"),
            (lambda: pmaf.less(*hard_case(), degenerate="raise"), "give A more rows"),
            (lambda: pmaf.sphere_quadratic(torch.eye(2), torch.zeros(2), degenerate="raise"), "eigenvector of H"),
        ],
        ids=["ied", "principal_projector", "less", "sphere_quadratic"],
    )
    def test_raise(self, call, remedy):
        """The remedy is in the words of the layer."""
        with pytest.raises(DegeneracyError, match=rf"ended with NOT_UNIQUE.*{remedy}") as caught:
            call()
        assert ("eigenvalues" in str(caught.value)) == (remedy in ("one of principal_projector", "choose a k"))

    def test_the_tolerance_can_be_set(self):
        X = torch.diag(torch.tensor([1.0, 1.0 + 1e-6, 0.0], dtype=torch.float64))
        assert int(pmaf.ied_ex(X, 1).status) == Status.CONVERGED
        assert int(pmaf.ied_ex(X, 1, backward=pmaf.Implicit(rtol=1e-5)).status) == Status.NOT_UNIQUE
        assert int(pmaf.ied_ex(X, 1, backward=pmaf.Implicit(atol=1e-5)).status) == Status.NOT_UNIQUE

    def test_tolerance_is_relative(self):
        for scale in (1e-12, 1.0, 1e12):
            X = scale * with_spectrum(REPEATED)[0]
            assert int(pmaf.ied_ex(X, 1).status) == Status.NOT_UNIQUE
            assert int(pmaf.ied_ex(X, 3).status) == Status.NOT_UNIQUE
            Y = scale * torch.diag(torch.tensor([1.0, 1.0 - 1e-9, 0.0], dtype=torch.float64))
            assert int(pmaf.ied_ex(Y, 1).status) == Status.CONVERGED


class TestRepeatedUnwanted:
    @pytest.mark.parametrize(
        ("spectrum", "largest"),
        [(ROTATION, True), (HOMOGRAPHY, False), ((3.0, 0.0, 0.0, 0.0, 0.0), True), ((2.0, 1.0, 1.0, -1.0, -1.0), True)],
        ids=["rotation", "homography", "rank one", "pairs"],
    )
    @pytest.mark.parametrize("dtype", DOUBLE, ids=str)
    def test_gradient_is_exact(self, spectrum, largest, dtype):
        X, s, Q = with_spectrum(spectrum, seed=3, dtype=dtype)
        X.requires_grad_()
        index = int(s.argmax() if largest else s.argmin())
        solution = pmaf.ied_ex(X, 1, largest=largest)
        assert int(solution.status) == Status.CONVERGED
        P = solution.eigenvectors @ solution.eigenvectors.mH  # does not see the sign or the phase
        weight = randn(len(s), len(s), seed=4, dtype=dtype)
        weight = (weight + weight.mH) / 2
        value = (weight.conj() * P).real.sum() + solution.eigenvalues.sum()
        (ours,) = torch.autograd.grad(value, X)
        q = Q[:, index : index + 1]
        truth = exact_pullback(s, Q, [index], 2 * weight @ q, torch.ones(1, dtype=torch.float64))
        assert relative_error(ours, truth) <= 1e-12

    def test_eigh_fails_where_this_does_not(self):
        X = torch.diag(torch.tensor(ROTATION)).requires_grad_()
        torch.linalg.eigh(X)[1][:, -1].sum().backward()
        assert not X.grad.isfinite().all()
        Y = X.detach().clone().requires_grad_()
        pmaf.ied(Y, 1).eigenvectors.sum().backward()
        assert Y.grad.isfinite().all()

    def test_second_derivative(self):
        X = with_spectrum((3.0, 1.0, 1.0, 1.0))[0].requires_grad_()
        assert torch.autograd.gradgradcheck(lambda X: pmaf.ied((X + X.mT) / 2, 1).eigenvectors, X)

    def test_gram_matrix_of_low_rank(self):
        F = randn(3, 6).requires_grad_()  # three zero eigenvalues
        assert torch.autograd.gradcheck(lambda F: pmaf.ied(pmaf.Gram(F), 2).eigenvectors, F)
        assert torch.autograd.gradcheck(lambda F: pmaf.ied(F.mT @ F, 2).eigenvectors, F)


class TestRepeatedSelected:
    @pytest.mark.parametrize("dtype", DOUBLE, ids=str)
    def test_gauge_invariant_loss_is_exact(self, dtype):
        X, s, Q = with_spectrum(REPEATED, seed=5, dtype=dtype)
        X.requires_grad_()
        weight = randn(5, 5, seed=6, dtype=dtype)
        weight = (weight + weight.mH) / 2
        with pytest.warns(DegeneracyWarning):
            U = pmaf.ied(X, 3).eigenvectors
        (ours,) = torch.autograd.grad((weight.conj() * (U @ U.mH)).real.sum(), X)
        truth = exact_pullback(s, Q, [0, 1, 2], 2 * weight @ Q[:, :3])
        assert relative_error(ours, truth) <= 1e-12

    @pytest.mark.parametrize("dtype", DOUBLE, ids=str)
    @pytest.mark.parametrize("largest", [True, False], ids=["largest", "smallest"])
    def test_projector_is_exact(self, dtype, largest):
        spectrum = REPEATED if largest else tuple(-x for x in REPEATED)
        X, s, Q = with_spectrum(spectrum, seed=7, dtype=dtype)
        X.requires_grad_()
        weight = randn(5, 5, seed=8, dtype=dtype)
        weight = (weight + weight.mH) / 2
        P = pmaf.principal_projector(X, 3, largest=largest)  # no warning: only the end of the block matters
        assert torch.linalg.matrix_norm(P - Q[:, :3] @ Q[:, :3].mH) <= 1e-13
        (ours,) = torch.autograd.grad((weight.conj() * P).real.sum(), X)
        truth = exact_pullback(s, Q, [0, 1, 2], 2 * weight @ Q[:, :3])
        assert relative_error(ours, truth) <= 1e-12

    def test_projector_second_derivative(self):
        # perturbation theory: P(X + tE) to second order for X = diag(1, 1, 0), with R = 1 − P and gap 1
        X, P = torch.diag(torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)), torch.zeros(3, 3, dtype=torch.float64)
        P[0, 0] = P[1, 1] = 1
        R = torch.eye(3, dtype=torch.float64) - P
        E = randn(3, 3, seed=9)
        E = (E + E.mT) / 2
        weight = randn(3, 3, seed=10)
        t = torch.zeros((), dtype=torch.float64, requires_grad=True)
        value = (weight * pmaf.principal_projector(X + t * E, 2)).sum()
        (first,) = torch.autograd.grad(value, t, create_graph=True)
        (second,) = torch.autograd.grad(first, t)
        change = P @ E @ R + R @ E @ P
        assert float(first.detach()) == pytest.approx(float((weight * change).sum()), rel=1e-12)
        # P'' /2 = terms with two factors E between the spaces, gap one: a standard expansion
        PER, REP = P @ E @ R, R @ E @ P
        bend = PER @ E @ R + R @ E @ REP - P @ E @ P @ E @ R - R @ E @ P @ E @ P - PER @ REP + REP @ PER
        assert float(second) == pytest.approx(2 * float((weight * bend).sum()), rel=1e-10)

    @pytest.mark.parametrize("dtype", DOUBLE, ids=str)
    def test_projector_gradgradcheck(self, dtype):
        X = with_spectrum((2.0, 2.0, 0.5, -1.0), seed=11, dtype=dtype)[0].requires_grad_()
        call = lambda X: pmaf.principal_projector((X + X.mH) / 2, 2)  # noqa: E731
        assert torch.autograd.gradcheck(call, X)
        assert torch.autograd.gradgradcheck(call, X, fast_mode=True)

    def test_projector_reports_a_block_that_is_cut(self):
        with pytest.raises(DegeneracyError, match="NOT_UNIQUE"):
            pmaf.principal_projector(with_spectrum(REPEATED)[0], 2, degenerate="raise")

    def test_eigenvalue_sum_is_exact(self):
        X, _, Q = with_spectrum(REPEATED, seed=12)
        X.requires_grad_()
        with pytest.warns(DegeneracyWarning):
            values = pmaf.ied(X, 3).eigenvalues
        (ours,) = torch.autograd.grad(values.sum(), X)
        torch.testing.assert_close(ours, Q[:, :3] @ Q[:, :3].mT)


class TestSphere:
    def test_hard_case_gradient_leaves_out_what_is_not_determined(self):
        A, b = (x.requires_grad_() for x in hard_case())
        with pytest.warns(DegeneracyWarning, match="NOT_UNIQUE"):
            u = pmaf.less(A, b)
        torch.testing.assert_close(u.detach().abs(), torch.tensor([0.8, 0.6], dtype=torch.float64))
        (gradient,) = torch.autograd.grad(u[1], b)
        assert gradient.isfinite().all()
        # within the hard case, 3 u₂ = 2 b₂ is what b₂ moves
        assert float(gradient[1]) == pytest.approx(2 / 3, rel=1e-9)

    def test_zero_right_side(self):
        A = randn(5, 3).requires_grad_()
        b = torch.zeros(5, dtype=torch.float64, requires_grad=True)
        with pytest.warns(DegeneracyWarning):
            u = pmaf.less(A, b)
        grads = torch.autograd.grad(u.sum(), (A, b))
        assert all(g.isfinite().all() for g in grads)

    def test_rank_deficient_gradient_is_of_order_one(self):
        A = (randn(8, 2, seed=1) @ randn(2, 5, seed=2)).requires_grad_()
        with pytest.warns(DegeneracyWarning):
            u = pmaf.less(A, 10 * randn(8, seed=3), radius=100.0)
        (gradient,) = torch.autograd.grad((u / 100).sum(), A)
        assert float(gradient.abs().max()) < 100

    def test_repeated_smallest_singular_value(self):
        # b = 0 and a two-dimensional weak space: a circle of minimisers
        Q = orthogonal(5)
        A = (Q[:, :3] * torch.tensor([2.0, 1.0, 1.0], dtype=torch.float64)).requires_grad_()
        solution = pmaf.less_ex(A, torch.zeros(5, dtype=torch.float64))
        assert int(solution.status) == Status.NOT_UNIQUE
        (gradient,) = torch.autograd.grad(solution.u.sum(), A)
        assert gradient.isfinite().all()

    def test_multiplier_keeps_its_gradient(self):
        A = torch.diag(torch.tensor([1.0, 2.0], dtype=torch.float64)).requires_grad_()
        solution = pmaf.less_ex(A, torch.zeros(2, dtype=torch.float64))
        (gradient,) = torch.autograd.grad(solution.multiplier, A)  # λ = −σ²
        torch.testing.assert_close(gradient, torch.diag(torch.tensor([-2.0, 0.0], dtype=torch.float64)))

    def test_one_degenerate_item_in_a_batch(self):
        A, b = hard_case()
        A, b = torch.stack((A, A)), torch.stack((b, b + torch.tensor([0.5, 0.0], dtype=torch.float64)))
        b.requires_grad_()
        with pytest.warns(DegeneracyWarning, match=r"item \(0,\) ended with NOT_UNIQUE \(1 of 2 items\)"):
            u = pmaf.less(A, b)
        (both,) = torch.autograd.grad(u.sum(), b)
        alone = b[1].detach().requires_grad_()
        (one,) = torch.autograd.grad(pmaf.less(A[1], alone).sum(), alone)
        torch.testing.assert_close(both[1], one)


def test_infinite_gap_where_all_pairs_are_wanted():
    assert math.isinf(float(pmaf.ied_ex(with_spectrum((3.0, 2.0, 1.0))[0], 3).gap))


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("face", ["ied", "metric", "Gram", "svd"])
def test_second_derivatives_of_a_batch_with_a_failed_item_are_finite(face, k):
    X = torch.randn(3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    X = X + X.mT
    X[1] = torch.nan
    X.requires_grad_()
    if face == "svd":
        values, vectors = pmaf.svd_ex(X, k)[1], pmaf.svd_ex(X, k)[0]
    else:
        metric = torch.eye(4, dtype=X.dtype) + 0.1 if face == "metric" else None
        values, vectors = pmaf.ied_ex(pmaf.Gram(X) if face == "Gram" else X, k, metric=metric)[:2]
    loss = (
        torch.where(values.isnan(), 0, values).square().sum()
        + torch.where(vectors.isnan(), 0, vectors)[..., 0, :].sum()
    )
    (first,) = torch.autograd.grad(loss, X, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), X)
    assert bool(first.isfinite().all())
    assert bool(second.isfinite().all())
    assert not bool(first[1].any())
    assert not bool(second[1].any())
