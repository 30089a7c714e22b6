"""Least squares on the sphere: how close each method comes to the certified optimum, and the paths it takes."""

from __future__ import annotations

from collections.abc import Sequence

from pmaf.paper.experiments.base import Column, Experiment, Options, Row, Task, grouped
from pmaf.paper.experiments.optimality import CASE_SEEDS, METHODS, case_studies, optimality

__all__ = ["CASES", "OPTIMALITY", "parse_sizes"]

_SIZES = ((2, 2, 1000), (9, 9, 1000), (64, 32, 1000), (1024, 256, 1000))
_QUICK = ((2, 2, 1000), (9, 9, 300), (64, 32, 100), (1024, 256, 8))
_PART = 100  # problems in one part, and in one batch
_PART_ENTRIES = 1 << 22  # of A in one part, so that few minutes are lost when a run is interrupted
_SECONDS = 3e-6  # for an entry of A by all methods, as measured


def parse_sizes(sizes: Sequence[str], problems: int) -> tuple[tuple[int, int, int], ...]:
    """Rows, columns and number of problems of each size that the command line gives, such as ``"64x32"``.

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


def _plan(options: Options) -> list[Task]:
    sizes: Sequence[tuple[int, int, int]] = _QUICK if options.quick else _SIZES
    if options.sizes or options.problems is not None:
        asked = options.sizes or [f"{m}x{n}" for m, n, _ in sizes]
        sizes = parse_sizes(asked, 1000 if options.problems is None else options.problems)
    tasks = []
    for m, n, count in sizes:
        step = max(1, min(_PART, _PART_ENTRIES // (m * n)))
        for first in range(0, count, step):
            size = min(step, count - first)
            asked_for = {"m": m, "n": n, "problems": size, "seed0": first, "methods": options.methods or list(METHODS)}
            tasks.append(Task(f"{m}x{n}-{first}", asked_for, size * _SECONDS * (600 + m * n)))
    return tasks


def _compute(m: int, n: int, problems: int, seed0: int, methods: Sequence[str]) -> list[Row]:
    return [row | {"size": f"{m}×{n}"} for row in optimality(m, n, problems, methods, seed0)]


def _join(rows: Sequence[Row]) -> list[Row]:
    """The parts of a size and a method become one row: counts add up, means are weighted."""
    joined = []
    for same in grouped(rows, "size", "method").values():

        def mean(key: str, by: str = "problems", same: list[Row] = same) -> float:
            return float(sum(r[key] * r[by] for r in same) / max(1, sum(r[by] for r in same)))

        counts = ("failed_inside", "failed_outside", "better", "above", "problems", "certified")
        means = ("mean_diff_percent", "mean_steps", "ms_per_problem", "excess_percent")
        joined.append(
            same[0]
            | {key: sum(r[key] for r in same) for key in counts}
            | {key: mean(key) for key in means}
            | {"excess_above_percent": mean("excess_above_percent", "above") if any(r["above"] for r in same) else None}
            | {"worst_percent": max(r["worst_percent"] for r in same)}
        )
    return joined


OPTIMALITY = Experiment(
    key="less",
    section="less",
    title="How close each method comes to the certified optimum",
    plan=_plan,
    compute=_compute,
    gather=_join,
    group="size",
    ours=("Secular",),
    columns=(
        Column("method", "method"),
        Column("size"),
        Column("m"),
        Column("n"),
        Column("above", "above optimum", "d", best="least"),
        Column("excess_percent", "excess % of all", ".2g"),
        Column("excess_above_percent", "excess % of those", ".2g"),
        Column("worst_percent", "worst %", ".2g"),
        Column("failed_inside", "failed in", "d"),
        Column("failed_outside", "failed out", "d"),
        Column("better", "better", "d", best="most"),
        Column("mean_diff_percent", "mean diff %", ".3g"),
        Column("mean_steps", "steps", ".1f"),
        Column("ms_per_problem", "ms", ".3g", best="least"),
        Column("problems", "of", "d"),
        Column("certified"),
    ),
)


CASES = Experiment(
    key="less_cases",
    section="less",
    title="Case studies in the plane",
    plan=lambda options: [Task("2x2", {"seeds": list(CASE_SEEDS)}, 1.0)],
    compute=case_studies,
    group="seed",
    timed=False,
    columns=(
        Column("method", "method"),
        Column("seed", "seed", "d"),
        Column("steps", "steps", "d"),
        Column("distance", "‖A u − b‖ reached", ".4f", best="least"),
        Column("optimum", "certified", ".4f"),
    ),
)
