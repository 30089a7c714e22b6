r"""The bordered system of one eigenpair of a small real symmetric matrix, and its pullback, entry by entry."""

import torch
from torch import Tensor

from pmaf.linalg.batched import transposed
from pmaf.linalg.entrywise import SMALL, chunked, combined, complement_solve, dot, entries, symmetric_outer
from pmaf.operators.base import Operator
from pmaf.operators.dense import Dense
from pmaf.transforms import cheap, wrapped

__all__ = ["entrywise", "outer_small", "solve_small"]


def entrywise(X: Operator, U: Tensor, H: Tensor) -> bool:
    """Whether this file applies: one real pair of dense matrices of order up to 4 whose values may be looked at."""
    fits = isinstance(X, Dense) and X.n <= SMALL and U.shape[-1] == 1 and not U.is_complex()
    return fits and cheap(H) and not wrapped(H)


def solve_small(X: Tensor, eigenvalue: Tensor, u: Tensor, h: Tensor, f: Tensor | None = None) -> tuple[Tensor, Tensor]:
    r"""Solve (λI − X) w + μu = h, uᵀw = f for the largest or smallest eigenpair of a matrix of order up to 4.

    In components hᵢ along the other eigenvectors, w has the components hᵢ/(λ − λᵢ); repeats among these do no harm.
    Where λ itself is repeated, the terms without a meaning are dropped, after an eigendecomposition of these few items.

    Args:
        X: ``(*, n, n)``, real, n ≤ 4; its symmetric part counts.
        eigenvalue: λ, ``(*,)``.
        u: unit eigenvector, ``(*, n)``.
        h: right-hand side, ``(*, n)``.
        f: right-hand side of the constraint, ``(*,)``; zero if not given.

    Returns:
        w, ``(*, n)``, and μ = uᵀh, ``(*,)``.
    """
    n = X.shape[-1]
    shape = torch.broadcast_shapes(X.shape[:-2], eigenvalue.shape, u.shape[:-1], h.shape[:-1])
    X, value = X.expand(*shape, n, n).reshape(-1, n, n), eigenvalue.expand(shape).reshape(-1)
    u, h = flat(u, shape), flat(h, shape)
    f = torch.zeros_like(value) if f is None else f.expand(shape).reshape(-1)
    w, mu, separation = chunked(solve, X, value, u, h, f)
    tied = ~(separation > 100 * torch.finfo(X.dtype).eps)
    if n > 1 and bool(tied.any()):
        at = tied.nonzero()[:, 0]
        w = w.index_copy(0, at, pseudo_solve(X[at], value[at], u[at], h[at]) + f[at, None] * u[at])
    return w.reshape(*shape, n), mu.reshape(shape)


def solve(X: Tensor, value: Tensor, u: Tensor, h: Tensor, f: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """w, ``(n, b)``, μ, ``(b,)``, and how far λ is from the other eigenvalues, ``(b,)``."""
    n = X.shape[-1]
    x, b = transposed(u).unbind(0), transposed(h).unbind(0)
    mu = dot(x, b)
    if n == 1:
        return torch.stack([f * x[0]]), mu, torch.ones_like(value)
    A = entries(X)
    c = n * value - sum((A[i][i] for i in range(1, n)), A[0][0])
    w, separation = complement_solve(A, value, c, x, combined(b, mu, x, -1))
    return torch.stack(combined(w, f - dot(x, w), x)), mu, separation


def outer_small(w: Tensor, u: Tensor) -> Tensor:
    """½(w uᵀ + u wᵀ), ``(*, n, n)``, for w and u ``(*, n)``."""

    def work(w: Tensor, u: Tensor) -> tuple[Tensor]:
        return (symmetric_outer(transposed(w).div_(2).unbind(0), transposed(u).unbind(0)),)

    shape = torch.broadcast_shapes(w.shape, u.shape)
    (outer,) = chunked(work, flat(w, shape[:-1]), flat(u, shape[:-1]))
    return outer.reshape(*shape, shape[-1])


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
