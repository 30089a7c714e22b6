r"""How a layer is differentiated: its equations, what its forward pass leaves, and what becomes of ambiguous items."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from pmaf.transforms import anywhere

__all__ = ["Equations", "Params", "Rule", "Vectors", "expand_as", "fill"]

Params = tuple[Tensor | None, ...]
Vectors = tuple[Tensor, ...]


class Equations(Protocol):
    """What a declarative layer says of itself; see :mod:`pmaf.implicit.sphere` and :mod:`pmaf.implicit.eigen`."""

    @property
    def solution_size(self) -> int:
        """How many tensors make a solution."""

    def core_dims(self) -> tuple[int, ...]:
        """The number of non-batch dimensions of each parameter; empty where vmap is not supported."""

    def transposed(self) -> Any:
        """The equations with Mᴴ in place of M: these, if M is self-adjoint."""

    def apply(self, params: Any, solution: Any, aux: Any, y: Any) -> Vectors:
        """M y."""

    def solve(self, params: Any, solution: Any, aux: Any, rhs: Any) -> Vectors:
        """M⁻¹ rhs."""

    def pullback(self, params: Any, solution: Any, aux: Any, y: Any, needs: Any) -> Params:
        """−∂⟨y, F⟩/∂θ."""

    def pushforward(self, params: Any, tangents: Any, solution: Any, aux: Any) -> Vectors:
        """−∂F/∂θ dθ."""


class Rule:
    """How to differentiate: the equations, the type of what the forward leaves, the degeneracy policy."""

    def __init__(self, equations: Equations, aux_type: Any, degenerate: str, parameters: int, outputs: int) -> None:
        self.equations, self.aux_type, self.degenerate = equations, aux_type, degenerate
        self.parameters, self.outputs = parameters, outputs
        self.clean = False  # whether every item is known to have an answer

    def transposed(self) -> Rule:
        """The rule with Mᴴ in place of M."""
        equations = self.equations.transposed()
        if equations is self.equations:
            return self
        rule = Rule(equations, self.aux_type, self.degenerate, self.parameters, self.outputs)
        rule.clean = self.clean
        return rule

    def split(self, tensors: Sequence[Any], aux_size: int) -> tuple[Params, Vectors, Any, tuple[Any, ...]]:
        """Tensors of a ``Solve`` as parameters, solution, aux and the rest."""
        p, s = self.parameters, self.equations.solution_size
        params, solution = tuple(tensors[:p]), tuple(tensors[p : p + s])
        return params, solution, self.aux_type(*tensors[p + s : p + s + aux_size]), tuple(tensors[p + s + aux_size :])

    def solve(self, params: Params, solution: Vectors, aux: Any, rhs: Vectors) -> Vectors:
        """M⁻¹ rhs: zero for items without an answer, and the policy for items without a unique one."""
        rhs, solution = self.without_bad(aux, rhs), self.without_bad(aux, solution)
        y = self.without_bad(aux, self.equations.solve(params, solution, aux, rhs))
        if self.degenerate == "nan":
            y = tuple(torch.where(expand_as(aux.doubtful, v), torch.nan, v) for v in y)
        return tuple(v.contiguous() for v in y)

    def without_bad(self, aux: Any, tensors: Vectors) -> Vectors:
        """Zero in place of items that have no answer."""
        if self.clean or not anywhere(aux.bad):
            return tensors
        return tuple(torch.where(expand_as(aux.bad, x), 0, x) for x in tensors)


def expand_as(mask: Tensor, x: Tensor) -> Tensor:
    """A mask of the batch, with trailing dimensions added so that it broadcasts against x."""
    return mask.reshape(mask.shape + (1,) * (x.dim() - mask.dim()))


def fill(gradients: Sequence[Tensor | None], like: Sequence[Tensor]) -> Vectors:
    """Zeros in place of cotangents that are absent."""
    return tuple(torch.zeros_like(x) if g is None else g for g, x in zip(gradients, like, strict=True))
