"""Forward and backward beside torch.linalg.eigh and its autograd, for the batches that people have."""

from __future__ import annotations

import time
from statistics import median, quantiles

import torch

import pmaf
from pmaf.paper.experiments.base import Column, Experiment, Options, Row, Task
from pmaf.paper.experiments.measure import Leading, Turn, in_turn
from pmaf.paper.experiments.timing import eigh

__all__ = ["SHAPES", "SPEED", "speed"]

SHAPES = {
    (1, 3): "one normal",
    (1, 9): "one homography",
    (1, 16): "one array of antennas",
    (1, 64): "one covariance",
    (64, 4): "rotation averaging",
    (1000, 3): "normals",
    (1000, 9): "homographies",
    (1000, 32): "covariance pooling",
    (64, 64): "second-order pooling",
    (5, 256): "the paper’s batch",
}
"""Batch and order, and who has such matrices."""
_ROUNDS = 8  # at the least
_METHODS: dict[str, Leading] = {"eigh": eigh, "pmaf": lambda X: pmaf.ied(X, 1).eigenvectors}


def speed(batch: int, n: int, seconds: float) -> list[Row]:
    """Differentiate the leading eigenvector of covariance matrices by both, in turn, on new matrices each time.

    Returns one row: the median times in seconds, median and quartiles of how many times as fast pmaf was within a turn,
    and the median relative errors of the gradients.
    """
    turns: list[dict[str, Turn]] = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(turns) < _ROUNDS:
        generator = torch.Generator().manual_seed(len(turns))
        F = torch.randn(batch, 2 * n, n, generator=generator)
        c = torch.randn(batch, n, 1, generator=generator)
        turns.append(in_turn(_METHODS, F.mT @ F / (2 * n), c @ c.mT, len(turns)))
    turns = turns[2:]  # the first of each order warm up
    times = {name: [both[name].forward + both[name].backward for both in turns] for name in _METHODS}
    low, ratio, high = quantiles([theirs / ours for theirs, ours in zip(*times.values(), strict=True)], n=4)
    row: Row = {"shape": f"{batch} × {n}×{n}", "who": SHAPES.get((batch, n), ""), "batch": batch, "n": n}
    row |= {"ratio": ratio, "low": low, "high": high, "turns": len(turns)}
    for name in _METHODS:
        row |= {name: median(times[name]), f"{name}_error": median(both[name].error for both in turns)}
    return [row]


def _plan(options: Options) -> list[Task]:
    seconds = 1.0 if options.quick else 10.0
    return [Task(f"{batch}x{n}", {"batch": batch, "n": n, "seconds": seconds}, seconds) for batch, n in SHAPES]


SPEED = Experiment(
    key="ied_speed",
    section="ied",
    title="Forward and backward, beside torch.linalg.eigh and its autograd",
    plan=_plan,
    compute=speed,
    columns=(
        Column("shape", "matrices"),
        Column("who", "such as"),
        Column("batch"),
        Column("n"),
        Column("eigh", "eigh ms", ".3g", 1e3),
        Column("pmaf", "pmaf ms", ".3g", 1e3),
        Column("ratio", "times as fast", ".2f"),
        Column("low"),
        Column("high"),
        Column("eigh_error", "eigh error", ".1e"),
        Column("pmaf_error", "pmaf error", ".1e"),
        Column("turns"),
    ),
)
