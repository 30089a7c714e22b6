r"""How f(X) moves with a Hermitian matrix X = V diag(s) Vᴴ: by divided differences of f.

.. math::
    Df(X)[E] &= V\,\bigl(f[s_i, s_j] \circ V^H E V\bigr)\,V^H \\
    D^2f(X)[E, G] &= V\,\Bigl(\sum_k f[s_i, s_k, s_j]\,(\tilde E_{ik}\tilde G_{kj} + \tilde G_{ik}\tilde E_{kj})
    \Bigr)\,V^H, \qquad \tilde E = V^H E V

(Daleckii and Krein). Neither divides by a difference that vanishes: where eigenvalues meet, f[s, s] = f′(s) and
f[s, s, s] = f″(s)/2, so both are exact however eigenvalues repeat. Df is self-adjoint, and the adjoint of
G ↦ D²f(X)[E, G] is Z ↦ D²f(X)[Eᴴ, Z], so reverse mode is made of the same two operations:

    Y = f(X):        X̄ = Df[Ȳ]
    Z = Df(X)[E]:    Ē = Df[Z̄],   X̄ = D²f[Eᴴ, Z̄]

The decomposition is a constant here; all that depends on X does so through these rules. Where f has no derivative at a
repeated eigenvalue, as √ at zero, that component of Df is left out, and a warning says so if a loss sees it; likewise
that of D²f where a second derivative is infinite, as those of powers between one and two at zero.

Of k leading pairs, U f(T) Uᴴ with the block (U, T) of :mod:`pmaf.implicit.subspace` and f(T) as above
has, by the chain rule, the derivatives f(λᵢ)/(λᵢ − s_j) between inside and outside.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pmaf.errors import DegeneracyError, DegeneracyWarning
from pmaf.handover import SpectralAux
from pmaf.implicit.autograd import mapped, refuse_nested_forward_mode
from pmaf.implicit.base import Derivative, Params, Solver, Vectors, expand_as
from pmaf.implicit.undetermined import seen, tangent
from pmaf.linalg.divided_differences import ScalarFunction
from pmaf.transforms import compiling, levels_of, outside_transforms

__all__ = ["SpectralDerivative"]

PIECE = 1 << 22  # entries of the third-order table of second differences that are made at a time


def first_derivative(fn: ScalarFunction, s: Tensor, V: Tensor, E: Tensor) -> Tensor:
    """Df(X)[E], ``(*, n, n)``."""
    D = fn.first(s[..., :, None], s[..., None, :])
    return V @ (D * (V.mH @ E @ V)) @ V.mH


def second_derivative(fn: ScalarFunction, s: Tensor, V: Tensor, E: Tensor, G: Tensor) -> Tensor:
    """D²f(X)[E, G], ``(*, n, n)``, some rows at a time."""
    E, G = V.mH @ E @ V, V.mH @ G @ V
    n = s.shape[-1]
    rows = max(1, PIECE // max(1, s.numel() * n))
    parts = []
    for i in range(0, n, rows):
        some = slice(i, min(i + rows, n))
        D = fn.second(s[..., some, None, None], s[..., None, :, None], s[..., None, None, :])  # (*, i, k, j)
        parts.append(
            (D * E[..., some, :, None] * G[..., None, :, :]).sum(-2)
            + (D * G[..., some, :, None] * E[..., None, :, :]).sum(-2)
        )
    return V @ torch.cat(parts, -2) @ V.mH


def plainly() -> bool:
    """Whether nothing asks for a derivative of what is computed now."""
    return compiling() or (not torch.is_grad_enabled() and outside_transforms())


def run_first(rule: SpectralDerivative, X: Tensor, aux: SpectralAux, E: Tensor) -> Tensor:
    """Df(X)[E], differentiable except where nothing asks for it."""
    if plainly():
        return first_derivative(rule.fn, aux.spectrum, aux.V, E)
    moved: Tensor = First.apply(rule, X, aux.spectrum, aux.V, E)[0]  # type: ignore[no-untyped-call]
    return moved


def run_second(rule: SpectralDerivative, X: Tensor, s: Tensor, V: Tensor, E: Tensor, G: Tensor) -> Tensor:
    """D²f(X)[E, G]; whoever differentiates it is told that there is no more."""
    moved = (
        second_derivative(rule.fn, s, V, E, G) if plainly() else Second.apply(rule, X, s, V, E, G)[0]  # type: ignore[no-untyped-call]
    )
    return rule.judged_second(moved, s, V, E, G)


class First(torch.autograd.Function):
    """Df(X)[E] as a differentiable operation of X and E."""

    @staticmethod
    def forward(rule: SpectralDerivative, X: Tensor, s: Tensor, V: Tensor, E: Tensor) -> Any:
        """In the decomposition that came with it."""
        return (first_derivative(rule.fn, s, V, E).contiguous(),)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep the inputs."""
        ctx.rule, *tensors = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, Z: Any) -> Any:
        """Ē = Df[Z̄], X̄ = D²f[Eᴴ, Z̄]."""
        X, s, V, E = ctx.saved_tensors
        if Z is None:
            return (None,) * 5
        of_X = run_second(ctx.rule, X, s, V, E.mH, Z) if ctx.needs_input_grad[1] else None
        of_E = run_first(ctx.rule, X, SpectralAux(s, s, s, V), Z) if ctx.needs_input_grad[4] else None
        return None, of_X, None, None, of_E

    @staticmethod
    def jvp(ctx: Any, _rule: None, dX: Any, _s: None, _V: None, dE: Any) -> Any:
        """Df[dE] + D²f[E, dX]."""
        refuse_nested_forward_mode()
        X, s, V, E = ctx.saved_tensors
        moved = torch.zeros_like(E) if dE is None else run_first(ctx.rule, X, SpectralAux(s, s, s, V), dE)
        return (moved if dX is None else moved + run_second(ctx.rule, X, s, V, E, dX),)

    @staticmethod
    def vmap(info: Any, in_dims: Any, rule: SpectralDerivative, *tensors: Any) -> Any:
        """One more batch dimension."""
        return mapped(partial(First.apply, rule), rule, info, in_dims[1:], tensors)


class Second(torch.autograd.Function):
    """D²f(X)[E, G], which is not differentiated any further."""

    @staticmethod
    def forward(rule: SpectralDerivative, X: Tensor, s: Tensor, V: Tensor, E: Tensor, G: Tensor) -> Any:
        """In the decomposition that came with it."""
        return (second_derivative(rule.fn, s, V, E, G).contiguous(),)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Nothing is kept."""

    @staticmethod
    def backward(ctx: Any, Z: Any) -> Any:
        """Not there.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError(NO_THIRD)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        """Not there.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError(NO_THIRD)

    @staticmethod
    def vmap(info: Any, in_dims: Any, rule: SpectralDerivative, *tensors: Any) -> Any:
        """One more batch dimension."""
        return mapped(partial(Second.apply, rule), rule, info, in_dims[1:], tensors)


NO_THIRD = (
    "pmaf.spectral_function: third derivatives are not available; those of pmaf.principal_projector and of pmaf.ied, "
    "where eigenvalues are simple, are"
)


@dataclass(frozen=True)
class SpectralDerivative(Derivative):
    """The derivative of f(X); the parameter is X, ``(*, n, n)``, and the solution f(X)."""

    aux_type = SpectralAux
    solution_size = 1
    core_dims = (2,)
    policy: str
    fn: ScalarFunction

    def moved(self, X: Tensor, aux: SpectralAux, E: Tensor) -> Tensor:
        """Df(X)[E]; zero for items without an answer, and the policy where f has no derivative."""
        E = torch.where(expand_as(aux.failed, E), 0, E)
        return self.judged_first(run_first(self, X, aux, E), aux.spectrum, aux.V, E)

    def judged_first(self, moved: Tensor, s: Tensor, V: Tensor, E: Tensor) -> Tensor:
        """Df(X)[E], after what the policy demands where f[a, a] does not exist."""
        if self.policy == "drop" and compiling():
            return moved
        sharp = self.fn.sharp(s)
        return self.judged(moved, sharp, lambda: together(sharp, s) * inside(V, E), (E,), SHARP)

    def judged_second(self, moved: Tensor, s: Tensor, V: Tensor, E: Tensor, G: Tensor) -> Tensor:
        """D²f(X)[E, G], after what the policy demands where f[a, a, c] or f[a, a, a] does not exist."""
        if self.policy == "drop" and compiling():
            return moved
        sharp, bent = self.fn.sharp(s), self.fn.bent(s)

        def part() -> Tensor:
            P, T, E_, G_ = together(sharp, s), together(bent, s), inside(V, E), inside(V, G)
            twice = (P * E_) @ G_ + E_ @ (P * G_) + P * (E_ @ G_) + (T * E_) @ (T * G_)
            return twice + twice.mT

        return self.judged(moved, bent, part, (E, G), BENT)

    def judged(
        self, moved: Tensor, points: Tensor, part: Callable[[], Tensor], given: tuple[Tensor, ...], text: str
    ) -> Tensor:
        """What the policy makes of a derivative that leaves a part out at these eigenvalues.

        Args:
            moved: the derivative.
            points: eigenvalues where f is not smooth, ``(*, n)``.
            part: how large what is left out is, but for f; asked if there is such a point.
            given: the directions of the derivative, which the part is measured by.
            text: the warning.

        Returns:
            The derivative, NaN if the policy says so.

        Raises:
            DegeneracyError: if the policy is "raise" and a part is left out.
        """
        if self.policy == "nan":
            return torch.where(expand_as(points.any(-1), moved), moved * torch.nan, moved)
        if not compiling() and seen(points):
            size = torch.ones(())
            for E in given:
                size = size.to(E.real) * torch.linalg.vector_norm(E.detach(), dim=(-2, -1), keepdim=True)
            if seen(part() > size * torch.finfo(size.dtype).eps ** 0.5):
                if self.policy == "raise":
                    raise DegeneracyError(text)
                warnings.warn(text, DegeneracyWarning, stacklevel=2)
        return moved

    def gradient(
        self, params: Params, solution: Vectors, aux: Any, cotangents: Params, needs: tuple[bool, ...], solve: Solver
    ) -> Params:
        """Df[Ȳ]."""
        (X,), (Y_bar,) = params, cotangents
        return (None,) if X is None or Y_bar is None else (self.moved(X, aux, Y_bar),)

    def change(self, params: Params, tangents: Params, solution: Vectors, aux: Any, solve: Solver) -> Vectors:
        """Df[dX]."""
        (X,), (dX,) = params, tangents
        return (torch.zeros_like(solution[0]) if X is None or dX is None else self.moved(X, aux, dX),)

    def correction(self, params: Any, constants: Params, solution: Vectors, start: Vectors, aux: Any) -> Vectors:
        """What the solution lacks of Taylor's polynomial of second order about the value of X.

        Raises:
            RuntimeError: if three derivatives could be taken.
        """
        if levels_of("Jvp", "Grad") > 2:
            raise RuntimeError(NO_THIRD)
        s, V = aux.spectrum, aux.V
        step = params[0] - constants[0]
        step = torch.where(expand_as(aux.failed, step), 0, step)
        change = first_derivative(self.fn, s, V, step) + second_derivative(self.fn, s, V, step, step) / 2
        direction = tangent(step)
        change = self.judged_second(self.judged_first(change, s, V, direction), s, V, direction, direction)
        return (solution[0] - start[0] - change,)


def together(points: Tensor, s: Tensor) -> Tensor:
    """Pairs of equal eigenvalues among some, ``(*, n, n)``."""
    return points[..., :, None] & points[..., None, :] & (s[..., :, None] == s[..., None, :])


def inside(V: Tensor, E: Tensor) -> Tensor:
    """|VᴴEV|."""
    return (V.mH @ E @ V).abs().detach()


LEFT_OUT = (
    "at an eigenvalue (zero, to rounding, of a power or a name), and the loss depends on what happens there; that "
    "component of the {} is left out. Add a small multiple of the identity if it matters"
)
SHARP = "pmaf.spectral_function: fn has no derivative " + LEFT_OUT.format("gradient")
BENT = "pmaf.spectral_function: fn has no second derivative " + LEFT_OUT.format("second derivative")
