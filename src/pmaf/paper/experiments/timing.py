"""Time, memory and gradient error of every pairing of a solver with a way to differentiate it."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor

import pmaf
from pmaf.paper.experiments.inverse import leading_by_inverse
from pmaf.paper.experiments.matrices import random_matrices

__all__ = ["DENSE", "METHODS", "OURS", "PAPER", "Timing", "reference_gradient", "timing"]

Leading = Callable[[Tensor], Tensor]
"""From X, (B, m, m), to its leading eigenvectors, (B, m), with a non-negative sum."""

_PI = pmaf.solvers.PowerIteration(max_steps=100)
_SI = pmaf.solvers.SimultaneousIteration(max_steps=100)


def _pmaf(**options: Any) -> Leading:
    def leading(X: Tensor) -> Tensor:
        return pmaf.ied_ex(X, 1, **options).eigenvectors[..., 0]

    return leading


def _torch(X: Tensor) -> Tensor:
    """What there is without this library."""
    u: Tensor = torch.linalg.eigh(X).eigenvectors[..., -1]
    return torch.where(u.sum(-1, keepdim=True) < 0, -u, u)


METHODS: dict[str, Leading] = {
    "AutoDiff-unroll": _torch,
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


class Timing(NamedTuple):
    """One method at one size.

    Attributes:
        method: solver and way to differentiate, by the paper's names; ``pmaf`` is the default of both.
        m: order of the matrices.
        device: where it ran.
        forward: seconds of a forward pass, fastest of the runs, which is disturbed least by other work.
        backward: seconds of a backward pass, likewise.
        total: seconds of both together, likewise.
        error: relative error of the gradient against float64, median over the runs.
        worst: the largest of these errors.
        forward_mb: peak of the memory allocated by torch during the forward pass, in MB.
        backward_mb: the same during the backward pass, with what the forward pass left.
    """

    method: str
    m: int
    device: str
    forward: float
    backward: float
    total: float
    error: float
    worst: float
    forward_mb: float
    backward_mb: float


def timing(m: int, runs: int, methods: Sequence[str], device: str = "cpu") -> list[Timing]:
    """Differentiate the leading eigenvector of batches of five Gaussian matrices by every method.

    The loss is ⟨c, u⟩ for a random c. Each run draws a batch, and all methods take turns on it, so that a change of the
    machine's load hits all alike; they begin with another one each time. The first run is dropped, as the paper does.

    Args:
        m: order of the matrices.
        runs: timed runs.
        methods: names out of ``METHODS``.
        device: where to compute.

    Returns:
        The fastest times, the median error, and the peaks, for each method.
    """
    measured: dict[str, list[tuple[float, float, float]]] = {name: [] for name in methods}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pmaf.DegeneracyWarning)
        for run in range(runs + 1):
            X, c = _problem(m, run)
            exact = reference_gradient(X.double(), c.double())
            first = run % len(methods)
            for name in [*methods[first:], *methods[:first]]:
                forward, backward, gradient = _turn(METHODS[name], X.to(device), c.to(device), device)
                error = float((gradient.double().cpu() - exact).norm() / exact.norm())
                measured[name].append((forward, backward, error))
        peak = _peak_cpu if device == "cpu" else _peak_cuda
        X, c = (tensor.to(device) for tensor in _problem(m, 0))
        peaks = {name: peak(METHODS[name], X, c) for name in methods}
    rows = []
    for name in methods:
        runs_of = measured[name][1:]
        forwards, backwards, errors = ([run[i] for run in runs_of] for i in range(3))
        times = min(forwards), min(backwards), min(run[0] + run[1] for run in runs_of)
        rows.append(Timing(name, m, device, *times, median(errors), max(errors), *peaks[name]))
    return rows


def _problem(m: int, seed: int) -> tuple[Tensor, Tensor]:
    X = random_matrices("gaussian", m, seed)
    return X, torch.randn(X.shape[:-1], generator=torch.Generator().manual_seed(seed))


def _turn(leading: Leading, X: Tensor, c: Tensor, device: str) -> tuple[float, float, Tensor]:
    """Seconds forward, seconds backward, and the gradient, made symmetric."""
    leaf = X.clone().requires_grad_()
    start = _now(device)
    loss = (leading(leaf) * c).sum()
    middle = _now(device)
    (gradient,) = torch.autograd.grad(loss, leaf)
    end = _now(device)
    return middle - start, end - middle, (gradient + gradient.mT) / 2


def reference_gradient(X: Tensor, c: Tensor) -> Tensor:
    """The gradient of ⟨c, u₁(X)⟩ from the textbook's sum over all eigenvectors, in the precision of X."""
    values, vectors = torch.linalg.eigh(X)
    u = vectors[..., -1:]
    sign = torch.where(u.sum(-2, keepdim=True) < 0, -1.0, 1.0)
    others = vectors[..., :-1]
    weights = (others.mT @ c[..., None]) / (values[..., -1:] - values[..., :-1])[..., None]
    w = others @ weights * sign
    outer = w @ u.mT
    gradient: Tensor = (outer + outer.mT) / 2
    return gradient


def _now(device: str) -> float:
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter()


def _peak_cpu(leading: Leading, X: Tensor, c: Tensor) -> tuple[float, float]:
    """Peaks of what torch.profiler saw allocated and not yet freed, in MB; the input is not counted."""
    leaf = X.clone().requires_grad_()
    held, peaks = 0, []
    loss: Any = None
    for forward in (True, False):
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as seen:
            if forward:
                loss = (leading(leaf) * c).sum()
            else:
                torch.autograd.grad(loss, leaf)
        events = seen.profiler.kineto_results.events()
        peak = live = held
        for event in sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns()):
            live += event.nbytes()
            peak = max(peak, live)
        held = live
        peaks.append(peak / 1e6)
    return peaks[0], peaks[1]


def _peak_cuda(leading: Leading, X: Tensor, c: Tensor) -> tuple[float, float]:
    """Peaks of the CUDA allocator, in MB, without the input."""
    leaf = X.clone().requires_grad_()
    base = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    loss = (leading(leaf) * c).sum()
    torch.cuda.synchronize()
    forward = torch.cuda.max_memory_allocated() - base
    torch.cuda.reset_peak_memory_stats()
    torch.autograd.grad(loss, leaf)
    torch.cuda.synchronize()
    return forward / 1e6, (torch.cuda.max_memory_allocated() - base) / 1e6
