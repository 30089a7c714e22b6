"""A quick side by side with whatever peers are installed, on this machine: time, ratio and accuracy."""

from __future__ import annotations

import contextlib
import json
import math
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

import pmaf
from pmaf.paper.experiments.base import Column, Report, Row
from pmaf.paper.experiments.environment import environment, one_thread, packages
from pmaf.paper.experiments.measure import Leading, Turn, now, reference_gradient, turn
from pmaf.paper.experiments.parts import write_whole
from pmaf.solvers.base import LeastSquares

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

Methods: TypeAlias = dict[str, Callable[[], Turn]]

_PATIENCE = 20  # times as slow as pmaf: such a method has one turn
_FAILURES = (RuntimeError, ValueError, TypeError, AssertionError, ImportError)


def bench(
    device: str = "cpu",
    rounds: int = 5,
    tasks: Sequence[tuple[int, int, int]] = ((1000, 9, 1), (64, 64, 3), (1, 512, 3)),
    report: Report = lambda done, total, note: None,
) -> list[Row]:
    """Differentiate the projector onto k leading eigenvectors, and solve LESS, with every installed peer.

    All methods of a task take turns in one process, on one thread; the fastest of the rounds counts, after one
    that warms up.
    """
    problems: dict[str, Callable[[str], Methods]] = {
        f"IED {batch}×{n}×{n}, k = {k}": partial(_eigen, batch, n, k) for batch, n, k in tasks
    }
    problems["LESS 100×64×32"] = _less
    rows: list[Row] = []
    with one_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for done, (task, methods) in enumerate(problems.items()):
            report(done, len(problems), task)
            rows += [{"task": task} | row for row in _side_by_side(methods(device), rounds)]
    report(len(problems), len(problems), "")
    return rows


def write_bench(path: Path, rows: list[Row]) -> None:
    """Write the rows and the environment as JSON."""
    write_whole(path, json.dumps({"environment": environment() | packages(), "rows": rows}, indent=1))


def _eigen(batch: int, n: int, k: int, device: str) -> Methods:
    generator = torch.Generator().manual_seed(0)
    F, C = (torch.randn(batch, rows, n, generator=generator).to(device) for rows in (2 * n, n))
    X, C = F.mT @ F / (2 * n), (C + C.mT) / 2
    X, exact = (X + X.mT) / 2, reference_gradient((X + X.mT) / 2, C, k)
    peers: dict[str, Leading] = {
        "pmaf": lambda X: pmaf.ied(X, k).eigenvectors,
        "torch.linalg.eigh": lambda X: torch.linalg.eigh(X).eigenvectors[..., -k:],
        "torch.lobpcg": lambda X: torch.lobpcg(X, k, largest=True)[1],
    }
    with contextlib.suppress(ImportError):
        from xitorch import LinearOperator
        from xitorch.linalg import symeig

        hermitian = partial(LinearOperator.m, is_hermitian=True)
        peers["xitorch davidson"] = lambda X: symeig(hermitian(X), k, "uppest", method="davidson")[1]
    return {name: partial(turn, leading, X, C, exact) for name, leading in peers.items()}


def _less(device: str) -> Methods:
    generator = torch.Generator().manual_seed(0)
    A, b = (torch.randn(100, 64, *rest, generator=generator).to(device) for rest in ((32,), ()))
    double = LeastSquares(A.double(), b.double(), torch.tensor(1.0))
    optimum = double.objective(pmaf.less(double.A, double.b))

    def error(u: Tensor) -> float:
        return float((double.objective(u.detach().double()) / optimum - 1).abs().max())

    def ours() -> Turn:
        leaf, start = A.clone().requires_grad_(), now(device)
        u = pmaf.less(leaf, b)
        middle = now(device)
        torch.autograd.grad(u.sum(), leaf)
        return Turn(middle - start, now(device) - middle, error(u))

    def scipy() -> Turn:
        start = now(device)
        u = pmaf.less_ex(A.cpu(), b.cpu(), solver="slsqp").u.to(device)
        return Turn(now(device) - start, math.nan, error(u))  # forward only

    return {"pmaf": ours, "SciPy SLSQP": scipy}


def _side_by_side(methods: Methods, rounds: int) -> list[Row]:
    """A row for each method, with its time over pmaf's: of both passes where the method has both."""
    turns: dict[str, list[Turn]] = {name: [] for name in methods}
    notes: dict[str, str] = {}
    for _ in range(1 + rounds):
        for name, method in methods.items():
            slow = turns[name] and turns[name][0].forward > max(1, _PATIENCE * sum(turns["pmaf"][0][:2]))
            if name in notes or slow:
                continue
            try:
                turns[name].append(method())
            except _FAILURES as error:
                notes[name] = (str(error).splitlines() or [type(error).__name__])[0][:80]
    rows: list[Row] = []
    for name, taken in turns.items():
        row: Row = {"method": name, "note": notes.get(name, "")}
        if name not in notes:
            own = taken[1:] or taken  # the first warms up
            row |= {"forward": min(t.forward for t in own), "error": own[-1].error}
            if math.isnan(own[0].backward):
                row["note"] = "forward only"
            else:
                row["backward"] = min(t.backward for t in own)
            ours = (rows or [row])[0]
            ways = [way for way in ("forward", "backward") if way in row and way in ours]
            row["ratio"] = sum(row[way] for way in ways) / sum(ours[way] for way in ways) if ways else None
        rows.append(row)
    return rows
