"""A quick side by side with whatever peers are installed, on this machine: time, ratio and accuracy."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

import pmaf
from pmaf.checks.devices import check_device
from pmaf.paper.experiments.base import Column, Row
from pmaf.paper.experiments.environment import environment, one_thread, packages
from pmaf.paper.experiments.measure import Turn, now, reference_gradient, turn
from pmaf.paper.experiments.parts import write_whole
from pmaf.paper.progress import Report

__all__ = ["COLUMNS", "bench", "write_bench"]

COLUMNS = (
    Column("task", "task"),
    Column("method", "method"),
    Column("forward", "forward ms", ".3g", 1e3),
    Column("backward", "backward ms", ".3g", 1e3),
    Column("ratio", "ratio to pmaf", ".2f"),
    Column("error", "error", ".1e"),
    Column("note", "note"),
)
"""Seconds, fastest of the rounds; the ratio is of both times; the error is of the gradient, else of the objective."""

_TASKS = ((1000, 9, 1), (64, 64, 3), (1, 512, 3))
_PATIENCE = 20  # times as slow as pmaf: such a method has one turn
_FAILURES = (RuntimeError, ValueError, TypeError, AssertionError)

Solve = Callable[[Tensor, int], Tensor]


def bench(
    device: str = "cpu", rounds: int = 5, tasks: Sequence[tuple[int, int, int]] = _TASKS, report: Report | None = None
) -> list[Row]:
    """Differentiate the projector onto k leading eigenvectors, and solve LESS, with every installed peer.

    All methods of a task take turns in one process, on one thread; the fastest of the rounds counts, after one
    that warms up.
    """
    check_device(device)
    rows: list[Row] = []
    tell = report or (lambda done, total, note="", /: None)
    with one_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for done, (batch, n, k) in enumerate(tasks):
            task = f"IED {batch}×{n}×{n}, k = {k}"
            tell(done, len(tasks) + 1, task)
            rows += [{"task": task} | row for row in _eigen(batch, n, k, device, rounds)]
        tell(len(tasks), len(tasks) + 1, "LESS")
        rows += [{"task": "LESS 100×64×32"} | row for row in _less(device, rounds)]
    tell(len(tasks) + 1, len(tasks) + 1)
    return rows


def write_bench(path: Path, rows: list[Row]) -> None:
    """Write the rows and the environment as JSON."""
    write_whole(path, json.dumps({"environment": environment() | packages(), "rows": rows}, indent=1))


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


def _eigen(batch: int, n: int, k: int, device: str, rounds: int) -> list[Row]:
    generator = torch.Generator().manual_seed(0)
    F = torch.randn(batch, 2 * n, n, generator=generator)
    X = F.mT @ F / (2 * n)
    X = ((X + X.mT) / 2).to(device)
    C = torch.randn(batch, n, n, generator=generator).to(device)
    C = (C + C.mT) / 2
    exact = reference_gradient(X, C, k)
    turns: dict[str, list[Turn]] = {}
    notes: dict[str, str] = {}
    peers = _peers()
    for _ in range(1 + rounds):
        for name, solve in peers.items():
            before = turns.setdefault(name, [])
            slow = before and before[0].forward > max(1, _PATIENCE * sum(turns["pmaf"][0][:2]))  # once is enough
            if name in notes or slow:
                continue
            try:
                before.append(turn(lambda leaf, solve=solve: solve(leaf, k), X, C, exact))  # type: ignore[misc]
            except _FAILURES as error:
                notes[name] = (str(error).splitlines() or [type(error).__name__])[0][:80]
    rows = []
    for name, taken in turns.items():
        own = taken[1:] or taken  # the first warms up
        row: Row = {"method": name, "note": notes.get(name, "")}
        if own and name not in notes:
            row |= {"forward": min(t.forward for t in own), "backward": min(t.backward for t in own)}
            row["error"] = own[-1].error
        rows.append(row)
    return _against_ours(rows)


def _less(device: str, rounds: int) -> list[Row]:
    generator = torch.Generator().manual_seed(0)
    A, b = (torch.randn(100, 64, *rest, generator=generator).to(device) for rest in ((32,), ()))

    def objective(u: Tensor) -> Tensor:
        value: Tensor = ((A.double() @ u.detach().double()[..., None])[..., 0] - b.double()).square().sum(-1)
        return value

    optimum = objective(pmaf.less(A.double(), b.double()))
    times: list[tuple[float, float]] = []
    for _ in range(1 + rounds):
        leaf, start = A.clone().requires_grad_(), now(device)
        u = pmaf.less(leaf, b)
        middle = now(device)
        torch.autograd.grad(u.sum(), leaf)
        times.append((middle - start, now(device) - middle))
    ours = dict(zip(("forward", "backward"), (min(column) for column in zip(*times[1:], strict=True)), strict=True))
    rows: list[Row] = [{"method": "pmaf", "note": "", **ours, "error": float((objective(u) / optimum - 1).abs().max())}]
    try:
        start = now(device)
        u = pmaf.less_ex(A.cpu(), b.cpu(), solver="slsqp").u.to(device)
    except ImportError as error:
        return _against_ours([*rows, {"method": "SciPy SLSQP", "note": str(error)}])
    scipy: Row = {"method": "SciPy SLSQP", "note": "forward only", "forward": now(device) - start}
    return _against_ours([*rows, scipy | {"error": float((objective(u) / optimum - 1).abs().max())}])


def _against_ours(rows: list[Row]) -> list[Row]:
    """With the time of each method over pmaf's: of both passes where the method has both."""
    for row in rows:
        ways = [way for way in ("forward", "backward") if way in row and way in rows[0]]
        row["ratio"] = sum(row[way] for way in ways) / sum(rows[0][way] for way in ways) if ways else None
    return rows
