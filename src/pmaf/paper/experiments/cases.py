"""The paper's case studies in the plane: the path of every method, beside pmaf's answer."""

from __future__ import annotations

from collections.abc import Sequence

import pmaf
from pmaf.paper.experiments.base import Column, Experiment, Row, Task
from pmaf.paper.experiments.optimality import METHODS, random_problems
from pmaf.solvers import Secular
from pmaf.solvers.base import LeastSquares

__all__ = ["CASES", "CASE_METHODS", "CASE_SEEDS", "case_studies"]

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
