"""The optimality experiment: sizes, problems and methods, kept in parts and written as CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

import pmaf
from pmaf.paper.optimality import METHODS, Row, optimality, random_problems
from pmaf.paper.parts import part, write_whole
from pmaf.progress import Report

__all__ = ["LESSSettings", "Missed", "OptimalityResult", "parse_sizes", "run_less"]

_PART = 100  # problems in one part
_SHORT = 1e-3  # an objective this much above the optimum, relatively, counts as a miss


class LESSSettings(NamedTuple):
    """What to run: how many problems of which sizes, with which methods."""

    sizes: tuple[tuple[int, int, int], ...] = ((2, 2, 1000), (9, 9, 1000), (64, 32, 1000), (1024, 256, 1000))
    methods: tuple[str, ...] = tuple(METHODS)

    @classmethod
    def quick(cls) -> LESSSettings:
        """Fewer problems, and not the largest size."""
        return cls(sizes=((2, 2, 1000), (9, 9, 100), (64, 32, 100)))


class Missed(NamedTuple):
    """Against the certified optimum: how often a method ends above it, and by how much on average."""

    problems: int
    mean_percent: float


class OptimalityResult(NamedTuple):
    """For each size the number of problems, the rows, and the misses by method (not of SciPy)."""

    problems: dict[tuple[int, int], int]
    rows: dict[tuple[int, int], list[Row]]
    missed: dict[tuple[int, int], dict[str, Missed]]


def parse_sizes(sizes: Sequence[str], problems: int) -> tuple[tuple[int, int, int], ...]:
    """Sizes as the command line gives them.

    Args:
        sizes: such as ``"64x32"``.
        problems: how many problems of each.

    Returns:
        Rows, columns and number of problems of each.

    Raises:
        ValueError: if a size does not read as two positive integers, or there are no problems.
    """
    parsed = []
    for size in sizes:
        m, _, n = size.lower().replace("×", "x").partition("x")
        if not (m.isdigit() and n.isdigit() and int(m) and int(n)):
            raise ValueError(f"a size is given as MxN, such as 64x32, not as {size!r}")
        parsed.append((int(m), int(n), problems))
    if problems < 1:
        raise ValueError(f"the number of problems must be at least 1, not {problems}")
    return tuple(parsed)


def run_less(out: Path, settings: LESSSettings, report: Report | None = None) -> OptimalityResult:
    """Run the methods on all sizes, keep finished parts, and write ``less.csv`` and ``less.json``.

    Results of other sizes that the folder already holds, from this version of pmaf, are kept in both files.

    Args:
        out: folder for the results.
        settings: what to run.
        report: called with the problems done, the problems in all, and the size.

    Returns:
        The results.
    """
    total = sum(count for _, _, count in settings.sizes)
    done = 0
    result = _kept(out)
    for m, n, count in settings.sizes:
        rows: list[list[Row]] = []
        missed: list[dict[str, Missed]] = []
        for first in range(0, count, _PART):
            size = min(_PART, count - first)
            if report is not None:
                report(done, total, f"{m}×{n}")
            asked = {"m": m, "n": n, "first": first, "problems": size, "methods": settings.methods}
            found = part(out / "parts", f"less-{m}x{n}-{first}", asked, lambda a=asked: _part(**a))  # type: ignore[misc]
            rows.append([Row(**row) for row in found["rows"]])
            missed.append({name: Missed(*value) for name, value in found["missed"].items()})
            done += size
        weights = [min(_PART, count - first) / count for first in range(0, count, _PART)]
        result.problems[m, n] = count
        result.rows[m, n] = [_join(same, weights) for same in zip(*rows, strict=True)]
        result.missed[m, n] = {
            name: Missed(
                sum(chunk[name].problems for chunk in missed),
                sum(w * chunk[name].mean_percent for w, chunk in zip(weights, missed, strict=True)),
            )
            for name in missed[0]
        }
    if report is not None:
        report(total, total)
    _write(out, result)
    return result


def _part(m: int, n: int, first: int, problems: int, methods: Sequence[str]) -> dict[str, Any]:
    rows = optimality(m, n, problems, methods, seed0=first)
    batch = random_problems(m, n, range(first, first + problems))
    exact = type(batch)(*(tensor.double() for tensor in batch))
    best = exact.objective(METHODS["Secular"].solve(exact).u)
    missed = {}
    for name in methods:
        if name != "SciPy":  # it would take most of the time once more
            excess = exact.objective(METHODS[name].solve(batch).u.double()) - best
            relative = excess / best.clamp_min(torch.finfo(torch.float32).eps)
            missed[name] = (int((relative > _SHORT).sum()), float(100 * relative.mean()))
    return {"rows": [row._asdict() for row in rows], "missed": missed}


def _join(same: Sequence[Row], weights: Sequence[float]) -> Row:
    """One row of several: counts add up, means are weighted."""

    def mean(name: str) -> float:
        return sum(w * float(getattr(row, name)) for w, row in zip(weights, same, strict=True))

    return same[0]._replace(
        failed_inside=sum(row.failed_inside for row in same),
        failed_outside=sum(row.failed_outside for row in same),
        better=sum(row.better for row in same),
        mean_diff_percent=mean("mean_diff_percent"),
        mean_steps=mean("mean_steps"),
        ms_per_problem=mean("ms_per_problem"),
    )


def _write(out: Path, result: OptimalityResult) -> None:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(Row._fields)
    for rows in result.rows.values():
        writer.writerows(rows)
    write_whole(out / "less.csv", stream.getvalue())
    sizes = [
        {
            "m": m,
            "n": n,
            "problems": result.problems[m, n],
            "rows": [row._asdict() for row in rows],
            "missed": {name: missed._asdict() for name, missed in result.missed[m, n].items()},
        }
        for (m, n), rows in result.rows.items()
    ]
    write_whole(out / "less.json", json.dumps({"version": pmaf.__version__, "sizes": sizes}, indent=1))


def _kept(out: Path) -> OptimalityResult:
    """What the folder holds already."""
    result = OptimalityResult({}, {}, {})
    try:
        held = json.loads((out / "less.json").read_text("utf-8"))
        sizes = held["sizes"] if held["version"] == pmaf.__version__ else []
        for size in sizes:
            at = size["m"], size["n"]
            result.problems[at] = size["problems"]
            result.rows[at] = [Row(**row) for row in size["rows"]]
            result.missed[at] = {name: Missed(**missed) for name, missed in size["missed"].items()}
    except (OSError, ValueError, KeyError, TypeError):
        return OptimalityResult({}, {}, {})
    return result
