"""Batches: broadcasting, empty ones, and items that fail without spoiling the others."""

from __future__ import annotations

import math

import pytest
import torch

import pmaf
from cases import LAYERS, ROWS, ids, layer, randn, symmetric
from pmaf import Status

BATCHED = [row for row in ROWS if row.layer.batched]
BAD = [math.nan, math.inf, -math.inf]


class TestBroadcasting:
    def test_leading_dimensions_broadcast(self):
        A, b = randn(2, 1, 5, 3), randn(4, 5, seed=1)
        radius = torch.tensor([[0.5], [2.0]], dtype=torch.float64)
        solution = pmaf.less_ex(A, b, radius=radius)
        assert solution.u.shape == (2, 4, 3)
        for field in solution[1:-1]:  # without free unknowns there is no z
            assert field.shape == (2, 4)
        for i in range(2):
            for j in range(4):
                torch.testing.assert_close(solution.u[i, j], pmaf.less(A[i, 0], b[j], radius=float(radius[i, 0])))

    def test_weights_and_free_broadcast(self):
        A, b, weights, free = randn(5, 3), randn(5, seed=1), torch.rand(4, 5), randn(2, 1, 5, 2, seed=2)
        solution = pmaf.less_ex(A, b, weights=weights.double(), free=free)
        assert solution.u.shape == (2, 4, 3)
        assert solution.z.shape == (2, 4, 2)
        item = pmaf.less_ex(A, b, weights=weights[3].double(), free=free[1, 0])
        torch.testing.assert_close(solution.u[1, 3], item.u)
        torch.testing.assert_close(solution.z[1, 3], item.z)

    def test_quadratics_broadcast(self):
        H, g = symmetric(n=3), randn(4, 2, 3)
        assert pmaf.sphere_quadratic(H, g).shape == (4, 2, 3)
        assert pmaf.sphere_quadratic(H.expand(4, 1, 3, 3), g[0]).shape == (4, 2, 3)

    def test_gradients_are_summed_to_the_shape_of_the_input(self):
        A, b = randn(1, 5, 3).requires_grad_(), randn(4, 1, 5, seed=1).requires_grad_()
        radius = torch.ones((), dtype=torch.float64, requires_grad=True)
        pmaf.less(A, b, radius=radius).sum().backward()
        assert (A.grad.shape, b.grad.shape, radius.grad.shape) == (A.shape, b.shape, radius.shape)

    def test_references_broadcast(self):
        X = symmetric(3, n=4)
        one, each = randn(4, seed=2), randn(3, 4, seed=3)
        assert pmaf.ied(X, 2, reference=one).eigenvectors.shape == (3, 4, 2)
        both = pmaf.ied(X, 2, reference=each).eigenvectors
        torch.testing.assert_close(both[1], pmaf.ied(X[1], 2, reference=each[1]).eigenvectors)

    @pytest.mark.parametrize("row", **ids(BATCHED))
    def test_an_item_is_the_same_alone(self, row):
        inputs = row.layer.inputs(torch.float64, 2, 3)
        outputs = row(*inputs)
        for i in range(2):
            for j in range(3):
                alone = row(*(x[i, j] for x in inputs))
                torch.testing.assert_close(outputs[i, j], alone, rtol=0, atol=max(1e-11, 10 * row.error))


class TestEmpty:
    @pytest.mark.parametrize("row", **ids(BATCHED))
    @pytest.mark.parametrize("batch", [(0,), (2, 0)], ids=str)
    def test_empty_batch(self, row, batch):
        inputs = tuple(
            x.new_zeros(batch + x.shape).requires_grad_() for x in row.layer.inputs(torch.float64)
        )  # fmt: skip
        output = row(*inputs)
        assert output.shape == batch + row(*row.layer.inputs(torch.float64)).shape
        output.sum().backward()
        for x in inputs:
            assert x.grad is not None
            assert x.grad.shape == x.shape

    def test_empty_batch_keeps_its_type(self):
        assert (
            pmaf.less(torch.zeros(0, 4, 2, dtype=torch.bfloat16), torch.zeros(0, 4).bfloat16()).dtype == torch.bfloat16
        )

    def test_nothing_broadcast_against_something(self):
        assert pmaf.less(torch.zeros(0, 1, 4, 2), torch.zeros(3, 4)).shape == (0, 3, 2)


class TestBadItems:
    @pytest.mark.parametrize("bad", BAD)
    @pytest.mark.parametrize("which", range(2), ids=["A", "b"])
    def test_less(self, bad, which):
        A, b = layer("less").inputs(torch.float64, 4)
        clean = tuple(x.clone().requires_grad_() for x in (A, b))
        dirty = [x.clone() for x in (A, b)]
        dirty[which][(2, *[0] * (dirty[which].dim() - 1))] = bad
        dirty = tuple(x.requires_grad_() for x in dirty)
        weight = randn(4, 3, seed=5)
        good = torch.tensor([0, 1, 3])

        reference, solution = pmaf.less_ex(*clean), pmaf.less_ex(*dirty)
        assert solution.status.tolist() == [0, 0, Status.NON_FINITE, 0]
        assert solution.u[2].isnan().all()
        assert solution.gap[2].isnan()
        assert torch.equal(solution.u[good], reference.u[good])
        grads = torch.autograd.grad((weight * solution.u)[good].sum(), dirty)
        truth = torch.autograd.grad((weight * reference.u)[good].sum(), clean)
        for ours, theirs in zip(grads, truth, strict=True):
            assert ours.isfinite().all()
            torch.testing.assert_close(ours, theirs)

    def test_a_careless_loss_over_all_items_spoils_none(self):
        # the usual mask: nan_to_num after the layer; the bad item then gets a zero gradient
        A, b = (x.clone() for x in layer("less").inputs(torch.float64, 3))
        A[1, 0, 0] = math.nan
        A.requires_grad_()
        pmaf.less_ex(A, b).u.nan_to_num().sum().backward()
        assert A.grad.isfinite().all()
        assert (A.grad[1] == 0).all()
        assert (A.grad[0] != 0).any()

    @pytest.mark.parametrize("argument", ["weights", "free", "radius"])
    def test_optional_arguments(self, argument):
        A, b = layer("less").inputs(torch.float64, 3)
        values = {
            "weights": torch.ones(3, 5, dtype=torch.float64),
            "free": randn(3, 5, 1, seed=4),
            "radius": torch.ones(3, dtype=torch.float64),
        }
        clean = pmaf.less_ex(A, b, **{argument: values[argument]})
        dirty = values[argument].clone()
        dirty[(1, *[0] * (dirty.dim() - 1))] = math.nan
        dirty.requires_grad_()
        solution = pmaf.less_ex(A, b, **{argument: dirty})
        assert solution.status.tolist() == [0, Status.NON_FINITE, 0]
        assert torch.equal(solution.u[[0, 2]], clean.u[[0, 2]])
        (gradient,) = torch.autograd.grad(solution.u[[0, 2]].sum(), dirty)
        assert gradient.isfinite().all()

    @pytest.mark.parametrize("bad", BAD)
    @pytest.mark.parametrize("kind", ["dense", "gram", "gram wide", "projector"])
    def test_ied(self, bad, kind):
        shape = {"dense": (4, 4), "projector": (4, 4), "gram": (6, 4), "gram wide": (3, 5)}[kind]
        X = symmetric(3, n=4) if shape == (4, 4) else randn(3, *shape)
        dirty = X.clone()
        dirty[1, 0, 0] = bad
        X.requires_grad_(), dirty.requires_grad_()

        def vectors(X):
            return pmaf.ied_ex(X if kind == "dense" else pmaf.Gram(X), 2)

        if kind == "projector":
            with pytest.raises(pmaf.ConvergenceError, match=r"principal_projector: item \(1,\) ended with NON_FINITE"):
                pmaf.principal_projector(dirty, 2)
            return
        reference, solution = vectors(X), vectors(dirty)
        assert solution.status.tolist() == [0, Status.NON_FINITE, 0]
        good = torch.tensor([0, 2])
        torch.testing.assert_close(solution.eigenvectors[good], reference.eigenvectors[good], rtol=0, atol=0)
        weight = randn(2, X.shape[-1], 2, seed=6)
        (ours,) = torch.autograd.grad((weight * solution.eigenvectors[good]).sum(), dirty)
        (truth,) = torch.autograd.grad((weight * reference.eigenvectors[good]).sum(), X)
        torch.testing.assert_close(ours, truth)

    @pytest.mark.parametrize("row", **ids([row for row in BATCHED if row.solver is not None]))
    def test_every_solver(self, row):
        inputs = [x.clone() for x in row.layer.inputs(torch.float64, 3)]
        inputs[0][1, 0, 0] = math.nan
        if row.layer.family == "sphere":
            if row.layer.name == "less":
                solution = pmaf.less_ex(*inputs, solver=row.solver.make())
            else:
                solution = pmaf.sphere_quadratic_ex(*inputs, solver=row.solver.make())
            answer = solution.u
        else:
            X = (inputs[0] + inputs[0].mT) / 2
            solution = pmaf.ied_ex(X, row.layer.k, solver=row.solver.make())
            answer = solution.eigenvectors
        assert solution.status.tolist() == [0, Status.NON_FINITE, 0]
        assert answer[1].isnan().all()
        assert solution.gap[1].isnan()
        assert answer[[0, 2]].isfinite().all()

    def test_second_derivatives(self):
        A, b = (x.clone() for x in layer("less").inputs(torch.float64, 3))
        A[1, 0, 0] = math.inf
        A.requires_grad_()
        u = pmaf.less_ex(A, b).u
        (first,) = torch.autograd.grad(u[[0, 2]].square().sum() + u[[0, 2], 0].sum(), A, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), A)
        assert second.isfinite().all()
        assert (second[1] == 0).all()


class TestFailures:
    def test_the_plain_functions_name_the_first_bad_item(self):
        A, b = randn(2, 3, 5, 3), randn(2, 3, 5, seed=1)
        A[1, 0, 2, 2], A[1, 2, 0, 0] = math.nan, math.nan
        message = r"pmaf\.less: item \(1, 0\) ended with NON_FINITE \(2 of 6 items\)"
        with pytest.raises(pmaf.ConvergenceError, match=message):
            pmaf.less(A, b)
        X = symmetric(4, n=3)
        X[3] = math.nan
        with pytest.raises(pmaf.ConvergenceError, match=r"pmaf\.ied: item \(3,\) ended with NON_FINITE \(1 of 4"):
            pmaf.ied(X, 1)
        with pytest.raises(pmaf.ConvergenceError, match=r"pmaf\.sphere_quadratic: item \(3,\)"):
            pmaf.sphere_quadratic(X, torch.ones(3, dtype=torch.float64))

    def test_one_problem_is_called_the_problem(self):
        with pytest.raises(pmaf.ConvergenceError, match=r"pmaf\.ied: the problem ended with NON_FINITE\. The input"):
            pmaf.ied(torch.full((2, 2), math.nan), 1)

    def test_the_message_says_what_to_try(self):
        with pytest.raises(pmaf.ConvergenceError, match="look for overflow or a division by zero upstream"):
            pmaf.less(torch.full((2, 2), math.inf), torch.ones(2))

    def test_a_step_limit_is_reported(self):
        A, b = layer("less").inputs(torch.float64, 2)
        short = pmaf.solvers.RiemannianGradient(max_steps=1)
        assert (pmaf.less_ex(A, b, solver=short).status == Status.MAX_STEPS).all()
        with pytest.raises(pmaf.ConvergenceError, match=r"item \(0,\) ended with MAX_STEPS.*max_steps"):
            pmaf.less(A, b, solver=short)

    def test_statuses_carry_a_remedy(self):
        for status in Status:
            assert len(status.remedy) > 20
            assert Status(int(status)) is status
        assert Status(2).name == "NON_FINITE"

    def test_statuses_compare_with_tensors(self):
        solution = pmaf.less_ex(torch.eye(2), torch.tensor([3.0, 4.0]))
        assert solution.status.dtype == torch.int64
        assert bool(solution.status == Status.CONVERGED)


def test_the_tables_cover_every_layer():
    assert {row.layer.name for row in ROWS if row.solver is None} == {case.name for case in LAYERS}
