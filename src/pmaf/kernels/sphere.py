"""Least squares and quadratics on the sphere, and their gradients: one typed function for each kernel.

Inputs are batched along the first dimension, which may be 1 where another input's is larger. Sizes, dtypes and devices
are the caller's to check; what is not contiguous is copied.
"""

import ctypes
from typing import NamedTuple

import torch
from torch import Tensor

from pmaf.kernels.loader import kernels
from pmaf.kernels.memory import in_memory
from pmaf.kernels.real_form import complex_matrix, complex_vector, real_matrix, real_vector

__all__ = [
    "INACCURATE",
    "INSIDE",
    "NOT_FINITE",
    "NOT_UNIQUE",
    "REPEATED",
    "SINGULAR",
    "SphereFound",
    "SphereGradients",
    "least_squares_on_sphere",
    "least_squares_on_sphere_gradient",
    "quadratic_on_sphere",
    "quadratic_on_sphere_gradient",
]

NOT_FINITE, NOT_UNIQUE, INACCURATE, INSIDE, REPEATED = 1, 2, 4, 8, 16  # codes of an item, as in sphere_calls.h
NO_MEMORY, SINGULAR = 32, 64
TYPES = {torch.float32: 0, torch.float64: 1, torch.complex64: 2, torch.complex128: 3}
EXTRAS, MOST_WIDENED = 4, 96  # as in sphere_basis.h and sphere.cpp
MOST_COMPLEX = 40  # as in complex_equations.h; beyond, the real form of twice the size

INTEGER, POINTER, REAL = ctypes.c_int64, ctypes.c_void_p, ctypes.c_double


def fields(*kinds: tuple[type, str]) -> list[tuple[str, type]]:
    """The fields of a C structure, several names to a type."""
    return [(name, kind) for kind, names in kinds for name in names.split()]


class SphereCall(ctypes.Structure):
    """As in sphere_calls.h."""

    _fields_ = fields(
        (ctypes.c_int, "type"),
        (INTEGER, "batch m n"),
        (POINTER, "A b weights radius"),
        (INTEGER, "A_stride b_stride weights_stride radius_stride"),
        (ctypes.c_int, "ball threads"),
        (REAL, "rtol atol"),
        (POINTER, "u multiplier gap norm residual steps code factor"),
    )


class SphereGradientCall(ctypes.Structure):
    """As in sphere_calls.h."""

    _fields_ = fields(
        (ctypes.c_int, "type"),
        (INTEGER, "batch m n"),
        (POINTER, "A b weights radius"),
        (INTEGER, "A_stride b_stride weights_stride radius_stride"),
        (ctypes.c_int, "threads"),
        (POINTER, "u factor code vector_cotangent multiplier_cotangent w mu"),
        (POINTER, "A_gradient b_gradient weights_gradient radius_gradient"),
    )


class SphereFound(NamedTuple):
    """What the forward kernels find, for each item."""

    u: Tensor  # (B, n)
    multiplier: Tensor  # (B,)
    gap: Tensor  # (B,) λ + λ_min(Q)
    norm: Tensor  # (B,) ‖Q‖
    residual: Tensor  # (B,) measured on the data, relative to (‖Q‖ + |λ|)‖u‖; inside the ball to that + ‖A‖‖b − A u‖
    steps: Tensor  # (B,) int32
    code: Tensor  # (B,) int32
    factor: Tensor | None  # (B, factor size), for the backward kernels
    seen: int  # all codes or-ed


class SphereGradients(NamedTuple):
    """What the backward kernels find; ``None`` where it was not asked for."""

    w: Tensor | None  # (B, n)
    mu: Tensor | None  # (B,)
    matrix: Tensor | None  # Ā, (B, m, n), or H̄, (B, n, n)
    right: Tensor | None  # b̄, (B, m), or ḡ, (B, n)
    weights: Tensor | None  # (B, m)
    radius: Tensor | None  # (B,)


def factor_size(n: int, parts: int = 1) -> int:
    """How many real numbers the factor of an item takes whose unknowns have this many parts."""
    return parts * (n * (n + 1) // 2 + 2 * n) + EXTRAS


def parts_of(x: Tensor) -> int:
    """How many real numbers one of these is."""
    return 1 + x.is_complex()


def pointer(x: Tensor | None) -> int | None:
    """Where the numbers of a contiguous tensor lie."""
    return None if x is None else x.data_ptr()


def stride(x: Tensor | None) -> int:
    """How many real numbers items lie apart: 0 where one item serves all."""
    return 0 if x is None or x.shape[0] == 1 else x.stride(0) * parts_of(x)


def inputs(call: SphereCall | SphereGradientCall, quadratic: bool, *tensors: Tensor | None) -> list[Tensor | None]:
    """Enter the matrix, the right-hand side, weights and radius into a call; what has to live as long as it does."""
    held = [None if x is None else in_memory(x) for x in tensors]
    A, b, _, radius = held
    assert A is not None
    assert b is not None
    assert radius is not None
    call.type = TYPES[A.dtype]
    call.batch = max(x.shape[0] for x in held if x is not None)
    call.m, call.n = (-1 if quadratic else A.shape[-2]), A.shape[-1]
    call.A, call.b, call.weights, call.radius = map(pointer, held)
    call.A_stride, call.b_stride, call.weights_stride, call.radius_stride = map(stride, held)
    call.threads = torch.get_num_threads()
    return held


def forward(
    quadratic: bool,
    A: Tensor,
    b: Tensor,
    weights: Tensor | None,
    radius: Tensor,
    ball: bool,
    rtol: float,
    atol: float,
    keep: bool,
) -> SphereFound:
    """Call the forward kernel.

    Raises:
        RuntimeError: if there are no compiled kernels.
        MemoryError: if the kernel found no memory.
    """
    loaded = kernels()
    if loaded is None:
        raise RuntimeError("pmaf.kernels.sphere: there are no compiled kernels; see pmaf.kernels.reason()")
    if A.is_complex() and A.shape[-1] > MOST_COMPLEX:
        # In the hard case the phase is not that of the real form: left to another solver.
        twice = None if weights is None else torch.cat((weights, weights), -1)
        found = forward(quadratic, real_matrix(A), real_vector(b), twice, radius, ball, rtol, atol, keep)
        code = torch.where((found.code & NOT_UNIQUE) != 0, found.code | INACCURATE, found.code)
        seen = found.seen | (INACCURATE if found.seen & NOT_UNIQUE else 0)
        return found._replace(u=complex_vector(found.u), code=code, seen=seen)
    call = SphereCall()
    held = inputs(call, quadratic, A, b, weights, radius)
    call.ball, call.rtol, call.atol = ball, rtol, atol
    B, n = call.batch, call.n
    u = A.new_empty(B, n)
    multiplier, gap, norm, residual = (radius.new_empty(B) for _ in range(4))
    steps, code = (torch.empty(B, dtype=torch.int32) for _ in range(2))
    kind = torch.float64 if n <= MOST_WIDENED else A.dtype
    factor = torch.empty(B, factor_size(n, parts_of(A)), dtype=kind) if keep else None
    call.u, call.multiplier, call.gap, call.norm, call.residual = map(pointer, (u, multiplier, gap, norm, residual))
    call.steps, call.code, call.factor = map(pointer, (steps, code, factor))
    seen = loaded.library.pmaf_sphere(loaded.isa, ctypes.byref(call))
    del held
    if seen & NO_MEMORY:
        raise MemoryError(f"pmaf.kernels.sphere: no memory to work on {n} unknowns; use another solver")
    return SphereFound(u, multiplier, gap, norm, residual, steps, code, factor, seen)


def least_squares_on_sphere(
    A: Tensor,
    b: Tensor,
    radius: Tensor,
    weights: Tensor | None = None,
    *,
    ball: bool = False,
    rtol: float,
    atol: float = 0.0,
    keep_factor: bool = True,
) -> SphereFound:
    """Minimise ½‖A u − b‖² on the sphere or in the ball.

    Args:
        A: ``(B, m, n)``, real or complex, on the CPU.
        b: ``(B, m)``.
        radius: ``(B,)``.
        weights: ``(B, m)`` or ``None``.
        ball: whether the inside counts as well.
        rtol: relative tolerance of what counts as zero.
        atol: absolute tolerance.
        keep_factor: whether to leave what the backward kernel needs.

    Returns:
        The minimiser and what is known of it.
    """
    return forward(False, A, b, weights, radius, ball, rtol, atol, keep_factor)


def quadratic_on_sphere(
    H: Tensor,
    g: Tensor,
    radius: Tensor,
    *,
    ball: bool = False,
    rtol: float,
    atol: float = 0.0,
    keep_factor: bool = True,
) -> SphereFound:
    """Minimise ½uᵀHu − gᵀu on the sphere or in the ball; H is read as (H + Hᴴ)/2.

    Args:
        H: ``(B, n, n)``, real or complex, on the CPU.
        g: ``(B, n)``.
        radius: ``(B,)``.
        ball: whether the inside counts as well.
        rtol: relative tolerance of what counts as zero.
        atol: absolute tolerance.
        keep_factor: whether to leave what the backward kernel needs.

    Returns:
        The minimiser and what is known of it.
    """
    return forward(True, H, g, None, radius, ball, rtol, atol, keep_factor)


def backward(
    quadratic: bool,
    A: Tensor,
    b: Tensor,
    weights: Tensor | None,
    radius: Tensor,
    found: tuple[Tensor, Tensor, Tensor],
    cotangents: tuple[Tensor | None, Tensor | None],
    needs: tuple[bool, bool, bool, bool],
    solution: bool,
) -> SphereGradients:
    """Call the backward kernel.

    Raises:
        RuntimeError: if there are no compiled kernels.
        MemoryError: if the kernel found no memory.
    """
    loaded = kernels()
    if loaded is None:
        raise RuntimeError("pmaf.kernels.sphere: there are no compiled kernels; see pmaf.kernels.reason()")
    if A.is_complex() and A.shape[-1] > MOST_COMPLEX:
        twice = None if weights is None else torch.cat((weights, weights), -1)
        vector, along = cotangents
        point = (real_vector(found[0]), *found[1:])
        incoming = (None if vector is None else real_vector(vector), along)
        data = (real_matrix(A), real_vector(b), twice, radius)
        w, mu, matrix, right, weight, radial = backward(quadratic, *data, point, incoming, needs, solution)
        return SphereGradients(
            None if w is None else complex_vector(w),
            mu,
            None if matrix is None else complex_matrix(matrix),
            None if right is None else complex_vector(right),
            None if weight is None else weight[:, : weight.shape[1] // 2] + weight[:, weight.shape[1] // 2 :],
            radial,
        )
    call = SphereGradientCall()
    held = inputs(call, quadratic, A, b, weights, radius)
    u, factor, code = (in_memory(x) for x in found)
    vector, multiplier = (None if x is None else in_memory(x) for x in cotangents)
    B, n = call.batch, call.n
    m = n if quadratic else call.m
    w = A.new_empty(B, n) if solution else None
    mu = radius.new_empty(B) if solution else None
    matrix = A.new_empty(B, m, n) if needs[0] else None
    right = A.new_empty(B, m) if needs[1] else None
    weight = radius.new_empty(B, m) if needs[2] else None
    radial = radius.new_empty(B) if needs[3] else None
    call.u, call.factor, call.code = map(pointer, (u, factor, code))
    call.vector_cotangent, call.multiplier_cotangent = pointer(vector), pointer(multiplier)
    call.w, call.mu = pointer(w), pointer(mu)
    call.A_gradient, call.b_gradient = pointer(matrix), pointer(right)
    call.weights_gradient, call.radius_gradient = pointer(weight), pointer(radial)
    seen = loaded.library.pmaf_sphere_gradient(loaded.isa, ctypes.byref(call))
    del held
    if seen & NO_MEMORY:
        raise MemoryError(f"pmaf.kernels.sphere: no memory to work on {n} unknowns; use another solver")
    return SphereGradients(w, mu, matrix, right, weight, radial)


def least_squares_on_sphere_gradient(
    A: Tensor,
    b: Tensor,
    radius: Tensor,
    weights: Tensor | None,
    u: Tensor,
    factor: Tensor,
    code: Tensor,
    *,
    vector: Tensor | None,
    multiplier: Tensor | None,
    needs: tuple[bool, bool, bool, bool] = (True, True, False, False),
    solution: bool = False,
) -> SphereGradients:
    """Pull cotangents of u and λ back to A, b, weights and radius, or solve the bordered system alone.

    Args:
        A: as in the forward call.
        b: as in the forward call.
        radius: as in the forward call.
        weights: as in the forward call.
        u: what the forward call found, ``(B, n)``.
        factor: what it left.
        code: its codes.
        vector: the cotangent of u, ``(B, n)``; ``None`` for zero.
        multiplier: the cotangent of λ, ``(B,)``; ``None`` for zero.
        needs: which gradients are wanted: of A, b, weights, radius; one item for each item of the batch.
        solution: whether w and μ are wanted.

    Returns:
        What was asked for.
    """
    return backward(False, A, b, weights, radius, (u, factor, code), (vector, multiplier), needs, solution)


def quadratic_on_sphere_gradient(
    H: Tensor,
    g: Tensor,
    radius: Tensor,
    u: Tensor,
    factor: Tensor,
    code: Tensor,
    *,
    vector: Tensor | None,
    multiplier: Tensor | None,
    needs: tuple[bool, bool, bool] = (True, True, False),
    solution: bool = False,
) -> SphereGradients:
    """Pull cotangents of u and λ back to H, g and radius, or solve the bordered system alone.

    Args:
        H: as in the forward call.
        g: as in the forward call.
        radius: as in the forward call.
        u: what the forward call found, ``(B, n)``.
        factor: what it left.
        code: its codes.
        vector: the cotangent of u, ``(B, n)``; ``None`` for zero.
        multiplier: the cotangent of λ, ``(B,)``; ``None`` for zero.
        needs: which gradients are wanted: of H (symmetric), g, radius; one item for each item of the batch.
        solution: whether w and μ are wanted.

    Returns:
        What was asked for.
    """
    wanted = (needs[0], needs[1], False, needs[2])
    return backward(True, H, g, None, radius, (u, factor, code), (vector, multiplier), wanted, solution)
