"""Learned weights on real data: which matches of two views to believe, and which neighbours of a point."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean, median, stdev
from typing import NamedTuple

import torch
from torch import Tensor

from pmaf.paper.experiments import matches, scan
from pmaf.paper.experiments.base import Column, Experiment, Options, Row, Task, grouped
from pmaf.paper.experiments.weights import SOLVE, Pieces, moments, train_weights

__all__ = ["LEARNED", "SCENES", "WEIGHTS"]


class Scene(NamedTuple):
    """Data, how an answer is judged, the error that counts as good, and the methods without learning."""

    title: str
    unit: str
    pieces: Callable[[bool, int], Pieces]
    errors: Callable[[Tensor, Pieces], Tensor]
    good: float
    center: bool
    plain: dict[str, Callable[[Pieces, int], Tensor]]


def _unweighted(center: bool) -> Callable[[Pieces, int], Tensor]:
    every = SOLVE["eigh + autograd"]
    return lambda pieces, seed: every(moments(pieces, torch.ones(pieces.features.shape[:2]), center)[0])


SCENES = {
    "homographies": Scene(
        "Homographies from matches, of which many are wrong",
        "px",
        matches.matches,
        matches.corner_errors,
        5.0,
        False,
        {"all alike": _unweighted(False), "RANSAC": matches.ransac},
    ),
    "normals": Scene(
        "Normals of a noisy scan, near its edges too",
        "°",
        scan.neighbourhoods,
        scan.angles,
        10.0,
        True,
        {"all alike": _unweighted(True)},
    ),
}
LEARNED = {f"learned weights, {name}": name for name in SOLVE}


def _plan(options: Options) -> list[Task]:
    steps, train, test = (300, 72, 36) if options.quick else (1500, 240, 120)
    tasks = []
    for seed in (0, 1, 2):
        for scene in SCENES:
            times = 1 if scene == "homographies" else 15
            for method in [*SCENES[scene].plain, *LEARNED]:
                asked = {"scene": scene, "method": method, "seed": seed, "steps": steps}
                asked |= {"train": times * train, "test": times * test}
                tasks.append(Task(f"{scene}-{method}-{seed}", asked, steps * 0.008 if method in LEARNED else 0.5))
    return tasks


def _compute(scene: str, method: str, seed: int, steps: int, train: int, test: int) -> list[Row]:
    own = SCENES[scene]
    tested, row = own.pieces(False, test), {"scene": scene, "method": method, "tested": test, "good": own.good}
    if method in LEARNED:
        found, told = train_weights(LEARNED[method], seed, own.pieces(True, train), tested, steps, own.center)
        row |= told
    else:
        found = own.plain[method](tested, seed)
    return [row | {"errors": [round(float(error), 3) for error in own.errors(found, tested)]}]


def _by_method(rows: Sequence[Row]) -> list[Row]:
    """Means and deviations over the seeds; the errors of all seeds together."""
    gathered = []
    for own in grouped(rows, "scene", "method").values():
        errors = [error for row in own for error in row["errors"]]
        shares = [fmean(error <= row["good"] for error in row["errors"]) for row in own]
        row = own[0] | {"seeds": len(own), "errors": errors, "median": median(errors), "mean": fmean(errors)}
        row |= {"within": fmean(shares), "within_std": stdev(shares) if len(shares) > 1 else None}
        if "steps" in row:
            row |= {key: sum(r[key] for r in own) for key in ("steps", "lost")} | {"ms": min(r["ms"] for r in own)}
        gathered.append(row)
    return sorted(gathered, key=lambda row: list(SCENES).index(row["scene"]))


WEIGHTS = Experiment(
    key="learning_weights",
    section="learning",
    title="Learned weights on real data",
    plan=_plan,
    compute=_compute,
    gather=_by_method,
    group="scene",
    ours=("learned weights, pmaf",),
    columns=(
        Column("method", "method"),
        Column("scene", "data"),
        Column("median", "median error", ".2f", best="least"),
        Column("mean", "mean error", ".2f", best="least"),
        Column("within", "good %", ".1f", 100, "most"),
        Column("within_std", "± std", ".1f", 100),
        Column("good", "good is below", ".0f"),
        Column("lost", "lost steps", "d"),
        Column("steps", "of", "d"),
        Column("ms", "ms / step", ".2g"),
        Column("tested", "tested", "d"),
        Column("seeds", "seeds", "d"),
    ),
)
