"""Time, memory and gradient error of every pairing of a solver with a way to differentiate it."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

import torch
from torch import Tensor

import pmaf
from pmaf.paper.experiments.base import Column, Experiment, Options, Row, Task
from pmaf.paper.experiments.inverse import leading_by_inverse
from pmaf.paper.experiments.measure import Leading, in_turn
from pmaf.paper.experiments.precision import orders, random_matrices

__all__ = ["DENSE", "METHODS", "OURS", "PAPER", "TIMING", "eigh", "timing"]

_PI = pmaf.solvers.PowerIteration(max_steps=100)
_SI = pmaf.solvers.SimultaneousIteration(max_steps=100)


def _pmaf(**options: Any) -> Leading:
    return lambda X: pmaf.ied_ex(X, 1, **options).eigenvectors


def eigh(X: Tensor) -> Tensor:
    """What there is without this library."""
    vectors: Tensor = torch.linalg.eigh(X).eigenvectors
    return vectors[..., -1:]


METHODS: dict[str, Leading] = {
    "eigh + autograd": eigh,
    "PI-unroll": _pmaf(solver=_PI, backward=pmaf.Unrolled()),
    "PI-DDN-J": _pmaf(solver=_PI, backward=pmaf.DenseJacobian()),
    "PI-DDN-E": leading_by_inverse(_PI),
    "PI-IFT-J": _pmaf(solver=_PI, backward=pmaf.FixedPoint(dense=True)),
    "PI-IFT-E": _pmaf(solver=_PI, backward=pmaf.FixedPoint()),
    "SI-unroll": _pmaf(solver=_SI, backward=pmaf.Unrolled()),
    "SI-DDN-E": leading_by_inverse(_SI),
    "SI-IFT-E": _pmaf(solver=_SI, backward=pmaf.FixedPoint()),
    "PI, pmaf gradient": _pmaf(solver=_PI, backward=pmaf.Implicit()),
    "SI, pmaf gradient": _pmaf(solver=_SI, backward=pmaf.Implicit()),
    "pmaf": _pmaf(),
}
OURS = "pmaf"
PAPER = tuple(name for name in METHODS if OURS not in name)
"""The paper's own pairings."""
DENSE = ("PI-DDN-J", "PI-IFT-J")
"""Methods that form a Jacobian of m³ entries for each matrix."""


def timing(m: int, runs: int, methods: Sequence[str], device: str = "cpu") -> list[Row]:
    """Differentiate the leading eigenvector of batches of five Gaussian matrices by every method.

    Each run draws a batch, on which all methods take turns; the first is dropped, as the paper does. Times in seconds
    are the fastest of the runs, which is disturbed least by other work; errors are median and worst; peaks are in MB.
    """
    chosen, first = {name: METHODS[name] for name in methods}, _problem(m, 0, device)
    taken = [in_turn(chosen, *_problem(m, run, device), run) for run in range(runs + 1)][1:]
    rows = []
    for name, leading in chosen.items():
        forward, backward, errors = zip(*(turns[name] for turns in taken), strict=True)
        row: Row = {"method": name, "m": m, "device": device, "forward": min(forward), "backward": min(backward)}
        row |= {"total": min(map(sum, zip(forward, backward, strict=True)))}
        row |= {"error": median(errors), "worst": max(errors)}
        row["forward_mb"], row["backward_mb"] = _peaks(leading, *first)
        rows.append(row)
    return rows


def _problem(m: int, seed: int, device: str) -> tuple[Tensor, Tensor]:
    """Matrices X and C = c cᵀ with random c: the loss is ⟨c, u⟩²."""
    X = random_matrices("gaussian", m, seed)
    c = torch.randn((*X.shape[:-1], 1), generator=torch.Generator().manual_seed(seed))
    return X.to(device), (c @ c.mT).to(device)


def _peaks(leading: Leading, X: Tensor, C: Tensor) -> tuple[float, float]:
    """The most that was allocated at once forward and backward, in MB without the input; a CPU's by torch.profiler."""
    leaf, held, peaks, loss = X.clone().requires_grad_(), 0, [], torch.zeros(())
    base = torch.cuda.memory_allocated() if X.is_cuda else 0
    for forward in (True, False):
        if X.is_cuda:
            torch.cuda.reset_peak_memory_stats()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as seen:
            if forward:
                U = leading(leaf)
                loss = ((C @ U) * U).sum()
            else:
                torch.autograd.grad(loss, leaf)
        peak = live = held
        for event in sorted(seen.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
            live += event.nbytes() if event.name() == "[memory]" else 0
            peak = max(peak, live)
        held = live
        if X.is_cuda:
            torch.cuda.synchronize()
            peak = torch.cuda.max_memory_allocated() - base
        peaks.append(peak / 1e6)
    return peaks[0], peaks[1]


def _plan(options: Options) -> list[Task]:
    """Dense Jacobians are formed up to an order that a small machine has the memory for."""
    runs, dense = (5, 64) if options.quick else (20, 256)
    tasks = []
    for device in ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]:
        for m in orders(options):
            methods = [name for name in METHODS if name not in DENSE or m <= dense]
            asked = {"m": m, "runs": runs, "methods": methods, "device": device}
            tasks.append(Task(f"{device}-{m}", asked, runs * (0.1 + 3e-6 * m * m)))
    return tasks


def _sorted(rows: list[Row]) -> list[Row]:
    """Largest matrices first, fastest method first, with pmaf's time to compare with."""
    ours = {(row["device"], row["m"]): row["total"] for row in rows if row["method"] == OURS}
    rows = [row | {"ratio": row["total"] / ours[row["device"], row["m"]]} for row in rows]
    return sorted(rows, key=lambda row: (row["device"], -row["m"], row["total"]))


TIMING = Experiment(
    key="ied_timing",
    section="ied",
    title="Time, memory and gradient error of the paper’s methods",
    plan=_plan,
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
