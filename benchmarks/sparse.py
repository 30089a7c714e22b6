"""Leading eigenpairs of matrices too large to be dense, with gradients, beside SciPy's ``eigsh``, which has none.

    OMP_NUM_THREADS=1 python benchmarks/sparse.py [--nodes 1000000 100000] [--heights 80 160]

Random graphs with about 10 edges a node and random weights, 4 largest: an Erdős–Rényi graph, whose leading eigenvalues
lie close to a crowded bulk, and one grown by preferential attachment, whose hubs stand apart. Then the Laplacian of a
grid, 4 smallest: where products alone stop being the right tool. Its smallest eigenvalues are close together
relative to ‖X‖, which a factorisation (shift-invert) does not mind and a Krylov space of X does.

``products`` counts products with a block of 5 columns, or with one vector. The loss is Σ Λ + Σ U⁴. The gradient of
float64 is compared with a central difference of the loss in one direction (up to 200,000 nodes), that of float32 with
the one of float64. Seconds are those of the processor, which one thread shares with whatever else runs on the machine.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
import torch
from torch import Tensor

import pmaf
from harness import Row, report

EDGES = 5  # that each node brings: about 10 entries a row
TITLE = "Leading eigenpairs of sparse matrices"
DIFFERENCED = 200_000  # nodes up to which a central difference, two more solves in float64, is taken


def erdos_renyi(nodes: int, generator: torch.Generator) -> Tensor:
    """Both ends of each edge, ``(2, e)``, drawn independently."""
    return torch.randint(nodes, (2, nodes * EDGES), generator=generator)


def preferential_attachment(nodes: int, generator: torch.Generator) -> Tensor:
    """Edges ``(2, e)``, the far end of each drawn from all ends before it (Batagelj and Brandes, 2005).

    Entry 2t of the list of ends is the node that brings edge t; entry 2t + 1 is a copy of an earlier entry. All copies
    are followed to their origin at the same time.
    """
    edge = torch.arange(nodes * EDGES)
    origin = torch.arange(2 * len(edge))
    origin[1::2] = (torch.rand(len(edge), generator=generator, dtype=torch.float64) * (2 * edge + 1)).long()
    while bool((origin % 2 == 1).any()):
        origin = origin[origin]
    return (origin // (2 * EDGES)).unflatten(0, (-1, 2)).T


GRAPHS = {"preferential attachment": preferential_attachment, "Erdős–Rényi": erdos_renyi}


def adjacency(ends: Tensor, nodes: int, generator: torch.Generator) -> Tensor:
    """A symmetric sparse matrix with a random weight for each edge, float64."""
    ends = ends[:, ends[0] != ends[1]]
    weights = torch.rand(ends.shape[1], generator=generator, dtype=torch.float64)
    both = torch.cat((ends, ends.flip(0)), 1)
    return torch.sparse_coo_tensor(both, weights.repeat(2), (nodes, nodes), check_invariants=False).coalesce()


def grid_laplacian(height: int, width: int) -> Tensor:
    """The Laplacian of a grid with fixed ends, float64; other than a square's, its eigenvalues are simple."""
    down, across = (
        scipy.sparse.diags_array([-np.ones(m - 1), 2 * np.ones(m), -np.ones(m - 1)], offsets=[-1, 0, 1])
        for m in (height, width)
    )
    L = scipy.sparse.kron(down, scipy.sparse.eye_array(width)) + scipy.sparse.kron(
        scipy.sparse.eye_array(height), across
    )
    coo = scipy.sparse.coo_array(L)
    indices = torch.from_numpy(np.stack((coo.row, coo.col)).astype(np.int64))
    return torch.sparse_coo_tensor(indices, torch.from_numpy(coo.data), coo.shape, check_invariants=False).coalesce()


def with_values(X: Tensor, values: Tensor) -> Tensor:
    """The pattern of X with other values."""
    return torch.sparse_coo_tensor(X.indices(), values, X.shape, is_coalesced=True, check_invariants=False)


def scipy_matrix(X: Tensor) -> scipy.sparse.csr_array:
    """X for SciPy."""
    rows, columns = X.indices().numpy()
    return scipy.sparse.csr_array((X.values().numpy(), (rows, columns)), shape=tuple(X.shape))


def measured(run: Callable[[], Any]) -> tuple[Any, float, float]:
    """What ``run`` returns, its seconds of processor time, and by how many MB it raised the peak of resident memory."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts from what is resident now
    before, began = memory("VmRSS"), time.process_time()
    result = run()
    return result, time.process_time() - began, memory("VmHWM") - before


def memory(field: str) -> float:
    """A field of the process's status, in MB."""
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(field))) / 1024


def loss(solution: Any) -> Tensor:
    """Σ Λ + Σ U⁴, which does not see the signs of the eigenvectors."""
    total: Tensor = solution.eigenvalues.sum() + (solution.eigenvectors**4).sum()
    return total


def differentiate(problem: str, X: Tensor, largest: bool, solver: Any) -> tuple[Row, Tensor, Tensor]:
    """A row with what forward and backward took; the gradient on the pattern; the eigenvalues."""
    X = X.detach().requires_grad_()
    solution, forward, memory_forward = measured(lambda: pmaf.ied_ex(X, 4, largest=largest, solver=solver))
    (gradient,), backward, memory_backward = measured(lambda: torch.autograd.grad(loss(solution), X))
    row = {
        "problem": problem,
        "method": f"pmaf BlockLanczos, {str(X.dtype)[6:]}",
        "forward_s": forward,
        "backward_s": backward,
        "forward_MB": memory_forward,
        "backward_MB": memory_backward,
        "products": int(solution.steps),
        "status": pmaf.Status(int(solution.status)).name,
        "residual": float(solution.residual),
        "gap": float(solution.gap / solution.eigenvalues.detach().abs().max()),
    }
    return row, gradient.coalesce().values(), solution.eigenvalues.detach()


def central_difference(X: Tensor, gradient: Tensor, largest: bool, solver: Any, step: float) -> tuple[Tensor, float]:
    """A symmetric direction on the pattern along which the loss does change, and its slope there."""
    direction = gradient / gradient.abs().max() * (1 + torch.cos(X.indices().sum(0).double()) / 2)
    with torch.no_grad():
        ends = [
            loss(pmaf.ied_ex(with_values(X, X.values() + sign * step * direction), 4, largest=largest, solver=solver))
            for sign in (1, -1)
        ]
    return direction, float(ends[0] - ends[1]) / (2 * step)


def compare(problem: str, X: Tensor, largest: bool, solver: Any, eigsh: dict[str, Any]) -> list[Row]:
    """Rows of one matrix: float64, float32 (of graphs), SciPy."""
    row, truth, exact = differentiate(problem, X, largest, solver)
    row |= {"value_error": None, "gradient_error": None}
    if X.shape[0] <= DIFFERENCED:
        step = 1e-4 * row["gap"] * float(exact.abs().max())
        direction, slope = central_difference(X, truth, largest, solver, step)
        row["gradient_error"] = abs(float(truth @ direction) - slope) / abs(slope)
    rows = [row]
    for block_size in (None, 1) if largest else ():
        narrow, gradient, values = differentiate(problem, X.float(), True, replace(solver, block_size=block_size))
        narrow["method"] += "" if block_size is None else ", one vector at a time"
        error = torch.linalg.vector_norm(gradient.double() - truth) / torch.linalg.vector_norm(truth)
        rows.append(narrow | {"value_error": value_error(values, exact), "gradient_error": float(error)})
    M = scipy_matrix(X).tocsc() if "sigma" in eigsh else scipy_matrix(X)
    (values, U), seconds, used = measured(lambda: scipy.sparse.linalg.eigsh(M, 4, **eigsh))
    residual = np.linalg.norm(M @ U - U * values, axis=0).max() / float(exact.abs().max())
    order = np.sort(values)[::-1] if largest else np.sort(values)
    how = "shift-invert" if "sigma" in eigsh else "ARPACK"
    how += f", tol {eigsh['tol']:g}" if "tol" in eigsh else ""
    other: Row = {"method": f"scipy eigsh, {how}, float64, no gradient", "forward_s": seconds, "forward_MB": used}
    other |= {"residual": float(residual), "value_error": value_error(torch.from_numpy(order.copy()), exact)}
    rows.append({key: {"problem": problem, **other}.get(key) for key in row})
    for r in rows:
        print({k: v for k, v in r.items() if v is not None}, flush=True)
    return rows


def value_error(values: Tensor, exact: Tensor) -> float:
    """The largest difference of eigenvalues, relative to the largest eigenvalue."""
    return float((values.double() - exact).abs().max() / exact.abs().max())


def main() -> None:
    """Run all problems and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1_000_000, 100_000])
    parser.add_argument("--heights", type=int, nargs="+", default=[80, 160], help="of grids 25/16 times as wide")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[Row] = []
    for nodes, (name, draw) in product(options.nodes, GRAPHS.items()):
        generator = torch.Generator().manual_seed(0)
        X = adjacency(draw(nodes, generator), nodes, generator)
        problem = f"{name}, {nodes:,} nodes, {X.values().numel():,} entries, 4 largest"
        rows += compare(problem, X, True, pmaf.solvers.BlockLanczos(), {"which": "LA", "tol": 1e-6})
        report("sparse", TITLE, rows)
    for height in options.heights:
        X = grid_laplacian(height, height * 25 // 16)
        solver = pmaf.solvers.BlockLanczos(max_basis=200, max_steps=10_000)
        problem = f"grid Laplacian, {X.shape[0]:,} nodes, 4 smallest"
        rows += compare(problem, X, False, solver, {"sigma": 0, "which": "LM"})
        report("sparse", TITLE, rows)


if __name__ == "__main__":
    main()
