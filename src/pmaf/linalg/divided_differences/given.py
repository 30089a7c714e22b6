"""Functions that are given as such, whose derivatives come from autograd."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pmaf.linalg.divided_differences.base import ScalarFunction, over
from pmaf.linalg.divided_differences.quadrature import RULES, ascending, integral

__all__ = ["Elementwise"]


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
