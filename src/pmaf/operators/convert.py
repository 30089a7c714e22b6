"""What the caller gives as a matrix, as an operator."""

from __future__ import annotations

import torch
from torch import Tensor

from pmaf.operators.base import Operator
from pmaf.operators.dense import Dense
from pmaf.operators.sparse import Sparse, pattern_and_values

__all__ = ["as_operator"]


def as_operator(X: Tensor | Operator) -> Operator:
    """X itself if it is an operator, else the operator of a dense or sparse tensor, which gradients reach."""
    if isinstance(X, Operator):
        return X
    return Dense(X) if X.layout == torch.strided else Sparse(*pattern_and_values(X))
