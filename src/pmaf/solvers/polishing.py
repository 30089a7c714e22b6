r"""Eigenvectors in single precision after one step of Newton's method with a residual in double precision.

With θ = uᴴAu and r = Au − θu the step is du = (θI − A)⁺ r. It leaves u as exact as its rounding allows, for one product
and one solve in a factorisation that the solver has at hand.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from pmaf.products import double

__all__ = ["polished"]


def polished(A: Tensor, U: Tensor, solve: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Eigenvectors U + dU of unit length.

    Args:
        A: Hermitian, ``(*, n, n)``.
        U: its approximate eigenvectors, ``(*, n, k)``.
        solve: maps rᴴ, in single precision, and θ, in double, to duᴴ; vectors are rows, ``(*, k, n)``.

    Returns:
        ``(*, n, k)``, in single precision.
    """
    wide = double(A.dtype)
    rows = U.mH.to(wide)  # products with rows are fast
    image = rows @ A.to(wide)
    theta = (rows.conj() * image).real.sum(-1, keepdim=True) / (rows.conj() * rows).real.sum(-1, keepdim=True)
    rows = rows + solve((image - rows * theta).to(A.dtype), theta)
    rows = rows / torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    unit: Tensor = rows.mH.to(A.dtype)
    return unit
