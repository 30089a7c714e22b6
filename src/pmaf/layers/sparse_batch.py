"""Eigenpairs of a batch of sparse matrices: each item is solved as it would be alone, and the answers are stacked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from pmaf.checks.symmetry import check_square
from pmaf.checks.tensors import check_broadcast, check_counts, check_start
from pmaf.checks.values import check_tensor, describe
from pmaf.layers.doors import Options
from pmaf.operators.base import Operator
from pmaf.operators.sparse import Sparse
from pmaf.operators.sparse_batch import dense_batch, sparse_items
from pmaf.solution import IEDSolution
from pmaf.solvers import DENSE_LIMIT

__all__ = ["is_sparse_batch", "of_sparse_batch"]

WHOLE = 2**27  # entries, zeros included, up to which a batch of small matrices is made dense: 1 GB in double precision


def is_sparse_batch(X: Tensor, metric: Tensor | Operator | None) -> bool:
    """Whether X or the metric is more than one sparse matrix."""
    given = [t for t in (X, metric) if isinstance(t, Tensor) and t.layout != torch.strided]
    return any(t.dim() > 2 for t in given) and given[0] is X


def of_sparse_batch(
    solve: Callable[..., IEDSolution],
    options: Options,
    X: Tensor,
    k: int,
    metric: Tensor | Operator | None,
    near: float | None,
    reference: Tensor | None,
) -> IEDSolution:
    """The pairs of every item.

    Args:
        solve: solves one, or a dense batch; its arguments are those that follow.
        options: of the call.
        X: a sparse tensor ``(*, n, n)``.
        k: how many pairs.
        metric: B, sparse, ``(*, n, n)``, or ``None``.
        near: a number, or ``None`` for an end of the spectrum.
        reference: what signs are measured by.

    Returns:
        The solution.
    """
    name = options.name
    batch, items = items_of(name, "X", X)
    n = X.shape[-1]
    k = check_counts(name, k, n)
    metrics: list[Sparse] = []
    if isinstance(metric, Tensor) and metric.layout != torch.strided:  # anything else is refused with the first item
        own, metrics = items_of(name, "metric", metric)
        check_broadcast(name, X=batch, metric=own)
        whole = torch.broadcast_shapes(batch, own)
        items, metrics, batch = spread(items, batch, whole), spread(metrics, own, whole), whole
    start = check_start(name, options.start, n, (batch,), X, block=True)
    if (
        items
        and n <= DENSE_LIMIT
        and len(items) * n * n <= WHOLE
        and options.solver is None
        and start is None
        and bool(metrics) == (metric is not None)
    ):
        B = dense_batch(metrics, batch) if metrics else None  # of this order a single one is made dense as well
        return solve(options, dense_batch(items, batch), k, B, near, reference)
    starts, references = for_each(start, batch, 2), None
    if reference is not None:
        check_tensor(name, "reference", reference, 1, "(*, n) or (*, n, k)")
        for_columns = reference.dim() == len(batch) + 2 and reference.shape[-2:] == (n, k)
        check_broadcast(name, X=batch, reference=reference.shape[: -2 if for_columns else -1])
        references = for_each(reference, batch, 2 if for_columns else 1)
    found = [
        solve(
            replace(options, start=None if starts is None else starts[i]),
            item,
            k,
            metrics[i] if metrics else metric,
            near,
            None if references is None else references[i],
        )
        for i, item in enumerate(items)
    ]
    if not found:
        return of_no_items(options, X, k, batch)
    return IEDSolution(*(torch.stack(part).unflatten(0, batch) for part in zip(*found, strict=True)))


def items_of(function: str, name: str, X: Tensor) -> tuple[torch.Size, list[Sparse]]:
    """The batch shape, and the matrices, of what is given as one or more sparse matrices.

    Raises:
        ValueError: if its indices lack the batch dimensions of its values.
    """
    if X.layout in (torch.sparse_csr, torch.sparse_csc):
        indices = X.crow_indices() if X.layout == torch.sparse_csr else X.ccol_indices()
        if indices.shape[:-1] != X.shape[:-2]:
            raise ValueError(
                f"pmaf.{function}: the indices of a batch of sparse matrices need its dimensions, "
                f"{tuple(X.shape[:-2])}, got {tuple(indices.shape)} for {describe(X)}; .expand() them"
            )
    check_tensor(function, name, X, 2, "(*, n, n)", sparse=True, batched=True)
    check_square(function, name, X, least=0)
    return X.shape[:-2], sparse_items(X)


def spread(items: list[Sparse], batch: torch.Size, whole: torch.Size) -> list[Sparse]:
    """The items of a batch as those of a larger one."""
    index = torch.arange(len(items)).reshape(batch).expand(whole)
    return [items[i] for i in index.flatten().tolist()]


def for_each(x: Tensor | None, batch: torch.Size, core: int) -> Tensor | None:
    """What is given for all items or for each, one an item."""
    return None if x is None else x.expand(*batch, *x.shape[-core:]).reshape(-1, *x.shape[-core:])


def of_no_items(options: Options, X: Tensor, k: int, batch: torch.Size) -> IEDSolution:
    """The solution of an empty batch, which a sum over nothing depends on."""
    n, values = X.shape[-1], X.coalesce().values() if X.layout == torch.sparse_coo else X.values()
    U = values.detach().new_zeros(*batch, n, k) + values.sum()
    real, status = U.detach().new_zeros(batch).real, torch.zeros(batch, dtype=torch.int64, device=X.device)
    return IEDSolution(U.sum(-2).real, U, status, status.clone(), real, real.clone())
