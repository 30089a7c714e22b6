"""The second learning experiment: name a surface from few crops, by five ways to pool frozen features."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pmaf.errors import DegeneracyWarning
from pmaf.paper.experiments.heads import HEADS, TEXTURE_HEADS, Head
from pmaf.paper.experiments.parts import part, write_csv
from pmaf.paper.experiments.surfaces import PICTURES, Crops, crops
from pmaf.paper.experiments.training import count_right, step
from pmaf.progress import Report

__all__ = ["FewCropsResult", "FewCropsRow", "FewCropsSettings", "run_few_crops"]


class FewCropsSettings(NamedTuple):
    """What to run, and how each network is trained."""

    heads: tuple[str, ...] = TEXTURE_HEADS
    pictures: tuple[str, ...] = tuple(PICTURES)
    counts: tuple[int, ...] = (2, 8, 32)
    seeds: int = 10
    steps: int = 100
    batch: int = 32
    learning_rate: float = 2e-3
    channels: int = 32

    @classmethod
    def quick(cls) -> FewCropsSettings:
        """One seed."""
        return cls(seeds=1)


class FewCropsRow(NamedTuple):
    """One head on some pictures with so many crops of each.

    Attributes:
        pictures: which pictures are the classes.
        classes: how many these are.
        crops: crops of each class to train with.
        head: the pooling head.
        seeds: how many networks were trained.
        accuracy_mean: share of the test crops named rightly, mean over the seeds.
        accuracy_std: its standard deviation over the seeds; none for a single one.
        accuracy_min: the lowest of the seeds.
        accuracy_max: the highest.
        ms_per_step: milliseconds for a step of training, fastest of the seeds.
        lost_steps: steps skipped because of a non-finite gradient, over all seeds.
        steps: steps tried, over all seeds.
        parameters: of the network that is trained.
    """

    pictures: str
    classes: int
    crops: int
    head: str
    seeds: int
    accuracy_mean: float
    accuracy_std: float | None
    accuracy_min: float
    accuracy_max: float
    ms_per_step: float
    lost_steps: int
    steps: int
    parameters: int


class FewCropsResult(NamedTuple):
    """The rows, and what they were obtained with."""

    settings: FewCropsSettings
    rows: list[FewCropsRow]
    tested: dict[str, int]


class _Network(nn.Module):
    """A 1×1 convolution that leaves few channels, normalised and rectified; a pooling head; one linear layer."""

    def __init__(self, head: Head, inputs: int, channels: int, classes: int) -> None:
        super().__init__()
        self.reduce = nn.Sequential(nn.Conv2d(inputs, channels, 1), nn.BatchNorm2d(channels), nn.ReLU())
        self.pool = head.build()
        self.classify = nn.Linear(head.size(channels), classes)

    def forward(self, features: Tensor) -> Tensor:
        """(B, 1280, 7, 7) → (B, classes)."""
        logits: Tensor = self.classify(self.pool(self.reduce(features)))
        return logits


def run_few_crops(
    out: Path,
    settings: FewCropsSettings,
    *,
    data: Callable[[tuple[str, ...]], Crops] = crops,
    report: Report | None = None,
) -> FewCropsResult:
    """Train every head with every number of crops and every seed, keep finished parts, and write the CSV file.

    Args:
        out: folder for the results; the file is ``learning_textures.csv``.
        settings: what to run.
        data: gives the features of pictures.
        report: called with the networks trained, the networks in all, and what is being trained.

    Returns:
        The results.
    """
    total = len(settings.pictures) * len(settings.counts) * len(settings.heads) * settings.seeds
    done = 0
    rows, tested = [], {}
    for pictures in settings.pictures:
        for count in settings.counts:
            for name in settings.heads:
                runs = []
                for seed in range(settings.seeds):
                    if report is not None:
                        report(done, total, f"{count} crops of {pictures}, {HEADS[name].label}")

                    def compute(
                        pictures: str = pictures, count: int = count, name: str = name, seed: int = seed
                    ) -> Any:
                        return _train(HEADS[name], seed, count, data(PICTURES[pictures]), settings)

                    asked = {"pictures": pictures, "crops": count, "head": name, "seed": seed}
                    asked |= {k: v for k, v in settings._asdict().items() if k in _TRAINED_WITH}
                    runs.append(part(out / "parts", f"textures-{pictures}-{count}-{name}-{seed}", asked, compute))
                    done += 1
                rows.append(_row(pictures, count, name, runs))
                tested[pictures] = runs[0]["tested"]
    if report is not None:
        report(total, total)
    write_csv(out / "learning_textures.csv", FewCropsRow._fields, rows)
    return FewCropsResult(settings, rows, tested)


_TRAINED_WITH = ("steps", "batch", "learning_rate", "channels")


def _row(pictures: str, count: int, name: str, runs: list[dict[str, Any]]) -> FewCropsRow:
    found = [run["accuracy"] for run in runs]
    return FewCropsRow(
        pictures,
        len(PICTURES[pictures]),
        count,
        name,
        len(runs),
        fmean(found),
        stdev(found) if len(found) > 1 else None,
        min(found),
        max(found),
        min(run["ms_per_step"] for run in runs),
        sum(run["lost"] for run in runs),
        sum(run["steps"] for run in runs),
        runs[0]["parameters"],
    )


def _train(head: Head, seed: int, count: int, data: Crops, settings: FewCropsSettings) -> dict[str, Any]:
    """Train one network: every step sees crops drawn at random, standardised channel by channel."""
    train_maps, train_labels = data.few(count, seed)
    test_maps, test_labels = data.all_test()
    mean = train_maps.mean((0, 2, 3), keepdim=True)
    deviation = train_maps.std((0, 2, 3), keepdim=True).clamp_min(1e-3)
    train_maps, test_maps = (train_maps - mean) / deviation, (test_maps - mean) / deviation
    torch.manual_seed(seed)
    order = torch.Generator().manual_seed(seed)
    network = _Network(head, train_maps.shape[1], settings.channels, len(data.train))
    optimizer = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
    lost, began = 0, time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegeneracyWarning)  # few crops can leave blank features
        for _ in range(settings.steps):
            index = torch.randint(len(train_labels), (settings.batch,), generator=order)
            lost += step(network, optimizer, train_maps[index], train_labels[index]) is None
        seconds = time.perf_counter() - began
        network.eval()
        with torch.no_grad():
            right = count_right(network, test_maps, test_labels)
    return {
        "accuracy": right / len(test_labels),
        "tested": len(test_labels),
        "lost": lost,
        "steps": settings.steps,
        "ms_per_step": 1000 * seconds / settings.steps,
        "parameters": sum(p.numel() for p in network.parameters()),
    }
