r"""The only file that touches autograd machinery.

``Layer`` is the solution of equations F(y; θ) = 0: its forward runs a solver, its backward solves Mᴴ w = ȳ with the
Jacobian M = ∂F/∂y, mostly self-adjoint, and pulls w back to θ. ``Solve`` is that linear solve as a differentiable
operation of its own: y = M(θ, s)⁻¹ h has

    h̄ = z,   (θ̄, s̄) = −∂⟨z, M(θ, s) y⟩/∂(θ, s),   z = M⁻ᴴ ȳ,

again one solve, so derivatives of every order reuse the factorisation of the forward pass and treat degenerate
components alike. The factorisation itself may be held constant: M(θ, s)⁻¹ does not depend on how it is computed.

Each comes twice: the base class is what ``torch.compile`` can trace, and the derived class adds ``jvp`` and ``vmap``,
which it refuses; where no transform is active, a third does without what only they need. All parameters have the same
number of batch dimensions, so that vmap is one more of them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pmaf.errors import DegeneracyError
from pmaf.implicit.base import Equations, Params, Rule, Vectors, fill
from pmaf.implicit.forward_over_forward import derivative_levels, with_plain_derivatives
from pmaf.transforms import (
    anywhere,
    compiling,
    nests_forward_mode,
    no_autocast,
    outside_dual_levels,
    outside_transforms,
    pushforward,
    recorded,
)

__all__ = ["align", "apply_layer", "refuse_nested_forward_mode"]


def run_solve(rule: Rule, params: Params, solution: Vectors, aux: Any, rhs: Vectors) -> Vectors:
    """The bordered solve, differentiable except where nothing asks for it: while compiling, and in a plain backward."""
    if compiling() or (not torch.is_grad_enabled() and outside_transforms()):
        return rule.solve(params, solution, aux, rhs)
    flat = (*params, *solution, *aux, *rhs)
    outputs: Vectors = SolveWithTransforms.apply(rule, len(aux), *flat)  # type: ignore[no-untyped-call]
    return outputs


def batch_first(tensors: Sequence[Any], in_dims: Sequence[int | None]) -> list[Any]:
    """Mapped dimensions moved to the front; a dimension of size one where a tensor is not mapped."""
    return [
        t if not isinstance(t, Tensor) else t.unsqueeze(0) if d is None else t.movedim(d, 0)
        for t, d in zip(tensors, in_dims, strict=True)
    ]


def mapped_outputs(outputs: Sequence[Tensor], size: int) -> tuple[tuple[Tensor, ...], tuple[int | None, ...]]:
    """Outputs with their mapped dimension, or none where an output does not depend on what is mapped."""
    dims = tuple(0 if o.shape[0] == size else None for o in outputs)
    return tuple(o if d == 0 else o.squeeze(0) for o, d in zip(outputs, dims, strict=True)), dims


def one_by_one(
    function: Callable[..., Vectors], tensors: Sequence[Any], in_dims: Sequence[int | None], size: int
) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    """Map by a loop over the items."""
    items = [
        function(*(t if d is None else t.select(d, i) for t, d in zip(tensors, in_dims, strict=True)))
        for i in range(size)
    ]
    outputs = tuple(torch.stack(parts) for parts in zip(*items, strict=True))
    return outputs, (0,) * len(outputs)


def refuse_nested_forward_mode() -> None:
    """Refuse two levels of forward mode, the inner of which would silently be zero.

    Raises:
        RuntimeError: if two are active.
    """
    if nests_forward_mode():
        raise RuntimeError(
            "pmaf: forward mode over forward mode is not supported, because torch takes the inner derivative of a "
            "custom Function as zero there; use torch.func.hessian, jacfwd(jacrev(f)) or jacrev(jacfwd(f)) instead"
        )


class Solve(torch.autograd.Function):
    """M(θ, s)⁻¹ h as a differentiable operation of θ, s and h."""

    @staticmethod
    def forward(rule: Rule, aux_size: int, *tensors: Any) -> Any:
        """Solve in the factorisation that came with the tensors."""
        params, solution, aux, rhs = rule.split(tensors, aux_size)
        return rule.solve(params, solution, aux, rhs)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep inputs and outputs."""
        rule, aux_size, *tensors = inputs
        ctx.rule, ctx.aux_size = rule, aux_size
        ctx.size = len(tensors)
        ctx.save_for_backward(*tensors, *output)
        ctx.save_for_forward(*tensors, *output)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """One more solve, and the pullback of M y."""
        rule, saved = ctx.rule, ctx.saved_tensors
        params, solution, aux, _ = rule.split(saved[: ctx.size], ctx.aux_size)
        y = saved[ctx.size :]
        z = run_solve(rule.transposed(), params, solution, aux, fill(gradients, y))
        present = [i for i, p in enumerate(params) if p is not None]

        def product(*moving: Tensor) -> Vectors:
            theta = list(params)
            for i, tensor in zip(present, moving[: len(present)], strict=True):
                theta[i] = tensor
            applied = rule.equations.apply(tuple(theta), tuple(moving[len(present) :]), aux, y)
            return tuple(v.expand_as(w) for v, w in zip(applied, y, strict=True))

        # Infinity times the zero that an item without an answer has here would be NaN.
        finite = tuple(torch.where(p.isfinite(), p, 0) for p in params if p is not None)
        vjp = torch.func.vjp(product, *finite, *solution)[1]
        pulled = vjp(tuple(-v for v in z))
        grads: list[Tensor | None] = [None] * len(params)
        for i, gradient in zip(present, pulled[: len(present)], strict=True):
            grads[i] = gradient
        return (None, None, *grads, *pulled[len(present) :], *([None] * ctx.aux_size), *z)


class SolveWithTransforms(Solve):
    """:class:`Solve` for eager mode: adds forward mode and vmap."""

    @staticmethod
    def jvp(ctx: Any, _rule: None, _size: None, *tangents: Any) -> Any:
        """M dy = dh − dM y."""
        refuse_nested_forward_mode()
        rule, saved = ctx.rule, ctx.saved_tensors
        params, solution, aux, rhs = rule.split(saved[: ctx.size], ctx.aux_size)
        y = saved[ctx.size :]
        d_rhs = fill(tangents[len(tangents) - len(rhs) :], rhs)
        moving = (*params, *solution)
        chosen = [i for i, t in enumerate(tangents[: len(moving)]) if t is not None]
        if chosen:

            def product(*some: Tensor) -> Vectors:
                full = list(moving)
                for i, tensor in zip(chosen, some, strict=True):
                    full[i] = tensor
                p = len(params)
                applied = rule.equations.apply(tuple(full[:p]), tuple(full[p:]), aux, y)
                return tuple(v.expand_as(w) for v, w in zip(applied, y, strict=True))

            changed = pushforward(product, [moving[i] for i in chosen], [tangents[i] for i in chosen])
            d_rhs = tuple(h - c for h, c in zip(d_rhs, changed, strict=True))
        return run_solve(rule, params, solution, aux, d_rhs)

    @staticmethod
    def vmap(info: Any, in_dims: Any, rule: Rule, aux_size: int, *tensors: Any) -> Any:
        """One more batch dimension, or one solve after the other for an operator that has none."""
        if not rule.equations.core_dims():
            return one_by_one(partial(SolveWithTransforms.apply, rule, aux_size), tensors, in_dims[2:], info.batch_size)
        outputs = SolveWithTransforms.apply(rule, aux_size, *batch_first(tensors, in_dims[2:]))  # type: ignore[no-untyped-call]
        return mapped_outputs(outputs, info.batch_size)


class Layer(torch.autograd.Function):
    """The solution of F(y; θ) = 0 as a differentiable operation of θ."""

    @staticmethod
    def forward(rule: Rule, solver: Callable[..., Vectors], *params: Any) -> Any:
        """Run the solver; its outputs are the solution, then aux, then what is only reported."""
        return tuple(output.contiguous() for output in solver(*params))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep parameters, solution and aux; all but the solution is not differentiable."""
        rule, _, *params = inputs
        size = rule.equations.solution_size
        ctx.rule, ctx.size = rule, len(params)
        ctx.aux_size = len(rule.aux_type._fields)
        ctx.mark_non_differentiable(*output[size:])
        kept = output[: size + ctx.aux_size]
        ctx.save_for_backward(*params, *kept)
        ctx.save_for_forward(*params, *kept)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """The pullback of the adjoint.

        Raises:
            DegeneracyError: if the answer is not unique and the policy is "raise".
        """
        rule = ctx.rule
        params, solution, aux, _ = rule.split(ctx.saved_tensors, ctx.aux_size)
        if rule.degenerate == "raise" and not compiling() and bool(aux.doubtful.any()):
            raise DegeneracyError("pmaf: the gradient of an answer that is not unique was asked for")
        with no_autocast(solution[0]):
            y = run_solve(rule.transposed(), params, solution, aux, fill(gradients[: len(solution)], solution))
            clean = rule.without_bad(aux, solution)
            grads = rule.equations.pullback(params, clean, aux, y, ctx.needs_input_grad[2:])
        return (None, None, *(g if n else None for g, n in zip(grads, ctx.needs_input_grad[2:], strict=True)))


class LayerWithTransforms(Layer):
    """:class:`Layer` for eager mode: adds forward mode and vmap."""

    @staticmethod
    def jvp(ctx: Any, _rule: None, _solver: None, *tangents: Any) -> Any:
        """M dy = −∂F/∂θ dθ."""
        refuse_nested_forward_mode()
        rule = ctx.rule
        params, solution, aux, _ = rule.split(ctx.saved_tensors, ctx.aux_size)
        clean = rule.without_bad(aux, solution)
        rhs = rule.equations.pushforward(params, tangents, clean, aux)
        change = run_solve(rule, params, solution, aux, rhs)
        change = tuple(c.expand_as(s) for c, s in zip(change, solution, strict=True))
        return (*change, *([None] * (rule.outputs - len(solution))))

    @staticmethod
    def vmap(info: Any, in_dims: Any, rule: Rule, solver: Callable[..., Vectors], *params: Any) -> Any:
        """One more batch dimension, or one item after the other for an operator that has none."""
        if not rule.equations.core_dims():
            return one_by_one(partial(LayerWithTransforms.apply, rule, solver), params, in_dims[2:], info.batch_size)
        outputs = LayerWithTransforms.apply(rule, solver, *batch_first(params, in_dims[2:]))  # type: ignore[no-untyped-call]
        return mapped_outputs(outputs, info.batch_size)


class Attached(Layer):
    """:class:`Layer` where no transform is active: the solver ran before, and only the solution passes through."""

    @staticmethod
    def forward(rule: Rule, answer: Vectors, *params: Any) -> Any:  # type: ignore[override]
        """Hand the solution over."""
        return answer[: rule.equations.solution_size]

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep parameters, solution and aux."""
        rule, answer, *params = inputs
        ctx.rule, ctx.aux_size = rule, len(rule.aux_type._fields)
        ctx.save_for_backward(*params, *output, *answer[len(output) : len(output) + ctx.aux_size])
        ctx.set_materialize_grads(False)


def attach(rule: Rule, solver: Callable[..., Vectors], params: Params) -> Vectors:
    """Solve, and attach the derivative to the solution where a gradient can be asked for.

    Args:
        rule: how to differentiate.
        solver: maps parameters to (*solution, *aux, *reports).
        params: the parameters.

    Returns:
        What the solver returned.
    """
    with torch.no_grad():
        answer = solver(*params)
    if not recorded(*params):
        return answer
    size = rule.equations.solution_size
    bad = rule.aux_type(*answer[size : size + len(rule.aux_type._fields)]).bad
    rule.clean = not anywhere(bad)
    # Function.apply would work out the call's signature first, which takes as long as four small operations.
    solution: Vectors = super(torch.autograd.Function, Attached).apply(rule, answer, *params)  # type: ignore
    return (*solution, *answer[size:])


for _function in (Solve, Layer):  # apply asks for the signature every time; found here, it is not worked out again
    _function.forward.__signature__ = inspect.signature(_function.forward)  # type: ignore


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


def apply_layer(
    equations: Equations,
    aux_type: Any,
    degenerate: str,
    solver: Callable[..., Vectors],
    params: Params,
    outputs: int,
) -> Vectors:
    """Solve, and differentiate implicitly.

    Args:
        equations: the equations that the solution satisfies.
        aux_type: the NamedTuple that names what the solver leaves for the bordered solve.
        degenerate: what becomes of gradients of answers that are not unique: "drop", "nan" or "raise".
        solver: maps parameters to (*solution, *aux, *reports).
        params: the parameters, tensors or ``None``.
        outputs: how many tensors the solver returns.

    Returns:
        What the solver returned, with derivatives attached to the solution.
    """
    params = align(params, equations.core_dims())
    rule = Rule(equations, aux_type, degenerate, len(params), outputs)
    if compiling() and not recorded(*params):
        return tuple(output.contiguous() for output in solver(*params))
    if not compiling() and nests_forward_mode() and hasattr(equations, "residual"):
        constants = tuple(None if p is None else p.detach() for p in params)
        found: Vectors = LayerWithTransforms.apply(rule, solver, *constants)  # type: ignore[no-untyped-call]
        improved: Vectors = with_plain_derivatives(rule, params, found, derivative_levels(params))
        return improved
    if not compiling() and outside_transforms() and outside_dual_levels():
        return attach(rule, solver, params)
    layer = Layer if compiling() else LayerWithTransforms
    answer: Vectors = layer.apply(rule, solver, *params)  # type: ignore[no-untyped-call]
    return answer
