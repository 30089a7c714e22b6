"""The types that are computed in, and sizes from which on another one pays."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["HALF", "LONG", "SINGLE_ONLY", "double", "widened", "working_dtype"]

SINGLE_ONLY = {"mps"}  # kinds of devices that refuse double precision; what refines in it does without
HALF = (torch.float16, torch.bfloat16)
LONG = 4096  # columns from this length on are summed in pieces
WIDENED = 1 << 16  # entries of a matrix up to which a copy in double precision costs little beside its factorisation


def working_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type that is computed in: float32 for half precision, else the input's own."""
    return torch.float32 if dtype in HALF else dtype


def double(x: Tensor | torch.dtype) -> torch.dtype:
    """The double-precision type of the same kind as x, or that of x where its device has none; of a dtype, the host."""
    dtype = x.dtype if isinstance(x, Tensor) else x
    if isinstance(x, Tensor) and x.device.type in SINGLE_ONLY:
        return dtype
    return torch.complex128 if dtype.is_complex else torch.float64


def widened(A: Tensor) -> torch.dtype:
    """The type in which a residual with A is measured: double, unless the copy of A would take longer than the rest."""
    return double(A) if A.shape[-2] * A.shape[-1] <= WIDENED else A.dtype
