"""Batches of small generalised eigenproblems brought to standard form."""

from typing import NamedTuple

import torch
from torch import Tensor

from pmaf.kernels.calls import TYPES, CompiledFunction, in_memory

__all__ = ["Reduced", "reduction"]

REDUCTION = CompiledFunction("reduction", "i type, q batch n, i threads, d allowed, P X B reduced factor code")


class Reduced(NamedTuple):
    """What the kernel makes of X u = λ B u."""

    X: Tensor  # (*, n, n) L⁻¹XL⁻ᴴ
    L: Tensor  # (*, n, n) lower triangular, in columns, with B = L Lᴴ
    code: Tensor  # (*,) int32, not zero where B is not positive definite to working precision, or X or B not Hermitian
    seen: int  # all codes or-ed together


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
    """
    X, B = in_memory(X), in_memory(B)
    batch, n = X.shape[:-2], X.shape[-1]
    reduced, factor, code = torch.empty_like(X), torch.empty_like(X), torch.empty(batch, dtype=torch.int32)
    threads = torch.get_num_threads() if threads is None else threads
    seen = REDUCTION(TYPES[X.dtype], batch.numel(), n, threads, allowed, X, B, reduced, factor, code)
    return Reduced(reduced, factor.mT, code, seen)
