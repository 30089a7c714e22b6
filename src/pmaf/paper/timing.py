"""Time, memory and gradient error of every pairing of a solver with a way to differentiate it."""

from __future__ import annotations

import time
import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor

import pmaf
from pmaf.paper.matrices import random_matrices

__all__ = ["DENSE", "METHODS", "Timing", "reference_gradient", "timing"]

_PI = pmaf.solvers.PowerIteration(max_steps=100)
_SI = pmaf.solvers.SimultaneousIteration(max_steps=100)

METHODS: dict[str, dict[str, Any]] = {
    "AutoDiff-unroll": {"solver": pmaf.solvers.Eigh(), "backward": pmaf.Unrolled()},
    "PI-unroll": {"solver": _PI, "backward": pmaf.Unrolled()},
    "PI-DDN-J": {"solver": _PI, "backward": pmaf.DenseJacobian()},
    "PI-DDN-E": {"solver": _PI, "backward": pmaf.Implicit()},
    "PI-IFT-J": {"solver": _PI, "backward": pmaf.FixedPoint(dense=True)},
    "PI-IFT-E": {"solver": _PI, "backward": pmaf.FixedPoint()},
    "SI-unroll": {"solver": _SI, "backward": pmaf.Unrolled()},
    "SI-DDN-E": {"solver": _SI, "backward": pmaf.Implicit()},
    "SI-IFT-E": {"solver": _SI, "backward": pmaf.FixedPoint()},
    "pmaf": {},
}
DENSE = ("PI-DDN-J", "PI-IFT-J")
"""Methods that form a Jacobian of m³ entries for each matrix."""


class Timing(NamedTuple):
    """One method at one size.

    Attributes:
        method: solver and way to differentiate, by the paper's names; ``pmaf`` is the default of both.
        m: order of the matrices.
        device: where it ran.
        forward: seconds of the fastest forward pass.
        backward: seconds of the fastest backward pass.
        error: relative error of the gradient, against float64.
        forward_mb: peak of the memory allocated by torch during the forward pass, in MB.
        backward_mb: the same during the backward pass, with what the forward pass left.
    """

    method: str
    m: int
    device: str
    forward: float
    backward: float
    error: float
    forward_mb: float
    backward_mb: float


def timing(method: str, m: int, runs: int, device: str = "cpu") -> Timing:
    """Differentiate the leading eigenvector of a batch of five Gaussian matrices.

    The loss is ⟨c, u⟩ for a fixed random c. The first run is dropped, as the paper does.

    Args:
        method: one of ``METHODS``.
        m: order of the matrices.
        runs: timed runs.
        device: where to compute.

    Returns:
        The fastest times, the error and the peaks.
    """
    options = METHODS[method]
    X = random_matrices("gaussian", m, 0).to(device)
    c = torch.randn(X.shape[:-1], generator=torch.Generator().manual_seed(1)).to(device)
    forward, backward = [], []
    gradient = X
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pmaf.DegeneracyWarning)
        for _ in range(runs + 1):
            leaf = X.clone().requires_grad_()
            start = _now(device)
            loss = _loss(leaf, c, options)
            middle = _now(device)
            (gradient,) = torch.autograd.grad(loss, leaf)
            end = _now(device)
            forward.append(middle - start)
            backward.append(end - middle)
            del loss
        peaks = _peak_cuda(X, c, options) if device != "cpu" else _peak_cpu(X, c, options)
    exact = reference_gradient(X.double().cpu(), c.double().cpu())
    sym = (gradient + gradient.mT).double().cpu() / 2
    error = float((sym - exact).norm() / exact.norm())
    return Timing(method, m, device, min(forward[1:]), min(backward[1:]), error, *peaks)


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


def _loss(X: Tensor, c: Tensor, options: dict[str, Any]) -> Tensor:
    u = pmaf.ied_ex(X, 1, **options).eigenvectors[..., 0]
    return torch.sum(u * c)


def _now(device: str) -> float:
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter()


def _peak_cpu(X: Tensor, c: Tensor, options: dict[str, Any]) -> tuple[float, float]:
    """Peaks of what torch.profiler saw allocated and not yet freed, in MB; the input is not counted."""
    leaf = X.clone().requires_grad_()
    held, peaks = 0, []
    loss: Any = None
    for forward in (True, False):
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as seen:
            if forward:
                loss = _loss(leaf, c, options)
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


def _peak_cuda(X: Tensor, c: Tensor, options: dict[str, Any]) -> tuple[float, float]:
    """Peaks of the CUDA allocator, in MB, without the input."""
    leaf = X.clone().requires_grad_()
    base = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    loss = _loss(leaf, c, options)
    torch.cuda.synchronize()
    forward = torch.cuda.max_memory_allocated() - base
    torch.cuda.reset_peak_memory_stats()
    torch.autograd.grad(loss, leaf)
    torch.cuda.synchronize()
    return forward / 1e6, (torch.cuda.max_memory_allocated() - base) / 1e6
