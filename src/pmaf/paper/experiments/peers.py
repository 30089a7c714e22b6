"""A quick side by side with whatever peers are installed, on this machine: time, ratio and accuracy."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

import pmaf
from pmaf.devices import check_device
from pmaf.paper.experiments.environment import environment
from pmaf.paper.experiments.parts import write_whole
from pmaf.progress import Report

__all__ = ["BenchRow", "bench", "write_bench"]

_PATIENCE = 20  # times as slow as pmaf: such a method has one turn

Solve = Callable[[Tensor, int], Tensor]


class BenchRow(NamedTuple):
    """One method on one task.

    Attributes:
        task: what was computed.
        method: by whom.
        forward_ms: fastest forward pass.
        backward_ms: fastest backward pass; none where there is no gradient.
        ratio: time forward and backward, over that of pmaf.
        error: relative error of the gradient against float64, or of the objective where there is no gradient.
        note: why there is no number.
    """

    task: str
    method: str
    forward_ms: float | None
    backward_ms: float | None
    ratio: float | None
    error: float | None
    note: str = ""


def bench(
    device: str = "cpu", rounds: int = 5, tasks: tuple[tuple[int, int, int], ...] = (), report: Report | None = None
) -> list[BenchRow]:
    """Differentiate the projector onto k leading eigenvectors, and solve LESS, with every installed peer.

    All methods of a task take turns in one process, on one thread; the fastest of the rounds counts.

    Args:
        device: where to compute.
        rounds: how often each method has its turn.
        tasks: batch, order and k of the eigen problems; a small, a middle and a large one if not given.
        report: called with the tasks done, the tasks in all, and the next one.

    Returns:
        A row for each task and method.
    """
    check_device(device)
    shapes = tasks or ((1000, 9, 1), (64, 64, 3), (1, 512, 3))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _bench(shapes, device, rounds, report)
    finally:
        torch.set_num_threads(threads)


def _bench(shapes: tuple[tuple[int, int, int], ...], device: str, rounds: int, report: Report | None) -> list[BenchRow]:
    rows: list[BenchRow] = []
    for done, (batch, n, k) in enumerate(shapes):
        if report is not None:
            report(done, len(shapes) + 1, f"IED {batch}×{n}×{n}, k = {k}")
        rows += _eigen(batch, n, k, device, rounds)
    if report is not None:
        report(len(shapes), len(shapes) + 1, "LESS")
    rows += _less(device, rounds)
    if report is not None:
        report(len(shapes) + 1, len(shapes) + 1)
    return rows


def write_bench(path: Path, rows: list[BenchRow]) -> None:
    """Write the rows and the environment as JSON.

    Args:
        path: the file.
        rows: what :func:`bench` returned.
    """
    write_whole(path, json.dumps({"environment": environment(), "rows": [row._asdict() for row in rows]}, indent=1))


def _peers() -> dict[str, Solve]:
    """Name → function from X and k to the k leading eigenvectors."""
    peers: dict[str, Solve] = {
        "pmaf": lambda X, k: pmaf.ied(X, k).eigenvectors,
        "torch.linalg.eigh": lambda X, k: torch.linalg.eigh(X).eigenvectors[..., -k:],
        "torch.lobpcg": lambda X, k: torch.lobpcg(X, k, largest=True)[1],
    }
    try:
        from xitorch import LinearOperator
        from xitorch.linalg import symeig
    except ImportError:
        return peers

    def davidson(X: Tensor, k: int) -> Tensor:
        vectors: Tensor = symeig(LinearOperator.m(X, is_hermitian=True), k, "uppest", method="davidson")[1]
        return vectors

    return peers | {"xitorch davidson": davidson}


def _eigen(batch: int, n: int, k: int, device: str, rounds: int) -> list[BenchRow]:
    generator = torch.Generator().manual_seed(0)
    F = torch.randn(batch, 2 * n, n, generator=generator)
    X = F.mT @ F / (2 * n)
    X = ((X + X.mT) / 2).to(device)
    C = torch.randn(batch, n, n, generator=generator).to(device)
    C = (C + C.mT) / 2
    exact = _gradient_of_projector(X.double(), C.double(), k)
    task = f"IED {batch}×{n}×{n}, k = {k}"
    best: dict[str, tuple[float, float]] = {}
    errors: dict[str, float] = {}
    notes: dict[str, str] = {}
    slow: set[str] = set()
    peers = _peers()
    for _ in range(rounds):
        for name, solve in peers.items():
            if name in notes or name in slow:
                continue
            try:
                forward, backward, gradient = _turn(solve, X, C, k, device)
            except (RuntimeError, ValueError, TypeError, AssertionError) as error:
                notes[name] = (str(error).splitlines() or [type(error).__name__])[0][:80]
                continue
            before = best.get(name, (float("inf"), float("inf")))
            best[name] = min(before[0], forward), min(before[1], backward)
            if forward > _PATIENCE * sum(best["pmaf"]) and forward > 1:
                slow.add(name)  # once is enough
            errors[name] = float((gradient.double() - exact).norm() / exact.norm())
    rows = []
    for name in peers:
        if name in best:
            ratio = sum(best[name]) / sum(best["pmaf"]) if "pmaf" in best else None
            rows.append(BenchRow(task, name, 1e3 * best[name][0], 1e3 * best[name][1], ratio, errors[name]))
        else:
            rows.append(BenchRow(task, name, None, None, None, None, notes[name]))
    return rows


def _turn(solve: Solve, X: Tensor, C: Tensor, k: int, device: str) -> tuple[float, float, Tensor]:
    leaf = X.clone().requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start = _now(device)
        U = solve(leaf, k)
        loss = ((C @ U) * U).sum()  # ⟨C, U Uᵀ⟩: no choice of basis or sign matters
        middle = _now(device)
        (gradient,) = torch.autograd.grad(loss, leaf)
        end = _now(device)
    return middle - start, end - middle, (gradient + gradient.mT) / 2


def _gradient_of_projector(X: Tensor, C: Tensor, k: int) -> Tensor:
    """The gradient of ⟨C, U Uᵀ⟩ by the sum over all eigenvectors, in the precision of X."""
    values, vectors = torch.linalg.eigh(X)
    U, V = vectors[..., -k:], vectors[..., :-k]
    weights = (V.mT @ C @ U) / (values[..., None, -k:] - values[..., :-k, None])
    half = V @ weights @ U.mT
    gradient: Tensor = half + half.mT
    return gradient


def _less(device: str, rounds: int) -> list[BenchRow]:
    generator = torch.Generator().manual_seed(0)
    A, b = torch.randn(100, 64, 32, generator=generator), torch.randn(100, 64, generator=generator)
    A, b = A.to(device), b.to(device)
    task = "LESS 100×64×32"
    best = pmaf.less(A.double(), b.double())
    optimum = _objective(A, b, best)
    forward, backward, excess = float("inf"), float("inf"), 0.0
    for _ in range(rounds):
        leaf = A.clone().requires_grad_()
        start = _now(device)
        u = pmaf.less(leaf, b)
        middle = _now(device)
        torch.autograd.grad(u.sum(), leaf)
        end = _now(device)
        forward, backward = min(forward, middle - start), min(backward, end - middle)
        excess = float(((_objective(A, b, u.detach().double()) - optimum) / optimum).abs().max())
    rows = [BenchRow(task, "pmaf", 1e3 * forward, 1e3 * backward, 1.0, excess)]
    try:
        start = _now(device)
        u = pmaf.less_ex(A.cpu(), b.cpu(), solver="slsqp").u
        seconds = _now(device) - start
    except ImportError as error:
        return [*rows, BenchRow(task, "SciPy SLSQP", None, None, None, None, str(error))]
    excess = float(((_objective(A, b, u.to(device).double()) - optimum) / optimum).abs().max())
    return [*rows, BenchRow(task, "SciPy SLSQP", 1e3 * seconds, None, seconds / forward, excess, "forward only")]


def _objective(A: Tensor, b: Tensor, u: Tensor) -> Tensor:
    misfit = (A.double() @ u[..., None])[..., 0] - b.double()
    objective: Tensor = misfit.square().sum(-1)
    return objective


def _now(device: str) -> float:
    if device != "cpu":
        getattr(torch, torch.device(device).type).synchronize()
    return time.perf_counter()


def text_rows(rows: list[BenchRow]) -> list[Any]:
    """The rows as text for a table."""

    def number(value: float | None, form: str) -> str:
        return "–" if value is None else format(value, form)

    return [
        (
            r.task,
            r.method,
            number(r.forward_ms, ".3g"),
            number(r.backward_ms, ".3g"),
            number(r.ratio, ".2f"),
            number(r.error, ".1e"),
            r.note,
        )
        for r in rows
    ]
