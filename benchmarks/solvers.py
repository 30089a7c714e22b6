"""Every solver of leading eigenpairs and of least squares on the sphere, on problems for which one of them is there.

Run ``python benchmarks/solvers.py`` (about three minutes on one core). Forward and backward of the functions that end
in ``_ex`` are timed, all solvers in turn, by the time of the processor. Cases marked *off* run in a process without
compiled kernels. An answer is *right* if all its items converged and their values (of the eigenvalues, relative to the
norm; of the objective) are within ``RIGHT`` of those of another method; *times the best* compares with the fastest
right one.

``docs/solvers.md`` shows for every solver the case where it is the best.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from time import process_time
from typing import Any

import scipy.sparse
import scipy.sparse.linalg
import torch
from torch import Tensor

import pmaf
from harness import Row, alternate, report
from ied import matrices, weigh
from pmaf.kernels import reason
from pmaf.solvers import EIGEN, SPHERE
from sparse_choice import attached, grid, torch_matrix

RIGHT = 1e-4
F32 = torch.float32
Built = tuple[Any, tuple[Tensor, ...], Callable[[Any], float]]  # the problem, its parameters, the error of a solution


@dataclass(frozen=True, kw_only=True)
class Case:
    """A problem and the solvers that are asked for it."""

    name: str
    build: Callable[[], Built]
    solvers: tuple[str, ...]
    k: int = 1
    largest: bool = True
    kernels: bool = True
    sphere: bool = False


def dense(spectrum: str, batch: int, n: int, k: int = 1, dtype: torch.dtype = F32) -> Callable[[], Built]:
    """Symmetric matrices of the benchmark of leading eigenpairs."""

    def build() -> Built:
        X = matrices(spectrum, batch, n, k).to(dtype).requires_grad_()
        exact = torch.linalg.eigvalsh(X.detach().double())
        return X, (X,), values_from(exact[:, -k:].flip(-1), exact.abs().amax(-1))

    return build


def factor(batch: int, m: int, n: int) -> Callable[[], Built]:
    """Wide factors, whose Gram matrices have many zeros."""

    def build() -> Built:
        F = torch.randn(batch, m, n, generator=torch.Generator().manual_seed(0)).requires_grad_()
        exact = torch.linalg.svdvals(F.detach().double())[:, :4].square()
        return pmaf.Gram(F), (F,), values_from(exact)

    return build


def sparse(matrix: Callable[[], Any], k: int, largest: bool) -> Callable[[], Built]:
    """A sparse symmetric matrix in double precision."""

    def build() -> Built:
        M = scipy.sparse.csc_array(matrix())
        X = torch_matrix(M).requires_grad_()
        how = {"which": "LA"} if largest else {"sigma": -1e-6}
        exact = torch.tensor(scipy.sparse.linalg.eigsh(M, k=k, **how, return_eigenvectors=False).copy())
        return X, (X,), values_from(exact.sort(descending=largest).values)

    return build


def values_from(exact: Tensor, norm: Tensor | None = None) -> Callable[[Any], float]:
    """The largest error of the eigenvalues, relative to the norm of X, or else to the largest that is wanted."""
    size = exact.abs().amax(-1) if norm is None else norm

    def error(found: Any) -> float:
        values = found.eigenvalues.detach().double()
        reference = exact[..., : values.shape[-1]]
        return float(((values - reference).abs().amax(-1) / size).max())

    return error


def sphere(batch: int, m: int, n: int) -> Callable[[], Built]:
    """Gaussian least squares on the unit sphere."""

    def build() -> Built:
        generator = torch.Generator().manual_seed(0)
        A, b = (torch.randn(*shape, generator=generator) for shape in ((batch, m, n), (batch, m)))

        def misfit(u: Tensor) -> Tensor:
            return ((A.detach().double() @ u.detach().double()[..., None])[..., 0] - b.double()).square().sum(-1)

        least = misfit(pmaf.less(A.double(), b.double()))
        A.requires_grad_()
        return (A, b), (A,), lambda found: float(((misfit(found.u) - least) / least).max())

    return build


TORCH = ("lanczos_eigh", "eigh", "eigvals_inverse_iteration", "closed_form", "cholesky_inverse_iteration")
DENSE = ("tridiagonal", *TORCH, "power_iteration", "simultaneous_iteration", "block_lanczos")
LARGE = ("block_lanczos", "davidson", "shift_invert")
SPHERES = tuple(name for name in SPHERE if name != "slsqp")
CASES = (
    Case(name="64 of 16×16, Gaussian", build=dense("gaussian", 64, 16), solvers=DENSE),
    Case(name="5 of 256×256, Gaussian", build=dense("gaussian", 5, 256), solvers=DENSE),
    Case(name="5 of 512×512, one value far from the rest", build=dense("paper", 5, 512), solvers=DENSE),
    Case(name="Gram(F), 5 of 48×1024, 4 pairs", build=factor(5, 48, 1024), solvers=DENSE, k=4),
    Case(name="graph of 20,000 nodes, 4 largest", build=sparse(lambda: attached(20000), 4, True), solvers=LARGE, k=4),
    Case(
        name="grid 100 × 100, 4 smallest",
        build=sparse(lambda: grid(100, 100), 4, False),
        solvers=LARGE,
        k=4,
        largest=False,
    ),
    Case(
        name="grid 30 × 30 × 30, 4 smallest",
        build=sparse(lambda: grid(30, 30, 30), 4, False),
        solvers=LARGE,
        k=4,
        largest=False,
    ),
    Case(name="20,000 of 3×3, Gaussian", build=dense("gaussian", 20000, 3), solvers=TORCH, kernels=False),
    Case(name="64 of 64×64, Gaussian", build=dense("gaussian", 64, 64), solvers=TORCH, kernels=False),
    Case(
        name="64 of 64×64, Gaussian, double precision",
        build=dense("gaussian", 64, 64, dtype=torch.float64),
        solvers=TORCH,
        kernels=False,
    ),
    Case(name="64 of 64×64, Gaussian, 8 pairs", build=dense("gaussian", 64, 64, 8), solvers=TORCH, k=8, kernels=False),
    Case(name="1000 of 64×32", build=sphere(1000, 64, 32), solvers=SPHERES, sphere=True),
    Case(name="1 of 4096×2048", build=sphere(1, 4096, 2048), solvers=SPHERES, sphere=True),
    Case(name="1000 of 64×32", build=sphere(1000, 64, 32), solvers=SPHERES, kernels=False, sphere=True),
)


def measure(case: Case, rounds: int, seconds: float) -> list[Row]:
    """Every solver on one case."""
    problem, params, error = case.build()
    table = SPHERE if case.sphere else EIGEN
    forward: dict[str, Callable[[], Any]] = {}
    backward: dict[str, Callable[[], Any]] = {}
    rows: dict[str, Row] = {}
    for name in case.solvers:
        row: Row = {"case": case.name, "kernels": reason().split(" ")[0] if case.kernels else "off", "solver": name}
        row |= dict.fromkeys(("forward_ms", "backward_ms", "times_the_best", "error", "right", "failed"))
        if not case.sphere and not table[name].suits(params[0].shape[-1], case.k):
            continue
        rows[name] = row

        def solve(name: str = name) -> Any:
            if case.sphere:
                return pmaf.less_ex(*problem, solver=table[name]())
            return pmaf.ied_ex(problem, case.k, largest=case.largest, solver=table[name]())

        try:
            found = solve()
            loss = found.u.square().square().sum() if case.sphere else weigh(found.eigenvalues, found.eigenvectors)
            torch.autograd.grad(loss, params, retain_graph=True)
        except Exception as trouble:  # a benchmark reports what fails, of whatever kind
            row["failed"] = f"{type(trouble).__name__}: {str(trouble).splitlines()[0][:60]}"
            continue
        row["error"] = error(found)
        row["right"] = bool((found.status == pmaf.Status.CONVERGED).all()) and row["error"] <= RIGHT
        forward[name] = solve
        backward[name] = lambda loss=loss: torch.autograd.grad(loss, params, retain_graph=True)
    ahead, back = (alternate(tasks, rounds, seconds, process_time) for tasks in (forward, backward))
    whole = {name: ahead[name] + back[name] for name in forward}
    best = min((whole[name] for name in whole if rows[name]["right"]), default=float("nan"))
    for name, time in whole.items():
        times = {"forward_ms": 1e3 * ahead[name], "backward_ms": 1e3 * back[name], "times_the_best": time / best}
        rows[name] |= times
    return list(rows.values())


def main() -> None:
    """Run every case, those without kernels in a process of their own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.5, help="most time a solver may take in one case")
    parser.add_argument("--only", default="", help="a part of the name of the cases that are wanted")
    parser.add_argument("--without-kernels", action="store_true", help="print the rows of the other cases as JSON")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for case in CASES:
        if case.kernels != chosen.without_kernels and chosen.only in case.name:
            rows += measure(case, chosen.rounds, chosen.seconds)
            print(case.name, file=sys.stderr, flush=True)
    if chosen.without_kernels:
        print(json.dumps(rows))
        return
    command = [sys.executable, __file__, *sys.argv[1:], "--without-kernels"]
    environment = os.environ | {"PMAF_KERNELS": "off"}
    other = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    report("solvers", "Forward and backward of every solver, one thread", rows + json.loads(other.stdout))


if __name__ == "__main__":
    main()
