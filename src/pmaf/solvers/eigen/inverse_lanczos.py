r"""Lanczos' method on the inverse of a shifted sparse matrix: the pairs next to a shift below the spectrum.

.. math:: (A - \sigma I)^{-1} u = \frac{1}{\mu - \sigma}\,u, \qquad A = \pm X,\quad \sigma < \mu_1

Ritz values θ of the inverse are values σ + 1/θ of A, and a residual ρ of theirs is one of about ρ/θ². Residuals that
count are measured on A itself. Where σ turns out too far from the wanted values, or too close to the first, beside
their spread, another factorisation moves it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pmaf.linalg.krylov import KrylovSpace, orthonormal, rayleigh_ritz
from pmaf.linalg.lanczos import VectorLanczos
from pmaf.linalg.sparse_factor import SparseFactor, SparseMatrix
from pmaf.linalg.vectors import perturbed, random_block
from pmaf.operators.scaled import ScaledOperator, scaled
from pmaf.operators.sparse import Sparse
from pmaf.solvers.eigen.subspace import NEAR, default_rtol, spectral_range

__all__ = ["InverseLanczos", "Pairs"]

PROBE = 12  # products that tell how large X is, and whether it may be semidefinite
SHARE = 0.1  # of ‖X‖ k/n, about what the wanted values spread over in the plane: how far below a bound σ is put
FAR = 10  # times the spread of the wanted values that σ may lie below them, until a better one is worth a factorisation
LEAST = 1e-9  # of ‖X‖: what counts as spread where the wanted values are all the same
CLOSE = 1e-4  # the same from where σ is so close to the first that the others drown in the rounding of its 1/(λ − σ)


class Pairs(NamedTuple):
    """Eigenpairs of ±X, ascending, with their residuals."""

    values: Tensor  # (p,)
    U: Tensor  # (n, p)
    residual: Tensor  # (p,)


class InverseLanczos:
    """The matrix ±X whose smallest pairs are wanted, in double precision, and the way to them.

    Args:
        X: the matrix.
        k: how many pairs.
        largest: whether X stands with a minus.
        rtol: residual of each pair to reach, relative to ‖X‖; a default if not given.
        max_basis: basis size that triggers a restart; a default if not given.
        max_steps: the most solves.
    """

    def __init__(
        self, X: Sparse, k: int, largest: bool, rtol: float | None, max_basis: int | None, max_steps: int
    ) -> None:
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
        self.rtol = default_rtol(wide) if rtol is None else rtol
        self.limit = max(max_basis or max(32, 2 * k + 16), k + 4)
        self.budget, self.steps = max_steps, 0

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
        check, pairs = 2 * wanted, locked  # no sooner are they found
        most = max(self.budget, wanted)
        for step in range(most):
            space.extend()
            m = space.V.shape[-1]
            last, full = step + 1 == most or space.ahead.shape[-1] == 0, m + p > limit
            if m < check and not (full or last):
                continue
            check = m + max(1, m // 6)
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
