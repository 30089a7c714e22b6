"""The matrices of a batch of sparse ones, each with its entries, which gradients reach."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pmaf.operators.sparse import Pattern, Sparse

__all__ = ["dense_batch", "sparse_items"]


def sparse_items(A: Tensor) -> list[Sparse]:
    """The matrices of a sparse tensor ``(*, m, n)``, in order; neighbours with the same pattern share it.

    Args:
        A: compressed rows or columns with as many entries in each item, or coordinates of all dimensions.

    Returns:
        One operator an item.
    """
    batch, shape = A.shape[:-2], (int(A.shape[-2]), int(A.shape[-1]))
    rows: tuple[Tensor, ...]
    columns: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    if A.layout == torch.sparse_coo:
        A = A.coalesce()
        where = A.indices()
        item = torch.zeros_like(where[0])
        for size, index in zip(batch, where[:-2], strict=True):
            item = item * size + index
        counts = torch.bincount(item, minlength=math.prod(batch)).tolist()
        rows, columns, values = where[-2].split(counts), where[-1].split(counts), A.values().split(counts)
    else:
        A = A if A.layout == torch.sparse_csr else A.to_sparse_csr()
        starts = A.crow_indices().detach().reshape(-1, shape[0] + 1)
        index = torch.arange(shape[0], device=A.device)
        rows = tuple(torch.repeat_interleave(index, counts) for counts in starts.diff())
        entries = A.values().shape[-1]
        columns = A.col_indices().detach().long().reshape(-1, entries).unbind()
        values = A.values().reshape(-1, entries).unbind()
    items: list[Sparse] = []
    for own in zip(rows, columns, values, strict=True):
        items.append(Sparse(shared(items[-1].pattern if items else None, *own[:2], shape), own[2]))
    return items


def shared(known: Pattern | None, rows: Tensor, columns: Tensor, shape: tuple[int, int]) -> Pattern:
    """A pattern, or the one that is known if it is the same."""
    if known is not None and torch.equal(known.rows, rows) and torch.equal(known.columns, columns):
        return known
    return Pattern(rows, columns, shape)


def dense_batch(items: list[Sparse], batch: torch.Size) -> Tensor:
    """The matrices as one dense tensor, ``(*, m, n)``."""
    dense = [
        X.tensors[0].new_zeros(X.pattern.shape).index_put((X.pattern.rows, X.pattern.columns), X.tensors[0], True)
        for X in items
    ]
    return torch.stack(dense).reshape(*batch, *dense[0].shape)
