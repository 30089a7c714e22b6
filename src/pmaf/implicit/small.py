r"""The bordered system of one eigenpair of a small real symmetric matrix, entry by entry."""

import torch
from torch import Tensor

from pmaf.entrywise import chunked, combined, complement_solve, dot, entries
from pmaf.products import interleaved

__all__ = ["solve_small"]


def solve_small(X: Tensor, eigenvalue: Tensor, u: Tensor, h: Tensor) -> Tensor:
    r"""W = (λI − X)⁺ h for the largest or smallest eigenpair of a matrix of order up to 4.

    In components hᵢ along the other eigenvectors, w has the components hᵢ/(λ − λᵢ); repeats among these do no harm.
    Where λ itself is repeated, the terms without a meaning are dropped, after an eigendecomposition of these few items.

    Args:
        X: ``(*, n, n)``, real, n ≤ 4; its symmetric part counts.
        eigenvalue: λ, ``(*,)``.
        u: unit eigenvector, ``(*, n)``.
        h: right-hand side, ``(*, n)``; its part along u is ignored.

    Returns:
        w, ``(*, n)``, orthogonal to u.
    """
    n = X.shape[-1]
    shape = torch.broadcast_shapes(X.shape[:-2], eigenvalue.shape, u.shape[:-1], h.shape[:-1])
    X, value = X.expand(*shape, n, n).reshape(-1, n, n), eigenvalue.expand(shape).reshape(-1)
    u, h = flat(u, shape), flat(h, shape)
    W, separation = chunked(solve, X, value, u, h)
    tied = ~(separation > 100 * torch.finfo(X.dtype).eps)
    if n > 1 and bool(tied.any()):
        at = tied.nonzero()[:, 0]
        W = W.index_copy(0, at, pseudo_solve(X[at], value[at], u[at], h[at]))
    return W.reshape(*shape, n)


def solve(X: Tensor, value: Tensor, u: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """w, ``(b, n)``, and how far λ is from the other eigenvalues, ``(b,)``."""
    n = X.shape[-1]
    if n == 1:
        return torch.zeros_like(h), torch.ones_like(value)
    A = entries(X)
    c = n * value - sum((A[i][i] for i in range(1, n)), A[0][0])
    x, b = list(u.T.contiguous()), list(h.T.contiguous())
    w, separation = complement_solve(A, value, c, x, combined(b, dot(x, b), x, -1))
    return interleaved(combined(w, dot(x, w), x, -1)), separation


def flat(v: Tensor, shape: torch.Size) -> Tensor:
    """Vectors in one batch dimension, ``(b, n)``."""
    return v.expand(*shape, v.shape[-1]).reshape(-1, v.shape[-1])


def pseudo_solve(X: Tensor, value: Tensor, u: Tensor, h: Tensor) -> Tensor:
    """The same from an eigendecomposition, which tells the meaningless terms apart; zero where X is not finite."""
    sound = X.isfinite().flatten(-2).all(-1) & value.isfinite()
    X = torch.where(sound[:, None, None], (X + X.mT) / 2, 0)
    s, V = torch.linalg.eigh(X)
    difference = value[:, None] - s
    tolerance = 100 * torch.finfo(X.dtype).eps * s.abs().amax(-1, keepdim=True)
    keep = difference.abs() > tolerance
    coefficients = torch.where(keep, 1 / torch.where(keep, difference, 1), 0) * (V.mT @ h[..., None])[..., 0]
    w = (V @ coefficients[..., None])[..., 0]
    return torch.where(sound[:, None], w - (w * u).sum(-1, keepdim=True) * u, 0)
