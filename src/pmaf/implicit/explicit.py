r"""Layers differentiated in the ways that implicit differentiation is compared with.

The forward pass is that of the layer itself. The backward pass is a plain function of the parameters, the solution and
the incoming gradients, written in differentiable operations. The solution that it sees is the layer's own output, so
that a second derivative is the total one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

from pmaf.errors import DegeneracyError
from pmaf.implicit.autograd import align, refuse_nested_forward_mode
from pmaf.implicit.base import expand_as
from pmaf.implicit.dense_jacobian import DenseJacobian
from pmaf.implicit.fixed_point import FixedPoint
from pmaf.implicit.modes import Implicit, Unrolled
from pmaf.transforms import compiling, recorded

__all__ = ["Backward", "compare"]

Backward: TypeAlias = Implicit | DenseJacobian | FixedPoint | Unrolled

Params = tuple[Tensor | None, ...]
Tensors = tuple[Tensor, ...]

WHAT = {"least_squares": "least squares", "quadratic": "quadratics on the sphere", "eigenpairs": "eigenpairs"}


class Plain(torch.autograd.Function):
    """A solver's answer with a plain function as its pullback."""

    @staticmethod
    def forward(mode: Any, layer: str, degenerate: str, solver: Callable[..., tuple[Tensor, ...]], *params: Any) -> Any:
        """Run the solver: u, λ or U, Λ, then which items are bad and doubtful, then reports."""
        return tuple(output.contiguous() for output in solver(*params))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep parameters and solution; what is only reported is not differentiable."""
        ctx.mode, ctx.layer, ctx.degenerate, _, *params = inputs
        ctx.outputs = len(output)
        ctx.mark_non_differentiable(*output[2:])
        ctx.save_for_backward(*params, *output[:4])
        ctx.save_for_forward(*params, *output[:4])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """The pullback; zero for items without an answer.

        Raises:
            DegeneracyError: if an item is not unique and the policy is "raise".
        """
        *params, first, second, bad, doubtful = ctx.saved_tensors
        if ctx.degenerate == "raise" and bool(doubtful.any()):
            raise DegeneracyError("pmaf: the gradient of an answer that is not unique was asked for")
        solution = (first, second)
        cotangents = tuple(torch.zeros_like(s) if g is None else g for g, s in zip(gradients, solution, strict=False))
        grads = getattr(ctx.mode, ctx.layer)(tuple(params), solution, cotangents)
        grads = tuple(None if g is None else torch.where(expand_as(bad, g), 0, g) for g in grads)
        if ctx.degenerate == "nan":
            spoilt = doubtful & ~bad
            grads = tuple(None if g is None else torch.where(expand_as(spoilt, g), torch.nan, g) for g in grads)
        return (None, None, None, None, *grads)


class PlainForward(Plain):
    """:class:`Plain` for a single parameter, with forward mode and vmap."""

    @staticmethod
    def jvp(ctx: Any, _mode: None, _layer: None, _degenerate: None, _solver: None, *tangents: Any) -> Any:
        """The pushforward."""
        refuse_nested_forward_mode()
        *params, first, second, bad, _ = ctx.saved_tensors
        changes = getattr(ctx.mode, f"{ctx.layer}_forward")(tuple(params), tangents, (first, second))
        changes = tuple(torch.where(expand_as(bad, c), 0, c) for c in changes)
        return (*changes, *([None] * (ctx.outputs - 2)))

    @staticmethod
    def vmap(info: Any, in_dims: Any, mode: Any, layer: str, degenerate: str, solver: Any, param: Tensor) -> Any:
        """One more batch dimension."""
        param = param.movedim(in_dims[4], 0)
        outputs = PlainForward.apply(mode, layer, degenerate, solver, param)  # type: ignore[no-untyped-call]
        return outputs, tuple(0 for _ in outputs)


def compare(
    function: str,
    mode: DenseJacobian | FixedPoint | Unrolled,
    layer: str,
    degenerate: str,
    solver: Callable[..., Tensors],
    params: Params,
    core_dims: tuple[int, ...],
    solution_size: int = 2,
) -> Tensors:
    """Solve, and differentiate in the given mode.

    Args:
        function: the public function, for messages.
        mode: how to differentiate.
        layer: "least_squares", "quadratic" or "eigenpairs".
        degenerate: what becomes of gradients of answers that are not unique.
        solver: maps parameters to the solution, the masks of bad and of doubtful items, and reports.
        params: the parameters, tensors or ``None``.
        core_dims: the number of non-batch dimensions of each parameter; empty where there is no batch.
        solution_size: how many tensors make a solution; two except when unrolled.

    Returns:
        What the solver returned, with derivatives attached to the solution.

    Raises:
        ValueError: if the mode does not apply.
    """
    if isinstance(mode, Unrolled):
        return unroll(function, degenerate, solver, align(params, core_dims), solution_size)
    if not hasattr(mode, layer):
        raise ValueError(
            f"pmaf.{function}: backward={mode} does not apply to {WHAT[layer]}; use Implicit(), DenseJacobian() or "
            "Unrolled()"
        )
    sizes = [(p, c) for p, c in zip(params, core_dims, strict=True) if p is not None]
    if sizes[0][0].is_complex():
        raise ValueError(f"pmaf.{function}: backward={mode} is for real dtypes, got {sizes[0][0].dtype}")
    batch = torch.broadcast_shapes(*(p.shape[: p.dim() - c] for p, c in sizes))
    expanded = [
        None if p is None else p.expand(batch + p.shape[p.dim() - c :]) for p, c in zip(params, core_dims, strict=True)
    ]
    # torch.compile refuses Functions with a jvp.
    with_transforms = hasattr(mode, f"{layer}_forward") and not compiling()
    rule = PlainForward if with_transforms else Plain
    answer: Tensors = rule.apply(mode, layer, degenerate, solver, *expanded)  # type: ignore[no-untyped-call]
    return answer


def unroll(
    function: str, degenerate: str, solver: Callable[..., Tensors], params: Params, solution_size: int
) -> Tensors:
    """Run the solver under autograd.

    Args:
        function: the public function, for messages.
        degenerate: must be "drop": what autograd returns for answers that are not unique is what it is.
        solver: as in :func:`compare`.
        params: the parameters.
        solution_size: how many outputs stay differentiable.

    Returns:
        What the solver returned; what is only reported is detached.

    Raises:
        ValueError: if a policy for degenerate answers is asked for, or autograd lost track of the solver.
    """
    if degenerate != "drop":
        raise ValueError(f"pmaf.{function}: degenerate={degenerate!r} has no meaning with backward=Unrolled()")
    outputs = solver(*params)
    if recorded(*params) and not outputs[0].requires_grad:
        raise ValueError(f"pmaf.{function}: autograd cannot follow this solver; backward=Unrolled() needs one in torch")
    return (*outputs[:solution_size], *(o.detach() for o in outputs[solution_size:]))
