"""The optimality experiment: sizes, problems and methods, kept in parts and written as CSV and JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pmaf
from pmaf.paper.experiments.optimality import METHODS, Missed, Optimality, Row, optimality
from pmaf.paper.experiments.parts import part, write_csv, write_whole
from pmaf.progress import Report

__all__ = ["LESSSettings", "OptimalityResult", "parse_sizes", "run_less"]

_PART = 100  # problems in one part, and in one batch
_PART_ENTRIES = 1 << 22  # of A in one part, so that few minutes are lost when a run is interrupted


class LESSSettings(NamedTuple):
    """What to run: how many problems of which sizes, with which methods."""

    sizes: tuple[tuple[int, int, int], ...] = ((2, 2, 1000), (9, 9, 1000), (64, 32, 1000), (1024, 256, 1000))
    methods: tuple[str, ...] = tuple(METHODS)

    @classmethod
    def quick(cls) -> LESSSettings:
        """Fewer problems, the larger they are."""
        return cls(sizes=((2, 2, 1000), (9, 9, 300), (64, 32, 100), (1024, 256, 8)))


class OptimalityResult(NamedTuple):
    """For each size the number of problems, and what came out."""

    problems: dict[tuple[int, int], int]
    sizes: dict[tuple[int, int], Optimality]


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
    """Run the methods on all sizes, keep finished parts, and write ``less.csv``, ``less_optimum.csv``, ``less.json``.

    Results of other sizes that the folder already holds, from this version of pmaf, are kept in both files.

    Args:
        out: folder for the results.
        settings: what to run.
        report: called with the work done, the work in all, and the size.

    Returns:
        The results.
    """
    total = sum(count * _cost(m, n) for m, n, count in settings.sizes)
    done = 0
    result = _kept(out)
    for m, n, count in settings.sizes:
        parts: list[Optimality] = []
        step = max(1, min(_PART, _PART_ENTRIES // (m * n)))
        counts = [min(step, count - first) for first in range(0, count, step)]
        for number, size in enumerate(counts):
            if report is not None:
                report(done, total, f"{m}×{n}")
            asked = {"m": m, "n": n, "first": number * step, "problems": size, "methods": settings.methods}
            name = f"less-{m}x{n}-{number * step}"
            parts.append(_from_json(part(out / "parts", name, asked, lambda a=asked: _part(**a))))  # type: ignore[misc]
            done += size * _cost(m, n)
        result.problems[m, n] = count
        result.sizes[m, n] = Optimality(
            [_join(same, counts) for same in zip(*(p.rows for p in parts), strict=True)],
            {name: _join_missed([p.missed[name] for p in parts], counts) for name in parts[0].missed},
            sum(p.certified for p in parts),
        )
    if report is not None:
        report(total, total)
    _write(out, result)
    return result


def _cost(m: int, n: int) -> int:
    """What a problem costs by all methods, as measured, in units of three microseconds or so."""
    return 600 + m * n


def _part(m: int, n: int, first: int, problems: int, methods: Sequence[str]) -> dict[str, Any]:
    return _to_json(optimality(m, n, problems, methods, seed0=first))


def _to_json(found: Optimality) -> dict[str, Any]:
    return {
        "rows": [row._asdict() for row in found.rows],
        "missed": {name: missed._asdict() for name, missed in found.missed.items()},
        "certified": found.certified,
    }


def _from_json(kept: Mapping[str, Any]) -> Optimality:
    missed = {name: Missed(**value) for name, value in kept["missed"].items()}
    return Optimality([Row(**row) for row in kept["rows"]], missed, kept["certified"])


def _join(same: Sequence[Row], counts: Sequence[int]) -> Row:
    """One row of several: counts add up, means are weighted."""

    def mean(name: str) -> float:
        return _mean([float(getattr(row, name)) for row in same], counts)

    return same[0]._replace(
        failed_inside=sum(row.failed_inside for row in same),
        failed_outside=sum(row.failed_outside for row in same),
        better=sum(row.better for row in same),
        mean_diff_percent=mean("mean_diff_percent"),
        mean_steps=mean("mean_steps"),
        ms_per_problem=mean("ms_per_problem"),
    )


def _join_missed(same: Sequence[Missed], counts: Sequence[int]) -> Missed:
    return Missed(
        sum(missed.problems for missed in same),
        _mean([missed.mean_percent for missed in same], counts),
        _mean([missed.mean_missed_percent for missed in same], [missed.problems for missed in same]),
        max(missed.worst_percent for missed in same),
    )


def _mean(values: Sequence[float], weights: Sequence[int]) -> float:
    return sum(w * value for w, value in zip(weights, values, strict=True)) / max(1, sum(weights))


def _write(out: Path, result: OptimalityResult) -> None:
    rows = [row for found in result.sizes.values() for row in found.rows]
    write_csv(out / "less.csv", Row._fields, rows)
    against = [
        (*size, result.problems[size], found.certified, name, *missed)
        for size, found in result.sizes.items()
        for name, missed in found.missed.items()
    ]
    write_csv(out / "less_optimum.csv", ("m", "n", "of", "certified", "method", *Missed._fields), against)
    sizes = [
        {"m": m, "n": n, "problems": result.problems[m, n], **_to_json(found)} for (m, n), found in result.sizes.items()
    ]
    write_whole(out / "less.json", json.dumps({"version": pmaf.__version__, "sizes": sizes}, indent=1))


def _kept(out: Path) -> OptimalityResult:
    """What the folder holds already."""
    result = OptimalityResult({}, {})
    try:
        held = json.loads((out / "less.json").read_text("utf-8"))
        for size in held["sizes"] if held["version"] == pmaf.__version__ else []:
            at = size["m"], size["n"]
            result.problems[at] = size["problems"]
            result.sizes[at] = _from_json(size)
    except (OSError, ValueError, KeyError, TypeError):
        return OptimalityResult({}, {})
    return result
