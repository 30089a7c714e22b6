"""Least squares and quadratics on the sphere, or in the ball.

Inputs are batched along the first dimension, which may be 1 where another input's is larger. Sizes, dtypes and devices
are the caller's to check; what is not contiguous is copied.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from pmaf.kernels.calls import TYPES, CompiledFunction, in_memory, stride
from pmaf.kernels.real_form import complex_vector, real_problem

__all__ = ["INACCURATE", "INSIDE", "NOT_FINITE", "NOT_UNIQUE", "REPEATED", "SINGULAR", "SphereFound", "sphere_minimum"]

NOT_FINITE, NOT_UNIQUE, INACCURATE, INSIDE, REPEATED, SINGULAR = 1, 2, 4, 8, 16, 64  # codes, as in sphere_calls.h
EXTRAS, MOST_WIDENED = 4, 96  # as in sphere_basis.h and sphere.cpp
# What the structures of both kernels begin with.
DATA = "i type, q batch m n, P A b weights radius, q A_stride b_stride weights_stride radius_stride"
SPHERE = CompiledFunction(
    "sphere", f"{DATA}, i ball threads, d rtol atol, P u multiplier gap norm residual steps code factor"
)


class SphereFound(NamedTuple):
    """What the kernel finds, for each item."""

    u: Tensor  # (B, n)
    multiplier: Tensor  # (B,)
    gap: Tensor  # (B,) λ + λ_min(Q)
    norm: Tensor  # (B,) ‖Q‖
    residual: Tensor  # (B,) measured on the data, relative to (‖Q‖ + |λ|)‖u‖; inside the ball to that + ‖A‖‖b − A u‖
    steps: Tensor  # (B,) int32
    code: Tensor  # (B,) int32
    factor: Tensor | None  # (B, factor size), for the gradient
    seen: int  # all codes or-ed


def factor_size(n: int) -> int:
    """How many numbers the factor of an item takes."""
    return n * (n + 1) // 2 + 2 * n + EXTRAS


def data_fields(quadratic: bool, A: Tensor, b: Tensor, radius: Tensor, weights: Tensor | None) -> tuple[Any, ...]:
    """The values of ``DATA``."""
    A, b, radius = in_memory(A), in_memory(b), in_memory(radius)
    weights = None if weights is None else in_memory(weights)
    batch = max(A.shape[0], b.shape[0], radius.shape[0], 0 if weights is None else weights.shape[0])
    m, n = A.shape[-2:]
    return (
        *(TYPES[A.dtype], batch, -1 if quadratic else m, n, A, b, weights, radius),
        *(stride(A), stride(b), stride(weights), stride(radius)),
    )


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
) -> SphereFound:
    """Minimise ½‖A u − b‖², or the quadratic ½uᵀAu − bᵀu, on the sphere or in the ball.

    Args:
        A: ``(B, m, n)``, real or complex, on the CPU; that of a quadratic is read as (A + Aᴴ)/2.
        b: ``(B, m)``.
        radius: ``(B,)``.
        weights: ``(B, m)`` or ``None``; of a quadratic ``None``.
        quadratic: which of the two.
        ball: whether the inside counts as well.
        rtol: relative tolerance of what counts as zero.
        atol: absolute tolerance.
        keep_factor: whether to leave what the gradient needs.

    Returns:
        The minimiser and what is known of it.
    """
    if A.is_complex():  # in the hard case the phase is not that of the real form: left to another solver
        real = real_problem(A, b, radius, weights)
        found = sphere_minimum(*real, quadratic=quadratic, ball=ball, rtol=rtol, atol=atol, keep_factor=keep_factor)
        code = torch.where((found.code & NOT_UNIQUE) != 0, found.code | INACCURATE, found.code)
        seen = found.seen | (INACCURATE if found.seen & NOT_UNIQUE else 0)
        return found._replace(u=complex_vector(found.u), code=code, seen=seen)
    data = data_fields(quadratic, A, b, radius, weights)
    B, n = data[1], data[3]
    u = A.new_empty(B, n)
    multiplier, gap, norm, residual = A.new_empty(B), A.new_empty(B), A.new_empty(B), A.new_empty(B)
    steps, code = torch.empty(B, dtype=torch.int32), torch.empty(B, dtype=torch.int32)
    kind = torch.float64 if n <= MOST_WIDENED else A.dtype
    factor = torch.empty(B, factor_size(n), dtype=kind) if keep_factor else None
    answer = u, multiplier, gap, norm, residual, steps, code, factor
    seen = SPHERE(*data, ball, torch.get_num_threads(), rtol, atol, *answer)
    return SphereFound(*answer, seen)
