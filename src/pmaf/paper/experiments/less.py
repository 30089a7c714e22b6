r"""Least squares on the sphere: how close to the optimum the paper's solvers come, in how many steps, on which paths.

The paper's protocol: for each seed s, ``torch.manual_seed(s)``, ``A = torch.randn(m, n)``, ``b = torch.randn(m, 1)``,
in float32; every method starts from A⁺b/‖A⁺b‖, stops when ½‖A u − b‖² changes by less than 1e-7, and has *failed* if it
has not after 100 steps. The baseline is SciPy's SLSQP. A problem is *inside* if ‖A⁺b‖ < 1: its unconstrained minimiser
lies inside the sphere and the multiplier of the answer is negative. Secular, which is not the paper's, is compared with
SLSQP in float64 throughout: near a zero objective the rounding of a float32 point would decide.

Reference: Xu, Wang, Liu, Gould, *PMaF: Deep Declarative Layers for Principal Matrix Features*, 2023, arXiv 2306.14759.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

import pmaf
from pmaf.paper.experiments.base import Column, Experiment, Options, Row, Task, grouped
from pmaf.solvers import SLSQP, Backtracking, ProjectedGradient, RiemannianGradient, Secular, TangentDecay
from pmaf.solvers.base import LeastSquares, SphereAnswer

__all__ = [
    "CASES",
    "CASE_METHODS",
    "CASE_SEEDS",
    "METHODS",
    "OPTIMALITY",
    "PAPER",
    "case_studies",
    "optimality",
    "random_problems",
]

Method: TypeAlias = ProjectedGradient | RiemannianGradient | SLSQP | Secular

METHODS: dict[str, Method] = {
    "SciPy": SLSQP(),
    "PGD": ProjectedGradient(),
    "PGD+DW": ProjectedGradient(direction_weight=True),
    "PGD+RM": RiemannianGradient(),
    "PGD+RM+BLSOne": RiemannianGradient(step=Backtracking(initial=1.0)),
    "PGD+RM+BLSOne+DW": RiemannianGradient(step=Backtracking(initial=1.0), direction_weight=True),
    "PGD+RM+BLS": RiemannianGradient(step=Backtracking()),
    "PGD+RM+BLS+DW": RiemannianGradient(step=Backtracking(), direction_weight=True),
    "PGD+RM+TWD": RiemannianGradient(step=TangentDecay()),
    "PGD+RM+TWD+DW": RiemannianGradient(step=TangentDecay(), direction_weight=True),
    "Secular": Secular(),
}
PAPER = tuple(name for name in METHODS if name.startswith("PGD"))
"""The paper's own methods."""
_SIZES = ((2, 2, 1000), (9, 9, 1000), (64, 32, 1000), (1024, 256, 1000))
_QUICK = ((2, 2, 1000), (9, 9, 300), (64, 32, 100), (1024, 256, 8))
_PART = 100  # problems in one part, and in one batch
_PART_ENTRIES = 1 << 22  # of A in one part, so that few minutes are lost when a run is interrupted
_SECONDS = 3e-6  # for an entry of A by all methods, as measured
_SHORT = 1e-3  # an objective this much above the optimum, relatively, counts as a miss


def random_problems(m: int, n: int, seeds: Sequence[int]) -> LeastSquares:
    """The paper's random problems, one for each seed, as one batch on the unit sphere, in float32."""
    A, b = [], []
    with torch.random.fork_rng(devices=()):
        for seed in seeds:
            torch.manual_seed(seed)
            A.append(torch.randn(m, n))
            b.append(torch.randn(m, 1)[:, 0])
    return LeastSquares(torch.stack(A), torch.stack(b), torch.tensor(1.0))


def optimality(m: int, n: int, problems: int = 1000, methods: Sequence[str] | None = None, seed0: int = 0) -> list[Row]:
    """Run methods on the paper's random problems of one size; all problems are solved as one batch.

    The baseline is always run, in double precision and problem by problem; at 1024×256 it takes most of the time.

    Every row counts what failed inside and outside, what is better than SciPy (or equal to six significant digits, as
    ``numpy.testing.assert_approx_equal`` counts them), and what ends above the certified optimum in float64.

    Raises:
        ValueError: if a size is not positive or a method unknown.

    Example:
        >>> from pmaf.paper.experiments.less import optimality
        >>> rows = optimality(2, 2, problems=50, methods=["PGD+RM+TWD"])
        >>> [(row["method"], row["failed_inside"]) for row in rows]
        [('PGD+RM+TWD', 0)]
    """
    names = list(METHODS) if methods is None else list(methods)
    unknown = [name for name in names if name not in METHODS]
    if unknown:
        raise ValueError(f"pmaf: unknown method {unknown[0]!r}; known are {', '.join(METHODS)}")
    if min(m, n, problems) < 1:
        raise ValueError(f"pmaf: optimality needs m, n and problems to be at least 1, got {m}, {n}, {problems}")
    batch = random_problems(m, n, range(seed0, seed0 + problems))
    double = LeastSquares(*(tensor.double() for tensor in batch))
    u = METHODS["Secular"].solve(double).u
    optimum = double.objective(u)
    certified = int(pmaf.certify(double.A, double.b, u).is_global.sum())
    inside = (torch.linalg.pinv(batch.A) @ batch.b[..., None]).norm(dim=(-2, -1)) < 1
    METHODS["SciPy"].solve(random_problems(2, 2, [0]))  # imports what it needs before the time is taken
    scipy, scipy_seconds = _timed(METHODS["SciPy"], double)
    rows = []
    for name in names:
        method = METHODS[name]
        answer, seconds = (scipy, scipy_seconds) if name == "SciPy" else _timed(method, batch)
        failed = ~answer.finished | (answer.steps >= method.max_steps)  # be it only for float32's rounding
        row: Row = {"size": f"{m}×{n}", "m": m, "n": n, "method": name, "problems": problems, "certified": certified}
        row |= {"failed_inside": int((failed & inside).sum()), "failed_outside": int((failed & ~inside).sum())}
        row |= {"mean_steps": float(answer.steps.double().mean()), "ms_per_problem": 1e3 * seconds / problems}
        if name == "Secular":
            row |= _compared(optimum, double.objective(scipy.u))
        else:
            row |= _compared(*(batch.objective(u.to(batch.A.dtype)).double() for u in (answer.u, scipy.u)))
        rows.append(row | _missed(double.objective(answer.u.double()), optimum))
    return rows


def _timed(method: Method, batch: LeastSquares) -> tuple[SphereAnswer, float]:
    """The answer, and the seconds it took."""
    begin = time.perf_counter()
    return method.solve(batch), time.perf_counter() - begin


def _compared(f: Tensor, baseline: Tensor) -> Row:
    """Against SciPy, as the paper does."""
    scale = 10 ** torch.floor(torch.log10((f + baseline) / 2))
    better = (f <= baseline) | ((f - baseline) < 1e-5 * scale)
    relative = torch.where(f == baseline, 0, (f - baseline) / baseline)
    return {"better": int(better.sum()), "mean_diff_percent": float(100 * relative.mean())}


def _missed(reached: Tensor, optimum: Tensor) -> Row:
    """Count and average what is above the optimum; one below float32's rounding counts as that."""
    excess = (reached - optimum) / optimum.clamp_min(torch.finfo(torch.float32).eps)
    short = excess > _SHORT
    return {
        "above": int(short.sum()),
        "excess_percent": float(100 * excess.mean()),
        "excess_above_percent": float(100 * excess[short].mean()) if bool(short.any()) else 0.0,
        "worst_percent": float(100 * excess.max()),
    }


def _plan(options: Options) -> list[Task]:
    sizes: Sequence[tuple[int, int, int]] = _QUICK if options.quick else _SIZES
    if options.sizes or options.problems is not None:
        problems = 1000 if options.problems is None else options.problems
        if problems < 1:
            raise ValueError(f"the number of problems must be at least 1, not {problems}")
        sizes = [(m, n, problems) for m, n in options.sizes or [size[:2] for size in sizes]]
    tasks = []
    for m, n, count in sizes:
        step = max(1, min(_PART, _PART_ENTRIES // (m * n)))
        for first in range(0, count, step):
            size = min(step, count - first)
            asked_for = {"m": m, "n": n, "problems": size, "seed0": first, "methods": options.methods or list(METHODS)}
            tasks.append(Task(f"{m}x{n}-{first}", asked_for, size * _SECONDS * (600 + m * n)))
    return tasks


def _join(rows: Sequence[Row]) -> list[Row]:
    """The parts of a size and a method become one row: counts add up, means are weighted."""
    joined = []
    for same in grouped(rows, "size", "method").values():

        def mean(key: str, by: str = "problems", same: list[Row] = same) -> float:
            return float(sum(r[key] * r[by] for r in same) / max(1, sum(r[by] for r in same)))

        row = same[0] | {"worst_percent": max(r["worst_percent"] for r in same)}
        for key in ("failed_inside", "failed_outside", "better", "above", "problems", "certified"):
            row[key] = sum(r[key] for r in same)
        for key in ("mean_diff_percent", "mean_steps", "ms_per_problem", "excess_percent"):
            row[key] = mean(key)
        joined.append(row | {"excess_above_percent": mean("excess_above_percent", "above") or None})
    return joined


OPTIMALITY = Experiment(
    key="less",
    section="less",
    title="How close each method comes to the certified optimum",
    plan=_plan,
    compute=optimality,
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


CASE_SEEDS = (19, 38, 41, 66, 70, 72, 92, 170)
CASE_METHODS = ("SciPy", "PGD", "PGD+DW", "PGD+RM", "PGD+RM+BLSOne", "PGD+RM+TWD")


def case_studies(seeds: Sequence[int] = CASE_SEEDS) -> list[Row]:
    """The paper's case studies: the paths of iterative methods through 2×2 problems, and pmaf's answer without a path.

    A row for each seed and method, with ‖A u − b‖ at the last point and at the certified optimum.
    """
    rows = []
    for seed in seeds:
        problem = LeastSquares(*(tensor.squeeze(0) for tensor in random_problems(2, 2, [seed])))
        A, b = problem.A.double(), problem.b.double()
        best = pmaf.less(A, b)
        shared = {"seed": seed, "A": A.tolist(), "b": b.tolist(), "best": best.tolist()}
        shared["optimum"] = float((A @ best - b).norm())
        ours = METHODS["Secular"].solve(problem)
        for name in (*CASE_METHODS, "pmaf"):
            method = METHODS.get(name)
            path = [ours.u] if method is None or isinstance(method, Secular) else list(method.iterates(problem))
            row = shared | {"method": name, "steps": int(ours.steps) if method is None else len(path) - 1}
            row["distance"] = float((A @ path[-1].double() - b).norm())
            rows.append(row | {"iterates": [[round(float(v), 6) for v in point] for point in path]})
    return rows


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
