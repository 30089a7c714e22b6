"""Columns of the table of transforms that trace a graph: ``torch.compile`` and ``torch.export``.

Imported by :mod:`transforms`, which holds the table.
"""

from __future__ import annotations

import io

import torch
import torch._dynamo.testing
from torch import Tensor, nn

from cases import Row

OPERATORS = ("ied(MatVec)", "ied(sparse)", "less(MatVec)", "less(sparse)")


def bound(row: Row):
    """The row's layer with its solver made beforehand, as one does outside of a compiled region."""
    call = row.layer.call
    if row.solver is None:
        return lambda *inputs: call(*inputs)
    solver = row.solver.make()
    return lambda *inputs: call(*inputs, solver=solver)


class Traced(nn.Module):
    """A row as a module, which is what ``torch.export`` takes."""

    def __init__(self, row: Row) -> None:
        super().__init__()
        self.call = bound(row)

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.call(*inputs)


def gradients_of(function, inputs: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The output of a function, and the gradient of a weighted sum of it."""
    leaves = tuple(x.detach().clone().requires_grad_() for x in inputs)
    output = function(*leaves)
    weight = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).reshape(output.shape)
    return output.detach(), torch.autograd.grad((weight * output).sum(), leaves)


def compile_static(row: Row) -> None:
    """One graph without a break, forward and backward, with the values of eager mode."""
    torch._dynamo.reset()
    inputs = row.layer.inputs(torch.float64, 3)
    compiled = torch.compile(bound(row), fullgraph=True, backend="aot_eager", dynamic=False)
    torch.testing.assert_close(gradients_of(compiled, inputs), gradients_of(row, inputs))


def compile_dynamic(row: Row) -> None:
    """No recompilation when the batch size changes."""
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(bound(row), fullgraph=True, backend=counter)
    counts = []
    for size in (11, 13, 17):  # unlike every other size, which a graph would take for the same symbol
        inputs = row.layer.inputs(torch.float64, size)
        for x in inputs:
            torch._dynamo.mark_dynamic(x, 0)
        torch.testing.assert_close(row(*inputs), compiled(*inputs))
        counts.append(counter.frame_count)
    assert counts[0] == counts[-1], f"graphs after each batch size: {counts}"


def export_dynamic(row: Row) -> None:
    """Exported with a dynamic batch, saved, loaded, and run at another batch size."""
    inputs = row.layer.inputs(torch.float64, 11)
    batch = torch.export.Dim("batch", min=2, max=64)
    # *inputs of forward is one argument of the exported program
    shapes = (tuple({0: batch} for _ in inputs),)
    program = torch.export.export(Traced(row), inputs, dynamic_shapes=shapes)
    stream = io.BytesIO()
    torch.export.save(program, stream)
    stream.seek(0)
    loaded = torch.export.load(stream).module()
    others = row.layer.inputs(torch.float64, 5)
    torch.testing.assert_close(loaded(*others), row(*others))
