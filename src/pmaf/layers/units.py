r"""Problems on the sphere in units in which squares stay in the range of the type.

With A = αA', C = γC', W = ωW', u = ρu' and b = αρb', the misfit ‖W^{1/2}(A u + C z − b)‖ is that of the primed problem
times a constant, so that z = (αρ/γ)z' and λ = α²ωλ'; for a quadratic H = ηH', g = ηρg' and λ = ηλ'. Units are powers of
two, which round nothing, and constants, through which autograd carries derivatives; they are one for moderate data.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from pmaf.handover import ForwardResult
from pmaf.linalg.scaling import divided
from pmaf.transforms import cheap

__all__ = ["LeastSquaresUnits", "QuadraticUnits"]

MODERATE = {torch.float32: 2.0**20, torch.float64: 2.0**200}


def size(x: Tensor | None, core: int) -> Tensor | None:
    """The largest entry in magnitude over the last dimensions, ``(*,)``."""
    if x is None:
        return None
    x = x.detach()
    if core == 0:
        return x
    if x.numel() == 0:
        return x.real.new_zeros(x.shape[: x.dim() - core])
    last = tuple(range(-core, 0))
    return x.abs().amax(last) if x.is_complex() else torch.maximum(x.amax(last), -x.amin(last))  # without a copy


def unit(x: Tensor | None) -> Tensor | None:
    """The power of two below a size; one for what is at home in products of squares, and for zero."""
    if x is None:
        return None
    most = MODERATE[x.dtype]
    odd = ((x >= most) | (x * most <= 1)) & (x > 0) & x.isfinite()
    return torch.where(odd, torch.exp2(torch.where(odd, x, 1).log2().floor()), 1)


def moderate(x: Tensor | None) -> bool:
    """Whether a size is known to be positive, and one that a unit does not change."""
    if x is None:
        return True
    if not cheap(x) or x.numel() == 0:
        return x.numel() == 0
    low, high = x.aminmax()
    return 1 / MODERATE[x.dtype] < float(low) and float(high) < MODERATE[x.dtype]


class LeastSquaresUnits(NamedTuple):
    """α, ρ, and ω and γ if there are weights and a free block, ``(*,)``."""

    matrix: Tensor
    radius: Tensor
    weights: Tensor | None
    free: Tensor | None

    @classmethod
    def of(
        cls, A: Tensor, b: Tensor, weights: Tensor | None, C: Tensor | None, radius: Tensor
    ) -> "LeastSquaresUnits | None":
        """The units of a problem; ``None`` if it is moderate as it is."""
        sizes = size(A, 2), size(radius, 0), size(weights, 1), size(C, 2)
        return None if all(map(moderate, sizes)) else cls(*map(unit, sizes))  # type: ignore[arg-type]

    def inwards(
        self, A: Tensor, b: Tensor, weights: Tensor | None, C: Tensor | None, radius: Tensor
    ) -> tuple[Tensor | None, ...]:
        """The problem in these units."""
        return (
            divided(A, self.matrix[..., None, None]),
            divided(divided(b, self.matrix[..., None]), self.radius[..., None]),
            None if weights is None or self.weights is None else weights / self.weights[..., None],
            None if C is None or self.free is None else divided(C, self.free[..., None, None]),
            radius / self.radius,
        )

    def outwards(self, found: ForwardResult) -> ForwardResult:
        """The result, in the units of the data."""
        u, multiplier, *z = found.solution
        if self.free is not None:
            z = [z[0] * (self.matrix / self.free * self.radius)[..., None]]
        weight = 1 if self.weights is None else self.weights
        multiplier, gap = (x * self.matrix * weight * self.matrix for x in (multiplier, found.report.gap))
        solution = (u * self.radius[..., None], multiplier, *z)
        return found._replace(solution=solution, report=found.report._replace(gap=gap))


class QuadraticUnits(NamedTuple):
    """η and ρ, ``(*,)``."""

    matrix: Tensor
    radius: Tensor

    @classmethod
    def of(cls, H: Tensor, g: Tensor, radius: Tensor) -> "QuadraticUnits | None":
        """The units of a problem; ``None`` if it is moderate as it is. For H = 0 those of g count."""
        of_H, of_radius = size(H, 2), size(radius, 0)
        if of_H is not None and not moderate(of_H):
            of_H = torch.where(of_H > 0, of_H, g.detach().abs().amax(-1) / radius.detach())
        sizes = of_H, of_radius
        return None if all(map(moderate, sizes)) else cls(*map(unit, sizes))  # type: ignore[arg-type]

    def inwards(self, H: Tensor, g: Tensor, radius: Tensor) -> tuple[Tensor, ...]:
        """The problem in these units."""
        return (
            divided(H, self.matrix[..., None, None]),
            divided(divided(g, self.matrix[..., None]), self.radius[..., None]),
            radius / self.radius,
        )

    def outwards(self, found: ForwardResult) -> ForwardResult:
        """The result, in the units of the data."""
        u, multiplier = found.solution
        solution = (u * self.radius[..., None], multiplier * self.matrix)
        return found._replace(solution=solution, report=found.report._replace(gap=found.report.gap * self.matrix))
