"""What becomes of the gradient when features lose rank: torch's own derivative of eigh against pmaf's."""

from __future__ import annotations

import warnings
from contextlib import suppress

import torch
from torch import Tensor
from torch.linalg import LinAlgError  # type: ignore[attr-defined]

import pmaf
from pmaf.paper.experiments.base import Column, Experiment, Row, Task
from pmaf.paper.experiments.measure import Leading, reference_gradient
from pmaf.paper.experiments.timing import eigh

__all__ = ["RANKS", "STRESS", "stress"]

RANKS = (32, 24, 16, 8, 4, 2)
_PLACES, _CHANNELS, _BATCH = 49, 32, 20
METHODS: dict[str, Leading] = {
    "eigh + autograd": lambda F: eigh(F.mT @ F),
    "pmaf": lambda F: pmaf.ied(pmaf.Gram(F), 1).eigenvectors,
}


def stress(batches: int) -> list[Row]:
    """Differentiate the leading right singular vector of rectified features of which some channels are dead."""
    rows = []
    for rank in RANKS:
        for name, leading in METHODS.items():
            errors: list[float] = []
            for seed in range(batches):
                generator = torch.Generator().manual_seed(seed)
                F = torch.randn(_BATCH, _PLACES, _CHANNELS, generator=generator).relu()
                F[..., rank:] = 0
                c = torch.randn(_CHANNELS, 1, generator=generator)
                gradient = _gradient(leading, F, c @ c.mT)
                if gradient is not None:
                    exact = 2 * F.double() @ reference_gradient(F.double().mT @ F.double(), c @ c.mT)
                    errors.append(float((gradient.double() - exact).norm() / exact.norm()))
            row = {"rank": rank, "method": name, "lost": batches - len(errors), "batches": batches}
            rows.append(row | {"error": max(errors, default=None)})
    return rows


def _gradient(leading: Leading, F: Tensor, C: Tensor) -> Tensor | None:
    """The gradient of ⟨C, u uᵀ⟩ with respect to F; none if an entry is not finite or the forward pass failed."""
    leaf = F.clone().requires_grad_()
    with warnings.catch_warnings(), suppress(LinAlgError):
        warnings.simplefilter("ignore", pmaf.DegeneracyWarning)
        u = leading(leaf)
        (gradient,) = torch.autograd.grad(((C @ u) * u).sum(), leaf)
        return gradient if bool(gradient.isfinite().all()) else None
    return None


STRESS = Experiment(
    key="learning_stress",
    section="learning",
    title="When features lose rank",
    plan=lambda options: [Task("batches", {"batches": 10 if options.quick else 50}, 1.5 if options.quick else 6.0)],
    compute=stress,
    timed=False,
    group="rank",
    columns=(
        Column("method", "method"),
        Column("rank", "live channels", "d"),
        Column("lost", "lost batches", "d", best="least"),
        Column("batches", "of", "d"),
        Column("error", "worst gradient error", ".1e", best="least"),
    ),
)
