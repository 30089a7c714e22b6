"""Down to where two numbers count as one."""

import torch

from pmaf.linalg.dtypes import LONG

__all__ = ["relative_tolerance"]


def relative_tolerance(rtol: float | None, dtype: torch.dtype, n: int) -> float:
    """The caller's relative tolerance, or by default ten machine precisions times √n, n counted up to 4096.

    Larger matrices are known by their products, and what these are rounded to does not grow with n.
    """
    return 10 * torch.finfo(dtype).eps * min(n, LONG) ** 0.5 if rtol is None else rtol
