"""What the caller gives as a matrix, as an operator or a linear map."""

from __future__ import annotations

import torch
from torch import Tensor

from pmaf.operators.base import LinearMap, Operator
from pmaf.operators.dense import Dense
from pmaf.operators.derived import HermitianMap
from pmaf.operators.function import FunctionMap, MatVec
from pmaf.operators.sparse import Sparse, SparseMap, pattern_and_values

__all__ = ["as_linear_map", "as_operator"]


def as_operator(X: Tensor | Operator) -> Operator:
    """X itself if it is an operator, else the operator of a dense or sparse tensor."""
    if isinstance(X, Operator):
        return X
    return Dense(X) if X.layout == torch.strided else Sparse.from_tensor(X)


def as_linear_map(A: Tensor | Operator) -> LinearMap:
    """The linear map of a sparse tensor or an operator; gradients reach what it is made of."""
    if isinstance(A, MatVec):
        return FunctionMap(A.fn, A.n, A.tensors)
    if isinstance(A, Operator):
        return HermitianMap(A)
    return SparseMap(*pattern_and_values(A))
