"""Batches of small generalised eigenproblems brought to standard form."""

import ctypes
from typing import NamedTuple

import torch
from torch import Tensor

from pmaf.kernels.eigenpairs import NO_MEMORY, TYPES
from pmaf.kernels.loader import kernels
from pmaf.kernels.memory import in_memory

__all__ = ["Reduced", "reduction"]


class Reduced(NamedTuple):
    """What the kernel makes of X u = λ B u."""

    X: Tensor  # (*, n, n) L⁻¹XL⁻ᴴ
    L: Tensor  # (*, n, n) lower triangular, in columns, with B = L Lᴴ
    code: Tensor  # (*,) int32, not zero where B is not positive definite to working precision, or X or B not Hermitian
    seen: int  # all codes or-ed together


class ReductionCall(ctypes.Structure):
    """The struct of ``generalised_calls.h``."""

    _fields_ = [
        ("type", ctypes.c_int),
        ("batch", ctypes.c_int64),
        ("n", ctypes.c_int64),
        ("threads", ctypes.c_int),
        ("allowed", ctypes.c_double),
        ("X", ctypes.c_void_p),
        ("B", ctypes.c_void_p),
        ("reduced", ctypes.c_void_p),
        ("factor", ctypes.c_void_p),
        ("code", ctypes.c_void_p),
    ]


def reduction(X: Tensor, B: Tensor, *, allowed: float = 1e-3, threads: int | None = None) -> Reduced:
    """R = L⁻¹XL⁻ᴴ with B = L Lᴴ, so that R v = λv and X u = λBu with v = Lᴴu are the same.

    Of both matrices the Hermitian parts count. B is first scaled to a diagonal near one by powers of two. O(n³) for an
    item, whose answer does not depend on the others, nor on the threads.

    Args:
        X: ``(*, n, n)``, float32, float64, complex64 or complex128, on the CPU.
        B: the same.
        allowed: how far entries may be from their mirror images, relative to the largest of their matrix.
        threads: at most so many; ``torch.get_num_threads()`` if ``None``.

    Returns:
        The reduced problem.

    Raises:
        RuntimeError: if there are no compiled kernels.
        MemoryError: if the kernel found no memory.
    """
    found = kernels()
    if found is None:
        raise RuntimeError("pmaf.kernels.reduction: there are no compiled kernels; see pmaf.kernels.reason()")
    X, B = in_memory(X), in_memory(B)
    batch, n = X.shape[:-2], X.shape[-1]
    reduced, factor, code = torch.empty_like(X), torch.empty_like(X), torch.empty(batch, dtype=torch.int32)
    call = ReductionCall(
        *(TYPES[X.dtype], batch.numel(), n, torch.get_num_threads() if threads is None else threads, allowed),
        *(x.data_ptr() for x in (X, B, reduced, factor, code)),
    )
    seen = found.library.pmaf_reduction(found.isa, ctypes.byref(call))
    if seen & NO_MEMORY:
        raise MemoryError(f"pmaf.kernels.reduction: no memory to work on {n}×{n} matrices; use another solver")
    return Reduced(reduced, factor.mT, code, seen)
