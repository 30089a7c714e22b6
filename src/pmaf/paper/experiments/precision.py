"""How exactly each method solves for the leading eigenpair, against the order of the matrix."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import pmaf
from pmaf.paper.experiments.base import Row
from pmaf.paper.experiments.matrices import random_matrices

__all__ = ["METHODS", "precision"]

# The paper's iterations are 100; the solvers stop earlier where they have converged.
METHODS: dict[str, Any] = {
    "eigh": pmaf.solvers.Eigh(),
    "PI": pmaf.solvers.PowerIteration(max_steps=100),
    "SI": pmaf.solvers.SimultaneousIteration(max_steps=100),
    "pmaf": None,
}


def precision(distribution: str, m: int, seeds: int) -> list[Row]:
    """Solve the same batches of five by every method in float32; mean gaps, measured in float64, and failures."""
    gaps: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {name: [] for name in METHODS}
    for seed in range(seeds):
        X = random_matrices(distribution, m, seed)
        for name, solver in METHODS.items():
            gaps[name].append(_gaps(X, solver))
    rows = []
    for name, parts in gaps.items():
        eigen, fixed, failed = (torch.cat(column) for column in zip(*parts, strict=True))
        row = {"method": name, "distribution": distribution, "m": m, "eigen_gap": float(eigen.mean())}
        row |= {"fixed_point_gap": float(fixed.mean()), "failed": int(failed.sum()), "matrices": len(eigen)}
        rows.append(row)
    return rows


def _gaps(X: Tensor, solver: Any) -> tuple[Tensor, Tensor, Tensor]:
    """‖λu − Xu‖/λ, ‖u − Xu/‖Xu‖‖, and which solves did not converge."""
    with torch.no_grad():
        solution = pmaf.ied_ex(X, 1, solver=solver)
        u, value = solution.eigenvectors.double(), solution.eigenvalues.double()[..., None]
        product = X.double() @ u
        eigen = (value * u - product).norm(dim=(-2, -1)) / value.abs().squeeze((-2, -1))
        fixed = (u - product / product.norm(dim=-2, keepdim=True)).norm(dim=(-2, -1))
    return eigen, fixed, solution.status != pmaf.Status.CONVERGED
