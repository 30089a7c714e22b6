"""What a scalar function offers: its values, its divided differences, and what it makes of zero."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

__all__ = ["ScalarFunction", "over"]


def over(x: Tensor | float, d: Tensor) -> Tensor:
    """x/d, and 0 where d is 0."""
    return x * torch.where(d == 0, torch.inf, d).reciprocal()


class ScalarFunction(ABC):
    """A real function of a real variable with its divided differences."""

    zero_is_outside: ClassVar[bool] = False  # of the domain
    zero_is_sharp: ClassVar[bool] = False  # no derivative there
    zero_is_bent: ClassVar[bool] = False  # a derivative, but no second one there
    zero_is_jump: ClassVar[bool] = False  # no value there
    negative_is_outside: ClassVar[bool] = False
    degree: ClassVar[float | None] = None  # p, where f(c x) = cᵖ f(x) for every c > 0

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
