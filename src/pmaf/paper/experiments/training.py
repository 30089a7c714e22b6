"""Train one small convolutional network with one pooling head, counting the steps lost to non-finite gradients."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.linalg import LinAlgError  # type: ignore[attr-defined]

from pmaf.errors import ConvergenceError, DegeneracyWarning
from pmaf.paper.experiments.data import Digits
from pmaf.paper.experiments.heads import Head

__all__ = ["Network", "TrainingSettings", "step", "train"]


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
        first, second = channels
        self.features = nn.Sequential(
            nn.Conv2d(1, first, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(first, second, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.pool = head.build()
        self.classify = nn.Linear(head.size(second), 10)

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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegeneracyWarning)  # blank features have no principal vector
        for _ in range(settings.epochs):
            began, counted = time.perf_counter(), []
            network.train()
            for index in torch.randperm(len(digits.train_labels), generator=order).split(settings.batch):
                loss = step(network, optimizer, digits.train_images[index], digits.train_labels[index])
                if loss is None:
                    lost.append(steps)
                else:
                    counted.append(loss)
                steps += 1
            seconds.append(time.perf_counter() - began)
            losses.append(sum(counted) / len(counted) if counted else None)
            accuracy.append(_accuracy(network, digits))
    return {
        "accuracy": accuracy,
        "loss": losses,
        "seconds": seconds,
        "steps": steps,
        "lost": lost,
        "parameters": sum(p.numel() for p in network.parameters()),
    }


def step(network: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> float | None:
    """One step of training, skipped if a gradient is not finite or the forward pass fails to converge."""
    optimizer.zero_grad()
    try:
        loss = nn.functional.cross_entropy(network(images), labels)
        loss.backward()
    except (LinAlgError, ConvergenceError):
        return None
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    if not all(bool(torch.isfinite(g).all()) for g in gradients):
        return None
    optimizer.step()
    return float(loss.detach())


def _accuracy(network: Network, digits: Digits) -> float:
    """The share of the test images named rightly; nothing is named where the forward pass fails."""
    network.eval()
    right = 0
    with torch.no_grad():
        for images, labels in zip(digits.test_images.split(250), digits.test_labels.split(250), strict=True):
            with suppress(LinAlgError, ConvergenceError):
                right += int((network(images).argmax(-1) == labels).sum())
    return right / max(1, len(digits.test_labels))
