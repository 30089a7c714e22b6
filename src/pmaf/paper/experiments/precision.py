"""How exactly each method solves for the leading eigenpair, against the order of the matrix."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import pmaf
from pmaf.paper.experiments.base import Column, Experiment, Options, Row, Task
from pmaf.paper.experiments.matrices import DISTRIBUTIONS, orders, random_matrices

__all__ = ["METHODS", "PRECISION", "precision"]

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


def _plan(options: Options) -> list[Task]:
    seeds = 3 if options.quick else 100
    return [
        Task(f"{name}-{m}", {"distribution": name, "m": m, "seeds": seeds}, seeds * (0.01 + 1e-6 * m * m))
        for name in DISTRIBUTIONS
        for m in orders(options)
    ]


PRECISION = Experiment(
    key="ied_precision",
    section="ied",
    title="How exactly each method solves",
    plan=_plan,
    compute=precision,
    timed=False,
    columns=(
        Column("distribution", "entries"),
        Column("method", "method"),
        Column("m", "m", "d"),
        Column("eigen_gap", "eigen gap", ".2e"),
        Column("fixed_point_gap", "fixed-point gap", ".2e"),
        Column("failed", "failed", "d"),
        Column("matrices", "of", "d"),
    ),
)
