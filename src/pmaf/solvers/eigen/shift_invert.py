r"""The ends of the spectrum of a sparse matrix by Lanczos' method on the inverse of the shifted matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pmaf.checks.extras import needs
from pmaf.checks.values import set_integers, set_reals
from pmaf.linalg.krylov import KrylovSpace, orthonormal, rayleigh_ritz
from pmaf.linalg.lanczos import VectorLanczos
from pmaf.linalg.sparse_factor import SparseFactor, SparseMatrix, available, predicted_work
from pmaf.linalg.vectors import perturbed, random_block
from pmaf.operators.base import Operator
from pmaf.operators.dense import Dense
from pmaf.operators.gram import Gram
from pmaf.operators.scaled import ScaledOperator, scaled
from pmaf.operators.sparse import Sparse
from pmaf.solvers.base import EigenAnswer, Solver
from pmaf.solvers.eigen.eigh import Eigh
from pmaf.solvers.eigen.subspace import NEAR, default_rtol, spectral_range
from pmaf.transforms import on_host, readable

__all__ = ["ShiftInvert"]

PROBE = 12  # products that tell how large X is, and whether it may be semidefinite
SHARE = 0.1  # of ‖X‖ k/n, about what the wanted values spread over in the plane: how far below a bound σ is put
FAR = 10  # times the spread of the wanted values that σ may lie below them, until a better one is worth a factorisation
LEAST = 1e-9  # of ‖X‖: what counts as spread where the wanted values are all the same
CLOSE = 1e-4  # the same from where σ is so close to the first that the others drown in the rounding of its 1/(λ − σ)
ALWAYS = 4000  # order up to which factors are cheap however full
MOST_ENTRIES = 3e8  # of factors: 5 GB in double precision
MOST_OPERATIONS = 5e4  # a node; more, as in three dimensions, and Lanczos' method on X itself is over sooner
SMALL = 100  # order up to which the matrix is decomposed at once
PATIENCE = 4  # solves a pair with one vector at a time, until a block takes over
ROUNDS = 6  # searches for what a count of the spectrum shows to be missing


class Pairs(NamedTuple):
    """Eigenpairs of ±X, ascending, with their residuals."""

    values: Tensor  # (p,)
    U: Tensor  # (n, p)
    residual: Tensor  # (p,)


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
        entries, operations = predicted_work(*X.pattern.compressed)
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
        if isinstance(X, (Dense, Gram)) or (isinstance(X, Sparse) and X.n <= max(SMALL, 4 * k)):
            return Eigh().solve(X, k, largest)
        if not isinstance(X, Sparse) or not on_host(X.tensors[0]) or not readable(X.tensors[0]):
            raise ValueError(
                f"pmaf.solvers.ShiftInvert: needs a matrix on the CPU, got {type(X).__name__} on {X.device}; use "
                "BlockLanczos()"
            )
        with needs("sparse", "pmaf.solvers.ShiftInvert"):
            import scipy.sparse.linalg  # noqa: F401
        with torch.no_grad():
            return Search(X, k, largest, self).answer(start)


class Search:
    """One run: the matrix ±X whose smallest pairs are wanted, in double precision, and its factors."""

    def __init__(self, X: Sparse, k: int, largest: bool, settings: ShiftInvert) -> None:
        self.k, self.sign, self.original = k, -1.0 if largest else 1.0, X
        (values,) = X.tensors
        self.sound = bool(values.isfinite().all())
        wide = torch.complex128 if values.is_complex() else torch.float64
        safe = values.detach() if self.sound else torch.zeros_like(values)
        self.X = X.with_tensors((safe.to(wide),))
        self.noise = random_block(X.n, k + 1, wide, X.device)
        probe = scaled(self.X, largest, orthonormal(self.noise[:, :1])[0])
        self.low, self.norm = self.probed(probe)
        self.matrix = SparseMatrix(*X.pattern.compressed, self.X.tensors[0], symmetric=self.X.symmetric())
        self.rtol = default_rtol(wide) if settings.rtol is None else settings.rtol
        self.limit = max(settings.max_basis or max(32, 2 * k + 16), k + 4)
        self.budget, self.steps = settings.max_steps, 0

    def probed(self, probe: ScaledOperator) -> tuple[float, float]:
        """The lowest Ritz value of ±X, and an estimate of ‖X‖, from a few products."""
        low, _, high = spectral_range(probe, PROBE)  # of the negative of ±X, in units of its scale
        scale = float(probe.scale)
        return -float(high) * scale, max(abs(float(high)), abs(float(low))) * scale or 1.0

    def product(self, V: Tensor) -> Tensor:
        """±X V."""
        return self.sign * self.X.matmat(V)

    def first_factor(self) -> SparseFactor | None:
        """Factors of ±X − σI with σ below all eigenvalues, as positive pivots prove."""
        nudge = self.norm * SHARE * self.k / self.X.n  # else X − σI could be singular
        bound = self.matrix.lower_bound(self.sign) - nudge
        hopes = [-nudge] if bound < -2 * nudge and self.low > -nudge else []
        for shift in (*hopes, bound, bound - self.norm):
            factor = self.matrix.factor(self.sign, shift)
            if factor is not None and factor.count() == 0:
                return factor
        return None

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

    def best(self, V: Tensor) -> Pairs:
        """The best pairs of ±X that the span of V holds (Rayleigh–Ritz), and their residuals."""
        V = orthonormal(V)[0]
        image = self.product(V)
        theta, Q = rayleigh_ritz(V.mH @ image)
        theta, Q = theta.flip(-1), Q.flip(-1)
        U = V @ Q
        return Pairs(theta, U, torch.linalg.vector_norm(image @ Q - U * theta, dim=0))

    def lanczos(
        self, factor: SparseFactor, first: Tensor, wanted: int, locked: Pairs
    ) -> tuple[SparseFactor, Pairs, bool]:
        """The ``wanted`` smallest pairs of ±X outside the span of those that are locked.

        Args:
            factor: of ±X − σI, σ below the spectrum.
            first: where to begin, ``(n, p)``.
            wanted: how many; the last of more than k need only be known to a tenth of its distance.
            locked: pairs to leave out.

        Returns:
            The factors in use at the end, the pairs, and whether they were found.
        """
        p = first.shape[-1]
        goal = self.rtol * self.norm

        def outside(V: Tensor) -> Tensor:
            return V - locked.U @ (locked.U.mH @ V) if locked.U.shape[-1] else V

        def solve(V: Tensor) -> Tensor:
            self.steps += 1
            return outside(factor.solve(V))

        limit = max(self.limit, wanted + 3 * p)
        grow = VectorLanczos if p == 1 else KrylovSpace
        space = grow(solve, orthonormal(outside(first))[0], self.noise[:, :p], limit + p)
        check, pairs = wanted + 1, locked
        most = max(self.budget, wanted)
        for step in range(most):
            space.extend()
            m = space.V.shape[-1]
            last, full = step + 1 == most or space.ahead.shape[-1] == 0, m + p > limit
            if m < check and not (full or last):
                continue
            check = m + max(1, m // 12)
            theta, Q = rayleigh_ritz(space.H)
            values = factor.shift + 1 / theta[:wanted].clamp_min(torch.finfo(theta.dtype).tiny)
            estimate = space.slack(Q[:, :wanted]) / theta[:wanted].square()
            if last or self.near_enough(values, estimate, goal):
                tail = (space.coupling @ Q[-p:, :wanted]) / theta[:wanted]  # (X − σI)⁻¹ times the Ritz vector
                U = space.V @ Q[:, :wanted] + (space.ahead @ tail if space.ahead.shape[-1] == p else 0)
                pairs = self.best(U)
                if self.near_enough(pairs.values, pairs.residual, goal):
                    return factor, pairs, True
            if last:
                break
            if full:
                better = self.better(factor, values, estimate) if wanted > 1 and not locked.U.shape[-1] else None
                if better is not None:
                    factor = better
                    begin = Q[:, :wanted].sum(-1, keepdim=True) if p == 1 else Q[:, :p]
                    mixed = perturbed(space.V @ begin, self.noise[:, :p], 0.01)
                    space = grow(solve, orthonormal(mixed)[0], self.noise[:, :p], limit + p)
                else:
                    keep = min(wanted + (limit - wanted - p) // 3, m - 1)
                    space.restart(theta[:keep], Q[:, :keep])
                check = 0
        return factor, pairs, False

    def near_enough(self, values: Tensor, residual: Tensor, goal: float) -> bool:
        """Whether the wanted pairs are found, and the one after them to a tenth of its distance."""
        k = self.k
        if not bool((residual[:k] <= goal).all()):
            return False
        if len(values) <= k:
            return True
        return bool(residual[k] <= max(goal, NEAR * NEAR * float(values[k] - values[k - 1])))

    def better(self, factor: SparseFactor, values: Tensor, estimate: Tensor) -> SparseFactor | None:
        """Factors with a better σ, where it is too far from the wanted values or too close, beside their spread."""
        spread = max(float(values[-1] - values[0]), LEAST * self.norm)
        distance = float(values[0]) - factor.shift
        if distance > FAR * spread:
            shift = float(values[0]) - max(spread, float(estimate[0]))
            if not shift - factor.shift > distance / 2:
                return None
        elif distance < CLOSE * spread:
            shift = float(values[0]) - spread / FAR
        else:
            return None
        found = self.matrix.factor(self.sign, shift)
        return found if found is not None and found.count() == 0 else None
