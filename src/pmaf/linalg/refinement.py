r"""The residual of the complement solve in double precision, for one step of iterative refinement.

A solve in single precision is backward stable, which leaves an error of ε‖X‖/gap in w. The residual

    R = H − (W Λ − X W),   λᵢ = Rayleigh quotient of uᵢ,

taken in double precision, where the products of single-precision numbers are exact, lets a second solve with the same
factors remove that error, so that the gradient is as exact as the eigenvectors it is made of, however crowded the
spectrum. The Rayleigh quotient is right to the square of what rounding did to uᵢ, which a rounded eigenvalue is not. It
costs two products and no factorisation. H must not have a part along uᵢ, because the factors know uᵢ only to ε‖X‖/gap,
and R would still hold all of it.
"""

import torch
from torch import Tensor

from pmaf.products import double

__all__ = ["is_single", "residual_in_double"]


def is_single(dtype: torch.dtype) -> bool:
    """Whether there is a wider type to refine in."""
    return dtype in (torch.float32, torch.complex64)


def residual_in_double(X: Tensor, U: Tensor, H: Tensor, W: Tensor) -> Tensor:
    """R of the complement solve, rounded to the type of W.

    Args:
        X: Hermitian, ``(*, n, n)``, single precision.
        U: eigenvectors, ``(*, n, k)``.
        H: right-hand sides, ``(*, n, k)``.
        W: approximate solutions, ``(*, n, k)``.

    Returns:
        ``(*, n, k)``.
    """
    wide, k = double(X.dtype), U.shape[-1]
    rows = torch.cat((U.expand(W.shape), W), -1).mH.to(wide)  # vectors as rows, (*, 2k, n): products with rows are fast
    image = rows @ X.to(wide)
    u = rows[..., :k, :]
    values = (u.conj() * image[..., :k, :]).real.sum(-1, keepdim=True) / (u.conj() * u).real.sum(-1, keepdim=True)
    return (H.to(wide) - (rows[..., k:, :] * values - image[..., k:, :]).mH).to(W.dtype)
