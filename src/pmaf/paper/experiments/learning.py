"""Learning through the layers: one network on real digits with six ways to pool."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Any

from pmaf.paper.experiments.base import Column, Experiment, Options, Row, Task, grouped
from pmaf.paper.experiments.data import mnist5k
from pmaf.paper.experiments.heads import HEADS
from pmaf.paper.experiments.training import TrainingSettings, train

__all__ = ["DIGITS"]

SEEDS = (0, 1, 2)


def _plan(options: Options) -> list[Task]:
    training = TrainingSettings(epochs=5, batch=50, train_images=2000) if options.quick else TrainingSettings(epochs=15)
    cost = training.epochs * training.train_images / training.batch * 0.02
    return [
        Task(f"{head}-{seed}", {"head": head, "seed": seed, **training._asdict()}, cost)
        for seed in SEEDS
        for head in HEADS
    ]


def _train(head: str, seed: int, **training: Any) -> list[Row]:
    settings = TrainingSettings(**training)
    digits = mnist5k().first(settings.train_images, settings.test_images)
    run = train(HEADS[head], seed, settings, digits)
    return [{"head": head, "label": HEADS[head].label, "seed": seed, "training": training} | run]


def _by_head(rows: Sequence[Row]) -> list[Row]:
    """The runs of a head become one row: means and deviations over the seeds, sums of the steps."""
    gathered = []
    for head, runs in grouped(rows, "head").items():
        final = [run["accuracy"][-1] for run in runs]
        gathered.append(
            {
                "head": head,
                "label": runs[0]["label"],
                "seeds": len(runs),
                "accuracy_mean": fmean(final),
                "accuracy_std": stdev(final) if len(final) > 1 else None,
                "seconds_per_epoch": min(second for run in runs for second in run["seconds"]),
                "lost_steps": sum(len(run["lost"]) for run in runs),
                "steps": sum(run["steps"] for run in runs),
                "parameters": runs[0]["parameters"],
                "runs": runs,
            }
        )
    return gathered


DIGITS = Experiment(
    key="learning",
    section="learning",
    title="MNIST digits: one network, six ways to pool",
    plan=_plan,
    compute=_train,
    gather=_by_head,
    ours=tuple(head.label for head in HEADS.values() if "pmaf" in head.label),
    columns=(
        Column("label", "head"),
        Column("head"),
        Column("accuracy_mean", "test accuracy %", ".1f", 100, "most"),
        Column("accuracy_std", "± std", ".1f", 100),
        Column("seeds", "seeds", "d"),
        Column("lost_steps", "lost steps", "d", best="least"),
        Column("steps", "of", "d"),
        Column("seconds_per_epoch", "s / epoch", ".2f"),
        Column("parameters", "parameters", "d"),
    ),
)
