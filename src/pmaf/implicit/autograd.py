r"""The only file that touches autograd machinery.

``Layer`` is the solution of equations F(y; θ) = 0: its forward runs a solver, its backward solves Mᴴ w = ȳ with the
Jacobian M = ∂F/∂y, mostly self-adjoint, and pulls w back to θ. ``Solve`` is that linear solve as a differentiable
operation of its own: y = M(θ, s)⁻¹ h has

    h̄ = z,   (θ̄, s̄) = −∂⟨z, M(θ, s) y⟩/∂(θ, s),   z = M⁻ᴴ ȳ,

again one solve, so derivatives of every order reuse the factorisation of the forward pass and treat degenerate
components alike. The factorisation itself may be held constant: M(θ, s)⁻¹ does not depend on how it is computed.

Each comes twice: the base class is what ``torch.compile`` can trace, and the derived class adds ``jvp`` and ``vmap``,
which it refuses. Where no transform is active, ``Direct`` takes an answer that is already there: its one-argument
``ctx`` form spares the call what only transforms need. All parameters have the same number of batch dimensions, so that
vmap is one more of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pmaf.errors import DegeneracyError
from pmaf.handover import ForwardResult
from pmaf.implicit.base import NESTED_FORWARD_MODE, Derivative, Equations, Params, Vectors, fill, finite
from pmaf.implicit.forward_over_forward import derivative_levels, with_plain_derivatives
from pmaf.transforms import (
    compiling,
    follows_nothing,
    jvp_by_vjp,
    nests_forward_mode,
    no_autocast,
    outside_transforms,
    recorded,
)

__all__ = ["apply_layer", "mapped", "refuse_nested_forward_mode"]

Forward = Callable[..., ForwardResult]


def apply_layer(equations: Derivative, forward: Forward, params: Params) -> ForwardResult:
    """Solve, and differentiate implicitly.

    Args:
        equations: the equations that the solution satisfies.
        forward: maps the parameters to a result without derivatives.
        params: the parameters, tensors or ``None``.

    Returns:
        The result, with derivatives attached to the solution.
    """
    params = align(params, equations.core_dims)
    asked = recorded(*params)
    if compiling():
        if not asked:
            return forward(*params)
        return result_of(equations, Layer.apply(equations, forward, *params))  # type: ignore[no-untyped-call]
    if follows_nothing():
        with torch.no_grad():
            found = forward(*params)
        if not asked:
            return found
        return found._replace(solution=Direct.apply(equations, found, *params))  # type: ignore[no-untyped-call]
    if nests_forward_mode():
        constants = tuple(None if p is None else p.detach() for p in params)
        flat = LayerWithTransforms.apply(equations, forward, *constants)  # type: ignore[no-untyped-call]
        return with_plain_derivatives(equations, params, result_of(equations, flat), derivative_levels(params))
    return result_of(equations, LayerWithTransforms.apply(equations, forward, *params))  # type: ignore[no-untyped-call]


def result_of(equations: Derivative, flat: Vectors) -> ForwardResult:
    """A result from its tensors in a row."""
    return ForwardResult.of(flat, equations.solution_size, equations.aux_type)


def align(params: Params, core_dims: tuple[int, ...]) -> Params:
    """Give all parameters the same number of batch dimensions, by dimensions of size one in front."""
    if not core_dims:
        return params
    batch = [p.dim() - c for p, c in zip(params, core_dims, strict=True) if p is not None]
    most = max(batch)
    if min(batch) == most:
        return params
    return tuple(
        None if p is None else p.reshape((1,) * (most - (p.dim() - c)) + p.shape)
        for p, c in zip(params, core_dims, strict=True)
    )


def run_solve(equations: Equations, params: Params, solution: Vectors, aux: Any, rhs: Vectors) -> Vectors:
    """The bordered solve, differentiable except where nothing asks for it: while compiling, and in a plain backward."""
    if compiling() or (not torch.is_grad_enabled() and outside_transforms()):
        return equations.inverse(params, solution, aux, rhs)
    flat = (*params, *solution, *aux, *rhs)
    outputs: Vectors = SolveWithTransforms.apply(equations, len(params), *flat)  # type: ignore[no-untyped-call]
    return outputs


class Solve(torch.autograd.Function):
    """M(θ, s)⁻¹ h as a differentiable operation of θ, s and h."""

    @staticmethod
    def forward(equations: Equations, parameters: int, *tensors: Any) -> Any:
        """Solve in the factorisation that came with the tensors."""
        return equations.inverse(*equations.split(tensors, parameters))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep inputs and outputs."""
        ctx.equations, ctx.parameters, *tensors = inputs
        ctx.size = len(tensors)
        ctx.save_for_backward(*tensors, *output)
        ctx.save_for_forward(*tensors, *output)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """One more solve, and the vector–Jacobian product of M y."""
        equations, saved = ctx.equations, ctx.saved_tensors
        params, solution, aux, _ = equations.split(saved[: ctx.size], ctx.parameters)
        y = saved[ctx.size :]
        z = run_solve(equations.transposed(), params, solution, aux, fill(gradients, y))
        present = [i for i, p in enumerate(params) if p is not None]
        product = partial(applied, equations, params, present, aux, y)
        theta = (p for p in finite(params) if p is not None)
        pulled = torch.func.vjp(product, *theta, *solution)[1](tuple(-v for v in z))
        grads: list[Tensor | None] = [None] * len(params)
        for i, gradient in zip(present, pulled[: len(present)], strict=True):
            grads[i] = gradient
        fixed = equations.fixed(y)
        moving = pulled[len(present) : len(pulled) - fixed]
        return (None, None, *grads, *moving, *([None] * (fixed + len(aux))), *z)


def applied(equations: Equations, params: Params, at: Sequence[int], aux: Any, y: Vectors, *moving: Tensor) -> Vectors:
    """M(θ, s) y as a function of s and of those parameters that are there."""
    theta = list(params)
    for i, tensor in zip(at, moving[: len(at)], strict=True):
        theta[i] = tensor
    product = equations.apply(tuple(theta), tuple(moving[len(at) :]), aux, y)
    return tuple(v.expand_as(w) for v, w in zip(product, y, strict=True))


class SolveWithTransforms(Solve):
    """:class:`Solve` for eager mode: adds forward mode and vmap."""

    @staticmethod
    def jvp(ctx: Any, _equations: None, _parameters: None, *tangents: Any) -> Any:
        """M dy = dh − dM y."""
        refuse_nested_forward_mode()
        equations, saved = ctx.equations, ctx.saved_tensors
        params, solution, aux, rhs = equations.split(saved[: ctx.size], ctx.parameters)
        y = saved[ctx.size :]
        d_rhs = fill(tangents[len(tangents) - len(rhs) :], rhs)
        moving = (*params, *solution)
        chosen = [i for i, t in enumerate(tangents[: len(moving)]) if t is not None]
        if chosen:

            def product(*some: Tensor) -> Vectors:
                full = list(moving)
                for i, tensor in zip(chosen, some, strict=True):
                    full[i] = tensor
                return applied(equations, tuple(full[: len(params)]), (), aux, y, *full[len(params) :])

            changed = jvp_by_vjp(product, [moving[i] for i in chosen], [tangents[i] for i in chosen])
            d_rhs = tuple(h - c for h, c in zip(d_rhs, changed, strict=True))
        return run_solve(equations, params, solution, aux, d_rhs)

    @staticmethod
    def vmap(info: Any, in_dims: Any, equations: Equations, parameters: int, *tensors: Any) -> Any:
        """One more batch dimension, or one solve after the other for an operator that has none."""
        return mapped(partial(SolveWithTransforms.apply, equations, parameters), equations, info, in_dims[2:], tensors)


class Layer(torch.autograd.Function):
    """The solution of F(y; θ) = 0 as a differentiable operation of θ."""

    @staticmethod
    def forward(equations: Derivative, forward: Forward, *params: Any) -> Any:
        """Run the solver; its outputs are the solution, then aux, then what is only reported."""
        return forward(*params).flat()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep parameters, solution and aux; all but the solution is not differentiable."""
        ctx.equations, _, *params = inputs
        ctx.parameters, ctx.outputs = len(params), len(output)
        found = result_of(ctx.equations, output)
        ctx.mark_non_differentiable(*found.aux, *found.report)
        kept = (*params, *found.solution, *found.aux)
        ctx.save_for_backward(*kept)
        ctx.save_for_forward(*kept)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """The gradient of the parameters.

        Raises:
            DegeneracyError: if the answer is not unique and the policy is "raise".
        """
        equations, needs = ctx.equations, ctx.needs_input_grad[2:]
        params, solution, aux, _ = equations.split(ctx.saved_tensors, ctx.parameters)
        if equations.policy == "raise" and not compiling() and bool(aux.degenerate.any()):
            raise DegeneracyError("pmaf: the gradient of an answer that is not unique was asked for")
        with no_autocast(solution[0]):
            grads = equations.gradient(params, solution, aux, gradients[: len(solution)], needs, run_solve)
        return (None, None, *(g if n else None for g, n in zip(grads, needs, strict=True)))


class LayerWithTransforms(Layer):
    """:class:`Layer` for eager mode: adds forward mode and vmap."""

    @staticmethod
    def jvp(ctx: Any, _equations: None, _forward: None, *tangents: Any) -> Any:
        """The change of the solution."""
        refuse_nested_forward_mode()
        equations = ctx.equations
        params, solution, aux, _ = equations.split(ctx.saved_tensors, ctx.parameters)
        change = equations.change(params, tangents, solution, aux, run_solve)
        change = tuple(c.expand_as(s) for c, s in zip(change, solution, strict=True))
        return (*change, *([None] * (ctx.outputs - len(solution))))

    @staticmethod
    def vmap(info: Any, in_dims: Any, equations: Derivative, forward: Forward, *params: Any) -> Any:
        """One more batch dimension, or one item after the other for an operator that has none."""
        return mapped(partial(LayerWithTransforms.apply, equations, forward), equations, info, in_dims[2:], params)


class Direct(Layer):
    """:class:`Layer` where no transform is active: the solver ran before, and only the solution passes through."""

    @staticmethod
    def forward(ctx: Any, equations: Derivative, found: ForwardResult, *params: Any) -> Any:  # type: ignore[override]
        """Hand the solution over; keep parameters, solution and aux."""
        ctx.equations, ctx.parameters = equations, len(params)
        ctx.save_for_backward(*params, *found.solution, *found.aux)
        ctx.set_materialize_grads(False)
        return found.solution

    setup_context = torch.autograd.Function.setup_context


def refuse_nested_forward_mode() -> None:
    """Refuse two levels of forward mode, the inner of which would silently be zero.

    Raises:
        RuntimeError: if two are active.
    """
    if nests_forward_mode():
        raise RuntimeError(NESTED_FORWARD_MODE)


def mapped(
    function: Callable[..., Vectors], equations: Derivative, info: Any, in_dims: Sequence[int | None], given: Any
) -> tuple[tuple[Tensor, ...], tuple[int | None, ...]]:
    """A function of tensors under vmap: with one more batch dimension in front, or item by item where there is none."""
    moved = list(zip(given, in_dims, strict=True))
    if not equations.core_dims:
        items = [function(*(t if d is None else t.select(d, i) for t, d in moved)) for i in range(info.batch_size)]
        stacked = tuple(torch.stack(parts) for parts in zip(*items, strict=True))
        return stacked, (0,) * len(stacked)
    outputs = function(
        *(t if not isinstance(t, Tensor) else t.unsqueeze(0) if d is None else t.movedim(d, 0) for t, d in moved)
    )
    dims = tuple(0 if o.shape[0] == info.batch_size else None for o in outputs)  # not where nothing mapped is in it
    return tuple(o if d == 0 else o.squeeze(0) for o, d in zip(outputs, dims, strict=True)), dims
