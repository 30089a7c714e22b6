"""Eigenpairs of sparse matrices by the solver that is chosen, forward and backward, beside SciPy's ``eigsh``.

    OMP_NUM_THREADS=1 python benchmarks/sparse_choice.py [--rounds 3] [--only grid]

Weighted grids and a graph of nearest neighbours, 4 smallest: beside ``eigsh`` with a factorisation (shift-invert), to
which the shift −1e-6 is given for free. A 30 × 30 × 30 grid, whose factors are full, and graphs grown by preferential
attachment, 4 largest: beside ``eigsh`` on products as well, the better of the two counts. A normalised Laplacian of
2708 nodes, 125 smallest: beside a dense decomposition too.

The loss is Σ Λ + Σ U⁴; of 125 pairs it is Σ Λ², since with vectors it depends on the basis where eigenvalues repeat.
All tasks of a problem run in turn, in one process of one thread; medians of processor time, and ratios to the best of
the others. ``gradient_error``
compares with a central difference of the loss in one direction, up to 200,000 nodes.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
import scipy.sparse
import scipy.sparse.linalg
import scipy.spatial
import torch
from torch import Tensor

import pmaf
from harness import Row, report, seconds_of
from sparse import DIFFERENCED, adjacency, loss, preferential_attachment, scipy_matrix, value_error, with_values

TITLE = "Sparse eigenpairs by the chosen solver, beside SciPy"


class Problem(NamedTuple):
    """A matrix, what is wanted of it, and the others' ways there."""

    name: str
    make: Callable[[], Any]
    k: int
    largest: bool
    others: tuple[str, ...]


def laplacian(W: Any, normalised: bool = False) -> Any:
    """D − W, or I − D^(−1/2) W D^(−1/2), of a symmetric matrix of weights."""
    degree = np.asarray(W.sum(1)).ravel()
    if not normalised:
        return scipy.sparse.diags_array(degree) - W
    root = scipy.sparse.diags_array(1 / np.sqrt(np.where(degree > 0, degree, 1)))
    return scipy.sparse.eye_array(len(degree)) - root @ W @ root


def grid(*sides: int) -> Any:
    """The Laplacian of a grid with random weights."""
    index = np.arange(np.prod(sides)).reshape(sides)
    ends = [(np.delete(index, -1, axis).ravel(), np.delete(index, 0, axis).ravel()) for axis in range(len(sides))]
    a, b = (np.concatenate(parts) for parts in zip(*ends, strict=True))
    weights = np.random.default_rng(0).uniform(0.5, 1.5, len(a))
    W = scipy.sparse.coo_array((weights, (a, b)), shape=(index.size, index.size))
    return laplacian(W + W.T)


def neighbours(nodes: int, each: int = 10) -> Any:
    """The Laplacian of a graph of nearest neighbours of points in a square, with Gaussian weights."""
    points = np.random.default_rng(0).uniform(size=(nodes, 2))
    distance, index = scipy.spatial.cKDTree(points).query(points, each + 1)
    weights = np.exp(-((distance[:, 1:] / np.median(distance[:, 1:])) ** 2))
    W = scipy.sparse.coo_array(
        (weights.ravel(), (np.repeat(np.arange(nodes), each), index[:, 1:].ravel())), shape=(nodes, nodes)
    ).tocsr()
    return laplacian(W.maximum(W.T))


def attached(nodes: int) -> Any:
    """A graph grown by preferential attachment, random weights."""
    generator = torch.Generator().manual_seed(0)
    return scipy_matrix(adjacency(preferential_attachment(nodes, generator), nodes, generator))


def citations(nodes: int = 2708) -> Any:
    """The normalised Laplacian of a graph as sparse as one of citations, about four entries a row."""
    rng = np.random.default_rng(0)
    older = [rng.integers(0, max(v, 1), 2) for v in range(nodes)]
    pairs = np.array([(v, u) for v in range(1, nodes) for u in set(older[v].tolist()) if u != v])
    W = scipy.sparse.coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(nodes, nodes))
    return laplacian(W + W.T, normalised=True)


def torch_matrix(M: Any) -> Tensor:
    """The same matrix as a sparse tensor."""
    coo = scipy.sparse.coo_array(M)
    where = torch.from_numpy(np.stack((coo.row, coo.col)).astype(np.int64))
    return torch.sparse_coo_tensor(where, torch.from_numpy(coo.data), coo.shape, check_invariants=False).coalesce()


FACTORISED, PRODUCTS, DENSE = "eigsh, shift-invert", "eigsh, products", "dense eigh"
PROBLEMS = [
    Problem("grid 70 × 70, 4 smallest", lambda: grid(70, 70), 4, False, (FACTORISED,)),
    Problem("grid 200 × 200, 4 smallest", lambda: grid(200, 200), 4, False, (FACTORISED,)),
    Problem("grid 400 × 400, 4 smallest", lambda: grid(400, 400), 4, False, (FACTORISED,)),
    Problem("20,000 nearest neighbours, 4 smallest", lambda: neighbours(20_000), 4, False, (FACTORISED,)),
    Problem("grid 30 × 30 × 30, 4 smallest", lambda: grid(30, 30, 30), 4, False, (FACTORISED, PRODUCTS)),
    Problem("preferential attachment, 100,000 nodes, 4 largest", lambda: attached(100_000), 4, True, (PRODUCTS,)),
    Problem("preferential attachment, 1,000,000 nodes, 4 largest", lambda: attached(1_000_000), 4, True, (PRODUCTS,)),
    Problem("citations, 2708 nodes, 125 smallest", citations, 125, False, (FACTORISED, PRODUCTS, DENSE)),
]


def other(how: str, M: Any, k: int, largest: bool) -> Callable[[], Any]:
    """The eigenpairs as others find them."""
    if how == DENSE:
        whole, n = M.toarray(), M.shape[0]
        return lambda: scipy.linalg.eigh(whole, subset_by_index=(n - k, n - 1) if largest else (0, k - 1))
    if how == FACTORISED:
        return lambda: scipy.sparse.linalg.eigsh(M, k, sigma=-1e-6, which="LM")
    return lambda: scipy.sparse.linalg.eigsh(M, k, which="LA" if largest else "SA", maxiter=20_000)


def total(solution: Any) -> Tensor:
    """The loss."""
    few: bool = solution.eigenvalues.shape[-1] < 10
    return loss(solution) if few else solution.eigenvalues.square().sum()


def compare(problem: Problem, rounds: int) -> Row:
    """A row."""
    M = scipy.sparse.csc_array(problem.make())
    X = torch_matrix(M).requires_grad_()
    k, largest = problem.k, problem.largest
    solver, why = pmaf.solvers.select("ied", X.detach(), k, largest, why=True)
    found: dict[str, Any] = {}

    def forward() -> None:
        found["solution"] = pmaf.ied_ex(X, k, largest=largest)

    def backward() -> None:
        found["gradient"] = torch.autograd.grad(total(found["solution"]), X)[0].coalesce().values()

    tasks = {"forward": forward, "backward": backward}
    tasks |= {how: other(how, M, k, largest) for how in problem.others}
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(rounds):
        for name, task in tasks.items():
            if len(times[name]) < 1 or sum(times[name]) < 20:
                times[name].append(seconds_of(task, 1, time.process_time))
    seconds = {name: statistics.median(spent) for name, spent in times.items()}
    best = min(seconds[how] for how in problem.others)
    solution = found["solution"]
    exact = np.sort(other(problem.others[0], M, k, largest)()[0])
    row: Row = {
        "problem": problem.name,
        "solver": type(solver).__name__,
        "forward_s": seconds["forward"],
        "backward_s": seconds["backward"],
        "others_s": best,
        "forward_ratio": seconds["forward"] / best,
        "backward_ratio": seconds["backward"] / best,
        "status": pmaf.Status(int(solution.status)).name,
        "residual": float(solution.residual),
        "steps": int(solution.steps),
        "value_error": value_error(
            solution.eigenvalues.detach(), torch.from_numpy((exact[::-1] if largest else exact).copy())
        ),
        "gradient_error": directional(X.detach(), found["gradient"], k, largest, solution),
        "why": why,
    }
    print({key: value for key, value in row.items() if value is not None}, flush=True)
    return row


def directional(X: Tensor, gradient: Tensor, k: int, largest: bool, solution: Any) -> float | None:
    """How far the slope in one direction is off a central difference of the loss, relative to it."""
    if X.shape[0] > DIFFERENCED:
        return None
    direction = gradient / gradient.abs().max() * (1 + torch.cos(X.indices().sum(0).double()) / 2)
    values = solution.eigenvalues.detach()
    apart = values.diff().abs().min() if k < 10 else values.abs().max() / k
    step = 1e-2 * float(torch.minimum(apart, solution.gap) if k < 10 else apart)

    def difference(step: float) -> float:
        there, back = (
            total(pmaf.ied_ex(with_values(X, X.values() + signed * direction), k, largest=largest)).detach()
            for signed in (step, -step)
        )
        return float(there - back) / (2 * step)

    slope = (4 * difference(step / 2) - difference(step)) / 3  # the error of second order cancels
    return abs(float(gradient @ direction) - slope) / abs(slope)


def main() -> None:
    """Run the problems and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="a part of the names of the problems to run")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for problem in PROBLEMS:
        if options.only in problem.name:
            rows.append(compare(problem, options.rounds))
            report("sparse_choice", TITLE, rows)


if __name__ == "__main__":
    main()
