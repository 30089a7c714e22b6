"""How the time of forward + backward grows with the order of one matrix and with the number of matrices, beside eigh.

Run ``python benchmarks/growth.py`` (about two minutes on one core). Gaussian symmetric matrices in float32, one
thread, pmaf's default for one and for four leading pairs and ``torch.linalg.eigh`` with its autograd, in turn. The
loss is a fixed linear function of the wanted pairs; ``docs/figures.py`` draws the table.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch import Tensor

import pmaf
from harness import Row, alternate, report
from pmaf.kernels import available, reason

ORDERS = (4, 8, 16, 32, 64, 128, 256, 512, 1024)
BATCHES = (1, 4, 16, 64, 256, 1024, 4096, 16384)
PAIRS = (1, 4)


def matrices(batch: int, n: int) -> Tensor:
    """Gaussian symmetric matrices."""
    X = torch.randn(batch, n, n, generator=torch.Generator().manual_seed(n))
    return (X + X.mT) / 2


def eigh(X: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of all pairs."""
    values, vectors = torch.linalg.eigh(X)
    return values[..., -k:], vectors[..., -k:]


def both_passes(solve: Callable[[Tensor, int], tuple[Tensor, Tensor]], X: Tensor, k: int) -> Callable[[], object]:
    """One forward and one backward pass."""
    weights = torch.randn(X.shape[-1], k, generator=torch.Generator().manual_seed(0))

    def task() -> Tensor:
        inputs = X.clone().requires_grad_()
        values, vectors = solve(inputs, k)
        (gradient,) = torch.autograd.grad(values.sum() + (vectors * weights).sum(), inputs)
        return gradient

    return task


def main() -> None:
    """Measure every size, with the kernels: without them the table would be of another library."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    if not available():
        raise SystemExit(f"no compiled kernels: {reason()}")
    rows: list[Row] = []
    for grows, sizes in (("order", [(1, n) for n in ORDERS]), ("batch", [(batch, 16) for batch in BATCHES])):
        for batch, n in sizes:
            X = matrices(batch, n)
            tasks = {("pmaf", k): both_passes(pmaf.ied, X, k) for k in PAIRS if k < n}
            tasks["eigh", 1] = both_passes(eigh, X, 1)
            named = {f"{method} {k}": task for (method, k), task in tasks.items()}
            times = alternate(named, rounds=15, seconds=3.0)
            own = [
                {"grows": grows, "batch": batch, "n": n, "method": method, "k": k, "ms": 1e3 * times[f"{method} {k}"]}
                for method, k in tasks
            ]
            kernels = reason().split(" ")[0]
            rows += [row | {"times_faster": own[-1]["ms"] / row["ms"], "kernels": kernels} for row in own]
    report("growth", "Forward + backward, float32", rows)


if __name__ == "__main__":
    main()
