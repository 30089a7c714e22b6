r"""What passes between ranks, as differentiable functions of any order.

Values that are the same on every rank have gradients that are the same on every rank, as for DTensors that are
replicated. Hence two functions that are each other's derivative:

    total     y = Σᵢ xᵢ on every rank       x̄ᵢ = ȳ, nothing is sent
    copied    yᵢ = x on rank i              x̄ = Σᵢ ȳᵢ, one all-reduce
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["copied", "gathered", "reduce", "tied", "total"]

Groups = tuple[Any, ...]  # process groups, one for each dimension of the mesh that takes part


def reduce(x: Tensor, groups: Groups, op: Any = dist.ReduceOp.SUM) -> Tensor:
    """The sum, or another reduction, over ranks, with the same bits on each of them; not differentiable."""
    if x.numel() == 0:
        return x
    whole = torch.view_as_real(x) if x.is_complex() else x
    whole = whole.clone(memory_format=torch.contiguous_format)
    for group in groups:
        dist.all_reduce(whole, op, group)
    return torch.view_as_complex(whole) if x.is_complex() else whole


def gathered(x: Tensor, group: Any) -> list[Tensor]:
    """The tensors of all ranks, which have one shape; not differentiable."""
    if x.numel() == 0:
        return [x] * dist.get_world_size(group)
    whole = (torch.view_as_real(x) if x.is_complex() else x).contiguous()
    parts = [torch.empty_like(whole) for _ in range(dist.get_world_size(group))]
    dist.all_gather(parts, whole, group)
    return [torch.view_as_complex(part) for part in parts] if x.is_complex() else parts


def packed(xs: Sequence[Tensor], groups: Groups) -> tuple[Tensor, ...]:
    """The sums of several tensors, one all-reduce for each data type."""
    kinds = dict.fromkeys(x.dtype for x in xs)
    sums = {kind: reduce(torch.cat([x.flatten() for x in xs if x.dtype == kind]), groups) for kind in kinds}
    taken = dict.fromkeys(kinds, 0)
    found = []
    for x in xs:
        at = taken[x.dtype]
        taken[x.dtype] += x.numel()
        found.append(sums[x.dtype][at : taken[x.dtype]].reshape(x.shape))
    return tuple(found)


class Total(torch.autograd.Function):
    """The sums over ranks."""

    @staticmethod
    def forward(ctx: Any, groups: Groups, *xs: Tensor) -> tuple[Tensor, ...]:
        """Add up."""
        ctx.groups = groups
        return packed(xs, groups)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        """Each rank's part moves the sum as any other's."""
        return None, *Copied.apply(ctx.groups, *cotangents)  # type: ignore[no-untyped-call]


class Copied(torch.autograd.Function):
    """The same values, used by each rank for its own part of the work."""

    @staticmethod
    def forward(ctx: Any, groups: Groups, *xs: Tensor) -> tuple[Tensor, ...]:
        """Nothing is sent."""
        ctx.groups = groups
        return tuple(x.view_as(x) for x in xs)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        """Each rank's use counts; absent gradients are zeros, so that all ranks send the same."""
        return None, *Total.apply(ctx.groups, *cotangents)  # type: ignore[no-untyped-call]


class Tied(torch.autograd.Function):
    """Tensors that depend on others for whoever asks, with a derivative of zero."""

    @staticmethod
    def forward(ctx: Any, count: int, *xs: Tensor) -> tuple[Tensor, ...]:
        """The first ``count`` of them."""
        ctx.save_for_backward(*xs[count:])
        return tuple(x.view_as(x) for x in xs[:count])

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        """Zeros for the rest."""
        return None, *cotangents, *(torch.zeros_like(x) for x in ctx.saved_tensors)


def total(groups: Groups, *xs: Tensor) -> tuple[Tensor, ...]:
    """The sums over ranks; their gradients are the same on all ranks, and so are those of each summand."""
    found: tuple[Tensor, ...] = Total.apply(groups, *xs)  # type: ignore[no-untyped-call]
    return found


def copied(groups: Groups, *xs: Tensor) -> tuple[Tensor, ...]:
    """Replicated tensors where each rank goes on alone; their gradients are the sums of what the ranks say."""
    found: tuple[Tensor, ...] = Copied.apply(groups, *xs)  # type: ignore[no-untyped-call]
    return found


def tied(outputs: Sequence[Tensor], inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Outputs that lead a backward pass to all inputs on every rank, also on one whose outputs are empty.

    A rank that left a gradient out would leave the others waiting for its part of the sum.
    """
    if not inputs:
        return tuple(outputs)
    found: tuple[Tensor, ...] = Tied.apply(len(outputs), *outputs, *inputs)  # type: ignore[no-untyped-call]
    return found
