"""Eigendecompositions of batches that one bad item cannot spoil."""

import math

import torch
from torch import Tensor
from torch.linalg import LinAlgError  # type: ignore[attr-defined]

from pmaf.linalg.dtypes import double
from pmaf.transforms import cheap

__all__ = ["hermitian_eigh"]


def hermitian_eigh(X: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``torch.linalg.eigh`` that one bad item cannot spoil.

    Items that are not finite are replaced by the identity. Where LAPACK does not converge, as happens for
    rank-deficient float32 Gram matrices, the batch is done again in float64, and then item by item.

    Args:
        X: Hermitian matrices, ``(*, n, n)``.

    Returns:
        Eigenvalues, ascending, ``(*, n)``; eigenvectors, ``(*, n, n)``; and a mask of the items that succeeded.
    """
    if not cheap(X) or not math.isfinite(torch.linalg.vector_norm(X.detach())):  # it may merely have overflowed
        usable = torch.isfinite(X).flatten(-2).all(-1)
        X = torch.where(usable[..., None, None], X, torch.eye(X.shape[-1], dtype=X.dtype, device=X.device))
    else:
        usable = torch.ones(X.shape[:-2], dtype=torch.bool, device=X.device)
    try:
        values, vectors = torch.linalg.eigh(X)
    except LinAlgError:
        try:
            values, vectors = torch.linalg.eigh(X.to(double(X)))
        except LinAlgError:
            values, vectors, done = one_by_one(X)
            usable = usable & done
        values, vectors = values.to(X.real.dtype), vectors.to(X.dtype)
    return values, vectors, usable


def one_by_one(X: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Each item on its own, in float64; an item that fails alone is returned as the identity and marked."""
    n = X.shape[-1]
    values, vectors, done = [], [], []
    for item in X.reshape(-1, n, n).to(double(X)):
        try:
            s, V = torch.linalg.eigh(item)
            done.append(True)
        except LinAlgError:
            s, V = torch.linalg.eigh(torch.eye(n, dtype=item.dtype, device=item.device))
            done.append(False)
        values.append(s)
        vectors.append(V)
    batch = X.shape[:-2]
    mask = torch.tensor(done, device=X.device).reshape(batch)
    return torch.stack(values).reshape(*batch, n), torch.stack(vectors).reshape(X.shape), mask
