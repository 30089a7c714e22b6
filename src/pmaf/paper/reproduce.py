"""Run experiments by name and write each into the report as soon as it is done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pmaf import MissingExtraError
from pmaf.paper.experiments.base import Experiment, Found, Options, Report, Task
from pmaf.paper.experiments.parts import part
from pmaf.paper.experiments.registry import EXPERIMENTS
from pmaf.paper.report.page import write_found, write_page
from pmaf.paper.report.tables import Table, tables

__all__ = ["reproduce", "run"]


def reproduce(
    names: Sequence[str],
    *,
    out: Path,
    quick: bool = False,
    fresh: bool = False,
    report: Report = lambda done, total, note: None,
    **options: Any,
) -> tuple[Path, list[Table]]:
    """Run experiments one after the other and write what they found: the page, and the tables to print.

    Raises:
        MissingExtraError: if nothing that was asked for can run without a package that is not installed; else its place
            in the report says so.
    """
    asked = Options(quick=quick, **options)
    chosen = [experiment for experiment in EXPERIMENTS if experiment.section in names]
    plans = [list(experiment.plan(asked)) for experiment in chosen]
    command = f"pmaf reproduce {{}} {asked}".strip()
    page, every = out / "index.html", []
    total, done = sum(task.cost for tasks in plans for task in tasks), 0.0
    for experiment, tasks in zip(chosen, plans, strict=True):

        def tell(cost: float, note: str, before: float = done) -> None:
            report(round(100 * (before + cost)), round(100 * total), note)

        found = run(experiment, tasks, out, command.format(experiment.section), fresh=fresh, tell=tell)
        done += sum(task.cost for task in tasks)
        every.append((experiment, write_found(out, found)))
        page = write_page(out)
    if every and all(found.missing and not found.rows for _, found in every):
        raise MissingExtraError(every[0][1].missing[0])
    return page, [table for experiment, found in every for table in tables(experiment, found.rows)]


def run(
    experiment: Experiment,
    tasks: Sequence[Task],
    out: Path,
    command: str,
    *,
    fresh: bool = False,
    tell: Callable[[float, str], None] = lambda cost, note: None,
) -> Found:
    """Do the tasks of an experiment, each unless it is on disk already; what lacks a package is left out and named."""
    found, rows, cost = Found(experiment.key, command, [], []), [], 0.0
    for task in tasks:
        tell(cost, f"{experiment.key} {task.name}")
        try:
            done = part(out / "parts", experiment, task, fresh=fresh)
        except MissingExtraError as error:
            if str(error) not in found.missing:
                found.missing.append(str(error))
        else:
            rows += done.rows
            found.made.append(done.made | {"group": done.rows[0].get(experiment.group)})
        cost += task.cost
    found.rows = experiment.gather(rows)
    return found
