r"""Lanczos' method with one vector at a time, and how long it takes until nothing can be hidden from it.

With orthonormal columns V and the projected matrix T,

    X V = V T + β a eₘᵀ,

full reorthogonalisation and thick restarts (Wu and Simon, SIAM J. Matrix Anal. Appl. 22, 2000). Of an eigenvalue that
repeats the space of one vector holds a single copy. Whether there is another one is asked outside the vectors found:
there the polynomials orthonormal with respect to the spectral measure of a random vector r,

    β_{j+1} p_{j+1}(μ) = (μ − α_j) p_j(μ) − β_j p_{j−1}(μ),

bound the part of r along all eigenvectors whose eigenvalues are μ or more, as long as every p_j(μ) is positive, which
says that no Ritz value is: it is at most 1/Σ p_j(μ)² (Chebyshev, Markov and Stieltjes). Once that is far less than the
1/n of an average direction there is no such eigenvector, but for a chance of one in a million.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from pmaf.linalg.batched import inner_products

__all__ = ["VectorLanczos", "nothing_hidden"]

CANCELLED = 0.5  # of its length: a product that loses more when it is orthogonalised is orthogonalised again
DOUBT = 1e-6  # how small beside 1/√n the part of a random vector along an eigenvector is taken to be impossible; that
# small it is with the same probability


def along(rows: Tensor, w: Tensor) -> Tensor:
    """Inner products of the rows with w; in single precision long sums are taken in pieces."""
    if w.dtype in (torch.float32, torch.complex64):
        return inner_products(rows.mT, w[:, None])[:, 0]
    return (rows.conj() if rows.is_complex() else rows) @ w


def length(w: Tensor) -> float:
    """‖w‖."""
    return math.sqrt(max(float(along(w[None], w)[0].real), 0.0))


class VectorLanczos:
    """A Krylov space of a Hermitian X that grows by a vector a step; the same to its user as a :class:`KrylovSpace`.

    Args:
        product: maps a column ``(n, 1)`` to X times it.
        first: where to begin, of length one, ``(n, 1)``.
        noise: a direction to go on with where the space is exhausted, ``(n, 1)``.
        limit: how many columns there may be.
    """

    def __init__(self, product: Callable[[Tensor], Tensor], first: Tensor, noise: Tensor, limit: int) -> None:
        self.product, self.noise = product, noise
        self.memory = first.new_empty(limit + 1, len(first))
        self.memory[0] = first[:, 0]
        self.T = torch.zeros(limit, limit, dtype=torch.float64)  # real, if X is Hermitian
        self.m, self.steps, self.beta = 0, 0, 0.0

    @property
    def V(self) -> Tensor:
        """The orthonormal basis, ``(n, m)``."""
        return self.memory[: self.m].T

    @property
    def ahead(self) -> Tensor:
        """The next vector, ``(n, 1)``."""
        return self.memory[self.m, :, None]

    @property
    def H(self) -> Tensor:
        """The projected matrix, ``(m, m)``."""
        return self.T[: self.m, : self.m].to(self.memory.dtype)

    @property
    def coupling(self) -> Tensor:
        """Of the next vector to the last one, ``(1, 1)``."""
        return self.memory.new_full((1, 1), self.beta)

    def extend(self) -> None:
        """Take the next vector in, at the cost of one product."""
        w = self.product(self.ahead)[:, 0]
        m = self.m = self.m + 1
        self.steps += 1
        before = length(w)
        w, c = self.outside(w)
        self.beta = length(w)
        if self.beta < CANCELLED * before:
            w, rest = self.outside(w)
            c, self.beta = c + rest, length(w)
        if self.beta <= 10 * torch.finfo(w.dtype).eps * float(c.abs().max()):  # the space is exhausted
            w = self.outside(self.outside(self.noise[:, 0].roll(self.steps))[0])[0]
            self.memory[m], self.beta = w / length(w), 0.0
        else:
            torch.mul(w, 1 / self.beta, out=self.memory[m])
        self.T[:m, m - 1] = self.T[m - 1, :m] = c.real

    def outside(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """The part of w outside of V, and the coefficients of the other."""
        rows = self.memory[: self.m]
        c = along(rows, w)
        return torch.addmv(w, rows.T, c, alpha=-1), c

    def slack(self, Q: Tensor) -> Tensor:
        """The residuals of Ritz vectors V Q, as the recurrence knows them, ``(l,)``."""
        return self.beta * Q[-1].abs()

    def restart(self, theta: Tensor, Q: Tensor) -> None:
        """Keep the Ritz pairs of values θ, ``(l,)``, and vectors V Q alone, and the next vector."""
        kept, ahead = Q.shape[-1], self.memory[self.m].clone()
        self.memory[:kept] = Q.T @ self.memory[: self.m]
        self.memory[kept] = ahead
        self.T.zero_()
        self.T[:kept, :kept] = torch.diag(theta)
        self.m = kept


def nothing_hidden(
    product: Callable[[Tensor], Tensor], U: Tensor, mu: float, random: Tensor, max_steps: int
) -> tuple[bool, int]:
    """Whether X has, outside the span of U, no eigenvalue of μ or more.

    Three terms are enough: what reappears by rounding, of eigenvalues below μ, does not count.

    Args:
        product: maps a column ``(n, 1)`` to X times it.
        U: orthonormal columns, ``(n, k)``.
        mu: μ.
        random: a Gaussian vector, ``(n, 1)``.
        max_steps: the most products.

    Returns:
        Whether it is as good as certain, and how many products were needed.
    """
    rows = U.mT.contiguous()

    def outside(w: Tensor) -> Tensor:
        return torch.addmv(w, rows.T, along(rows, w), alpha=-1)

    v = outside(outside(random[:, 0]))
    v, previous = v / length(v), torch.zeros_like(v)
    enough = len(v) / DOUBT**2
    p, before, beta, total = 1.0, 0.0, 0.0, 1.0
    for step in range(1, max_steps + 1):
        w = outside(product(v[:, None])[:, 0])
        alpha = float(along(v[None], w)[0].real)
        w = w.sub_(v, alpha=alpha).sub_(previous, alpha=beta)
        following = length(w)
        if following <= 10 * torch.finfo(v.dtype).eps * (abs(alpha) + beta):  # an invariant space: all of it is seen
            return mu > alpha and p > 0, step
        p, before = ((mu - alpha) * p - beta * before) / following, p
        total += p * p
        if not p > 0:
            return False, step
        if total >= enough:
            return True, step
        previous, v, beta = v, w / following, following
    return False, max_steps
