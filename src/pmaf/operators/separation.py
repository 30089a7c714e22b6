"""When two eigenvalues count as one."""

import torch
from torch import Tensor

from pmaf.operators.base import Operator
from pmaf.operators.dense import Dense
from pmaf.operators.gram import Gram
from pmaf.operators.sparse import Sparse

__all__ = ["scale_of", "separation_tolerance"]


def scale_of(X: Operator, values: Tensor) -> Tensor:
    """‖X‖ from below, from some of its eigenvalues ``(*, k)`` and from its largest entry: ``(*, 1)``."""
    norm = values.abs().amax(-1, keepdim=True)
    if not isinstance(X, (Dense, Gram, Sparse)):
        return norm
    size = X.tensors[0].detach().abs()
    size = size.amax((-2, -1))[..., None] if X.core_dims else size.amax()
    return torch.maximum(norm, size.square() if isinstance(X, Gram) else size)


def separation_tolerance(X: Operator, left: Tensor, right: Tensor, norm: Tensor, rtol: float, atol: float) -> Tensor:
    """Differences of eigenvalues up to here count as zero.

    Eigenvalues of a matrix are known to rtol·‖X‖. Those of a Gram matrix are squares of singular values known to
    rtol·‖F‖, which leaves more room between small ones: |σ² − τ²| is resolved down to rtol·‖F‖(σ + τ).

    Args:
        X: the operator that the eigenvalues belong to.
        left: eigenvalues, broadcastable with ``right``.
        right: eigenvalues.
        norm: ‖X‖, broadcastable with both.
        rtol: relative tolerance.
        atol: absolute tolerance.

    Returns:
        The tolerance for each pair, broadcastable with both.
    """
    if isinstance(X, Gram):
        return atol + rtol * norm.sqrt() * (left.clamp(min=0).sqrt() + right.clamp(min=0).sqrt())
    return rtol * norm + atol if atol else rtol * norm
