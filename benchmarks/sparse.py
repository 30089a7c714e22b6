"""Leading eigenpairs of matrices too large to be dense, with gradients.

    OMP_NUM_THREADS=1 python benchmarks/sparse.py [--nodes 1000000] [--grid 100]

Two problems: the 4 largest eigenpairs of a random graph (10 edges a node), whose gradient reaches every weight, and
the 4 smallest of the Laplacian of a square grid, beside SciPy's shift-invert ``eigsh``. The second shows where products
alone stop being the right tool: its smallest eigenvalues are close together relative to ‖X‖, which a factorisation does
not mind and a Krylov space of X does.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
import torch
from torch import Tensor

import pmaf
from harness import versions

RESULTS = Path(__file__).parent / "results" / "sparse.csv"


def random_graph(nodes: int, edges_a_node: int = 10) -> tuple[Tensor, Tensor]:
    """Edges, ``(2, e)``, each in both directions, and positive symmetric weights, ``(e,)``, float32."""
    generator = torch.Generator().manual_seed(0)
    half = nodes * edges_a_node // 2
    ends = torch.randint(nodes, (2, half), generator=generator)
    ends = ends[:, ends[0] != ends[1]]
    weights = torch.rand(ends.shape[1], generator=generator)
    return torch.cat((ends, ends.flip(0)), 1), torch.cat((weights, weights))


def grid_laplacian(side: int) -> scipy.sparse.csr_array:
    """The Laplacian of a side × side grid with fixed ends; its eigenvalues are known in closed form."""
    line = scipy.sparse.diags_array([-np.ones(side - 1), 2 * np.ones(side), -np.ones(side - 1)], offsets=[-1, 0, 1])
    eye = scipy.sparse.eye_array(side)
    return scipy.sparse.csr_array(scipy.sparse.kron(line, eye) + scipy.sparse.kron(eye, line))


def timed(run: Callable[[], Any]) -> tuple[Any, float]:
    """What ``run`` returns, and its seconds."""
    began = time.perf_counter()
    return run(), time.perf_counter() - began


def solve(X: Tensor, largest: bool, solver: Any) -> tuple[Any, Tensor, float, float]:
    """The solution, the gradient of its eigenvectors' fourth powers, and seconds forward and backward."""
    solution, forward = timed(lambda: pmaf.ied_ex(X, 4, largest=largest, solver=solver))
    (gradient,), backward = timed(lambda: torch.autograd.grad((solution.eigenvectors**4).sum(), X))
    return solution, gradient, forward, backward


def main() -> None:
    """Run both problems and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1_000_000)
    parser.add_argument("--grid", type=int, default=100)
    parser.add_argument("--steps", type=int, default=400)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []

    edges, weights = random_graph(options.nodes)
    shape = (options.nodes, options.nodes)
    X = torch.sparse_coo_tensor(edges, weights, shape, check_invariants=False).coalesce().requires_grad_()
    solver = pmaf.solvers.BlockLanczos(max_steps=options.steps, rtol=1e-4)
    solution, gradient, forward, backward = solve(X, True, solver)
    rows.append(
        {
            "problem": f"random graph, {options.nodes} nodes, {X.detach()._nnz()} entries, 4 largest",
            "method": "pmaf BlockLanczos, rtol 1e-4, float32",
            "forward_s": forward,
            "backward_s": backward,
            "status": pmaf.Status(int(solution.status)).name,
            "steps": int(solution.steps),
            "residual": float(solution.residual),
            "value_error": "",
            "gradient_finite": bool(gradient.coalesce().values().isfinite().all()),
        }
    )

    L = grid_laplacian(options.grid)
    n = L.shape[0]
    angles = 2 - 2 * np.cos(np.arange(1, options.grid + 1) * np.pi / (options.grid + 1))
    exact = np.sort((angles[:, None] + angles[None, :]).ravel())[:4]
    (values, _), seconds = timed(lambda: scipy.sparse.linalg.eigsh(L.tocsc(), 4, sigma=0, which="LM"))
    rows.append(
        {
            "problem": f"grid Laplacian, {n} nodes, 4 smallest",
            "method": "scipy eigsh, shift-invert, float64, no gradient",
            "forward_s": seconds,
            "value_error": float(np.abs(np.sort(values) - exact).max()),
        }
    )
    coo = L.tocoo()
    indices = torch.from_numpy(np.stack((coo.row, coo.col)).astype(np.int64))
    X = torch.sparse_coo_tensor(indices, torch.from_numpy(coo.data), L.shape, check_invariants=False)
    X = X.coalesce().requires_grad_()
    solution, gradient, forward, backward = solve(X, False, pmaf.solvers.BlockLanczos(max_steps=4000, rtol=1e-8))
    found = solution.eigenvalues.detach().numpy()
    rows.append(
        {
            "problem": f"grid Laplacian, {n} nodes, 4 smallest",
            "method": "pmaf BlockLanczos, rtol 1e-8, float64",
            "forward_s": forward,
            "backward_s": backward,
            "status": pmaf.Status(int(solution.status)).name,
            "steps": int(solution.steps),
            "residual": float(solution.residual),
            "value_error": float(np.abs(found - exact).max()),
            "gradient_finite": bool(gradient.coalesce().values().isfinite().all()),
        }
    )
    with RESULTS.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, [*rows[0], "versions"])
        writer.writeheader()
        for row in rows:
            writer.writerow({**row, "versions": versions()})
            print(row)


if __name__ == "__main__":
    main()
