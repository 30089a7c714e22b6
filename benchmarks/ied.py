"""Leading eigenpairs: every solver, torch, xitorch and SciPy, by time, memory and error, forward and backward.

Run ``python benchmarks/ied.py`` (about twenty minutes on one core), or with ``--case 5x128x1`` and ``--spectrum paper``
for a part of it. Matrices are float32, errors are measured against float64. The loss of the backward pass is a fixed
linear function of eigenvalues and eigenvectors.

Spectra: *paper*, |Gaussian| entries, symmetrised, one eigenvalue far from the rest; *gaussian*, the Gaussian
orthogonal ensemble, whose edge is crowded; *lowrank*, the Gram matrix of k + 8 random rows, most eigenvalues zero.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse.linalg
import torch
from torch import Tensor

import pmaf
from harness import Row, allocations, alternate, report
from pmaf.solvers import EIGEN

Pairs = tuple[Tensor, Tensor]


def ours(**options: Any) -> Callable[[Tensor, int], Pairs]:
    """The library with a solver or a backward mode."""

    def solve(X: Tensor, k: int) -> Pairs:
        found = pmaf.ied_ex(X, k, **options)
        return found.eigenvalues, found.eigenvectors

    return solve


def torch_eigh(X: Tensor, k: int) -> Pairs:
    """All pairs, then autograd through all of them."""
    s, V = torch.linalg.eigh(X)
    return s[..., -k:].flip(-1), V[..., -k:].flip(-1)


def torch_lobpcg(X: Tensor, k: int) -> Pairs:
    """Item by item inside torch; needs n ≥ 3k."""
    s, V = torch.lobpcg(X, k=k, largest=True)
    return s, V


def xitorch_symeig(X: Tensor, k: int) -> Pairs:
    """Davidson's method."""
    from xitorch import LinearOperator
    from xitorch.linalg import symeig

    s, V = symeig(LinearOperator.m(X, is_hermitian=True), neig=k, mode="uppest", method="davidson")
    return s.flip(-1), V.flip(-1)


def scipy_subset(X: Tensor, k: int) -> Pairs:
    """LAPACK's syevr with a range of indices, item by item; no gradient."""
    n = X.shape[-1]
    found = [scipy.linalg.eigh(x, subset_by_index=[n - k, n - 1]) for x in X.numpy()]
    return collect(found, X.dtype)


def scipy_eigsh(X: Tensor, k: int) -> Pairs:
    """ARPACK, item by item; no gradient."""
    found = [scipy.sparse.linalg.eigsh(x, k=k, which="LA", v0=np.ones(len(x), x.dtype)) for x in X.numpy()]
    return collect([(s[np.argsort(s)], V[:, np.argsort(s)]) for s, V in found], X.dtype)


def collect(found: list[Any], dtype: torch.dtype) -> Pairs:
    """Ascending pairs of each item as a batch in descending order."""
    values = torch.from_numpy(np.stack([s[::-1] for s, _ in found])).to(dtype)
    return values, torch.from_numpy(np.stack([V[:, ::-1] for _, V in found])).to(dtype)


def methods(batch: int, n: int, k: int) -> dict[str, Callable[[Tensor, int], Pairs]]:
    """What applies to this size, by name."""
    table: dict[str, Callable[[Tensor, int], Pairs]] = {"torch eigh": torch_eigh, "pmaf (chosen)": ours()}
    for name, solver in EIGEN.items():
        if solver.suits(n, k):
            table[f"pmaf {name}"] = ours(solver=solver())
    if k == 1 and n <= 256:
        table["pmaf eigh, FixedPoint"] = ours(solver="eigh", backward=pmaf.FixedPoint())
    if n <= 32:
        table["pmaf eigh, DenseJacobian"] = ours(solver="eigh", backward=pmaf.DenseJacobian())
    if n >= 3 * k and n >= 16:
        table["torch lobpcg"] = torch_lobpcg
    if n >= 16 and n <= 256:
        table["xitorch davidson"] = xitorch_symeig
    if batch > 1000:
        return table
    table["SciPy eigh subset"] = scipy_subset
    if k < n - 1:
        table["SciPy eigsh"] = scipy_eigsh
    return table


def matrices(spectrum: str, batch: int, n: int, k: int) -> Tensor:
    """A batch of symmetric matrices."""
    generator = torch.Generator().manual_seed(0)
    if spectrum == "lowrank":
        F = torch.randn(batch, min(n, k + 8), n, generator=generator)
        return F.mT @ F / n
    X = torch.randn(batch, n, n, generator=generator)
    X = X.abs() if spectrum == "paper" else X
    return X + X.mT


def weigh(values: Tensor, U: Tensor) -> Tensor:
    """A fixed linear function of the pairs, with signs that make the columns' sums non-negative."""
    n, k = U.shape[-2:]
    weights = torch.linspace(-1, 1, n * k, dtype=U.dtype).sin().reshape(n, k)
    signs = torch.where(U.detach().sum(-2, keepdim=True) < 0, -1.0, 1.0).to(U.dtype)
    return (U * signs * weights).sum() + values.sum()


def difference(U: Tensor, V: Tensor) -> float:
    """The largest distance of corresponding columns, up to their sign."""
    signs = torch.where((U * V).sum(-2, keepdim=True) < 0, -1.0, 1.0).to(V.dtype)
    return float(torch.linalg.vector_norm(U - signs * V, dim=-2).max())


def compare(spectrum: str, batch: int, n: int, k: int, rounds: int, seconds: float) -> list[Row]:
    """All methods on one batch."""
    X = matrices(spectrum, batch, n, k)
    wide = X.double().requires_grad_()
    s, U = pmaf.ied(wide, k, solver="eigh")
    (exact,) = torch.autograd.grad(weigh(s, U), wide)
    table, rows = methods(batch, n, k), []
    forward: dict[str, Callable[[], Any]] = {}
    backward: dict[str, Callable[[], Any]] = {}
    failures = {}
    for name, method in table.items():
        Y = X.clone().requires_grad_(not name.startswith("SciPy"))
        try:
            values, vectors = method(Y, k)
            if Y.requires_grad:
                loss = weigh(values, vectors)
                torch.autograd.grad(loss, Y, retain_graph=True)
                backward[name] = lambda loss=loss, Y=Y: torch.autograd.grad(loss, Y, retain_graph=True)[0]
        except Exception as error:  # a benchmark reports what fails, of whatever kind
            failures[name] = f"{type(error).__name__}: {str(error).splitlines()[0][:40]}"
            continue
        forward[name] = lambda Y=Y, method=method: method(Y, k)
    ahead, back = alternate(forward, rounds, seconds), alternate(backward, rounds, seconds)
    baseline = ahead.get("torch eigh", float("nan")) + back.get("torch eigh", float("nan"))
    norm = float(s.detach().abs().max())
    for name in table:
        row: Row = {"spectrum": spectrum, "batch": batch, "n": n, "k": k, "method": name}
        row |= dict.fromkeys(("forward_ms", "backward_ms", "speedup", "forward_peak_MB", "backward_peak_MB"))
        row |= dict.fromkeys(("value_error", "vector_error", "gradient_error"))
        row["status"] = status_of(name, X, k)
        row["failed"] = failures.get(name, "")
        if name in forward:
            row["forward_ms"] = 1e3 * ahead[name]
            row["forward_peak_MB"] = allocations(forward[name])[0] / 1e6
            values, vectors = (t.detach().double() for t in forward[name]())
            row["value_error"] = float((values - s.detach()).abs().max()) / norm
            row["vector_error"] = difference(vectors, U.detach())
        if name in backward:
            row["backward_ms"] = 1e3 * back[name]
            row["speedup"] = baseline / (ahead[name] + back[name])
            row["backward_peak_MB"] = allocations(backward[name])[0] / 1e6
            grad = backward[name]().double()
            grad = (grad + grad.mT) / 2
            row["gradient_error"] = float(
                (torch.linalg.matrix_norm(grad - exact) / torch.linalg.matrix_norm(exact)).median()
            )
        rows.append(row)
    return rows


def status_of(name: str, X: Tensor, k: int) -> str:
    """How the items of our solvers ended, worst first; other libraries do not tell."""
    if not name.startswith("pmaf"):
        return ""
    solver = name.removeprefix("pmaf ").split(",")[0]
    codes = pmaf.ied_ex(X, k, solver=None if solver == "(chosen)" else solver).status
    counts = [(code.name, int((codes == code).sum())) for code in reversed(pmaf.Status)]
    return ", ".join(f"{count} {code}" for code, count in counts if count)


def case(text: str) -> tuple[int, int, int]:
    """Batch, order and number of pairs from ``5x128x1``."""
    batch, n, k = text.split("x")
    return int(batch), int(n), int(k)


CASES = [
    *((100000, n, 1) for n in (3, 4)),
    *((5, n, 1) for n in (16, 32, 64, 128, 256, 512, 1024)),
    *((64, n, 1) for n in (16, 32, 64, 128)),
    (64, 16, 2),
    (5, 256, 4),
]


def main() -> None:
    """Run every case on every spectrum."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", type=case, nargs="*", default=CASES, help="batch x n x k")
    parser.add_argument("--spectrum", nargs="*", default=["paper", "gaussian", "lowrank"])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=5.0, help="most time a method may take in one case")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for batch, n, k in chosen.case:
        for spectrum in chosen.spectrum:
            rows += compare(spectrum, batch, n, k, chosen.rounds, chosen.seconds)
    report("ied", "Leading eigenpairs, float32, one thread; speedup over torch eigh, forward and backward", rows)


if __name__ == "__main__":
    main()
