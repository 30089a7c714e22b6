r"""Simultaneous (orthogonal, subspace) iteration with Rayleigh–Ritz."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pmaf.checks.values import set_integers, set_reals
from pmaf.linalg.batched import combined, inner_products
from pmaf.linalg.krylov import orthonormal, rayleigh_ritz
from pmaf.operators.base import Operator
from pmaf.operators.scaled import scaled
from pmaf.solvers.base import EigenAnswer, Solver
from pmaf.solvers.eigen.power_iteration import PROBE_STEPS
from pmaf.solvers.eigen.subspace import (
    default_rtol,
    dominating_shift,
    following,
    identity_block,
    spectral_range,
    starting_block,
)
from pmaf.solvers.iteration import State, iterate

__all__ = ["SimultaneousIteration"]


@dataclass(frozen=True, kw_only=True)
class SimultaneousIteration(Solver):
    r"""The k leading eigenpairs by :math:`V \leftarrow \mathrm{orth}((X + \sigma I)V)`, V of p = k + ``guard`` columns.

    Each step takes the best approximations in the span of V (Rayleigh–Ritz), so that clustered eigenvalues inside the
    block do no harm: pair i converges with the factor :math:`|\lambda_{p+1} + \sigma| / |\lambda_i + \sigma|`. The
    shift :math:`\sigma`, from a short Lanczos run and the block's own Ritz values, makes the algebraically largest
    eigenvalues the dominant ones. With p = n the first step is exact.

    Batched; works in the dtype and on the device of X; a step costs one product with p columns and O(np²).

    Args:
        guard: columns iterated beyond k.
        rtol: residual ‖Xu − λu‖ / ‖X‖ of each pair to reach; by default :func:`default_rtol`.
        max_steps: the most steps any item may take.

    Raises:
        ValueError: if ``guard`` is negative, or ``rtol`` or ``max_steps`` is not positive.

    References:
        Rutishauser: Simultaneous iteration method for symmetric matrices, Numer. Math. 16 (1970).

    Example:
        >>> import torch
        >>> from pmaf.operators.dense import Dense
        >>> X = torch.diag(torch.tensor([2.0, -3.0, 1.0, 0.5, 0.0, 0.0]))
        >>> answer = SimultaneousIteration(guard=1).solve(Dense(X), 2, largest=False)
        >>> answer.eigenvalues.round(decimals=5)
        tensor([-3.,  0.])
    """

    needs = "products"
    use = "a few pairs that are well separated"
    takes_start = True

    guard: int = 4
    rtol: float | None = None
    max_steps: int = 1000

    def __post_init__(self) -> None:
        set_integers(self, "guard", least=0)
        set_integers(self, "max_steps")
        set_reals(self, "positive", "rtol")

    def solve(self, X: Operator, k: int, largest: bool, start: Tensor | None = None) -> EigenAnswer:
        """Find the k leading pairs of every item.

        Args:
            X: the matrices, ``(*, n, n)``.
            k: how many pairs.
            largest: the algebraically largest, else the smallest.
            start: first guesses, ``(*, n, p)`` for any p.

        Returns:
            The pairs; ``next`` is the first guard column's Ritz value once it has converged, NaN without one.
        """
        rtol = self.rtol if self.rtol is not None else default_rtol(X.dtype)
        start = None if start is None else start[..., :k]
        useless = 0 if start is None else start.shape[-1]  # at worst; k + 1 columns beside these are random
        p = min(X.n, k + max(self.guard, useless + 1 if self.guard else 0))
        V = identity_block(X) if p == X.n else starting_block(X, p, start)
        operator = scaled(X, largest, V)
        low, _, high = spectral_range(operator, PROBE_STEPS)
        norm = torch.maximum(high.abs(), low.abs())

        def ritz(V: Tensor) -> State:
            Y = operator(V)
            theta, Q = rayleigh_ritz(inner_products(V, Y))
            return combined(V, Q), combined(Y, Q), theta

        def judged(V: Tensor, Y: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
            """The value after the selected ones, and the items that have settled."""
            residual = torch.linalg.vector_norm((Y - theta[..., None, :] * V)[..., : k + 1], dim=-2)
            rest, known = following(theta, residual, k, X.n, rtol * norm)
            settled = (residual[..., :k].amax(-1) <= rtol * norm) & (theta[..., 0] >= high - rtol * norm)
            return rest, settled & (known if p > k else settled)

        def step(state: State) -> tuple[State, Tensor]:
            V, Y, theta = state
            shift = dominating_shift(torch.minimum(low, theta[..., -1]), theta[..., -1], norm)  # θ_p ≤ λ_p (Cauchy)
            proposed = ritz(orthonormal(Y + shift[..., None, None] * V)[0])
            return proposed, judged(*proposed)[1] | ~operator.finite

        state = ritz(V)
        (V, Y, theta), finished, steps = iterate(step, state, operator.finite.shape, self.max_steps)
        rest = operator.original(judged(V, Y, theta)[0][..., None])[..., 0]
        values, finished = operator.original(theta[..., :k]), finished & operator.finite
        return EigenAnswer(values, V[..., :k], finished, steps, rest, norm=norm * operator.scale)
