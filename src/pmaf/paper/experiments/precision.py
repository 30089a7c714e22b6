"""How exactly each method solves for the leading eigenpair of the paper's matrices, and of features of photographs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Size, Tensor
from torch.distributions import VonMises

import pmaf
from pmaf.paper.experiments.base import Column, Experiment, Options, Row, Task
from pmaf.paper.experiments.photographs import feature_stream

__all__ = ["DISTRIBUTIONS", "METHODS", "PRECISION", "orders", "precision", "random_matrices"]

# The paper's iterations are 100; the solvers stop earlier where they have converged.
METHODS: dict[str, Any] = {
    "eigh": pmaf.solvers.Eigh(),
    "PI": pmaf.solvers.PowerIteration(max_steps=100),
    "SI": pmaf.solvers.SimultaneousIteration(max_steps=100),
    "pmaf": None,
}


DISTRIBUTIONS: dict[str, Callable[[Size, int], Tensor]] = {
    "gaussian": lambda shape, seed: torch.randn(shape),
    "uniform": lambda shape, seed: torch.rand(shape),
    "von Mises": lambda shape, seed: VonMises(torch.tensor(0.0), torch.tensor(1.0)).sample(shape),
    "integers": lambda shape, seed: torch.randint(0, 10, shape).float(),
    "features": lambda shape, seed: feature_stream(seed, shape.numel()).reshape(shape),
}
"""Of entries with a shape; the last feature maps that EfficientNet-lite0 makes of photographs begin at the seed."""


def orders(options: Options) -> list[int]:
    """The orders of the matrices."""
    return [32, 64, 128, 256, 512] + ([] if options.quick else [1024])


def random_matrices(distribution: str, m: int, seed: int, batch: int = 5) -> Tensor:
    """A batch of symmetric matrices with non-negative entries, as the paper draws them.

    Entries are drawn, replaced by their absolute value, and X + Xᵀ is formed.
    """
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        X = DISTRIBUTIONS[distribution](Size((batch, m, m)), seed).abs()
    return X + X.mT


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
