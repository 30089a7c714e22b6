"""Columns of the table of transforms that trace a graph: ``torch.compile`` and ``torch.export``.

Imported by :mod:`transforms`, which holds the table.
"""

from __future__ import annotations

import io
import warnings

import torch
import torch._dynamo.testing
from torch import Tensor, nn

import pmaf
from cases import Row


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
    for leaf, x in zip(leaves, inputs, strict=True):
        for dimension in getattr(x, "_dynamo_dynamic_indices", ()):
            torch._dynamo.mark_dynamic(leaf, dimension)
    output = function(*leaves)
    weight = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).reshape(output.shape)
    return output.detach(), torch.autograd.grad((weight * output).sum(), leaves)


def compile_static(row: Row) -> None:
    """One graph without a break, forward and backward, with the values of eager mode, made once for all steps."""
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(bound(row), fullgraph=True, backend=counter, dynamic=False)
    for step in range(3):
        inputs = tuple((1 + 0.05 * step) * x for x in row.layer.inputs(torch.float64, 3))
        torch.testing.assert_close(gradients_of(compiled, inputs), gradients_of(row, inputs))
    assert counter.frame_count == 1


def compile_dynamic(row: Row) -> None:
    """No recompilation when the batch size changes, forward and backward."""
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(bound(row), fullgraph=True, backend=counter)
    counts = []
    for size in (11, 13, 17):  # unlike every other size, which a graph would take for the same symbol
        inputs = row.layer.inputs(torch.float64, size)
        for x in inputs if row.layer.batched else ():
            torch._dynamo.mark_dynamic(x, 0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", pmaf.DegeneracyWarning)  # among so many items one is not unique
            torch.testing.assert_close(gradients_of(compiled, inputs), gradients_of(row, inputs))
        counts.append(counter.frame_count)
    assert counts[0] == counts[-1], f"graphs after each batch size: {counts}"


def export_dynamic(row: Row) -> None:
    """Exported with a dynamic batch, saved, loaded, and run at another batch size."""
    inputs = row.layer.inputs(torch.float64, 11)
    batch = torch.export.Dim("batch", min=2, max=64)
    # *inputs of forward is one argument of the exported program
    shapes = (tuple({0: batch} if row.layer.batched else None for _ in inputs),)
    program = torch.export.export(Traced(row), inputs, dynamic_shapes=shapes)
    stream = io.BytesIO()
    torch.export.save(program, stream)
    stream.seek(0)
    loaded = torch.export.load(stream).module()
    others = row.layer.inputs(torch.float64, 5)
    torch.testing.assert_close(loaded(*others), row(*others))
