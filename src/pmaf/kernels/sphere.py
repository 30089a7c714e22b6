"""Least squares and quadratics on the sphere, or in the ball.

Leading dimensions are batch dimensions: those of every input are the batch, or one item that serves all. Sizes, dtypes
and devices are the caller's to check; what is not contiguous is copied.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from pmaf.kernels.calls import TYPES, CompiledFunction, in_memory

__all__ = ["INACCURATE", "INSIDE", "NOT_FINITE", "NOT_UNIQUE", "REPEATED", "SINGULAR", "SphereFound", "sphere_minimum"]

NOT_FINITE, NOT_UNIQUE, INACCURATE, INSIDE, REPEATED, SINGULAR = 1, 2, 4, 8, 16, 64  # codes, as in sphere_calls.h
EXTRAS, MOST_WIDENED, MOST_COMPLEX = 4, 96, 128  # as in sphere_basis.h, sphere.cpp and complex_equations.h
# What the structures of both kernels begin with.
DATA = "i type, q batch m n, P A b weights radius, q A_stride b_stride weights_stride radius_stride"
SPHERE = CompiledFunction(
    "sphere", f"{DATA}, i ball threads, d rtol atol, P u multiplier gap norm residual steps code factor"
)


class SphereFound(NamedTuple):
    """What the kernel finds, for each item."""

    u: Tensor  # (*, n)
    multiplier: Tensor  # (*,)
    gap: Tensor  # (*,) λ + λ_min(Q)
    norm: Tensor  # (*,) ‖Q‖
    residual: Tensor  # (*,) measured on the data, relative to (‖Q‖ + |λ|)‖u‖; inside the ball to that + ‖A‖‖b − A u‖
    steps: Tensor  # (*,) int32
    code: Tensor  # (*,) int32
    factor: Tensor | None  # (*, factor size), for the gradient
    seen: int  # all codes or-ed


def factor_size(n: int, parts: int = 1) -> int:
    """How many real numbers the factor of an item takes whose unknowns have this many parts."""
    return parts * (n * (n + 1) // 2 + 2 * n) + EXTRAS


def batch_of(A: Tensor, b: Tensor, radius: Tensor, weights: Tensor | None) -> torch.Size:
    """The batch that all have, or share one item of."""
    shapes = [A.shape[:-2], b.shape[:-1], radius.shape, *([] if weights is None else [weights.shape[:-1]])]
    empty = [shape for shape in shapes if shape.numel() == 0]
    return empty[0] if empty else max(shapes, key=lambda shape: (shape.numel(), len(shape)))


def data_fields(
    quadratic: bool, batch: torch.Size, A: Tensor, b: Tensor, radius: Tensor, weights: Tensor | None
) -> tuple[Any, ...]:
    """The values of ``DATA``; strides are those of real numbers, and 0 where one item serves all."""
    A, b, radius = in_memory(A), in_memory(b), in_memory(radius)
    weights = None if weights is None else in_memory(weights)
    m, n = A.shape[-2:]
    parts = 2 if A.is_complex() else 1
    strides = (
        0 if A.numel() == m * n else m * n * parts,
        0 if b.numel() == m else m * parts,
        0 if weights is None or weights.numel() == m else m,
        0 if radius.numel() == 1 else 1,
    )
    return TYPES[A.dtype], batch.numel(), -1 if quadratic else m, n, A, b, weights, radius, *strides


def sphere_minimum(
    A: Tensor,
    b: Tensor,
    radius: Tensor,
    weights: Tensor | None = None,
    *,
    quadratic: bool = False,
    ball: bool = False,
    rtol: float,
    atol: float = 0.0,
    keep_factor: bool = True,
    batch: torch.Size | None = None,
) -> SphereFound:
    """Minimise ½‖A u − b‖², or the quadratic ½uᵀAu − bᵀu, on the sphere or in the ball.

    Args:
        A: ``(*, m, n)``, real or complex with n ≤ 128, on the CPU; that of a quadratic is read as (A + Aᴴ)/2.
        b: ``(*, m)``.
        radius: ``(*,)``, real.
        weights: ``(*, m)``, real, or ``None``; of a quadratic ``None``.
        quadratic: which of the two.
        ball: whether the inside counts as well.
        rtol: relative tolerance of what counts as zero.
        atol: absolute tolerance.
        keep_factor: whether to leave what the gradient needs.
        batch: the batch, where it is known.

    Returns:
        The minimiser and what is known of it.
    """
    batch = batch_of(A, b, radius, weights) if batch is None else batch
    data, n = data_fields(quadratic, batch, A, b, radius, weights), A.shape[-1]
    real = radius.dtype
    u = torch.empty((*batch, n), dtype=A.dtype)
    multiplier, gap, norm, residual = [torch.empty(batch, dtype=real) for _ in range(4)]
    steps, code = torch.empty(batch, dtype=torch.int32), torch.empty(batch, dtype=torch.int32)
    kind, size = (
        torch.float64 if n <= MOST_WIDENED or A.is_complex() else real,
        factor_size(n, 2 if A.is_complex() else 1),
    )
    factor = torch.empty((*batch, size), dtype=kind) if keep_factor else None
    answer = u, multiplier, gap, norm, residual, steps, code, factor
    seen = SPHERE(*data, ball, torch.get_num_threads(), rtol, atol, *answer)
    return SphereFound(*answer, seen)
