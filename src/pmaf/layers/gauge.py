"""Which of the unit multiples of an eigenvector is returned."""

import torch
from torch import Tensor

__all__ = ["fix_phase"]


def fix_phase(U: Tensor, reference: Tensor | None) -> Tensor:
    """Turn each column so that its inner product with the reference is real and non-negative.

    Written in differentiable operations: over the complex numbers the phase moves with the vector, and the derivative
    of what is returned includes that. A column (almost) orthogonal to the reference keeps the phase it has.

    Args:
        U: unit columns, ``(*, n, k)``.
        reference: ``(*, n)``; the all-ones vector if ``None``.

    Returns:
        The turned columns.
    """
    weighted = U if reference is None else reference.conj()[..., None] * U
    inner = weighted.sum(-2, keepdim=True)  # (*, 1, k)
    if not U.is_complex():
        return U * torch.ones_like(inner).copysign(inner.detach())
    n = U.shape[-2]
    length = n**0.5 if reference is None else torch.linalg.vector_norm(reference, dim=-1)[..., None, None]
    known = inner.detach().abs() > 32 * torch.finfo(inner.dtype).eps * length
    return U * torch.sgn(torch.where(known, inner, 1)).conj()
