"""Smooth functions: second differences as they are defined where arguments lie apart, elsewhere by quadrature."""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from pmaf.linalg.divided_differences.base import ScalarFunction, over
from pmaf.linalg.divided_differences.quadrature import ascending, integral
from pmaf.transforms import cheap

__all__ = ["Exp", "Log", "Power"]

NEAR = 0.25  # of the distance to the nearest singularity: so close together, second differences are integrals


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

    @property
    def degree(self) -> float:  # type: ignore[override]
        """Its exponent."""
        return self.exponent

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
