r"""Layers differentiated in the ways that implicit differentiation is compared with.

The forward pass is that of the layer itself. The gradient is a plain function of the parameters, the solution and the
incoming gradients, written in differentiable operations. The solution that it sees is the layer's own output, so that a
second derivative is the total one.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pmaf.handover import ForwardResult
from pmaf.implicit.autograd import align
from pmaf.implicit.base import Derivative, Params, Vectors, expand_as, fill
from pmaf.transforms import recorded

__all__ = ["Explicit", "unroll"]


class Explicit(Derivative):
    """A layer whose gradient is given as a formula, for real parameters that all have the whole batch."""

    @abstractmethod
    def formula(self, params: Any, solution: Vectors, cotangents: Vectors) -> Params:
        """The gradients of the parameters."""

    def forward_formula(self, params: Any, tangents: Any, solution: Vectors) -> Vectors:
        """The change of the solution.

        Raises:
            RuntimeError: if there is no such formula.
        """
        raise RuntimeError("pmaf: this backward mode has reverse mode only; use backward=Implicit() for forward mode")

    def gradient(
        self, params: Params, solution: Vectors, aux: Any, cotangents: Params, needs: Any, solve: Any
    ) -> Params:
        """The formula; zero for items without an answer, and the policy for those without a unique one."""
        grads = self.formula(self.whole(params), solution, fill(cotangents, solution))
        grads = tuple(None if g is None else torch.where(expand_as(aux.failed, g), 0, g) for g in grads)
        if self.policy == "nan":
            spoilt = aux.degenerate & ~aux.failed
            grads = tuple(None if g is None else torch.where(expand_as(spoilt, g), torch.nan, g) for g in grads)
        return tuple(
            None if g is None or p is None else g.sum_to_size(p.shape) for g, p in zip(grads, params, strict=True)
        )

    def change(self, params: Params, tangents: Params, solution: Vectors, aux: Any, solve: Any) -> Vectors:
        """The forward formula; zero for items without an answer."""
        changes = self.forward_formula(params, tangents, solution)
        return tuple(torch.where(expand_as(aux.failed, c), 0, c) for c in changes)

    def whole(self, params: Params) -> Params:
        """The parameters, each with the whole batch."""
        sizes = [(p, c) for p, c in zip(params, self.core_dims, strict=True)]
        batch = torch.broadcast_shapes(*(p.shape[: p.dim() - c] for p, c in sizes if p is not None))
        return tuple(None if p is None else p.expand(batch + p.shape[p.dim() - c :]) for p, c in sizes)


def unroll(
    function: str,
    policy: str,
    forward: Callable[..., ForwardResult],
    params: tuple[Tensor | None, ...],
    core_dims: tuple[int, ...],
) -> ForwardResult:
    """Run the solver under autograd.

    Args:
        function: the public function, for messages.
        policy: must be "drop": what autograd returns for answers that are not unique is what it is.
        forward: maps the parameters to a result.
        params: the parameters.
        core_dims: the number of non-batch dimensions of each parameter.

    Returns:
        The result; what is only reported is detached.

    Raises:
        ValueError: if a policy for degenerate answers is asked for, or autograd lost track of the solver.
    """
    if policy != "drop":
        raise ValueError(f"pmaf.{function}: degenerate={policy!r} has no meaning with backward=Unrolled()")
    found = forward(*align(params, core_dims))
    if recorded(*params) and not found.solution[0].requires_grad:
        raise ValueError(f"pmaf.{function}: autograd cannot follow this solver; backward=Unrolled() needs one in torch")
    aux = type(found.aux)(*(x.detach() for x in found.aux))
    report = type(found.report)(*(x.detach() for x in found.report))
    return ForwardResult(found.solution, aux, report)
