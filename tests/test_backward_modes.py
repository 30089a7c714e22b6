"""Every way to differentiate gives the same derivatives, of first and second order, where it applies."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import pmaf
from cases import randn
from pmaf.solvers.eigen.block_lanczos import BlockLanczos
from pmaf.solvers.eigen.eigh import Eigh
from pmaf.solvers.eigen.power_iteration import PowerIteration
from pmaf.solvers.eigen.simultaneous_iteration import SimultaneousIteration
from pmaf.solvers.sphere.gradient_descent import RiemannianGradient

DENSE, EXPLOITED, JACOBIAN, UNROLLED = (
    pmaf.DenseJacobian(),
    pmaf.FixedPoint(),
    pmaf.FixedPoint(dense=True),
    pmaf.Unrolled(),
)
BIG = 1e7  # the exact step adds 1e-8 to a denominator: a large A lets it converge all the way
SOLVERS = [
    pytest.param(Eigh(), 1, id="eigh-1"),
    pytest.param(Eigh(), 3, id="eigh-3"),
    pytest.param(PowerIteration(rtol=1e-13, max_steps=5000), 1, id="power-1"),
    pytest.param(SimultaneousIteration(guard=1, rtol=1e-13), 1, id="simultaneous-1"),
    pytest.param(SimultaneousIteration(guard=1, rtol=1e-13), 3, id="simultaneous-3"),
    pytest.param(BlockLanczos(rtol=1e-13), 1, id="lanczos-1"),
    pytest.param(BlockLanczos(rtol=1e-13), 3, id="lanczos-3"),
]


def least_squares() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    A, b, r = torch.randn(3, 6, 4), torch.randn(6), torch.tensor([0.5, 1.0, 3.0])
    return tuple(t.double().requires_grad_() for t in (A, b, r))  # type: ignore[return-value]


def gentle() -> tuple[Tensor, Tensor, Tensor]:
    """Well conditioned and almost solved on the sphere, so that exact steps get to the last digit."""
    A, b, r = (t.detach() for t in least_squares())
    A = torch.eye(6, 4, dtype=torch.float64) + 0.1 * A
    u = r[:, None] * torch.tensor([0.5, -0.5, 0.5, 0.5], dtype=torch.float64)
    b = 1.1 * (A @ u[..., None])[..., 0] + 0.05 * r[:, None] * b
    return A.requires_grad_(), b.requires_grad_(), r.requires_grad_()


def symmetric(n: int = 6) -> Tensor:
    """Well separated eigenvalues, the smallest negative."""
    torch.manual_seed(1)
    V = torch.linalg.qr(torch.randn(2, n, n, dtype=torch.float64))[0]
    s = torch.linspace(-1, 2, n, dtype=torch.float64).exp() - 1.5
    return ((V * s) @ V.mT).requires_grad_()


def gradients(outputs: tuple[Tensor, ...], inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(2)
    weights = [torch.randn(o.shape, dtype=o.dtype, generator=generator) for o in outputs]
    return torch.autograd.grad(sum((o * w).sum() for o, w in zip(outputs, weights, strict=True)), inputs)  # type: ignore[arg-type]


def agree(ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...]) -> None:
    for x, y in zip(ours, theirs, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-8, atol=1e-8)


class TestLeastSquares:
    def test_dense_jacobian(self) -> None:
        A, b, r = least_squares()

        def layer(A: Tensor, b: Tensor, r: Tensor, mode: Any = DENSE) -> tuple[Tensor, ...]:
            return pmaf.less_ex(A, b, radius=r, backward=mode)[:2]

        agree(gradients(layer(A, b, r), (A, b, r)), gradients(layer(A, b, r, pmaf.Implicit()), (A, b, r)))
        assert gradcheck(layer, (A, b, r))
        assert gradgradcheck(layer, (A, b, r))

    def test_wide_and_rank_deficient(self) -> None:
        torch.manual_seed(3)
        A = torch.randn(2, 5, dtype=torch.float64).mul(0.1).requires_grad_()
        b = torch.randn(2, dtype=torch.float64, requires_grad=True)
        ours = gradients((pmaf.less(A, b, backward=DENSE),), (A, b))
        agree(ours, gradients((pmaf.less(A, b),), (A, b)))

    def test_quadratic(self) -> None:
        torch.manual_seed(4)
        H, g = symmetric(), torch.randn(6, dtype=torch.float64, requires_grad=True)
        r = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)

        def layer(H: Tensor, g: Tensor, r: Tensor, mode: Any = DENSE) -> tuple[Tensor, ...]:
            return pmaf.sphere_quadratic_ex((H + H.mT) / 2, g, radius=r, backward=mode)[:2]

        agree(gradients(layer(H, g, r), (H, g, r)), gradients(layer(H, g, r, pmaf.Implicit()), (H, g, r)))
        assert gradcheck(layer, (H, g, r))
        assert gradgradcheck(layer, (H, g, r))

    @pytest.mark.parametrize("constraint", ["sphere", "ball"])
    def test_unrolled_through_the_secular_equation(self, constraint: str) -> None:
        A, b, r = least_squares()
        weights = torch.linspace(0.5, 2, 6, dtype=torch.float64, requires_grad=True)
        free = torch.ones(6, 1, dtype=torch.float64, requires_grad=True)

        def layer(mode: Any) -> tuple[Tensor, ...]:
            found = pmaf.less_ex(A, b, radius=r, weights=weights, free=free, constraint=constraint, backward=mode)
            return found.u, found.z  # type: ignore[union-attr]

        params = (A, b, r, weights, free)
        agree(gradients(layer(UNROLLED), params), gradients(layer(pmaf.Implicit()), params))

    def test_unrolled_through_gradient_steps(self) -> None:
        """To seven digits: the quotient that is the exact step turns to noise as its parts go to zero."""
        A, b, r = gentle()
        solver = RiemannianGradient(tol=0.0, max_steps=20)
        ours = gradients(pmaf.less_ex(BIG * A, BIG * b, radius=r, solver=solver, backward=UNROLLED)[:1], (A, b, r))
        for x, y in zip(ours, gradients(pmaf.less_ex(A, b, radius=r)[:1], (A, b, r)), strict=True):
            torch.testing.assert_close(x, y, rtol=1e-6, atol=1e-6)

    def test_implicit_modes_after_an_iterative_solver(self) -> None:
        A, b, r = gentle()
        solver = RiemannianGradient(tol=0.0, max_steps=200)
        ours = gradients(pmaf.less_ex(BIG * A, BIG * b, radius=r, solver=solver, backward=DENSE)[:1], (A, b, r))
        agree(ours, gradients(pmaf.less_ex(A, b, radius=r)[:1], (A, b, r)))

    def test_an_item_without_an_answer_has_gradient_zero(self) -> None:
        A, b, r = least_squares()
        spoilt = A.detach().clone()
        spoilt[1, 0, 0] = torch.nan
        spoilt.requires_grad_()
        u = pmaf.less_ex(spoilt, b, radius=r, backward=DENSE).u
        (grad,) = torch.autograd.grad(u[[0, 2]].sum(), spoilt)
        (wanted,) = torch.autograd.grad(pmaf.less(A, b, radius=r)[[0, 2]].sum(), A)
        agree((grad,), (wanted,))


class TestEigenpairs:
    @pytest.mark.parametrize("largest", [True, False])
    @pytest.mark.parametrize(("solver", "k"), SOLVERS)
    @pytest.mark.parametrize("mode", [DENSE, UNROLLED], ids=str)
    def test_agrees_with_the_closed_form(self, mode: Any, solver: Any, k: int, largest: bool) -> None:
        self.agrees(mode, solver, k, largest)

    @pytest.mark.parametrize("largest", [True, False])
    @pytest.mark.parametrize(("solver", "k"), [p for p in SOLVERS if p.values[1] == 1])
    @pytest.mark.parametrize("mode", [EXPLOITED, JACOBIAN], ids=str)
    def test_fixed_points_agree_with_the_closed_form(self, mode: Any, solver: Any, k: int, largest: bool) -> None:
        self.agrees(mode, solver, k, largest)

    def agrees(self, mode: Any, solver: Any, k: int, largest: bool) -> None:
        X = symmetric()
        ours = gradients(tuple(pmaf.ied(X, k, largest=largest, solver=solver, backward=mode)), (X,))
        agree(ours, gradients(tuple(pmaf.ied(X, k, largest=largest)), (X,)))
        agree(ours, (ours[0].mT,))

    @pytest.mark.parametrize("largest", [True, False])
    @pytest.mark.parametrize(
        ("mode", "k"), [(DENSE, 1), (DENSE, 2), (EXPLOITED, 1), (JACOBIAN, 1), (UNROLLED, 2)], ids=str
    )
    def test_first_and_second_derivatives(self, mode: Any, k: int, largest: bool) -> None:
        X = symmetric(4)

        def layer(X: Tensor) -> tuple[Tensor, ...]:
            return tuple(pmaf.ied((X + X.mT) / 2, k, largest=largest, backward=mode))

        assert gradcheck(layer, (X,))
        assert gradgradcheck(layer, (X,))

    @pytest.mark.parametrize("mode", [DENSE, EXPLOITED, UNROLLED], ids=str)
    def test_factors_and_parameters(self, mode: Any) -> None:
        torch.manual_seed(5)
        F = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
        d = torch.tensor([1.0, 5.0, 2.0], dtype=torch.float64, requires_grad=True)
        ours = gradients(tuple(pmaf.ied(pmaf.Gram(F), 1, backward=mode)), (F,))
        agree(ours, gradients(tuple(pmaf.ied(pmaf.Gram(F), 1)), (F,)))
        X = pmaf.MatVec(lambda d, V: d[:, None] * V + V.sum(-2, keepdim=True), 3, d)
        agree(gradients(tuple(pmaf.ied(X, 1, backward=mode)), (d,)), gradients(tuple(pmaf.ied(X, 1)), (d,)))

    def test_repeats_among_the_unwanted_spoil_only_autograd_through_eigh(self) -> None:
        X = torch.diag(torch.tensor([4.0, 1.0, 1.0, 1.0], dtype=torch.float64)).requires_grad_()
        wanted = gradients(tuple(pmaf.ied(X, 1)), (X,))
        for mode in (DENSE, EXPLOITED, JACOBIAN):
            agree(gradients(tuple(pmaf.ied(X, 1, backward=mode)), (X,)), wanted)
        unrolled = gradients(tuple(pmaf.ied(X, 1, solver="eigh", backward=UNROLLED)), (X,))
        assert bool(unrolled[0].isnan().any())

    def test_degeneracy_policies(self) -> None:
        X = torch.eye(3, dtype=torch.float64).repeat(2, 1, 1)
        X[0, 0, 0] = 4
        X.requires_grad_()
        found = pmaf.ied_ex(X, 1, backward=DENSE, degenerate="nan")
        (grad,) = torch.autograd.grad(found.eigenvalues.sum(), X)
        assert grad.isnan().flatten(-2).any(-1).tolist() == [False, True]
        found = pmaf.ied_ex(X, 1, backward=EXPLOITED, degenerate="raise")
        with pytest.raises(pmaf.DegeneracyError):
            torch.autograd.grad(found.eigenvalues.sum(), X)


class TestWhereAModeDoesNotApply:
    A, b, X = torch.eye(3), torch.ones(3), torch.diag(torch.tensor([3.0, 2.0, 1.0]))

    def test_fixed_point(self) -> None:
        with pytest.raises(ValueError, match="does not apply to least squares"):
            pmaf.less(self.A, self.b, backward=EXPLOITED)
        with pytest.raises(ValueError, match="does not apply to quadratics"):
            pmaf.sphere_quadratic(self.X, self.b, backward=JACOBIAN)
        with pytest.raises(ValueError, match="is for k = 1"):
            pmaf.ied(self.X, 2, backward=EXPLOITED)

    def test_dense_jacobian(self) -> None:
        with pytest.raises(ValueError, match="no weights"):
            pmaf.less(self.A, self.b, weights=self.b, backward=DENSE)
        with pytest.raises(ValueError, match="the sphere only"):
            pmaf.less(self.A, self.b, constraint="ball", backward=DENSE)
        with pytest.raises(ValueError, match="real dtypes"):
            pmaf.ied(self.X.to(torch.complex64), 1, backward=DENSE)

    def test_unrolled(self) -> None:
        with pytest.raises(ValueError, match="has no meaning"):
            pmaf.ied(self.X, 1, backward=UNROLLED, degenerate="nan")
        solver = pytest.importorskip("pmaf.solvers.sphere.slsqp").SLSQP()
        with pytest.raises(ValueError, match="cannot"):
            pmaf.less_ex(self.A.requires_grad_(), self.b, solver=solver, backward=UNROLLED)


@pytest.mark.parametrize("solver", [None, "eigvals_inverse_iteration", "lanczos_eigh"])
@pytest.mark.parametrize("apart", [False, True], ids=["crowded", "apart"])
def test_unrolled_through_what_is_chosen_for_dense_matrices(solver: str | None, apart: bool) -> None:
    """At an order where the plain forward pass takes steps that autograd could not follow."""
    G = randn(2, 130, 130, seed=5)
    G = G.abs() if apart else G
    X, weight = (G + G.mT).requires_grad_(), randn(2, 130, 1, seed=6)

    def gradient(**options: Any) -> Tensor:
        found = pmaf.ied(X, 1, **options)
        return torch.autograd.grad((found.eigenvectors * weight).sum() + found.eigenvalues.sum(), X)[0]

    truth = gradient(solver="eigh")
    error = torch.linalg.vector_norm(gradient(solver=solver, backward=UNROLLED) - truth)
    assert float(error) <= 1e-8 * float(torch.linalg.vector_norm(truth))
