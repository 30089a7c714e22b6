r"""Second divided differences as integrals, for arguments that nearly meet.

.. math:: f[a, b, c] = \int_0^1\!\!\int_0^1 u\, f''(a + u(b - a) + uv(c - b))\, dv\, du,

by Gauss–Legendre quadrature.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["RULES", "ascending", "integral"]


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
