"""The eigen decomposition experiments of the paper: time, memory and gradient error, and how exactly each solves."""

from __future__ import annotations

import torch

from pmaf.paper.experiments.base import Column, Experiment, Options, Row, Task
from pmaf.paper.experiments.matrices import DISTRIBUTIONS
from pmaf.paper.experiments.precision import precision
from pmaf.paper.experiments.timing import DENSE, METHODS, OURS, timing

__all__ = ["PRECISION", "TIMING"]


def _orders(options: Options) -> tuple[int, ...]:
    return (32, 64, 128, 256, 512) if options.quick else (32, 64, 128, 256, 512, 1024)


def _timed(options: Options) -> list[Task]:
    """Dense Jacobians are formed up to an order that a small machine has the memory for."""
    runs, dense = (5, 64) if options.quick else (20, 256)
    tasks = []
    for device in ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]:
        for m in _orders(options):
            methods = [name for name in METHODS if name not in DENSE or m <= dense]
            asked = {"m": m, "runs": runs, "methods": methods, "device": device}
            tasks.append(Task(f"{device}-{m}", asked, runs * (0.1 + 3e-6 * m * m)))
    return tasks


def _solved(options: Options) -> list[Task]:
    seeds = 3 if options.quick else 100
    return [
        Task(f"{name}-{m}", {"distribution": name, "m": m, "seeds": seeds}, seeds * (0.01 + 1e-6 * m * m))
        for name in DISTRIBUTIONS
        for m in _orders(options)
    ]


def _sorted(rows: list[Row]) -> list[Row]:
    """Largest matrices first, fastest method first, with pmaf's time to compare with."""
    ours = {(row["device"], row["m"]): row["total"] for row in rows if row["method"] == OURS}
    rows = [row | {"ratio": row["total"] / ours[row["device"], row["m"]]} for row in rows]
    return sorted(rows, key=lambda row: (row["device"], -row["m"], row["total"]))


TIMING = Experiment(
    key="ied_timing",
    section="ied",
    title="Time, memory and gradient error of the paper’s methods",
    plan=_timed,
    compute=timing,
    gather=_sorted,
    group="m",
    columns=(
        Column("method", "method"),
        Column("m", "m", "d"),
        Column("device", "on"),
        Column("forward", "forward ms", ".3g", 1e3, "least"),
        Column("backward", "backward ms", ".3g", 1e3, "least"),
        Column("total", "both ms", ".3g", 1e3, "least"),
        Column("ratio", "× pmaf", ".2f"),
        Column("error", "gradient error", ".1e", best="least"),
        Column("worst", "worst error", ".1e", best="least"),
        Column("forward_mb", "forward MB", ".3g", best="least"),
        Column("backward_mb", "backward MB", ".3g", best="least"),
    ),
)

PRECISION = Experiment(
    key="ied_precision",
    section="ied",
    title="How exactly each method solves",
    plan=_solved,
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
