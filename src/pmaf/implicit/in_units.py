r"""Problems solved in other units than those of the data, and their derivatives, which fit the range where results do.

With powers of two θ = D θ' and y = E y' the derivative is E (∂y'/∂θ') D⁻¹. Taken factor by factor it may leave the
range though the whole does not: an eigenvalue σ² of FᴴF moves by 2σ, but where F is of size 10⁻³⁰ its cotangent times
E = 10⁻⁶⁰ is zero in single precision, and divided by D = 10⁻³⁰ it stays so. The derivative is linear, so it is taken of
cotangents of order one, 2⁻ˢ E ȳ, and the result multiplied by 2ˢ D⁻¹ at once; tangents likewise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pmaf.handover import ForwardResult
from pmaf.implicit.base import Derivative, Params, Solver, Vectors
from pmaf.linalg.scaling import times_power
from pmaf.transforms import innermost

__all__ = ["InUnits", "Units"]

Rows = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Units:
    """D and E as powers of a few units, whose exponents are parameters of the layer, behind those of the problem."""

    inwards: Rows  # of each parameter, the power of each unit in D
    outwards: Rows  # of each part of the solution, that in E; the last parts may be absent

    def split(self, params: Sequence[Any]) -> tuple[Vectors, Vectors]:
        """The parameters θ, and the exponents of the units, ``(*,)`` each."""
        size = len(self.inwards)
        return tuple(params[:size]), tuple(params[size:])

    def data(self, params: Params) -> tuple[Params, list[Tensor], list[Tensor]]:
        """θ' = D⁻¹θ, and the exponents of D and of E."""
        theta, exponents = self.split(params)
        D, E = ([combined(row, exponents) for row in rows] for rows in (self.inwards, self.outwards))
        return tuple(None if p is None else times_power(p, -d) for p, d in zip(theta, D, strict=True)), D, E


def combined(row: tuple[int, ...], exponents: Sequence[Tensor]) -> Tensor:
    """The exponent of a product of powers of units."""
    return sum((c * e for c, e in zip(row, exponents, strict=True)), torch.zeros_like(exponents[0]))


def common_exponent(vectors: Sequence[tuple[Tensor | None, Tensor]], like: Params = ()) -> Tensor:
    """s, so that 2⁻ˢ E ȳ is of order one over all parts; the same for items that share a parameter.

    Args:
        vectors: parts ȳ and exponents of E, ``(*,)``.
        like: the parameters, all with the same number of batch dimensions.

    Returns:
        ``(*,)``, zero where all is zero or something is not finite.
    """
    sizes = [torch.full_like(vectors[0][1], -torch.inf)]
    for v, exponent in vectors:
        if v is not None:
            x = v.detach()
            x = x.abs() if x.numel() else x.real.new_zeros(x.shape)
            core = tuple(range(exponent.dim(), x.dim()))
            sizes.append((x.amax(core) if core else x).log2().floor() + exponent)
    s = reduce(torch.maximum, sizes) if sizes else torch.zeros_like(vectors[0][1])
    for p in like:
        if p is not None:
            shared = tuple(i for i in range(s.dim()) if p.shape[i] == 1 and s.shape[i] > 1)
            s = s.amax(shared, keepdim=True) if shared else s
    return torch.where(s.isfinite(), s, 0)


@dataclass(frozen=True)
class _InUnits(Derivative):
    """The derivative of y = E y'(D⁻¹θ); the solution is (y', y), of which y' serves further derivatives."""

    inner: Derivative
    units: Units

    @property
    def policy(self) -> str:  # type: ignore[override]
        """For answers that are not unique."""
        return self.inner.policy

    @property
    def aux_type(self) -> Any:
        """What the forward pass leaves."""
        return self.inner.aux_type

    @property
    def solution_size(self) -> int:  # type: ignore[override]
        """Twice as many tensors."""
        return 2 * self.inner.solution_size

    @property
    def core_dims(self) -> tuple[int, ...]:  # type: ignore[override]
        """Of the parameters, and of the exponents."""
        inner, count = self.inner.core_dims, len(self.units.inwards[0])
        return (*inner, *([0] * count)) if inner else ()

    def gradient(
        self, params: Params, solution: Vectors, aux: Any, cotangents: Params, needs: tuple[bool, ...], solve: Solver
    ) -> Params:
        """2ˢD⁻¹ times the gradient of (ȳ' + E ȳ)/2ˢ."""
        theta, D, E = self.units.data(params)
        size, half = len(theta), self.inner.solution_size
        own = [(c, torch.zeros_like(e)) for c, e in zip(cotangents[:half], E, strict=False)]
        theirs = list(zip(cotangents[half:], E, strict=False))
        s = common_exponent([*own, *theirs], theta if self.core_dims else ())
        parts = [[times_power(c, e - s) for c, e in pair if c is not None] for pair in zip(own, theirs, strict=True)]
        right = tuple(sum(part[1:], part[0]) if part else None for part in parts)
        grads = self.inner.gradient(theta, solution[:half], aux, right, needs[:size], solve)
        scaled = (None if g is None else times_power(g, s - d) for g, d in zip(grads, D, strict=True))
        return (*scaled, *([None] * (len(params) - size)))

    def change(self, params: Params, tangents: Params, solution: Vectors, aux: Any, solve: Solver) -> Vectors:
        """2ˢE times the change by D⁻¹dθ/2ˢ, and the same without E."""
        theta, D, E = self.units.data(params)
        given = [(t, -d) for t, d in zip(tangents, D, strict=False)]
        s = common_exponent(given)
        own = tuple(None if t is None else times_power(t, d - s) for t, d in given)
        moved = self.inner.change(theta, own, solution[: self.inner.solution_size], aux, solve)
        return (*(times_power(m, s) for m in moved), *(times_power(m, e + s) for m, e in zip(moved, E, strict=False)))

    def correction(self, params: Params, constants: Params, solution: Vectors, start: Vectors, aux: Any) -> Vectors:
        """The step of the problem in its own units, and E times it.

        Raises:
            RuntimeError: if second derivatives, of the size of D⁻², would leave the range of the type on the way.
        """
        for exponent in self.units.split(params)[1]:
            most = 60 if torch.finfo(exponent.dtype).bits < 64 else 500
            if exponent.numel() and float(innermost(exponent).abs().max()) > most:
                raise RuntimeError(
                    "pmaf: forward mode over forward mode would over- or underflow for data of this size; scale the "
                    "data towards one, or use torch.func.hessian, jacfwd(jacrev(f)) or jacrev(jacfwd(f)) instead"
                )
        half = self.inner.solution_size
        theta, _, E = self.units.data(params)
        step = self.inner.correction(theta, self.units.data(constants)[0], solution[:half], start[:half], aux)
        return (*step, *(times_power(d, e) for d, e in zip(step, E, strict=False)))


@dataclass(frozen=True)
class _ForwardInUnits:
    """The forward pass of the problem in its own units, and its solution in both."""

    inner: Callable[..., ForwardResult]
    units: Units

    def __call__(self, *params: Tensor | None) -> ForwardResult:
        """Divide by D, solve, multiply by E."""
        theta, _, E = self.units.data(params)
        found = self.inner(*theta)
        own = (times_power(y, e) for y, e in zip(found.solution, E, strict=False))
        return found._replace(solution=(*found.solution, *own))


class InUnits(NamedTuple):
    """Which units a problem is solved in."""

    units: Units
    exponents: Vectors  # (*,) each, whole numbers in floating point

    def value(self, x: Tensor, part: int) -> Tensor:
        """What is not differentiated and has the units of a part of the solution, ``(*, …)``, in those of the data."""
        return times_power(x, combined(self.units.outwards[part], self.exponents))

    def forward(self, inner: Callable[..., ForwardResult]) -> Callable[..., ForwardResult]:
        """The forward pass as a function of the data and the exponents."""
        return _ForwardInUnits(inner, self.units)

    def derivative(self, inner: Callable[[], Derivative]) -> Callable[[], Derivative]:
        """How its solution is differentiated."""
        return lambda: _InUnits(inner(), self.units)
