"""What a GPU changes: values, gradients, autocast, devices; skipped where there is none. See test_synchronisation."""

from __future__ import annotations

import copy

import pytest
import torch

import pmaf
from cases import ROWS, ids, randn
from transforms import AsModule, loss, shifts

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

# The index tensors of the sparse case, and SciPy, stay on the host.
ON_CUDA = [
    row for row in ROWS if row.layer.name != "ied(sparse)" and (row.solver is None or row.solver.name != "slsqp")
]


@pytest.mark.parametrize("row", **ids(ON_CUDA))
class TestRows:
    def test_values_and_gradients_are_those_of_the_host(self, row):
        inputs = row.layer.inputs(torch.float64)
        weight = randn(*row(*inputs).shape, seed=21)
        here = tuple(x.clone().requires_grad_() for x in inputs)
        there = tuple(x.cuda().requires_grad_() for x in inputs)
        output = row(*there)
        assert output.is_cuda
        tolerance = max(1e-10, 100 * row.error)
        torch.testing.assert_close(output.cpu(), row(*here), rtol=tolerance, atol=tolerance)
        found = torch.autograd.grad((weight.cuda() * output).sum(), there)
        truth = torch.autograd.grad(loss(row)(*here), here)
        for ours, theirs in zip(found, truth, strict=True):
            torch.testing.assert_close(ours.cpu(), theirs, rtol=tolerance, atol=tolerance)

    @pytest.mark.parametrize("narrow", [torch.float16, torch.bfloat16], ids=str)
    def test_autocast_keeps_float32_accuracy(self, row, narrow):
        inputs = tuple(x.cuda().requires_grad_() for x in row.layer.inputs(torch.float32))
        with torch.autocast("cuda", dtype=narrow):
            output = row(*inputs)
        truth = row(*inputs)
        assert output.dtype == torch.float32
        tolerance = 1e-3 if row.error > 1e-10 else 1e-5
        torch.testing.assert_close(output, truth, rtol=0, atol=tolerance * float(truth.abs().max()))
        pairs = zip(torch.autograd.grad(output.sum(), inputs), torch.autograd.grad(truth.sum(), inputs), strict=True)
        for ours, theirs in pairs:
            torch.testing.assert_close(ours, theirs, rtol=0, atol=10 * tolerance * (1 + float(theirs.abs().max())))

    def test_a_module_moves_there_and_back(self, row):
        model, shift = AsModule(row.name), shifts(row, 2)
        truth = model(shift)
        tolerance = max(1e-10, 100 * row.error)
        moved = copy.deepcopy(model).cuda()
        torch.testing.assert_close(moved(shift.cuda()).cpu(), truth, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(moved.cpu()(shift), truth, rtol=tolerance, atol=tolerance)

    def test_compiled(self, row):
        torch._dynamo.reset()
        inputs = tuple(x.cuda() for x in row.layer.inputs(torch.float64))
        compiled = torch.compile(lambda *inputs: row(*inputs), fullgraph=True, backend="aot_eager")
        tolerance = max(1e-10, 100 * row.error)
        torch.testing.assert_close(compiled(*inputs), row(*inputs), rtol=tolerance, atol=tolerance)


def test_data_on_two_devices_are_refused():
    A, b = torch.eye(3, device="cuda"), torch.ones(3)
    with pytest.raises(ValueError, match=r"b is on cpu but A on cuda.*move one with \.to"):
        pmaf.less(A, b)
