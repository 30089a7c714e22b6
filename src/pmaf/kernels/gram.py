"""Leading eigenpairs of X = FᵀF from the factor F, without forming X, and their gradients."""

import ctypes
from typing import NamedTuple

import torch
from torch import Tensor

from pmaf.kernels.loader import kernels
from pmaf.kernels.memory import in_memory
from pmaf.kernels.sphere import INTEGER, POINTER, REAL, TYPES, fields, pointer, stride

__all__ = ["MOST_COLUMNS", "GramFound", "gram_eigenpairs", "gram_gradient", "gram_outer", "gram_product"]

MOST_COLUMNS = 256  # as in gram.h; up to about 32 the kernel wins


class GramCall(ctypes.Structure):
    """As in gram_calls.h."""

    _fields_ = fields(
        (ctypes.c_int, "type"),
        (INTEGER, "batch m n k"),
        (ctypes.c_int, "largest threads"),
        (POINTER, "F weights reference"),
        (INTEGER, "F_stride weights_stride reference_stride reference_columns"),
        (POINTER, "values vectors next norm residual code factor"),
    )


class GramGradientCall(ctypes.Structure):
    """As in gram_calls.h."""

    _fields_ = fields(
        (ctypes.c_int, "type"),
        (INTEGER, "batch m n k"),
        (ctypes.c_int, "threads"),
        (POINTER, "F weights"),
        (INTEGER, "F_stride weights_stride"),
        (POINTER, "factor code vectors vectors_cotangent values_cotangent"),
        (REAL, "rtol"),
        (POINTER, "W F_gradient weights_gradient"),
    )


class GramProductCall(ctypes.Structure):
    """As in gram_calls.h."""

    _fields_ = fields((ctypes.c_int, "type"), (INTEGER, "batch m n"), (ctypes.c_int, "threads"), (POINTER, "F X"))


class GramOuterCall(ctypes.Structure):
    """As in gram_calls.h."""

    _fields_ = fields(
        (ctypes.c_int, "type"),
        (INTEGER, "batch m n k"),
        (ctypes.c_int, "threads"),
        (POINTER, "F U W code F_gradient"),
    )


class GramFound(NamedTuple):
    """What the kernel finds; eigenvalues are the squares of the singular values."""

    singular_values: Tensor  # (B, k)
    vectors: Tensor  # (B, n, k)
    next: Tensor  # (B,) the singular value after the selected ones, NaN where k = n
    norm: Tensor  # (B,) the largest singular value
    residual: Tensor  # (B,) the largest ‖Fᵀ(F u) − σ²u‖, measured on F, relative to norm²
    code: Tensor  # (B,) int32: 1 not finite, 4 inaccurate
    factor: Tensor | None  # (B, n² + n + 1), float64, for the gradient
    seen: int  # all codes or-ed together


def gram_eigenpairs(
    F: Tensor,
    k: int = 1,
    weights: Tensor | None = None,
    *,
    largest: bool = True,
    reference: Tensor | None = None,
    keep_factor: bool = True,
) -> GramFound:
    """The k leading eigenpairs of Fᵀ diag(w) F.

    O(mn² + n³) for an item, in double precision; the n³ is that of Jacobi's method, about 20 n³.

    Args:
        F: ``(B, m, n)``, float32 or float64, on the CPU, n ≤ 256.
        k: how many, 1 ≤ k ≤ n.
        weights: ``(B or 1, m)``, non-negative, or ``None``.
        largest: the largest, in descending order, or the smallest, in ascending order.
        reference: what decides signs, ``(B or 1, n, 1 or k)``; all ones if ``None``.
        keep_factor: whether to leave what the gradient needs.

    Returns:
        The answer.

    Raises:
        RuntimeError: if there are no compiled kernels.
        MemoryError: if the kernel found no memory.
    """
    loaded = kernels()
    if loaded is None:
        raise RuntimeError("pmaf.kernels.gram_eigenpairs: there are no compiled kernels; see pmaf.kernels.reason()")
    F = in_memory(F)
    weights = None if weights is None else in_memory(weights)
    reference = None if reference is None else in_memory(reference.to(F.dtype))
    B, m, n = F.shape
    real = F.dtype
    values, vectors = torch.empty(B, k, dtype=real), torch.empty(B, n, k, dtype=real)
    following, norm, residual = (torch.empty(B, dtype=real) for _ in range(3))
    code = torch.empty(B, dtype=torch.int32)
    factor = torch.empty(B, n * n + n + 1, dtype=torch.float64) if keep_factor else None
    call = GramCall(type=TYPES[real], batch=B, m=m, n=n, k=k, largest=largest, threads=torch.get_num_threads())
    call.F, call.weights, call.reference = map(pointer, (F, weights, reference))
    call.F_stride, call.weights_stride, call.reference_stride = map(stride, (F, weights, reference))
    call.reference_columns = 1 if reference is None else reference.shape[-1]
    call.values, call.vectors, call.next, call.norm = map(pointer, (values, vectors, following, norm))
    call.residual, call.code, call.factor = map(pointer, (residual, code, factor))
    seen = loaded.library.pmaf_gram(loaded.isa, ctypes.byref(call))
    if seen & 32:
        raise MemoryError(f"pmaf.kernels.gram_eigenpairs: no memory to work on {m}×{n} factors; use another solver")
    return GramFound(values, vectors, following, norm, residual, code, factor, seen)


def gram_gradient(
    F: Tensor,
    found: GramFound,
    vectors: Tensor | None,
    values: Tensor | None = None,
    weights: Tensor | None = None,
    *,
    rtol: float = 0.0,
    needs: tuple[bool, bool] = (True, False),
    solution: bool = False,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """F̄ = diag(w)((FU)Wᵀ + (FW)Uᵀ) and w̄, with wᵢ = (λᵢI − X)⁺hᵢ + λ̄ᵢuᵢ; zero for items without an answer.

    Args:
        F: what :func:`gram_eigenpairs` was given.
        found: what it returned.
        vectors: the cotangent h of the vectors, ``(B, n, k)``, or ``None`` for zero.
        values: that of the eigenvalues σ², ``(B, k)``, or ``None`` for zero.
        weights: as before.
        rtol: components along vectors whose singular value is within rtol·‖F‖ are left out.
        needs: whether the gradients of F and of the weights are wanted.
        solution: whether the part (λᵢI − X)⁺hᵢ is wanted, ``(B, n, k)``.

    Returns:
        F̄, w̄ and that part; ``None`` where it was not asked for.

    Raises:
        RuntimeError: if there are no compiled kernels.
        MemoryError: if the kernel found no memory.
    """
    loaded = kernels()
    if loaded is None:
        raise RuntimeError("pmaf.kernels.gram_gradient: there are no compiled kernels; see pmaf.kernels.reason()")
    assert found.factor is not None
    held = [None if x is None else in_memory(x) for x in (F, weights, found.vectors, vectors, values)]
    B, m, n = F.shape
    k = found.vectors.shape[-1]
    F_gradient = F.new_empty(B, m, n) if needs[0] else None
    weights_gradient = F.new_empty(B, m) if needs[1] else None
    W = F.new_empty(B, n, k) if solution else None
    call = GramGradientCall(type=TYPES[F.dtype], batch=B, m=m, n=n, k=k, threads=torch.get_num_threads(), rtol=rtol)
    call.F, call.weights, call.vectors, call.vectors_cotangent, call.values_cotangent = map(pointer, held)
    call.F_stride, call.weights_stride = map(stride, held[:2])
    call.factor, call.code = map(pointer, (found.factor, found.code))
    call.W, call.F_gradient, call.weights_gradient = map(pointer, (W, F_gradient, weights_gradient))
    if loaded.library.pmaf_gram_gradient(loaded.isa, ctypes.byref(call)) & 32:
        raise MemoryError("pmaf.kernels.gram_gradient: no memory to work on; use another solver")
    return F_gradient, weights_gradient, W


def gram_product(F: Tensor) -> Tensor:
    """FᴴF in double precision, an item with the same bits whatever its neighbours.

    Args:
        F: ``(B, m, n)``, on the CPU; n ≤ 128 if it is complex.

    Returns:
        ``(B, n, n)``, float64 or complex128.

    Raises:
        RuntimeError: if there are no compiled kernels.
        MemoryError: if the kernel found no memory.
    """
    loaded = kernels()
    if loaded is None:
        raise RuntimeError("pmaf.kernels.gram_product: there are no compiled kernels; see pmaf.kernels.reason()")
    F = in_memory(F)
    B, m, n = F.shape
    X = torch.empty(B, n, n, dtype=torch.complex128 if F.is_complex() else torch.float64)
    call = GramProductCall(type=TYPES[F.dtype], batch=B, m=m, n=n, threads=torch.get_num_threads())
    call.F, call.X = pointer(F), pointer(X)
    if loaded.library.pmaf_gram_product(loaded.isa, ctypes.byref(call)) & 32:
        raise MemoryError("pmaf.kernels.gram_product: no memory to work on; use another solver")
    return X


def gram_outer(F: Tensor, U: Tensor, W: Tensor, code: Tensor) -> Tensor:
    """(FU)Wᴴ + (FW)Uᴴ, zero for items with a code.

    Args:
        F: ``(B, m, n)``, on the CPU; n ≤ 128 if it is complex.
        U: ``(B, n, k)``, in double precision.
        W: likewise.
        code: ``(B,)``, int32.

    Returns:
        ``(B, m, n)``, like F.

    Raises:
        RuntimeError: if there are no compiled kernels.
        MemoryError: if the kernel found no memory.
    """
    loaded = kernels()
    if loaded is None:
        raise RuntimeError("pmaf.kernels.gram_outer: there are no compiled kernels; see pmaf.kernels.reason()")
    F, U, W = in_memory(F), in_memory(U), in_memory(W)
    (B, m, n), k = F.shape, U.shape[-1]
    gradient = torch.empty_like(F)
    call = GramOuterCall(type=TYPES[F.dtype], batch=B, m=m, n=n, k=k, threads=torch.get_num_threads())
    call.F, call.U, call.W, call.code, call.F_gradient = map(pointer, (F, U, W, code, gradient))
    if loaded.library.pmaf_gram_outer(loaded.isa, ctypes.byref(call)) & 32:
        raise MemoryError("pmaf.kernels.gram_outer: no memory to work on; use another solver")
    return gradient
