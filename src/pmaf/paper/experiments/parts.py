"""Finished parts of an experiment, kept on disk so that an interrupted run goes on where it stopped."""

from __future__ import annotations

import csv
import functools
import hashlib
import io
import json
import os
import time
from collections.abc import Iterable, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch

import pmaf
from pmaf.paper.experiments.base import Experiment, Row, Task
from pmaf.paper.experiments.environment import environment, kernels, one_thread, processor

__all__ = ["Part", "part", "write_csv", "write_whole"]

_SHOWN = ("paper/report", "cli")
"""What only shows results: they stay valid when it changes."""


class Part(NamedTuple):
    """Rows, and where and when they were made; ``made["replayed"]`` if that was in an earlier run."""

    rows: list[Row]
    made: dict[str, Any]


def part(folder: Path, experiment: Experiment, task: Task, *, fresh: bool = False) -> Part:
    """Do a task, or take its result from disk if it was done before with the same settings and code.

    Where times are measured, one thread computes, and the result is only valid for the same processor.
    """
    named = [experiment.key, task.settings, pmaf.__version__, torch.__version__, _code()]
    named += [processor(), kernels()] if experiment.timed else []
    key = hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()[:16]
    path = folder / f"{experiment.key}-{task.name}.json".replace(" ", "-")
    with suppress(OSError, ValueError, KeyError, TypeError):  # a damaged part is computed anew
        kept = json.loads(path.read_text("utf-8"))
        if kept["key"] == key and not fresh:
            return Part(kept["rows"], kept["made"] | {"replayed": True})
    began = time.monotonic()
    with one_thread() if experiment.timed else nullcontext():
        made = environment()
        rows = experiment.compute(**task.settings)
    made["seconds"] = round(time.monotonic() - began, 2)
    kept = {"key": key, "settings": task.settings, "made": made, "rows": rows}
    write_whole(path, json.dumps(kept, indent=1))
    return Part(json.loads(json.dumps(rows)), made | {"replayed": False})


def write_whole(path: Path, text: str) -> None:
    """Write a file under another name and move it in place, so that it is never there in half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, "utf-8")
    os.replace(temporary, path)


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Row]) -> None:
    """Write these entries of the rows, whole or not at all."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(path, stream.getvalue())


@functools.cache
def _code() -> str:
    """A digest of the library's code, without that of the command line and the report.

    Taken once: the code that runs is that which was there at the start, whatever becomes of the files meanwhile.
    """
    root = Path(__file__).parent.parent.parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        shown = path.relative_to(root).as_posix().startswith(_SHOWN)
        if path.suffix in {".py", ".cpp", ".h", ".hpp"} and not shown:
            digest.update(path.read_bytes())
    return digest.hexdigest()
