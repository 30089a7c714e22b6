"""How exactly each method solves for the leading eigenpair, against the order of the matrix."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

import pmaf
from pmaf.paper.experiments.matrices import random_matrices

__all__ = ["METHODS", "Precision", "precision"]

# The paper's iterations are 100; the solvers stop earlier where they have converged.
METHODS: dict[str, Any] = {
    "AutoDiff": pmaf.solvers.Eigh(),
    "PI": pmaf.solvers.PowerIteration(max_steps=100),
    "SI": pmaf.solvers.SimultaneousIteration(max_steps=100),
    "pmaf": None,
}


class Precision(NamedTuple):
    """One method on one kind of matrix.

    Attributes:
        method: the paper's name, or ``pmaf`` for the default solver.
        distribution: how the entries are drawn.
        m: order of the matrices.
        eigen_gap: mean of ‖λu − Xu‖/λ.
        fixed_point_gap: mean of ‖u − Xu/‖Xu‖‖.
        failed: matrices whose solve did not converge.
        matrices: how many were solved.
    """

    method: str
    distribution: str
    m: int
    eigen_gap: float
    fixed_point_gap: float
    failed: int
    matrices: int


def precision(distribution: str, m: int, seeds: int) -> list[Precision]:
    """Solve the same matrices by every method in float32, and measure the gaps in float64.

    Args:
        distribution: one of ``matrices.DISTRIBUTIONS``.
        m: order of the matrices.
        seeds: how many batches of five.

    Returns:
        A row for each method.
    """
    gaps: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {name: [] for name in METHODS}
    for seed in range(seeds):
        X = random_matrices(distribution, m, seed)
        for name, solver in METHODS.items():
            gaps[name].append(_gaps(X, solver))
    rows = []
    for name, parts in gaps.items():
        eigen, fixed, failed = (torch.cat(column) for column in zip(*parts, strict=True))
        measured = float(eigen.mean()), float(fixed.mean()), int(failed.sum()), len(eigen)
        rows.append(Precision(name, distribution, m, *measured))
    return rows


def _gaps(X: Tensor, solver: Any) -> tuple[Tensor, Tensor, Tensor]:
    with torch.no_grad():
        solution = pmaf.ied_ex(X, 1, solver=solver)
        exact, u = X.double(), solution.eigenvectors.double()
        value = solution.eigenvalues.double()[..., None]
        product = exact @ u
        eigen = (value * u - product).norm(dim=(-2, -1)) / value.abs().squeeze((-2, -1))
        fixed = (u - product / product.norm(dim=-2, keepdim=True)).norm(dim=(-2, -1))
    return eigen, fixed, solution.status != pmaf.Status.CONVERGED
