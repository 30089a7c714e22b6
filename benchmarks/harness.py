"""What every benchmark needs: alternating timings, measured memory, versions, a table and a CSV file."""

from __future__ import annotations

import csv
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("pmaf", "torch", "numpy", "scipy", "xitorch", "geomstats")
Row = dict[str, Any]
TURN = 0.02  # seconds


def alternate(
    tasks: dict[str, Callable[[], object]],
    rounds: int,
    seconds: float = 20.0,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Median seconds of each task, all tasks taken in turn so that a change of load hits all alike.

    A short task is repeated in its turn, after a call that does not count, as often as ``TURN`` allows, and the mean
    taken: what is timed is the task in a loop, not what the task before it has left in the caches.

    Args:
        tasks: what to time, by name.
        rounds: how often, after one round that does not count.
        seconds: a task that has used up this much is left alone.
        clock: ``time.process_time`` for tasks of one thread on a machine that others use as well.

    Returns:
        Seconds by name.
    """
    times: dict[str, list[float]] = {name: [] for name in tasks}
    spent = dict.fromkeys(tasks, 0.0)
    for round_ in range(rounds + 1):
        for name, task in tasks.items():
            if spent[name] > seconds:
                continue
            used = seconds_of(task, 1, clock)
            repeats = int(TURN / used)
            if round_ and repeats > 1:
                used = seconds_of(task, repeats, clock)
            if round_ or used > seconds / rounds:
                times[name].append(used)
            spent[name] += used * max(repeats, 1)
    return {name: statistics.median(values) for name, values in times.items()}


def seconds_of(task: Callable[[], object], repeats: int, clock: Callable[[], float] = time.perf_counter) -> float:
    """The mean time of a call."""
    start = clock()
    for _ in range(repeats):
        task()
    return (clock() - start) / repeats


def allocations(task: Callable[[], object]) -> tuple[int, int]:
    """The peak of what a task allocates on the CPU beyond what was there, and its largest allocation, in bytes."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        kept = task()
    del kept
    events = [e for e in record.profiler.kineto_results.events() if e.name() == "[memory]"]  # type: ignore[union-attr]
    current = peak = largest = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        current += event.nbytes()
        peak, largest = max(peak, current), max(largest, event.nbytes())
    return peak, largest


def versions() -> str:
    """Versions and machine in one line."""
    installed = {d.name: d.version for d in metadata.distributions() if d.name in PACKAGES}
    parts = [f"{package} {installed.get(package, 'not installed')}" for package in PACKAGES]
    parts += [f"Python {platform.python_version()}", processor(), f"{torch.get_num_threads()} thread"]
    parts.append(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    return ", ".join([*parts, datetime.now(timezone.utc).strftime("%Y-%m-%d")])


def processor() -> str:
    """The processor's name as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def report(name: str, title: str, rows: Sequence[Row]) -> None:
    """Print a table, and write it with the versions to ``results/NAME.csv``.

    Args:
        name: of the file.
        title: of the table.
        rows: dictionaries with the same keys.
    """
    table = Table(title=title, caption=versions())
    columns = list(rows[0])
    for column in columns:
        text = isinstance(rows[0][column], str)
        table.add_column(column.replace("_", " "), justify="left" if text else "right", no_wrap=text)
    for row in rows:
        table.add_row(*(show(row[column]) for column in columns))
    Console(width=max(200, Console().width)).print(table)
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*columns, "versions"])
        writer.writeheader()
        line = versions()
        writer.writerows({**{key: show(value) for key, value in row.items()}, "versions": line} for row in rows)


def show(value: Any) -> str:
    """A value with four significant digits; nothing where it is unknown."""
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
