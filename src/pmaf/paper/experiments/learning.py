"""The learning experiment: one network, real digits, five ways to pool."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

from pmaf.paper.experiments.data import Digits, mnist5k
from pmaf.paper.experiments.heads import DIGIT_HEADS, HEADS
from pmaf.paper.experiments.parts import part, write_csv, write_whole
from pmaf.paper.experiments.stress import Stress, stress
from pmaf.paper.experiments.training import TrainingSettings, train

__all__ = ["HeadResult", "LearningResult", "LearningSettings", "run_learning"]

COLUMNS = (
    "head",
    "seeds",
    "accuracy_mean",
    "accuracy_std",
    "seconds_per_epoch",
    "lost_steps",
    "steps",
    "parameters",
)


class LearningSettings(NamedTuple):
    """What to run: which heads, which seeds, and how each network is trained."""

    heads: tuple[str, ...] = DIGIT_HEADS
    seeds: tuple[int, ...] = (0, 1, 2)
    training: TrainingSettings = TrainingSettings(epochs=15)
    stress_batches: int = 50

    @classmethod
    def quick(cls) -> LearningSettings:
        """One seed and fewer epochs."""
        return cls(seeds=(0,), training=TrainingSettings(epochs=6), stress_batches=10)


class HeadResult(NamedTuple):
    """One row of the table, and the runs behind it, one for each seed."""

    head: str
    label: str
    runs: list[dict[str, Any]]

    @property
    def accuracies(self) -> list[float]:
        """Test accuracy after the last epoch, for each seed."""
        return [run["accuracy"][-1] for run in self.runs]

    @property
    def accuracy(self) -> float:
        """Mean over the seeds."""
        return fmean(self.accuracies)

    @property
    def spread(self) -> float | None:
        """Standard deviation over the seeds; none for a single one."""
        return stdev(self.accuracies) if len(self.runs) > 1 else None

    @property
    def seconds(self) -> float:
        """Seconds of training for the fastest epoch, the one least disturbed by other work on the machine."""
        return float(min(second for run in self.runs for second in run["seconds"]))

    @property
    def lost(self) -> int:
        """Steps skipped because of a non-finite gradient, over all seeds."""
        return sum(run["lost"] for run in self.runs)

    @property
    def steps(self) -> int:
        """Steps tried, over all seeds."""
        return sum(run["steps"] for run in self.runs)


class LearningResult(NamedTuple):
    """The table, with the settings it was obtained with and the digits its maps belong to."""

    settings: LearningSettings
    rows: list[HeadResult]
    digits: list[list[list[float]]]
    stress: list[Stress]


def run_learning(
    out: Path,
    settings: LearningSettings,
    *,
    data: Callable[[], Digits] = mnist5k,
    report: Callable[[int, int, str], None] | None = None,
) -> LearningResult:
    """Train every head with every seed, keep finished parts, and write ``learning.csv`` and ``learning.json``.

    Args:
        out: folder for the results.
        settings: what to run.
        data: loads the images.
        report: called with the steps done, the steps in all, and what is being trained.

    Returns:
        The results.
    """
    digits = data().first(settings.training.train_images, settings.training.test_images)
    per_run = settings.training.epochs * -(-len(digits.train_labels) // settings.training.batch)
    total, done = per_run * len(settings.heads) * len(settings.seeds), 0
    rows = []
    for name in settings.heads:
        head = HEADS[name]
        runs = []
        for seed in settings.seeds:

            def tell(steps: int, before: int = done, label: str = head.label) -> None:
                if report is not None:
                    report(before + steps, total, label)

            def compute(name: str = name, seed: int = seed, tell: Callable[[int], None] = tell) -> dict[str, Any]:
                return train(HEADS[name], seed, settings.training, digits, tell)

            tell(0)
            asked = {"head": name, "seed": seed, **settings.training._asdict()}
            runs.append(part(out / "parts", f"learning-{name}-{seed}", asked, compute))
            done += per_run
            tell(per_run)
        rows.append(HeadResult(name, head.label, runs))
    images = [[[round(float(v), 3) for v in line] for line in image[0]] for image in digits.test_images[:10]]
    batches = settings.stress_batches
    found = part(
        out / "parts",
        "learning-stress",
        {"batches": batches},
        lambda: {"rows": [row._asdict() for row in stress(batches)]},
    )
    result = LearningResult(settings, rows, images, [Stress(**row) for row in found["rows"]])
    _write(out, result)
    return result


def _write(out: Path, result: LearningResult) -> None:
    write_csv(out / "learning.csv", COLUMNS, _records(result.rows))
    write_csv(out / "learning_stress.csv", Stress._fields, result.stress)
    kept: dict[str, Any] = {
        "settings": {"seeds": result.settings.seeds, **result.settings.training._asdict()},
        "table": [dict(zip(COLUMNS, record, strict=True)) for record in _records(result.rows)],
        "curves": {
            row.head: [{k: run[k] for k in ("accuracy", "loss", "seconds")} for run in row.runs] for row in result.rows
        },
    }
    kept["stress"] = [row._asdict() for row in result.stress]
    write_whole(out / "learning.json", json.dumps(kept, indent=1))


def _records(rows: Sequence[HeadResult]) -> list[tuple[Any, ...]]:
    return [
        (r.head, len(r.runs), r.accuracy, r.spread, r.seconds, r.lost, r.steps, r.runs[0]["parameters"]) for r in rows
    ]
