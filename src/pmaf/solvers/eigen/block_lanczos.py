r"""Block Lanczos with full reorthogonalisation, Rayleigh–Ritz and thick restarts."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pmaf.checks.values import set_integers, set_reals
from pmaf.linalg.batched import combined
from pmaf.linalg.krylov import KrylovSpace, rayleigh_ritz
from pmaf.linalg.vectors import random_block
from pmaf.operators.base import Operator
from pmaf.operators.scaled import scaled
from pmaf.solvers.base import EigenAnswer, Solver
from pmaf.solvers.eigen.one_at_a_time import one_at_a_time, singly
from pmaf.solvers.eigen.subspace import default_rtol, following, identity_block, orthonormal_pairs, starting_block
from pmaf.transforms import untracked

__all__ = ["BlockLanczos"]

Pairs = tuple[Tensor, Tensor, Tensor]  # Ritz values (*, k), vectors (*, n, k), the value after them (*,)


@dataclass(frozen=True, kw_only=True)
class BlockLanczos(Solver):
    r"""The k leading eigenpairs from the block Krylov space :math:`\mathrm{span}(V_0, XV_0, X^2V_0, \dots)`.

    Each step multiplies the newest block by X, orthogonalises the product against the whole basis V (twice), and takes
    the eigenpairs of :math:`V^H X V` (Rayleigh–Ritz). When the basis is full it is shrunk to the leading Ritz vectors
    and the newest block (thick restart), which spans the same space as an implicitly restarted method. An exhausted
    Krylov space (identity, low rank) is continued with random directions.

    Pairs are accepted on the residual of a fresh product, ‖Xu − λu‖ ≤ rtol·‖X‖, and once the pair after them has
    converged as well, to a tenth of its distance: until then nobody knows that they are the leading ones, and that the
    last of them is not repeated. That a smaller eigenvalue is not taken
    for the leading one rests on the random start: a start block of p Gaussian columns meets every eigenspace of
    dimension up to p with probability one, and Ritz values reach the ends of the spectrum first (Kuczyński and
    Woźniakowski, SIAM J. Matrix Anal. Appl. 13, 1992, bound the probability of a miss). Hence multiplicities up to the
    block size are found; the default block, k + 1, also sees a selected eigenvalue that repeats outside the selection.

    Unrolling by autograd is exact for spectra without repeats; where eigenvalues repeat, even unwanted ones, the Krylov
    space is exhausted early and the derivative of its last block is lost in rounding. Implicit differentiation is not.

    Of a large matrix on the CPU the default begins with one vector at a time, which takes more products but far less
    time, and then asks outside the pairs found whether one of them repeats: the part of a random vector along such an
    eigenvector is bounded by its own short Krylov space, see :mod:`pmaf.linalg.lanczos`. Only where that is not ruled
    out, but for a chance of one in a million, does a block search follow; ``block_size=k + 1`` searches with blocks at
    once.

    Batched; works in the dtype and on the device of X, which is known by its products alone; one vector at a time of a
    sparse matrix in double precision. Memory: ``max_basis`` vectors. One device synchronisation a step.

    Args:
        block_size: columns multiplied at a time; by default one, as far as that goes, and then k + 1. Blocks from the
            beginning if given.
        max_basis: basis size that triggers a restart; by default the larger of 64 and 3k + 2 blocks.
        rtol: residual ‖Xu − λu‖ / ‖X‖ of each pair to reach; by default :func:`default_rtol`.
        max_steps: the most steps, each one product with a block, and before that the most with a vector.

    Raises:
        ValueError: if an argument is not positive.

    References:
        Golub, Underwood: The block Lanczos method, Mathematical Software III (1977).
        Wu, Simon: Thick-restart Lanczos method, SIAM J. Matrix Anal. Appl. 22 (2000).

    Example:
        >>> import torch
        >>> from pmaf.operators.dense import Dense
        >>> X = torch.diag(torch.arange(100.0))
        >>> answer = BlockLanczos().solve(Dense(X), 2, largest=True)
        >>> answer.eigenvalues.round(decimals=3), answer.finished
        (tensor([99., 98.]), tensor(True))
    """

    needs = "products"
    use = "large sparse matrices and functions; the default for them"
    takes_start = True

    block_size: int | None = None
    max_basis: int | None = None
    rtol: float | None = None
    max_steps: int = 1000

    def __post_init__(self) -> None:
        set_integers(self, "block_size", "max_basis", "max_steps")
        set_reals(self, "positive", "rtol")

    def solve(self, X: Operator, k: int, largest: bool, start: Tensor | None = None) -> EigenAnswer:
        """Find the k leading pairs of every item.

        Args:
            X: the matrices, ``(*, n, n)``.
            k: how many pairs.
            largest: the algebraically largest, else the smallest.
            start: first guesses, ``(*, n, p)`` for any p; used up to the block size.

        Returns:
            The pairs; ``next`` is the Ritz value after them, once it has converged.
        """
        n = X.n
        rtol = self.rtol if self.rtol is not None else default_rtol(X.dtype)
        if self.block_size is None and singly(X, k, start):
            found = one_at_a_time(X, k, largest, start, self.max_basis, rtol, self.max_steps)
            if bool(found.finished):
                return found
            start = found.eigenvectors
        p = min(n, self.block_size or k + 1)
        limit = max(self.max_basis or max(64, 3 * k + 2 * p), k + 2 * p)
        keep = k + (limit - k - p) // 3  # Ritz vectors that survive a restart
        if n <= max(3 * p, k + 2 * p):
            p = n  # a block or two would span the whole space: take it at once
        block = identity_block(X) if p == n else starting_block(X, p, start)
        operator = scaled(X, largest, block)
        noise = random_block(n, p, X.dtype, X.device, seed=1)
        space = KrylovSpace(operator.__call__, block, noise, max(limit, p) if untracked(block, *X.tensors) else None)
        norm = torch.zeros_like(operator.scale)  # of the scaled operator, from its Ritz values
        answer, unset = (norm[..., None], block[..., :1], norm), True
        finished = ~operator.finite
        steps = torch.zeros_like(finished, dtype=torch.int64)
        wanted = min(n, k + 1)
        given = 0 if start is None else min(start.shape[-1], p - 1)
        check = min(n, wanted + given)  # basis size at which the Ritz pairs are looked at next: a start may be useless
        for step in range(self.max_steps):
            space.extend()
            steps = steps + ~finished
            m, width = space.V.shape[-1], space.ahead.shape[-1]
            full, last = m + width > limit and width > 0, width == 0 or step + 1 == self.max_steps
            if m >= check or full or last:
                check = m + max(p, m // 8)
                theta, Q = rayleigh_ritz(space.H)
                norm = torch.maximum(norm, theta.abs().amax(-1))
                slack = space.slack(Q[..., :wanted])
                claim = slack[..., :k].amax(-1) <= rtol * norm
                claim = claim & following(theta, slack, k, n, rtol * norm)[1]
                if last or unset or (claim & ~finished).any():
                    measured, U, misfit = orthonormal_pairs(operator, combined(space.V, Q[..., :wanted]))
                    residual = torch.linalg.vector_norm(misfit, dim=-2)
                    rest, known = following(measured, residual, k, n, rtol * norm)
                    met = (residual[..., :k].amax(-1) <= rtol * norm) & known
                    proposed = (measured[..., :k], U[..., :k], rest)
                    answer = proposed if unset else where_items(~finished, proposed, answer)
                    finished, unset = finished | met, False
                if last or finished.all():
                    break
                if full:
                    space.restart(theta[..., :keep], Q[..., :keep])
        theta, U, rest = answer
        return EigenAnswer(
            operator.original(theta),
            U,
            finished & operator.finite,
            steps,
            operator.original(rest[..., None])[..., 0],
            norm=norm * operator.scale,
        )


def where_items(mask: Tensor, new: Pairs, old: Pairs) -> Pairs:
    """The new answer where the mask is set, else the old one."""
    theta = torch.where(mask[..., None], new[0], old[0])
    return theta, torch.where(mask[..., None, None], new[1], old[1]), torch.where(mask, new[2], old[2])
