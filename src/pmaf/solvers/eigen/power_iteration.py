r"""Power iteration: one product and one normalisation a step."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pmaf.checks.values import set_flags, set_integers, set_reals
from pmaf.linalg.batched import lengths
from pmaf.linalg.krylov import orthonormal
from pmaf.operators.base import Operator
from pmaf.operators.scaled import scaled
from pmaf.solvers.base import EigenAnswer, Solver
from pmaf.solvers.eigen.subspace import default_rtol, dominating_shift, spectral_range, starting_block
from pmaf.solvers.iteration import State, iterate

__all__ = ["PROBE_STEPS", "PowerIteration"]

PROBE_STEPS = 8  # products spent on finding the shift


@dataclass(frozen=True, kw_only=True)
class PowerIteration(Solver):
    r"""The leading eigenpair by :math:`u \leftarrow (X + \sigma I)u / \|(X + \sigma I)u\|`.

    Without a shift the iteration finds the eigenvalue of largest *magnitude*. Here :math:`\sigma` comes from the Ritz
    values of a short Lanczos run, :math:`\theta_2 \le \lambda_2` and :math:`\theta_{\min}`, so that the algebraically
    largest eigenvalue lies farthest from :math:`-\sigma`. A pair is accepted only if its measured residual is small and
    its value is not below the largest Ritz value of that run, which starts from a random vector of its own.

    With ``symmetric=False`` X may be any square matrix and the pair is its dominant (largest in magnitude) real one, as
    PageRank needs. A second column, kept orthogonal to the first, tells how large the next eigenvalue is in modulus:
    ``next`` is as large as the eigenvalue itself if the dominant one is tied. Complex dominant pairs never settle.

    Batched; works in the dtype and on the device of X; costs one product a step.

    Args:
        rtol: residual ‖Xu − λu‖ / ‖X‖ to reach; by default :func:`default_rtol`.
        max_steps: the most steps any item may take.
        symmetric: whether X is Hermitian.

    Raises:
        ValueError: if ``rtol`` or ``max_steps`` is not positive.

    References:
        Golub, Van Loan: Matrix Computations, 4th ed., sections 7.3 and 8.2.

    Example:
        >>> import torch
        >>> from pmaf.operators.dense import Dense
        >>> X = torch.diag(torch.tensor([2.0, -3.0, 1.0]))
        >>> answer = PowerIteration().solve(Dense(X), 1, largest=True)
        >>> answer.eigenvalues
        tensor([2.])
    """

    needs = "products"
    use = "one dominant pair that is well separated"
    largest_k = 1
    takes_start = True
    gives_gap = False

    rtol: float | None = None
    max_steps: int = 1000
    symmetric: bool = True

    def __post_init__(self) -> None:
        set_integers(self, "max_steps")
        set_reals(self, "positive", "rtol")
        set_flags(self, "symmetric")

    def solve(self, X: Operator, k: int, largest: bool, start: Tensor | None = None) -> EigenAnswer:
        """Find the leading pair of every item.

        Args:
            X: the matrices, ``(*, n, n)``.
            k: must be 1.
            largest: the algebraically largest, else the smallest; must be true if not ``symmetric``.
            start: first guess, ``(*, n, 1)``.

        Returns:
            The pairs; ``next`` is known only if not ``symmetric``.

        Raises:
            ValueError: for k > 1, and for ``largest=False`` if not ``symmetric``.
        """
        self.accept(X, k, start)
        if self.symmetric:
            return self.leading(X, largest, start)
        if not largest:
            raise ValueError(
                "pmaf.solvers.PowerIteration: symmetric=False finds the dominant pair only, got largest=False"
            )
        return self.dominant(X.general(), start)

    def leading(self, X: Operator, largest: bool, start: Tensor | None) -> EigenAnswer:
        """The algebraically largest (smallest) pair of a Hermitian X."""
        rtol = self.rtol if self.rtol is not None else default_rtol(X.dtype)
        u = starting_block(X, 1, start)
        operator = scaled(X, largest, u)
        low, second, high = spectral_range(operator, PROBE_STEPS)
        norm = torch.maximum(high.abs(), low.abs())
        shift = dominating_shift(low, second, norm)[..., None, None]

        def step(state: State) -> tuple[State, Tensor]:
            u, y, _ = state
            u = y + shift * u
            u = u / lengths(u).clamp_min(torch.finfo(u.dtype).tiny)
            y = operator(u)
            theta = (u.conj() * y).real.sum(-2)  # (*, 1)
            residual = torch.linalg.vector_norm(y - theta[..., None] * u, dim=(-2, -1))
            done = (residual <= rtol * norm) & (theta[..., 0] >= high - rtol * norm)
            return (u, y, theta), done | ~operator.finite

        state = (u, operator(u), low[..., None])
        (u, _, theta), done, steps = iterate(step, state, operator.finite.shape, self.max_steps)
        return EigenAnswer(operator.original(theta), u, done & operator.finite, steps, norm=norm * operator.scale)

    def dominant(self, X: Operator, start: Tensor | None) -> EigenAnswer:
        """The real pair of largest magnitude of a general X, by orthogonal iteration with two columns."""
        rtol = self.rtol if self.rtol is not None else default_rtol(X.dtype)
        V = starting_block(X, min(2, X.n), start)
        operator = scaled(X, True, V)

        def step(state: State) -> tuple[State, Tensor]:
            _, Y, *_ = state
            V = orthonormal(Y)[0]  # its first column is Y's first column, normalised
            Y = operator(V)
            u, y = V[..., :1], Y[..., :1]
            theta = (u.conj() * y).real.sum(-2)  # (*, 1)
            rest = Y[..., 1:] - u @ (u.mH @ Y[..., 1:])  # the second column's own growth
            growth = torch.linalg.vector_norm(rest, dim=-2)  # (*, 1), or (*, 0) for n = 1
            norm = torch.linalg.vector_norm(Y, dim=-2).amax(-1)  # ≤ ‖X‖, and far from |θ| where X turns vectors
            residual = torch.linalg.vector_norm(y - theta[..., None] * u, dim=(-2, -1)) / torch.where(norm > 0, norm, 1)
            return (V, Y, theta, growth, residual), (residual <= rtol) | ~operator.finite

        theta = torch.zeros_like(operator.scale)[..., None]
        state = (V, operator(V), theta, theta[..., : X.n - 1], theta[..., 0])
        (V, _, theta, growth, residual), done, steps = iterate(step, state, operator.finite.shape, self.max_steps)
        if X.n == 1:
            growth = torch.full_like(theta, torch.inf)  # no eigenvalue is left
        following = operator.original(growth.copysign(theta))[..., 0]
        residual = torch.where(operator.finite, residual, torch.nan)
        finished = done & operator.finite
        return EigenAnswer(operator.original(theta), V[..., :1], finished, steps, following, residual=residual)
