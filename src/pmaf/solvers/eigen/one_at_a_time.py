"""Leading eigenpairs with one vector at a time, and a look whether one of them repeats unseen."""

from __future__ import annotations

import torch
from torch import Tensor

from pmaf.linalg.batched import combined
from pmaf.linalg.dtypes import double
from pmaf.linalg.krylov import orthonormal, rayleigh_ritz
from pmaf.linalg.lanczos import VectorLanczos, nothing_hidden
from pmaf.linalg.vectors import perturbed, random_block
from pmaf.operators.base import Operator
from pmaf.operators.scaled import scaled
from pmaf.operators.sparse import Sparse
from pmaf.solvers.base import EigenAnswer
from pmaf.solvers.eigen.subspace import following, orthonormal_pairs
from pmaf.transforms import on_host, readable, untracked

__all__ = ["one_at_a_time", "singly"]

FEWEST = 1000  # order from which the time goes into vectors, not into calls
SINGLE = (torch.float32, torch.complex64)
HELD = 0.01  # of the distance to the next value: how far below the last one others are looked for


def singly(X: Operator, k: int, start: Tensor | None) -> bool:
    """Whether to begin with one vector at a time."""
    plain = not X.batch_shape and (start is None or start.dim() == 2) and X.n >= FEWEST and 8 * k < X.n
    return plain and all(on_host(t) and readable(t) for t in X.tensors) and untracked(*X.tensors)


def one_at_a_time(
    X: Operator, k: int, largest: bool, start: Tensor | None, max_basis: int | None, rtol: float, max_steps: int
) -> EigenAnswer:
    """The k leading pairs, not finished where one may be missing, see :func:`nothing_hidden`.

    Of a sparse matrix in double precision, whatever its type: in single precision the rounding of its longest rows, of
    hubs with thousands of entries, is as large as the residual to reach, and products cost about the same.

    Args:
        X: a matrix without batch dimensions.
        k: how many pairs.
        largest: the algebraically largest, else the smallest.
        start: first guesses, ``(n, p)``; their sum is where the method begins.
        max_basis: basis size that triggers a restart.
        rtol: residual ‖Xu − λu‖ / ‖X‖ of each pair to reach.
        max_steps: the most products.

    Returns:
        The pairs; ``next`` is the Ritz value after them.
    """
    if isinstance(X, Sparse) and X.tensors[0].dtype in SINGLE:
        wide = X.with_tensors((X.tensors[0].detach().to(double(X.tensors[0])),))
        return rounded(one_at_a_time(wide, k, largest, start, max_basis, rtol, max_steps), X.tensors[0])
    n = X.n
    first, noise = random_block(n, 2, X.dtype, X.device).split(1, -1)
    if start is not None:
        first = perturbed(start.to(X.dtype).sum(-1, keepdim=True), first)
    first = orthonormal(first)[0]
    operator = scaled(X, largest, first)
    limit = max(max_basis or 2 * k + 22, k + 4)
    space = VectorLanczos(operator.__call__, first, noise, limit)
    norm, check, claim = torch.zeros_like(operator.scale), k + 1, False
    values, vectors, rest = norm[None].expand(k), first.expand(n, k), norm
    while space.steps < max_steps and bool(operator.finite):
        space.extend()
        full, last = space.m == limit, space.steps == max_steps
        if space.m < check and not (full or last):
            continue
        check = space.m + max(1, space.m // 8)
        theta, Q = rayleigh_ritz(space.H)
        norm = torch.maximum(norm, theta.abs().amax())
        slack = space.slack(Q[:, : k + 1])
        claim = bool((slack[:k] <= rtol * norm).all() & following(theta, slack, k, n, rtol * norm)[1])
        if claim or last:
            break
        if full:
            keep = k + (limit - k - 1) // 3
            space.restart(theta[:keep], Q[:, :keep])
            check = 0
    steps = space.steps
    if space.m > k:
        theta, U, misfit = orthonormal_pairs(operator, combined(space.V, Q[:, : k + 1]))
        residual = torch.linalg.vector_norm(misfit, dim=-2)
        rest, known = following(theta, residual, k, n, rtol * norm)
        values, vectors = theta[:k], U[:, :k]
        distance = values[-1] - rest
        claim = bool((residual[:k].amax() <= rtol * norm) & known & (distance > rtol * norm))
        if claim:
            random = random_block(n, 1, X.dtype, X.device, seed=3)
            mu = float(values[-1] - HELD * distance)
            claim, more = nothing_hidden(operator.__call__, vectors, mu, random, steps)
            steps += more
    return EigenAnswer(
        operator.original(values),
        vectors,
        torch.tensor(claim),
        torch.tensor(steps),
        operator.original(rest[None])[0],
        norm=norm * operator.scale,
    )


def rounded(found: EigenAnswer, like: Tensor) -> EigenAnswer:
    """An answer in the type of X."""
    real = like.real.dtype
    told = {name: getattr(found, name).to(real) for name in ("eigenvalues", "next", "norm")}
    return found._replace(eigenvectors=found.eigenvectors.to(like.dtype), **told)
