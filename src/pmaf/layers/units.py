r"""Problems on the sphere in units in which squares stay in the range of the type.

With A = αA', C = γC', W = ωW', u = ρu' and b = αρb', the misfit ‖W^{1/2}(A u + C z − b)‖ is that of the primed problem
times a constant, so that z = (αρ/γ)z' and λ = α²ωλ'; for a quadratic H = ηH', g = ηρg' and λ = ηλ'. Units are powers of
two, which round nothing, and constants, through which autograd carries derivatives; they are one for moderate data.
"""

import torch
from torch import Tensor

from pmaf.handover import ForwardResult
from pmaf.implicit.in_units import InUnits, Units
from pmaf.linalg.scaling import exponent_of
from pmaf.operators.base import Operator
from pmaf.operators.scaled import degree
from pmaf.transforms import cheap

__all__ = ["least_squares_units", "pencil_units", "quadratic_units", "units_of", "with_gap"]

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


def exponent(x: Tensor | None, like: Tensor) -> Tensor:
    """Of the power of two below a size; zero for what is at home in products of squares, for zero and for ``None``."""
    if x is None:
        return torch.zeros_like(like)
    most = MODERATE[x.dtype]
    odd = ((x >= most) | (x * most <= 1)) & (x > 0) & x.isfinite()
    return torch.where(odd, x, 1).log2().floor()


def moderate(x: Tensor | None) -> bool:
    """Whether a size is known to be positive, and one that a unit does not change."""
    if x is None:
        return True
    if not cheap(x) or x.numel() == 0:
        return x.numel() == 0
    low, high = x.aminmax()
    return 1 / MODERATE[x.dtype] < float(low) and float(high) < MODERATE[x.dtype]


# Of α, ρ, ω and γ, for A, b, W, C and r, and for u, λ and z.
LEAST_SQUARES = Units(
    inwards=((1, 0, 0, 0), (1, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1), (0, 1, 0, 0)),
    outwards=((0, 1, 0, 0), (2, 0, 1, 0), (1, 1, 0, -1)),
)
QUADRATIC = Units(inwards=((1, 0), (1, 1), (0, 1)), outwards=((0, 1), (1, 0)))  # of η and ρ, for H, g and r; u and λ


def least_squares_units(
    A: Tensor, b: Tensor, weights: Tensor | None, C: Tensor | None, radius: Tensor
) -> InUnits | None:
    """The units of a problem; ``None`` if it is moderate as it is."""
    sizes = size(A, 2), size(radius, 0), size(weights, 1), size(C, 2)
    if all(map(moderate, sizes)):
        return None
    return InUnits(LEAST_SQUARES, tuple(exponent(x, radius.detach()) for x in sizes))


def quadratic_units(H: Tensor, g: Tensor, radius: Tensor) -> InUnits | None:
    """The units of a problem; ``None`` if it is moderate as it is. For H = 0 those of g count."""
    of_H, of_radius = size(H, 2), size(radius, 0)
    if of_H is not None and not moderate(of_H):
        of_H = torch.where(of_H > 0, of_H, g.detach().abs().amax(-1) / radius.detach())
    sizes = of_H, of_radius
    if all(map(moderate, sizes)):
        return None
    return InUnits(QUADRATIC, tuple(exponent(x, radius.detach()) for x in sizes))


def units_of(X: Operator, exponent: Tensor | None, outwards: tuple[tuple[int, ...], ...]) -> InUnits | None:
    """The units of a problem of one matrix, whose first tensor alone has any.

    Args:
        X: the matrix.
        exponent: of its units, ``(*,)``, or ``None`` if they are one.
        outwards: the powers of these units that those of the parts of the solution are.
    """
    if exponent is None:
        return None
    return InUnits(Units(((1,), *[(0,)] * (len(X.tensors) - 1)), outwards), (exponent,))


def pencil_units(X: Operator, exponent: Tensor | None, B: Tensor) -> InUnits | None:
    """Those of X u = λ B u with B = 4ᵝ B', so that u = 2⁻ᵝ u' and λ = 4⁻ᵝ λ'.

    Args:
        X: a matrix, whose first tensor alone has units.
        exponent: of these, ``(*,)``, or ``None`` if they are one.
        B: the metric.
    """
    of_B = exponent_of(B, (-2, -1), 30)
    if exponent is None and of_B is None:
        return None
    first = torch.zeros_like(B.detach()[..., 0, 0].real) if exponent is None else exponent
    second = torch.zeros_like(first) if of_B is None else (of_B / 2).floor()
    rows = (1, 0), *[(0, 0)] * (len(X.tensors) - 1), (0, 2)
    return InUnits(Units(rows, ((0, -1), (degree(X), -2))), (first, second))


def with_gap(found: ForwardResult, units: InUnits | None) -> ForwardResult:
    """The result with its gap in the units of the data, which are those of λ."""
    if units is None:
        return found
    return found._replace(report=found.report._replace(gap=units.value(found.report.gap, 1)))
