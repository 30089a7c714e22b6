"""Least squares on the sphere: every solver, and SciPy's, by time, objective and certificate; then the backward modes.

Run ``python benchmarks/less.py`` (about ten minutes on one core), or ``--size 64x32 --problems 100`` for a part of it.
Problems are Gaussian, in float32, radius one. SciPy's solvers and the certificate work in float64.

Columns: *certified*, percentage that ``pmaf.certify`` proves globally optimal for float32; *within 1e-6*, percentage
whose objective it bounds to within 1e-6 of the minimum, relatively; *excess*, mean relative excess of the objective
over the minimum, in percent; *converged*, percentage with status CONVERGED; *ratio*, time over that of the batched
product AᵀA.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.optimize._trustregion_exact import IterativeSubproblem
from torch import Tensor

import pmaf
from harness import Row, allocations, alternate, report
from pmaf.solvers import (
    SLSQP,
    Backtracking,
    KrylovTrustRegion,
    ProjectedGradient,
    RiemannianGradient,
    Secular,
    TangentDecay,
)

SOLVERS: dict[str, Any] = {
    "Secular": Secular(),
    "KrylovTrustRegion": KrylovTrustRegion(),
    "PGD": ProjectedGradient(),
    "PGD+DW": ProjectedGradient(direction_weight=True),
    "PGD+RM": RiemannianGradient(),
    "PGD+RM+BLSOne": RiemannianGradient(step=Backtracking(initial=1.0)),
    "PGD+RM+BLS": RiemannianGradient(step=Backtracking()),
    "PGD+RM+TWD": RiemannianGradient(step=TangentDecay()),
}


def trust_exact(A: Tensor, b: Tensor) -> Tensor:
    """SciPy's exact trust-region step, item by item, tightened from its default of ten percent and normalised.

    It minimises over the ball, so that it applies where ‖A⁺b‖ ≥ 1; other items are NaN.
    """
    found = []
    for F, y in zip(A.double().numpy(), b.double().numpy(), strict=True):
        H, g = F.T @ F, -F.T @ y
        if np.linalg.norm(np.linalg.lstsq(F, y, rcond=None)[0]) < 1:
            found.append(np.full(len(g), np.nan))
            continue

        def value(x: Any, F: Any = F, y: Any = y) -> float:
            return float(np.sum((F @ x - y) ** 2) / 2)

        problem = IterativeSubproblem(
            np.zeros(len(g)), value, lambda x, g=g: g, lambda x, H=H: H, k_easy=1e-7, k_hard=1e-7
        )
        p, _ = problem.solve(1.0)
        found.append(p / np.linalg.norm(p))
    return torch.from_numpy(np.stack(found)).to(A.dtype)


def size(text: str) -> tuple[int, int]:
    """Rows and columns from ``64x32``."""
    m, n = text.split("x")
    return int(m), int(n)


def solve(solver: Any, A: Tensor, b: Tensor) -> Callable[[], Tensor]:
    """A task."""
    return lambda: pmaf.less_ex(A, b, solver=solver).u


def compare_solvers(sizes: list[tuple[int, int]], problems: int, rounds: int) -> list[Row]:
    """Time, objective and certificate of every solver."""
    rows = []
    for m, n in sizes:
        batch = min(problems, 64) if n >= 256 else problems
        torch.manual_seed(0)
        A, b = torch.randn(batch, m, n), torch.randn(batch, m)
        few = min(batch, 8 if n >= 256 else 100)  # of what takes seconds a problem
        tasks: dict[str, Callable[[], Tensor]] = {"product AᵀA": lambda A=A: A.mT @ A}
        tasks |= {name: solve(solver, A, b) for name, solver in SOLVERS.items()}
        if n < 256:
            tasks["SciPy SLSQP"] = solve(SLSQP(), A[:few], b[:few])
        outside = torch.linalg.vector_norm(torch.linalg.pinv(A) @ b[..., None], dim=(-2, -1)) >= 1
        if outside[:few].any():
            tasks["SciPy trust-exact"] = lambda A=A[:few], b=b[:few]: trust_exact(A, b)
        seconds = alternate(tasks, rounds)
        floor = seconds["product AᵀA"] / batch
        best = pmaf.less(A.double(), b.double())
        minimum = misfit(A, b, best)
        for name, task in tasks.items():
            count = few if name.startswith("SciPy") else batch
            row: Row = {"m": m, "n": n, "problems": count, "solver": name}
            each = seconds[name] / count
            row |= {"ms_per_problem": 1e3 * each, "ratio": each / floor}
            row |= dict.fromkeys(("certified", "within_1e-6", "excess_percent", "converged", "mean_steps"))
            if name != "product AᵀA":
                row |= judge(name, task(), A[:count], b[:count], minimum[:count])
            rows.append(row)
    return rows


def misfit(A: Tensor, b: Tensor, u: Tensor) -> Tensor:
    """½‖A u − b‖² in float64."""
    return ((A.double() @ u.double()[..., None])[..., 0] - b.double()).square().sum(-1) / 2


def judge(name: str, u: Tensor, A: Tensor, b: Tensor, minimum: Tensor) -> Row:
    """What a solver's answers are worth, over the items that it applies to."""
    there = u.isfinite().all(-1)
    found = pmaf.certify(A[there], b[there], u[there])
    on_sphere = u.double() / torch.linalg.vector_norm(u.double(), dim=-1, keepdim=True)
    excess = (misfit(A, b, on_sphere) / minimum - 1)[there]
    row: Row = {
        "problems": int(there.sum()),
        "certified": 100 * float(found.is_global.double().mean()),
        "within_1e-6": 100 * float((found.suboptimality <= 1e-6 * minimum[there]).double().mean()),
        "excess_percent": 100 * float(excess.mean()),
    }
    if name in SOLVERS:
        solution = pmaf.less_ex(A, b, solver=SOLVERS[name])
        row["converged"] = 100 * float((solution.status == pmaf.Status.CONVERGED).double().mean())
        row["mean_steps"] = float(solution.steps.double().mean())
    return row


def compare_backward(sizes: list[tuple[int, int]], problems: int, rounds: int) -> list[Row]:
    """Time, memory and accuracy of the backward pass in every mode."""
    rows = []
    for m, n in sizes:
        batch = min(problems, 64) if n >= 256 else problems
        torch.manual_seed(1)
        A, b = torch.randn(batch, m, n), torch.randn(batch, m)
        weights = torch.randn(batch, n)
        exact = gradient(A.double(), b.double(), weights.double(), None)()
        modes: dict[str, Any] = {"Implicit": None, "Unrolled": pmaf.Unrolled()}
        if n * m * n < 1e6:
            modes["DenseJacobian"] = pmaf.DenseJacobian()
        tasks = {name: gradient(A, b, weights, mode) for name, mode in modes.items()}
        seconds = alternate({"forward": lambda A=A, b=b: pmaf.less_ex(A, b).u} | tasks, rounds)
        for name, task in tasks.items():
            peak, largest = allocations(task)
            error = torch.linalg.matrix_norm(task().double() - exact) / torch.linalg.matrix_norm(exact)
            finite = error.isfinite()
            rows.append(
                {
                    "m": m,
                    "n": n,
                    "problems": batch,
                    "backward": name,
                    "ms_per_problem": 1e3 * seconds[name] / batch,
                    "ratio_to_forward": seconds[name] / seconds["forward"],
                    "peak_MB": peak / 1e6,
                    "largest_allocation_MB": largest / 1e6,
                    "gradients_MB": A.nbytes / 1e6,
                    "batch_n_squared_MB": 4 * batch * n * n / 1e6,
                    "median_error": float(error[finite].median()) if finite.any() else float("nan"),
                    "finite_percent": 100 * float(finite.double().mean()),
                }
            )
    return rows


def gradient(A: Tensor, b: Tensor, weights: Tensor, mode: Any) -> Callable[[], Tensor]:
    """A task: the backward pass alone, on a graph that is kept."""
    A = A.clone().requires_grad_()
    u = pmaf.less_ex(A, b, backward=mode).u
    return lambda: torch.autograd.grad(u, A, weights, retain_graph=True)[0]


def main() -> None:
    """Run both comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=size, nargs="*", default=[(2, 2), (9, 9), (64, 32), (1024, 256)])
    parser.add_argument("--problems", type=int, default=1000, help="per size; at most 64 from n = 256 on")
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    title = "Gaussian problems, float32, one thread"
    rows = compare_solvers(chosen.size, chosen.problems, chosen.rounds)
    report("less", f"LESS solvers: {title}", rows)
    report("less_backward", f"LESS backward: {title}", compare_backward(chosen.size, chosen.problems, chosen.rounds))


if __name__ == "__main__":
    main()
