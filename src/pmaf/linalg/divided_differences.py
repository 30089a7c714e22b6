r"""Divided differences of a scalar function, first and second, without cancellation where arguments nearly meet.

.. math:: f[a, b] = \frac{f(a) - f(b)}{a - b}, \qquad f[a, b, c] = \frac{f[a, b] - f[b, c]}{a - c},

with the limits f′(a) and f″(a)/2 where arguments coincide: what the derivatives of :math:`U f(\Lambda) U^H` are made
of. Each class below has them in a form that keeps its digits. Where a second difference has no closed form, it is
computed as it is defined where the arguments lie apart, and elsewhere by Gauss–Legendre quadrature of

.. math:: f[a, b, c] = \int_0^1\!\!\int_0^1 u\, f''(a + u(b - a) + uv(c - b))\, dv\, du.

Zero is special to most of these functions. An argument that is zero is exactly zero here: who calls decides what counts
as zero. Differences that do not exist there, 0/0 or infinite, are zero, the value of least size.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from pmaf.transforms import cheap

__all__ = ["NAMED", "Elementwise", "Power", "ScalarFunction"]

NEAR = 0.25  # of the distance to the nearest singularity: so close together, second differences are integrals


def over(x: Tensor | float, d: Tensor) -> Tensor:
    """x/d, and 0 where d is 0."""
    return x * torch.where(d == 0, torch.inf, d).reciprocal()


def nodes(count: int) -> tuple[tuple[float, float], ...]:
    """Points and weights of Gauss–Legendre quadrature on [0, 1], by Newton's method on the Legendre polynomial."""
    found = []
    for i in range(count):
        x = math.cos(math.pi * (i + 0.75) / (count + 0.5))
        for _ in range(8):
            before, now = 1.0, x
            for j in range(2, count + 1):
                before, now = now, ((2 * j - 1) * x * now - (j - 1) * before) / j
            slope = count * (x * now - before) / (x * x - 1)
            x -= now / slope
        found.append(((1 + x) / 2, 1 / ((1 - x * x) * slope * slope)))
    return tuple(found)


RULES = {count: nodes(count) for count in (4, 5, 6, 8)}


class ScalarFunction(ABC):
    """A real function of a real variable with its divided differences."""

    zero_is_outside: ClassVar[bool] = False  # of the domain
    zero_is_sharp: ClassVar[bool] = False  # no derivative there
    zero_is_bent: ClassVar[bool] = False  # a derivative, but no second one there
    zero_is_jump: ClassVar[bool] = False  # no value there
    negative_is_outside: ClassVar[bool] = False

    @abstractmethod
    def value(self, x: Tensor) -> Tensor:
        """f(x)."""

    @abstractmethod
    def first(self, a: Tensor, b: Tensor) -> Tensor:
        """f[a, b]."""

    @abstractmethod
    def second(self, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        """f[a, b, c]."""

    def sharp(self, x: Tensor) -> Tensor:
        """Where f has no derivative."""
        return (x == 0) & self.zero_is_sharp

    def bent(self, x: Tensor) -> Tensor:
        """Where it has no second one."""
        return (x == 0) & (self.zero_is_sharp or self.zero_is_bent)

    @property
    def minds_zero(self) -> bool:
        """Whether it matters what counts as zero."""
        return (
            self.zero_is_bent
            or self.zero_is_outside
            or self.zero_is_sharp
            or self.zero_is_jump
            or self.negative_is_outside
        )


@dataclass(frozen=True)
class Sqrt(ScalarFunction):
    """√x: f[a, b] = 1/(√a + √b), f[a, b, c] = −1/((√a + √b)(√b + √c)(√c + √a))."""

    zero_is_sharp = True
    negative_is_outside = True

    def value(self, x: Tensor) -> Tensor:
        """√x."""
        return x.sqrt()

    def first(self, a: Tensor, b: Tensor) -> Tensor:
        """f[a, b]."""
        return over(1.0, a.sqrt() + b.sqrt())

    def second(self, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        """f[a, b, c]."""
        x, y, z = a.sqrt(), b.sqrt(), c.sqrt()
        return -over(1.0, x + y) * over(1.0, y + z) * over(1.0, z + x)


@dataclass(frozen=True)
class InverseSqrt(ScalarFunction):
    """1/√x: f[a, b] = −1/(xy(x + y)), f[a, b, c] = (x + y + z)/(xyz(x + y)(y + z)(z + x)) of the roots x, y, z."""

    zero_is_outside = True
    negative_is_outside = True

    def value(self, x: Tensor) -> Tensor:
        """1/√x."""
        return x.rsqrt()

    def first(self, a: Tensor, b: Tensor) -> Tensor:
        """f[a, b]."""
        x, y = a.sqrt(), b.sqrt()
        return -1 / (x * y * (x + y))

    def second(self, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        """f[a, b, c]."""
        x, y, z = a.sqrt(), b.sqrt(), c.sqrt()
        return (x + y + z) / (x * y * z) / ((x + y) * (y + z) * (z + x))


@dataclass(frozen=True)
class Inverse(ScalarFunction):
    """1/x: f[a, b] = −1/(ab), f[a, b, c] = 1/(abc)."""

    zero_is_outside = True

    def value(self, x: Tensor) -> Tensor:
        """1/x."""
        return x.reciprocal()

    def first(self, a: Tensor, b: Tensor) -> Tensor:
        """f[a, b]."""
        return -1 / (a * b)

    def second(self, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        """f[a, b, c]."""
        return 1 / (a * b * c)


@dataclass(frozen=True)
class Abs(ScalarFunction):
    """|x|: f[a, b] = (a + b)/(|a| + |b|); f[a, b, c] from the one, if any, whose sign differs from that of the others.

    With m that one, f[m, p, q] = 2|m|/((|m| + |p|)(|m| + |q|)).
    """

    zero_is_sharp = True

    def value(self, x: Tensor) -> Tensor:
        """|x|."""
        return x.abs()

    def first(self, a: Tensor, b: Tensor) -> Tensor:
        """f[a, b]."""
        return over(a + b, a.abs() + b.abs())

    def second(self, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        """f[a, b, c]."""
        return across_zero(a, b, c, torch.abs)


@dataclass(frozen=True)
class Sign(ScalarFunction):
    """The sign of x: f[a, b] = 2/(a − b) across zero, else 0; f[m, p, q] = 2 sign(m)/((|m| + |p|)(|m| + |q|))."""

    zero_is_sharp = True
    zero_is_jump = True

    def value(self, x: Tensor) -> Tensor:
        """−1, 0 or 1."""
        return x.sign()

    def first(self, a: Tensor, b: Tensor) -> Tensor:
        """f[a, b]."""
        return torch.where(a * b.sign() < 0, over(2.0, a.abs() + b.abs()), 0)

    def second(self, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        """f[a, b, c]."""
        return across_zero(a, b, c, torch.sign)


def across_zero(a: Tensor, b: Tensor, c: Tensor, top: Callable[[Tensor], Tensor]) -> Tensor:
    """2 top(m)/((|m| + |p|)(|m| + |q|)) for the m whose sign differs from that of both others, 0 if there is none."""
    total = torch.zeros((), dtype=a.dtype, device=a.device)
    for m, p, q in ((a, b, c), (b, c, a), (c, a, b)):
        alone = (m * p.sign() < 0) & (m * q.sign() < 0)
        part = 2 * top(m) * over(1.0, m.abs() + p.abs()) * over(1.0, m.abs() + q.abs())
        total = total + torch.where(alone, part, 0)
    return total


class Smooth(ScalarFunction):
    """A function whose second differences are computed as they are defined, or as integrals of f″."""

    @abstractmethod
    def curvature(self, x: Tensor) -> Tensor:
        """f″(x)."""

    @abstractmethod
    def reach(self, low: Tensor, high: Tensor) -> Tensor:
        """Up to which length f is as good as a polynomial on the segment from low to high."""

    def second(self, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        """f[a, b, c]."""
        low, middle, high = ascending(a, b, c)
        apart = over(self.first(high, middle) - self.first(middle, low), high - low)
        near = high - low <= NEAR * self.reach(low, high)
        if not cheap(near):
            return torch.where(near, integral(self.curvature, low, middle, high, 6), apart)
        apart[near] = integral(self.curvature, low[near], middle[near], high[near], 6)
        return apart


def ascending(a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Three numbers in order; their differences do not depend on it."""
    a, b, c = torch.broadcast_tensors(a, b, c)
    low, high = torch.minimum(a, b), torch.maximum(a, b)
    return torch.minimum(low, c), torch.maximum(low, torch.minimum(high, c)), torch.maximum(high, c)


def integral(curvature: Callable[[Tensor], Tensor], a: Tensor, b: Tensor, c: Tensor, count: int) -> Tensor:
    """∫∫ u f″(a + u(b − a) + uv(c − b)) dv du, a second difference."""
    total = torch.zeros_like(a)
    for u, weight in RULES[count]:
        for v, other in RULES[count]:
            total = total + weight * other * u * curvature(a + u * (b - a) + u * v * (c - b))
    return total


@dataclass(frozen=True)
class Exp(Smooth):
    """eˣ: f[a, b] = eᵃ (1 − e⁻ᵈ)/d with a ≥ b, d = a − b."""

    def value(self, x: Tensor) -> Tensor:
        """eˣ."""
        return x.exp()

    def first(self, a: Tensor, b: Tensor) -> Tensor:
        """f[a, b]."""
        d = (a - b).abs()
        return torch.maximum(a, b).exp() * torch.where(d == 0, 1, over(-torch.expm1(-d), d))

    def curvature(self, x: Tensor) -> Tensor:
        """eˣ."""
        return x.exp()

    def reach(self, low: Tensor, high: Tensor) -> Tensor:
        """One."""
        return torch.ones_like(low)


@dataclass(frozen=True)
class Log(Smooth):
    """log x: f[a, b] = log(1 + d)/(d b) with a ≥ b, d = (a − b)/b."""

    zero_is_outside = True
    negative_is_outside = True

    def value(self, x: Tensor) -> Tensor:
        """The natural logarithm."""
        return x.log()

    def first(self, a: Tensor, b: Tensor) -> Tensor:
        """f[a, b]."""
        low = torch.minimum(a, b)
        d = (a - b).abs() / low
        return torch.where(d == 0, 1, over(torch.log1p(d), d)) / low

    def curvature(self, x: Tensor) -> Tensor:
        """−1/x²."""
        return -x.reciprocal().square()

    def reach(self, low: Tensor, high: Tensor) -> Tensor:
        """The distance to zero."""
        return low


@dataclass(frozen=True)
class Power(Smooth):
    """xᵖ: f[a, b] = aᵖ⁻¹ (1 − rᵖ)/(1 − r) with |a| ≥ |b|, r = b/a; near r = 1, 1 − rᵖ = −expm1(p log1p(r − 1))."""

    exponent: float

    @property
    def whole(self) -> bool:
        """Whether the exponent is an integer, so that negative numbers have a power."""
        return float(self.exponent).is_integer()

    @property
    def zero_is_outside(self) -> bool:  # type: ignore[override]
        """Zero has no negative powers."""
        return self.exponent < 0

    @property
    def negative_is_outside(self) -> bool:  # type: ignore[override]
        """Nor have negative numbers broken ones."""
        return not self.whole

    @property
    def zero_is_sharp(self) -> bool:  # type: ignore[override]
        """The root has no slope at zero."""
        return 0 < self.exponent < 1

    @property
    def zero_is_bent(self) -> bool:  # type: ignore[override]
        """Up to the square, a power has infinite curvature there."""
        return 1 < self.exponent < 2

    def value(self, x: Tensor) -> Tensor:
        """xᵖ."""
        return x.pow(self.exponent)

    def first(self, a: Tensor, b: Tensor) -> Tensor:
        """f[a, b]."""
        p = self.exponent
        swap = a.abs() < b.abs()
        a, b = torch.where(swap, b, a), torch.where(swap, a, b)
        r, d = over(b, a), over(a - b, a)  # d = 1 − r
        near = over(-torch.expm1(p * torch.log1p(-torch.where(r > 0.5, d, 0))), d)
        ratio = torch.where(r > 0.5, torch.where(d == 0, p, near), over(1 - r.pow(p), d))
        return torch.where(a == 0, float(p == 1), ratio * torch.where(a == 0, 1, a).pow(p - 1))

    def curvature(self, x: Tensor) -> Tensor:
        """p(p − 1)xᵖ⁻², zero where it is infinite."""
        factor = self.exponent * (self.exponent - 1)
        if factor == 0:
            return torch.zeros_like(x)
        power = x.pow(self.exponent - 2)
        return factor * torch.where(power.isinf(), 0, power)

    def reach(self, low: Tensor, high: Tensor) -> Tensor:
        """The distance to zero; nothing on a segment that contains it."""
        return torch.where(low * high.sign() >= 0, torch.minimum(low.abs(), high.abs()), 0)


@dataclass(frozen=True)
class Elementwise(ScalarFunction):
    """A function that is given as such; its derivatives come from autograd.

    First and second differences are computed both as they are defined and by quadrature, each with an estimate of its
    error, and the better one is taken: rounding divided by the distance, and the difference of two rules.
    """

    function: Callable[[Tensor], Tensor]
    name: str = "spectral_function"

    def value(self, x: Tensor) -> Tensor:
        """f(x).

        Raises:
            TypeError: if that is not a real tensor.
            ValueError: if it has another shape.
        """
        y: Any = self.function(x)
        if not isinstance(y, Tensor) or not y.is_floating_point():
            raise TypeError(f"pmaf.{self.name}: fn must return a real tensor, got {type(y).__name__}")
        if y.shape != x.shape:
            raise ValueError(
                f"pmaf.{self.name}: fn must act on each eigenvalue by itself, but turned shape {tuple(x.shape)} into "
                f"{tuple(y.shape)}"
            )
        return y.to(x.dtype)

    def slope(self, x: Tensor) -> Tensor:
        """f′(x)."""
        slope: Tensor = torch.func.grad(lambda t: self.value(t).sum())(x)
        return slope

    def curvature(self, x: Tensor) -> Tensor:
        """f″(x)."""
        curvature: Tensor = torch.func.grad(lambda t: self.slope(t).sum())(x)
        return curvature

    def sharp(self, x: Tensor) -> Tensor:
        """Where f′ is not finite."""
        return ~self.slope(x).isfinite()

    def bent(self, x: Tensor) -> Tensor:
        """Where f″ is not finite."""
        return ~self.curvature(x).isfinite()

    def first(self, a: Tensor, b: Tensor) -> Tensor:
        """f[a, b]."""
        return self.first_and_error(a, b)[0]

    def first_and_error(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """f[a, b], and about how wrong it is."""
        a, b = torch.broadcast_tensors(a, b)
        eps = torch.finfo(a.dtype).eps
        fa, fb, d = self.value(a), self.value(b), (a - b).abs()
        fine, coarse = (
            sum((w * self.slope(b + x * (a - b)) for x, w in RULES[count]), torch.zeros_like(a)) for count in (8, 5)
        )
        rounding = 2 * eps * (fa.abs() + fb.abs() + (a.abs() + b.abs()) * fine.abs())
        of_apart = torch.where(d == 0, torch.inf, over(rounding, d))
        of_near = (fine - coarse).abs() + 2 * eps * fine.abs()
        better = of_near <= of_apart
        return torch.where(better, fine, over(fa - fb, a - b)), torch.where(better, of_near, of_apart)

    def second(self, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        """f[a, b, c]."""
        low, middle, high = ascending(a, b, c)
        upper, error = self.first_and_error(high, middle)
        lower, other = self.first_and_error(middle, low)
        d = high - low
        of_apart = torch.where(d == 0, torch.inf, over(error + other, d))
        fine, coarse = (integral(self.curvature, low, middle, high, count) for count in (6, 4))
        better = (fine - coarse).abs() <= of_apart
        return torch.where(better, fine, over(upper - lower, d))


NAMED: dict[str, ScalarFunction] = {
    "sqrt": Sqrt(),
    "inverse_sqrt": InverseSqrt(),
    "log": Log(),
    "exp": Exp(),
    "inverse": Inverse(),
    "abs": Abs(),
    "sign": Sign(),
}
