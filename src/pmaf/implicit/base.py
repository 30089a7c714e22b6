r"""What a declarative layer says of itself, so that it can be differentiated.

The solution y of F(y; θ) = 0 moves by M dy = −∂F/∂θ dθ with the Jacobian M = ∂F/∂y. A layer gives M as a product and
as a solve, and the two products with −∂F/∂θ; everything else, to any order, follows from these.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from pmaf.transforms import anywhere

__all__ = ["NESTED_FORWARD_MODE", "Derivative", "Equations", "Params", "Vectors", "expand_as", "fill", "finite"]

Params = tuple[Tensor | None, ...]
Vectors = tuple[Tensor, ...]

NESTED_FORWARD_MODE = (
    "pmaf: forward mode over forward mode is not supported, because torch takes the inner derivative of a "
    "custom Function as zero there; use torch.func.hessian, jacfwd(jacrev(f)) or jacrev(jacfwd(f)) instead"
)


class Derivative(ABC):
    """How the solution of a layer is differentiated, and what becomes of items whose answer is not unique."""

    aux_type: ClassVar[Any]  # the named tuple that the forward pass leaves; begins with ``failed`` and ``degenerate``
    solution_size: int = 2  # how many tensors make a solution
    core_dims: tuple[int, ...] = ()  # non-batch dimensions of each parameter; empty where vmap is not supported
    policy: str  # for gradients of answers that are not unique: "drop", "nan" or "raise"

    @abstractmethod
    def gradient(
        self, params: Params, solution: Vectors, aux: Any, cotangents: Params, needs: tuple[bool, ...], solve: Solver
    ) -> Params:
        """θ̄ from the cotangents of the solution, in differentiable operations.

        Args:
            params: θ.
            solution: y.
            aux: what the forward pass left.
            cotangents: ȳ, ``None`` where it is zero.
            needs: which parameters need a gradient.
            solve: :meth:`Equations.inverse` as a differentiable operation.

        Returns:
            θ̄, ``None`` where it is not needed.
        """

    @abstractmethod
    def change(self, params: Params, tangents: Params, solution: Vectors, aux: Any, solve: Solver) -> Vectors:
        """The change of the solution when θ changes by the tangents, in differentiable operations."""

    def residual(self, params: Any, solution: Any, aux: Any) -> Vectors:
        """F, in operations that every transform can follow: what forward mode over forward mode needs.

        Raises:
            RuntimeError: if the layer has no such form.
        """
        raise RuntimeError(NESTED_FORWARD_MODE)

    def inverse(self, params: Params, solution: Vectors, aux: Any, rhs: Vectors) -> Vectors:
        """M⁻¹ rhs, for forward mode over forward mode.

        Raises:
            RuntimeError: if the layer has no such form.
        """
        raise RuntimeError(NESTED_FORWARD_MODE)

    def correction(self, params: Params, constants: Params, solution: Vectors, start: Vectors, aux: Any) -> Vectors:
        """M⁻¹ F, a step of Newton's method with M taken at the start, for forward mode over forward mode.

        Args:
            params: θ.
            constants: θ without derivatives.
            solution: y.
            start: y without derivatives.
            aux: what the forward pass left.
        """
        missing = self.residual(params, solution, aux)
        missing = tuple(m.expand_as(s) for m, s in zip(missing, start, strict=True))
        return self.inverse(constants, start, aux, missing)

    def split(self, tensors: Sequence[Any], parameters: int) -> tuple[Params, Vectors, Any, tuple[Any, ...]]:
        """Tensors in a row as parameters, solution, aux and the rest."""
        solution = parameters + self.solution_size
        aux = solution + len(self.aux_type._fields)
        given = self.aux_type(*tensors[solution:aux])
        return tuple(tensors[:parameters]), tuple(tensors[parameters:solution]), given, tuple(tensors[aux:])


class Equations(Derivative):
    """A layer that is differentiated through its equations F(y; θ) = 0."""

    def transposed(self) -> Equations:
        """The equations with Mᴴ in place of M: these, since M is self-adjoint unless a subclass says otherwise."""
        return self

    def fixed(self, y: Vectors) -> int:
        """How many of the last tensors of the solution M y does not depend on."""
        return 0

    @abstractmethod
    def apply(self, params: Any, solution: Any, aux: Any, y: Any) -> Vectors:
        """M y."""

    @abstractmethod
    def solve(self, params: Any, solution: Any, aux: Any, rhs: Any) -> Vectors:
        """M⁻¹ rhs, for items that have an answer."""

    @abstractmethod
    def vjp(self, params: Any, solution: Any, aux: Any, y: Any, needs: tuple[bool, ...]) -> Params:
        """−∂⟨y, F⟩/∂θ for the parameters that need it."""

    @abstractmethod
    def jvp(self, params: Any, tangents: Any, solution: Any, aux: Any) -> Vectors:
        """−∂F/∂θ dθ."""

    def gradient(
        self, params: Params, solution: Vectors, aux: Any, cotangents: Params, needs: tuple[bool, ...], solve: Solver
    ) -> Params:
        """One adjoint solve, and the vector–Jacobian product of F."""
        y = solve(self.transposed(), params, solution, aux, fill(cotangents, solution))
        return self.vjp(params, without_failed(aux, solution), aux, y, needs)

    def change(self, params: Params, tangents: Params, solution: Vectors, aux: Any, solve: Solver) -> Vectors:
        """The Jacobian–vector product of F, and one solve."""
        return solve(self, params, solution, aux, self.jvp(params, tangents, without_failed(aux, solution), aux))

    def inverse(self, params: Params, solution: Vectors, aux: Any, rhs: Vectors) -> Vectors:
        """M⁻¹ rhs: zero for items without an answer, and the policy for items without a unique one."""
        y = self.solve(params, without_failed(aux, solution), aux, without_failed(aux, rhs))
        y = without_failed(aux, y)
        if self.policy == "nan":
            y = tuple(torch.where(expand_as(aux.degenerate, v), v * torch.nan, v) for v in y)  # and so derivatives
        return tuple(v.contiguous() for v in y)


Solver = Callable[[Equations, Params, Vectors, Any, Vectors], Vectors]


def without_failed(aux: Any, tensors: Vectors) -> Vectors:
    """Zero in place of items that have no answer."""
    if not anywhere(aux.failed):
        return tensors
    return tuple(torch.where(expand_as(aux.failed, x), 0, x) for x in tensors)


def finite(params: Params) -> Params:
    """Zero in place of what is not finite: times the zero that an item without an answer has, it would be NaN."""
    return tuple(None if p is None else torch.where(p.isfinite(), p, 0) for p in params)


def expand_as(mask: Tensor, x: Tensor) -> Tensor:
    """A mask of the batch, with trailing dimensions added so that it broadcasts against x."""
    return mask.reshape(mask.shape + (1,) * (x.dim() - mask.dim()))


def fill(gradients: Sequence[Tensor | None], like: Sequence[Tensor]) -> Vectors:
    """Zeros in place of cotangents that are absent."""
    return tuple(torch.zeros_like(x) if g is None else g for g, x in zip(gradients, like, strict=True))
