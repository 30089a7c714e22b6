"""Leading eigenpairs with one vector at a time, and the proof that none of them repeats unseen."""

from __future__ import annotations

import torch
from torch import Tensor

from pmaf.linalg.lanczos import VectorLanczos, nothing_hidden
from pmaf.linalg.vectors import perturbed, random_block
from pmaf.operators.base import Operator
from pmaf.operators.scaled import scaled
from pmaf.solvers.base import EigenAnswer
from pmaf.solvers.eigen.subspace import following, orthonormal_pairs
from pmaf.transforms import on_host, readable, untracked

__all__ = ["one_at_a_time", "singly"]

FEWEST = 1000  # order from which the time goes into vectors, not into calls
HELD = 0.01  # of the distance to the next value: how far below the last one others are looked for


def singly(X: Operator, k: int, start: Tensor | None) -> bool:
    """Whether to begin with one vector at a time."""
    plain = not X.batch_shape and (start is None or start.dim() == 2) and X.n >= FEWEST and 8 * k < X.n
    return plain and all(on_host(t) and readable(t) for t in X.tensors) and untracked(*X.tensors)


def one_at_a_time(
    X: Operator, k: int, largest: bool, start: Tensor | None, max_basis: int | None, rtol: float, max_steps: int
) -> EigenAnswer:
    """The k leading pairs, not finished where it is not certain that none is missing.

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
    n = X.n
    noise = random_block(n, 2, X.dtype, X.device)
    first = noise[:, 0]
    if start is not None:
        first = perturbed(start.to(X.dtype).sum(-1, keepdim=True), noise[:, :1])[:, 0]
    operator = scaled(X, largest, first[:, None] / torch.linalg.vector_norm(first))
    factor = operator.sign / float(operator.scale)

    def product(v: Tensor) -> Tensor:
        return X.matmat(v[:, None])[:, 0] * factor

    limit = max(max_basis or 2 * k + 22, k + 4)
    space = VectorLanczos(product, first, noise[:, 1], limit)
    norm, check, claim = 0.0, k + 1, False
    U, theta, rest = noise[:, :1].expand(n, k), torch.full((k,), torch.nan), torch.tensor(torch.nan)
    while space.steps < max_steps and bool(operator.finite):
        space.extend()
        if space.m < check and space.m < limit:
            continue
        check = space.m + max(1, space.m // 8)
        values, Q, slack = space.pairs()
        norm = max(norm, float(values.abs().max()))
        tolerance = torch.tensor(rtol * norm)
        if space.m > k:
            claim = bool((slack[:k] <= tolerance).all()) and bool(following(values, slack[: k + 1], k, n, tolerance)[1])
        if claim:
            break
        if space.m == limit:
            keep = k + (limit - k - 1) // 3
            space.restart(values[:keep], Q[:, :keep])
            check = 0
    steps = space.steps
    if claim:
        theta, U, misfit = orthonormal_pairs(operator, space.combined(Q[:, : k + 1]).mT)
        residual = torch.linalg.vector_norm(misfit, dim=-2)
        rest, known = following(theta, residual, k, n, tolerance)
        distance = float(theta[k - 1] - rest)
        claim = bool((residual[:k] <= tolerance).all()) and bool(known) and distance > float(tolerance)
        theta, U = theta[:k], U[:, :k]
        if claim:
            mu = float(theta[-1]) - HELD * distance
            claim, more = nothing_hidden(product, U, mu, random_block(n, 1, X.dtype, X.device, seed=3)[:, 0], steps)
            steps += more
    elif space.m >= k:
        values, Q, _ = space.pairs()
        theta, U = values[:k], space.combined(Q[:, :k]).mT
    return EigenAnswer(
        operator.original(theta.to(X.dtype.to_real())),
        U,
        torch.tensor(claim),
        torch.tensor(steps),
        operator.original(rest.to(X.dtype.to_real())[None])[0],
        norm=norm * operator.scale,
    )
