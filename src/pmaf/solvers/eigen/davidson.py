r"""Smallest eigenpairs with the help of something that nearly inverts the matrix (Davidson's method)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pmaf.checks.extras import needs
from pmaf.checks.values import set_integers, set_reals
from pmaf.linalg import multigrid, sparse_factor
from pmaf.linalg.batched import combined, inner_products
from pmaf.linalg.krylov import join, orthonormal, rayleigh_ritz
from pmaf.linalg.multigrid import Multigrid
from pmaf.linalg.sparse_factor import SparseMatrix, depth
from pmaf.linalg.vectors import random_block
from pmaf.operators.base import Operator
from pmaf.operators.function import MatVec
from pmaf.operators.scaled import ScaledOperator, scaled
from pmaf.operators.sparse import Sparse
from pmaf.solvers.base import EigenAnswer, Solver
from pmaf.solvers.eigen.eigh import Eigh, at_once
from pmaf.solvers.eigen.subspace import default_rtol, following, spectral_range, starting_block
from pmaf.transforms import on_host, readable

__all__ = ["Davidson"]

PROBE = 12  # products that tell how large X is, and whether it may be semidefinite
SHARE = 0.01  # of ‖X‖ k/n, about what the wanted values spread over: how far below a bound the inverse is shifted
BLOCKS = 7  # that the basis holds
DEEP = 40  # levels of a breadth-first search from which on products take long to cross the graph
MOSTLY = 0.9  # of the entries off the diagonal that are negative in what multigrid is made for


@dataclass(frozen=True, kw_only=True)
class Davidson(Solver):
    r"""The k smallest eigenpairs from corrections :math:`M (X u - \theta u)`, M about :math:`X^{-1}`.

    Each step adds the preconditioned residuals of the pairs that are not yet found to an orthonormal basis and takes
    the best pairs that it holds (Rayleigh–Ritz). A full basis is cut to the leading Ritz vectors, twice as many as are
    wanted. How good M is decides how many steps there are, and nothing else: residuals are measured on X.

    M is what the user gives, ``MatVec(fn, n, params, solve=...)``; with an exact inverse this is block Lanczos on it.
    For a sparse matrix it is a cycle of algebraic multigrid (smoothed aggregation, PyAMG: ``pip install
    'pmaf[multigrid]'``) for X − σI, σ just below zero if X may be semidefinite, else below Gershgorin's bound. It takes
    memory of a few matrices and time in proportion to the entries where factors would be too full: grids in three
    dimensions, a million nodes. M is kept for the conjugate gradients of the backward pass.

    A block of k + 1 finds eigenvalues that repeat as often; that none is missing rests on the random start. Sparse
    matrices are computed in double precision, on the CPU, functions in their own type and place.

    Args:
        max_basis: basis size that triggers a restart; by default seven blocks of k + 1.
        rtol: residual ‖Xu − λu‖ / ‖X‖ of each pair to reach; by default :func:`default_rtol`.
        max_steps: the most steps, each one product and one application of M to a block.

    Raises:
        ValueError: if an argument is not positive.

    References:
        Davidson: The iterative calculation of a few of the lowest eigenvalues, J. Comput. Phys. 17 (1975).
        Knyazev: Toward the optimal preconditioned eigensolver, SIAM J. Sci. Comput. 23 (2001).
        Bell, Olson, Schroder, Southworth: PyAMG, J. Open Source Softw. 8 (2023).

    Example:
        >>> import torch, pmaf
        >>> d = torch.arange(1.0, 501.0)
        >>> X = pmaf.MatVec(lambda d, V: d[:, None] * V, 500, d, solve=lambda d, R: R / d[:, None])
        >>> pmaf.ied(X, 2, largest=False, solver="davidson").eigenvalues.round(decimals=3)
        tensor([1., 2.])
    """

    needs = "products, and about the inverse"
    use = "the smallest pairs where something nearly inverts X: multigrid, or ``solve=`` of a function"
    takes_start = True
    unrolls = False

    max_basis: int | None = None
    rtol: float | None = None
    max_steps: int = 300

    def __post_init__(self) -> None:
        set_integers(self, "max_basis", "max_steps")
        set_reals(self, "positive", "rtol")

    @classmethod
    def pays(cls, X: Operator) -> bool:
        """Whether multigrid is there, and X looks like what it is made for: a discretised operator, deep as a graph."""
        there = sparse_factor.available() and multigrid.available()
        if not (there and isinstance(X, Sparse) and on_host(X.tensors[0]) and readable(X.tensors[0])):
            return False
        off = X.pattern.rows != X.pattern.columns
        negative = (X.tensors[0].detach().real < 0) & off
        return bool(negative.sum() >= MOSTLY * off.sum()) and depth(*X.pattern.compressed) >= DEEP

    def solve(self, X: Operator, k: int, largest: bool, start: Tensor | None = None) -> EigenAnswer:
        """Find the k smallest pairs.

        Args:
            X: a sparse matrix on the CPU, or a function with ``solve=``.
            k: how many pairs.
            largest: refused for functions, whose inverse is no help there.
            start: first guesses, ``(n, p)``; used up to k of them.

        Returns:
            The pairs; ``next`` is the Ritz value after them, once it has converged.

        Raises:
            ValueError: if nothing is there that nearly inverts X.
        """
        if at_once(X, k):
            return Eigh().solve(X, k, largest)
        with torch.no_grad():
            if isinstance(X, Sparse) and on_host(X.tensors[0]) and readable(X.tensors[0]):
                return self.of_sparse(X, k, largest, start)
            inverse = X.nearly_inverse() if isinstance(X, MatVec) and not largest else None
            if inverse is None:
                raise ValueError(
                    "pmaf.solvers.Davidson: needs a sparse matrix on the CPU, or the smallest pairs of a MatVec with "
                    f"solve=, got {type(X).__name__} on {X.device} and largest={largest}; use BlockLanczos()"
                )
            operator = scaled(X, largest, starting_block(X, 1, None))
            return self.search(operator, inverse, k, start, size_of(operator)[1])

    def of_sparse(self, X: Sparse, k: int, largest: bool, start: Tensor | None) -> EigenAnswer:
        """The pairs of a sparse matrix in double precision, with multigrid, which is kept for the backward pass."""
        with needs("multigrid", "pmaf.solvers.Davidson, of sparse matrices,"):
            import pyamg  # noqa: F401
        values = X.tensors[0].detach()
        wide = torch.complex128 if values.is_complex() else torch.float64
        sound, sign = bool(values.isfinite().all()), -1.0 if largest else 1.0
        whole = X.with_tensors(((values if sound else torch.zeros_like(values)).to(wide),))
        operator = scaled(whole, largest, starting_block(whole, 1, None))
        low, norm = size_of(operator)
        matrix = SparseMatrix(*X.pattern.compressed, whole.tensors[0], symmetric=whole.symmetric())
        nudge = norm * float(operator.scale) * SHARE * k / X.n
        shift = -nudge if low * float(operator.scale) > -nudge else matrix.lower_bound(sign) - nudge
        inverse = Multigrid(matrix.shifted(sign, shift), sign, shift)
        found = self.search(operator, inverse.solve, k, start, norm)
        X.factors.put(X.tensors[0], inverse)
        real = values.real.dtype
        told = {name: getattr(found, name).to(real) for name in ("eigenvalues", "next", "norm")}
        bad = {} if sound else {"eigenvalues": told["eigenvalues"] * torch.nan}
        return found._replace(eigenvectors=found.eigenvectors.to(values.dtype), **(told | bad))

    def search(
        self, operator: ScaledOperator, inverse: Callable[[Tensor], Tensor], k: int, start: Tensor | None, norm: float
    ) -> EigenAnswer:
        """The pairs of the scaled operator, whose wanted values are the largest, given about its inverse."""
        n, dtype = operator.X.n, operator.X.dtype
        rtol = self.rtol if self.rtol is not None else default_rtol(dtype)
        p = min(n, k + 1)
        limit = min(n, max(self.max_basis or BLOCKS * p, 3 * p))
        noise = random_block(n, p, dtype, operator.X.device, seed=1)
        V = starting_block(operator.X, p, start)
        image = operator(V)
        finished, rest, step, fresh = False, operator.scale * torch.nan, 0, True
        theta, U = V[0, :k].real * torch.nan, V[:, :k]
        for step in range(1, self.max_steps + 1):
            values, Q = rayleigh_ritz(inner_products(V, image))
            Q = Q[:, :p]
            best, residual = combined(V, Q), combined(image, Q)
            residual = residual - best * values[:p]
            size = torch.linalg.vector_norm(residual, dim=-2)
            tolerance = size.new_tensor(rtol * max(norm, float(values.abs().max())))
            claim = bool((size[:k] <= tolerance).all() & following(values, size, k, n, tolerance)[1])
            if (claim and not fresh) or step == self.max_steps:  # measured again, on fresh products
                V = orthonormal(best)[0]
                image, fresh = operator(V), True
                continue
            theta, U, rest = values[:k], best[:, :k], following(values, size, k, n, tolerance)[0]
            finished = claim
            if claim or not bool(operator.finite):
                break
            if V.shape[-1] + p > limit:
                keep = rayleigh_ritz(inner_products(V, image))[1][:, : 2 * p]
                V, image = combined(V, keep), combined(image, keep)
            left = size > (tolerance if k < n else 0)
            new = inverse(residual[:, left]).to(dtype)
            new = outside(V, new, noise[:, : new.shape[-1]].roll(step, 0))
            V, image, fresh = join(V, new), join(image, operator(new)), False
        return EigenAnswer(
            operator.original(theta),
            U,
            torch.tensor(finished, device=U.device) & operator.finite,
            torch.tensor(step, device=U.device),
            operator.original(rest[None])[0],
            norm=norm * operator.scale,
        )


def outside(V: Tensor, W: Tensor, noise: Tensor) -> Tensor:
    """Orthonormal columns of the part of W outside of V; random ones in place of what is not finite or dependent."""
    W = torch.where(W.isfinite().all(-2, keepdim=True), W, noise)
    W = W / torch.linalg.vector_norm(W, dim=-2, keepdim=True).clamp_min(torch.finfo(W.dtype).tiny)
    for _ in range(2):
        W = W - combined(V, inner_products(V, W))
        W, R = orthonormal(W)
        spent = R.diagonal().abs() <= 10 * torch.finfo(W.dtype).eps
        W = torch.where(spent, noise / torch.linalg.vector_norm(noise, dim=-2, keepdim=True), W)
    W = W - combined(V, inner_products(V, W))
    return orthonormal(W)[0]


def size_of(operator: ScaledOperator) -> tuple[float, float]:
    """The lowest Ritz value of ±X, and an estimate of ‖X‖, from a few products, in units of the operator."""
    low, _, high = spectral_range(operator, PROBE)
    return -float(high), max(abs(float(high)), abs(float(low))) or 1.0
