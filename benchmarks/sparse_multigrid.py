"""Smallest eigenpairs with algebraic multigrid: ``Davidson`` beside SciPy's LOBPCG with the same preconditioner.

    OMP_NUM_THREADS=1 python benchmarks/sparse_multigrid.py [--only grid] [--starts 6]

Grids in two and three dimensions with random weights, one whose weights spread over four decades, and one whose
eigenvalues repeat. Both are asked for residuals of 200 ε ‖X‖, what ``Davidson`` asks of itself. LOBPCG iterates a block
of k columns, of k + 1, which a gap needs and ``Davidson`` takes, or of 2k, from several random starts.

``seconds`` are those of the processor, for a start, with the preconditioner. ``short`` counts the starts from which a
residual of the k pairs was left above twice what was asked after 200 iterations; ``residual`` is the worst.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyamg
import scipy.sparse
import scipy.sparse.linalg
import torch

import pmaf
from harness import Row, report
from sparse_choice import grid, laplacian

TITLE = "Smallest eigenpairs with multigrid"
K, ASKED = 4, 200 * np.finfo(np.float64).eps
PROBLEMS: dict[str, Callable[[], Any]] = {
    "grid 200 × 200": lambda: grid(200, 200),
    "grid 30 × 30 × 30": lambda: grid(30, 30, 30),
    "grid 20 × 20 × 20, weights 1e-4 to 1": lambda: reweighted((20, 20, 20), lambda u: 10 ** (-4 * u)),
    "grid 20 × 20 × 20, weights 1": lambda: reweighted((20, 20, 20), np.ones_like),
    "grid 15 × 15 × 15": lambda: grid(15, 15, 15),
}


def reweighted(sides: tuple[int, ...], weight: Callable[[Any], Any]) -> Any:
    """The Laplacian of a grid with other weights, a function of uniform numbers."""
    W = scipy.sparse.triu(-grid(*sides), k=1).tocoo()
    upper = scipy.sparse.coo_array((weight(W.data - 0.5), (W.row, W.col)), shape=W.shape)
    return laplacian(upper + upper.T)


def tensor(M: Any) -> torch.Tensor:
    """M for torch."""
    coo = scipy.sparse.coo_array(M)
    where = torch.from_numpy(np.stack((coo.row, coo.col)).astype(np.int64))
    return torch.sparse_coo_tensor(where, torch.from_numpy(coo.data), coo.shape, check_invariants=False).coalesce()


def lobpcg(M: Any, size: float, block: int, seed: int) -> tuple[Any, Any, int]:
    """The K pairs, and the iterations."""
    n = M.shape[0]
    levels = pyamg.smoothed_aggregation_solver(
        scipy.sparse.csr_array(M + scipy.sparse.eye_array(n) * (0.01 * size * K / n))
    )
    start = np.random.default_rng(seed).standard_normal((n, block))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it stopped short, which is counted here
        values, U, history = scipy.sparse.linalg.lobpcg(
            M,
            start,
            M=levels.aspreconditioner(),
            tol=ASKED * size,
            maxiter=200,
            largest=False,
            retResidualNormsHistory=True,
        )
    order = np.argsort(values)[:K]
    return values[order], U[:, order], len(history)


def davidson(X: torch.Tensor) -> tuple[Any, Any, int]:
    """The same of this package."""
    found = pmaf.ied_ex(X, K, largest=False, solver="davidson")
    return found.eigenvalues.numpy(), found.eigenvectors.numpy(), int(found.steps)


def compare(name: str, starts: int) -> Iterator[Row]:
    """The rows of one problem."""
    M = scipy.sparse.csr_array(PROBLEMS[name]())
    X = tensor(M)
    size = float(abs(scipy.sparse.linalg.eigsh(M, 1, return_eigenvectors=False, tol=1e-3))[0])
    methods: dict[str, Callable[[int], tuple[Any, Any, int]]] = {"pmaf Davidson": lambda _: davidson(X)}
    for block in (K, K + 1, 2 * K):
        methods[f"scipy lobpcg, {block} columns"] = lambda seed, block=block: lobpcg(M, size, block, seed)  # type: ignore[misc]
    for method, run in methods.items():
        times, residuals, steps = [], [], []
        for seed in range(starts if "lobpcg" in method else 1):
            began = time.process_time()
            values, U, used = run(seed)
            times.append(time.process_time() - began)
            residuals.append(float(np.linalg.norm(M @ U - U * values, axis=0).max()) / size)
            steps.append(used)
        yield {
            "problem": f"{name}, {K} smallest",
            "method": method,
            "starts": len(times),
            "seconds": float(np.median(times)),
            "iterations": float(np.median(steps)),
            "short": int(sum(r > 2 * ASKED for r in residuals)),
            "residual": max(residuals),
        }


def main() -> None:
    """Run the problems and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="a part of the names of the problems to run")
    parser.add_argument("--starts", type=int, default=6)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[Row] = []
    for name in PROBLEMS:
        if options.only in name:
            for row in compare(name, options.starts):
                rows.append(row)
                print(row, flush=True)
            report("sparse_multigrid", TITLE, rows)


if __name__ == "__main__":
    main()
