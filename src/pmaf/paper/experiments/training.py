"""Train one small convolutional network with one pooling head, counting the steps lost to non-finite gradients."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.linalg import LinAlgError  # type: ignore[attr-defined]

from pmaf.errors import ConvergenceError, DegeneracyWarning
from pmaf.paper.experiments.data import Digits
from pmaf.paper.experiments.heads import Head

__all__ = ["Network", "TrainingSettings", "count_right", "step", "train"]


class TrainingSettings(NamedTuple):
    """How one network is trained."""

    epochs: int
    batch: int = 100
    learning_rate: float = 2e-3
    train_images: int = 4000
    test_images: int = 1000
    channels: tuple[int, int] = (16, 32)


class Network(nn.Module):
    """conv–relu–pool, twice; a pooling head; one linear layer."""

    def __init__(self, head: Head, channels: tuple[int, int]) -> None:
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

    def maps(self, images: Tensor) -> Tensor:
        """What the first pooled vector looks at: F u on the places, (B, 7, 7)."""
        features = self.features(images)
        channels = features.shape[1]
        u = self.pool(features)[:, :channels]
        return torch.einsum("bchw,bc->bhw", features, u)


def train(
    head: Head,
    seed: int,
    settings: TrainingSettings,
    digits: Digits,
    report: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Train one network and measure it after every epoch.

    A step whose gradient is not finite everywhere, or whose forward pass fails to converge, is skipped and counted.

    Args:
        head: the pooling head.
        seed: fixes the initial weights and the order of the images.
        settings: how to train.
        digits: the images.
        report: called with the number of finished steps.

    Returns:
        Curves over the epochs, counts, seconds per epoch, and maps of the first ten test images.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegeneracyWarning)  # blank features have no principal vector
        return _train(head, seed, settings, digits, report)


def _train(
    head: Head, seed: int, settings: TrainingSettings, digits: Digits, report: Callable[[int], None] | None
) -> dict[str, Any]:
    torch.manual_seed(seed)
    order = torch.Generator().manual_seed(seed)
    network = Network(head, settings.channels)
    optimizer = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
    accuracy, losses, seconds, lost, steps = [], [], [], 0, 0
    for _ in range(settings.epochs):
        began, total, counted = time.perf_counter(), 0.0, 0
        network.train()
        shuffled = torch.randperm(len(digits.train_labels), generator=order)
        for start in range(0, len(shuffled), settings.batch):
            index, steps = shuffled[start : start + settings.batch], steps + 1
            loss = step(network, optimizer, digits.train_images[index], digits.train_labels[index])
            if loss is None:
                lost += 1
            else:
                total, counted = total + loss, counted + 1
            if report is not None:
                report(steps)
        seconds.append(time.perf_counter() - began)
        losses.append(total / counted if counted else None)
        accuracy.append(_accuracy(network, digits))
    with torch.no_grad():
        maps = network.maps(digits.test_images[:10]) if len(digits.test_images) else torch.zeros(0, 7, 7)
    return {
        "accuracy": accuracy,
        "loss": losses,
        "seconds": seconds,
        "steps": steps,
        "lost": lost,
        "parameters": sum(p.numel() for p in network.parameters()),
        "maps": [[[round(float(v), 4) for v in row] for row in image] for image in maps.tolist()],
    }


def step(network: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> float | None:
    """One step of training, skipped if a gradient is not finite or the forward pass fails to converge.

    Args:
        network: what to train.
        optimizer: takes the step.
        images: what the network is given.
        labels: what it should answer.

    Returns:
        The loss, or ``None`` if the step had to be skipped.
    """
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
    network.eval()
    right = 0
    with torch.no_grad():
        for start in range(0, len(digits.test_labels), 250):
            images, labels = digits.test_images[start : start + 250], digits.test_labels[start : start + 250]
            right += count_right(network, images, labels)
    return right / max(1, len(digits.test_labels))


def count_right(network: nn.Module, images: Tensor, labels: Tensor) -> int:
    """How many labels are found; none if the forward pass fails."""
    try:
        return int((network(images).argmax(-1) == labels).sum())
    except (LinAlgError, ConvergenceError):
        return 0
