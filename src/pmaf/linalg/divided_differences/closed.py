"""Functions whose divided differences are rational in their values: roots, the inverse, |x| and the sign."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pmaf.linalg.divided_differences.base import ScalarFunction, over

__all__ = ["Abs", "Inverse", "InverseSqrt", "Sign", "Sqrt"]


@dataclass(frozen=True)
class Sqrt(ScalarFunction):
    """√x: f[a, b] = 1/(√a + √b), f[a, b, c] = −1/((√a + √b)(√b + √c)(√c + √a))."""

    zero_is_sharp = True
    negative_is_outside = True
    degree = 0.5

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
    degree = -0.5

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
    degree = -1.0

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
    degree = 1.0

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
    degree = 0.0

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
