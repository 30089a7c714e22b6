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
    if reference is None:
        inner, length = U.sum(-2), U.shape[-2] ** 0.5
        noise = torch.full_like(inner.detach().real, length)
    else:
        inner = (reference.conj()[..., None] * U).sum(-2)  # (*, k)
        noise = torch.linalg.vector_norm(reference, dim=-1)[..., None].expand(inner.shape)
    if not U.is_complex():
        return U * torch.where(inner.detach() < 0, -1, 1).to(U.dtype)[..., None, :]
    known = inner.detach().abs() > 32 * torch.finfo(inner.dtype).eps * noise
    return U * torch.sgn(torch.where(known, inner, 1)).conj()[..., None, :]
