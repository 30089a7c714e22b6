r"""The ends of the spectrum of a sparse matrix by Lanczos' method on the inverse of the shifted matrix."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pmaf.checks.extras import needs
from pmaf.checks.values import set_integers, set_reals
from pmaf.linalg.sparse_factor import available
from pmaf.linalg.vectors import perturbed
from pmaf.operators.base import Operator
from pmaf.operators.sparse import Sparse
from pmaf.solvers.base import EigenAnswer, Solver
from pmaf.solvers.eigen.eigh import Eigh, at_once
from pmaf.solvers.eigen.inverse_lanczos import InverseLanczos, Pairs
from pmaf.solvers.eigen.subspace import NEAR
from pmaf.transforms import on_host, readable

__all__ = ["ShiftInvert"]

ALWAYS = 4000  # order up to which factors are cheap however full
MOST_ENTRIES = 3e8  # of factors: 5 GB in double precision
MOST_OPERATIONS = 5e4  # a node; more, as in three dimensions, and Lanczos' method on X itself is over sooner
PATIENCE = 4  # solves a pair with one vector at a time, until a block takes over
ROUNDS = 6  # searches for what a count of the spectrum shows to be missing


@dataclass(frozen=True, kw_only=True)
class ShiftInvert(Solver):
    r"""The k smallest (largest) eigenpairs of a sparse matrix from one sparse factorisation, proved by a second one.

    .. math:: (X - \sigma I)^{-1} u = \frac{1}{\lambda - \sigma}\,u, \qquad \sigma < \lambda_1

    With σ just below the spectrum (above it, for the largest) the wanted pairs are the leading ones of the inverse, far
    apart from the others however close together they lie beside ‖X‖: a few dozen solves, where products with X alone
    take thousands.

    1. σ: just below zero if X may be semidefinite, else below Gershgorin's bound. Positive pivots prove that it lies
       below all eigenvalues. It is moved nearer, by another factorisation, if it turns out to be far away compared with
       the spread of the wanted values.
    2. Lanczos' method, one vector at a time, fully reorthogonalised, until residuals measured on X itself are small.
    3. X − τI, τ short of the first value left out, is factorised: it has as many negative pivots as X has eigenvalues
       below τ (Sylvester). Where there are more than were found, a repeated value has been missed, and a block
       search of the rest goes on until the count is met. Where pivoting does not allow the count, the pairs are
       returned as they are and ``gap`` is NaN: that they are the leading ones then rests on the random start.

    The first factorisation is kept for the backward pass, which costs about as many solves as the forward one.

    Works in double precision whatever the type of X. Dense matrices, and sparse ones of order up to 100 or 4k, are
    decomposed at once, as by :class:`Eigh`. For matrices whose factors stay sparse: discretised operators in
    the plane, graphs of neighbours. Needs SciPy (``pip install 'pmaf[sparse]'``) and a matrix on the CPU.

    Args:
        rtol: residual ‖Xu − λu‖ / ‖X‖ of each pair to reach; by default :func:`default_rtol` of double precision.
        max_basis: basis size that triggers a restart; by default the larger of 32 and 2k + 16.
        max_steps: the most solves, at least one for each pair.

    Raises:
        ValueError: if an argument is not positive.

    References:
        Ericsson, Ruhe: The spectral transformation Lanczos method, Math. Comp. 35 (1980).
        Grimes, Lewis, Simon: A shifted block Lanczos algorithm, SIAM J. Matrix Anal. Appl. 15 (1994).

    Example:
        >>> import torch, pmaf
        >>> X = torch.diag(torch.arange(200.0)).to_sparse()
        >>> pmaf.ied(X, 2, largest=False, solver="shift_invert").eigenvalues.round(decimals=4)  # doctest: +SKIP
        tensor([0., 1.])
    """

    needs = "a sparse matrix, and SciPy"
    use = "the smallest pairs of sparse matrices whose factors stay sparse; the default for them"
    takes_start = True
    unrolls = False

    rtol: float | None = None
    max_basis: int | None = None
    max_steps: int = 1000

    @classmethod
    def pays(cls, X: Operator) -> bool:
        """Whether the factors of X, as far as its graph tells, cost less than the products that they save."""
        if not (isinstance(X, Sparse) and available() and on_host(X.tensors[0]) and readable(X.tensors[0])):
            return False
        if X.n <= ALWAYS:
            return True
        entries, operations = X.pattern.factor_work
        return entries <= MOST_ENTRIES and operations <= MOST_OPERATIONS * X.n

    def __post_init__(self) -> None:
        set_integers(self, "max_basis", "max_steps")
        set_reals(self, "positive", "rtol")

    def solve(self, X: Operator, k: int, largest: bool, start: Tensor | None = None) -> EigenAnswer:
        """Find the k smallest (largest) pairs.

        Args:
            X: a sparse matrix on the CPU.
            k: how many pairs.
            largest: the algebraically largest, else the smallest.
            start: first guesses, ``(n, p)``; their sum is where the method begins.

        Returns:
            The pairs; ``next`` is NaN where nothing proves that no eigenvalue is missing.

        Raises:
            ValueError: if X is a function, or not on the CPU.
        """
        if at_once(X, k):
            return Eigh().solve(X, k, largest)
        if not isinstance(X, Sparse) or not on_host(X.tensors[0]) or not readable(X.tensors[0]):
            raise ValueError(
                f"pmaf.solvers.ShiftInvert: needs a matrix on the CPU, got {type(X).__name__} on {X.device}; use "
                "BlockLanczos()"
            )
        with needs("sparse", "pmaf.solvers.ShiftInvert"):
            import scipy.sparse.linalg  # noqa: F401
        with torch.no_grad():
            return Search(X, k, largest, self.rtol, self.max_basis, self.max_steps).answer(start)


class Search(InverseLanczos):
    """One run, and the proof that nothing is missing from what it finds."""

    def answer(self, start: Tensor | None) -> EigenAnswer:
        """The pairs, proved complete where the pivots tell."""
        k, n = self.k, self.X.n
        factor = self.first_factor() if self.sound else None
        if factor is None:
            nothing = torch.full((k,), torch.nan, dtype=torch.float64)
            return self.told(Pairs(nothing, self.noise[:, :k] * torch.nan, nothing), nothing[0], False)
        first = self.noise[:, :1]
        if start is not None:
            first = perturbed(start.reshape(n, -1).to(first.dtype).sum(-1, keepdim=True), first)
        none = Pairs(first[0, :0].real, first[:, :0], first[0, :0].real)
        budget = self.budget
        self.budget = min(budget, PATIENCE * (k + 1) + 2 * self.limit)
        factor, pairs, met = self.lanczos(factor, first, k + 1, none)
        if (
            not met and budget > self.steps
        ):  # one vector at a time has a hard time with an eigenvalue that repeats often
            self.budget = budget - self.steps
            factor, pairs, met = self.lanczos(factor, self.noise, k + 1, none)
        self.original.factors.put(self.original.tensors[0], factor)
        known, proved = {factor.shift: 0}, False
        for _ in range(ROUNDS if met else 0):
            tau, below = self.between(pairs, factor.shift)
            count = self.counted(known, tau, pairs.values)
            if count < 0 or count <= below:
                proved = count == below
                break
            wanted = min(count - below, k + 1)
            block = self.noise[:, :wanted].roll(1 + self.steps, 0)
            locked = Pairs(pairs.values[:below], pairs.U[:, :below], pairs.residual[:below])  # exact, unlike the last
            _, more, met = self.lanczos(factor, block, wanted, locked)
            if not met:
                break
            pairs = self.best(torch.cat((pairs.U, more.U), -1))
        values = pairs.values
        following = values[k] if proved else values.new_tensor(torch.nan)
        return self.told(pairs, following, met)

    def told(self, pairs: Pairs, following: Tensor, finished: bool) -> EigenAnswer:
        """The answer in the type and the sign of X."""
        k, like = self.k, self.original.tensors[0]
        real = like.real.dtype
        norm = torch.tensor(self.norm, dtype=real)
        residual = pairs.residual[:k].amax() / self.norm if self.sound else torch.tensor(torch.nan)
        return EigenAnswer(
            (self.sign * pairs.values[:k]).to(real),
            pairs.U[:, :k].to(like.dtype),
            torch.tensor(finished),
            torch.tensor(self.steps),
            (self.sign * following).to(real),
            norm=norm,
            residual=residual.to(real),
        )

    def between(self, pairs: Pairs, shift: float) -> tuple[float, int]:
        """A number that splits the values found where they are apart, and how many of them lie below it."""
        ends = torch.cat((pairs.values.new_tensor([shift]), pairs.values))[: self.k + 2]
        steps = ends.diff()
        tolerance = 100 * self.rtol * self.norm
        at = next((j for j in range(len(steps) - 1, 0, -1) if steps[j] > tolerance), 0)
        return float(ends[at + 1] - NEAR * steps[at]), at

    def counted(self, known: dict[float, int], tau: float, values: Tensor) -> int:
        """How many eigenvalues of ±X lie below τ; −1 where the pivots do not tell."""
        for other, count in known.items():
            if not bool(((values > min(other, tau)) & (values < max(other, tau))).any()) and count > 0:
                return count
        factor = self.matrix.factor(self.sign, tau)
        if factor is None:
            return -1
        count = factor.count()
        distance = float((values - tau).abs().min())
        known[tau] = count if factor.margin < distance else -1
        return known[tau]
