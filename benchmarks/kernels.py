"""Leading eigenpairs of the matrices people have, beside ``torch.linalg.eigh`` and its autograd; one and two threads.

Run ``python benchmarks/kernels.py`` (about three minutes on one core) and again with ``PMAF_KERNELS=avx2`` in the
environment, or another instruction set. Forward and backward are timed in alternation with eigh, each in a loop; the
backward pass is that of a fixed linear function of eigenvalues and eigenvectors (of |u|⁴ for complex ones, whose phase
is not determined). Errors are those of the gradient against float64, relative, in the median over the items. Memory is
the peak of forward and backward beyond the input, in units of the input.

Spectra: *gaussian*, the Gaussian orthogonal ensemble; *paper*, |Gaussian| entries, symmetrised.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import pmaf
import pmaf.kernels
from harness import Row, allocations, alternate, report
from ied import matrices, torch_eigh, weigh
from pmaf.kernels import reason

F32, F64, C64, C128 = torch.float32, torch.float64, torch.complex64, torch.complex128
CASES = [
    *((1, n, 1, F32, "gaussian") for n in (3, 16, 64)),
    *((5, n, 1, F32, "gaussian") for n in (16, 32, 128, 256, 512, 1024)),
    *((64, n, 1, F32, "gaussian") for n in (4, 9, 16, 32, 64)),
    (16, 128, 1, F32, "gaussian"),
    *((1000, n, 1, F32, "gaussian") for n in (9, 16, 32)),
    *((100000, n, 1, F32, "gaussian") for n in (3, 4)),
    *((5, n, 1, F32, "paper") for n in (256, 512, 1024)),
    (64, 16, 4, F32, "gaussian"),
    (64, 64, 4, F32, "gaussian"),
    (5, 256, 4, F32, "gaussian"),
    (1000, 16, 1, F64, "gaussian"),
    (64, 64, 1, F64, "gaussian"),
    *((1, n, 1, dtype, "gaussian") for dtype in (C64, C128) for n in (3, 8, 16, 32, 64)),
    (514, 8, 1, C64, "gaussian"),
    (10000, 3, 1, C64, "gaussian"),
]


def data(batch: int, n: int, k: int, dtype: torch.dtype, spectrum: str) -> Tensor:
    """A batch of symmetric or Hermitian matrices."""
    if not dtype.is_complex:
        return matrices(spectrum, batch, n, k).to(dtype)
    X = torch.randn(batch, n, n, dtype=dtype, generator=torch.Generator().manual_seed(0))
    return X + X.mH


def loss_of(values: Tensor, U: Tensor) -> Tensor:
    """A function of the pairs that does not see their signs or phases."""
    return (U.abs() ** 4).sum() + values.sum() if U.is_complex() else weigh(values, U)


def gradient(method: Callable[[Tensor, int], Any], X: Tensor, k: int) -> Tensor:
    """The gradient of the loss, Hermitian."""
    Y = X.clone().requires_grad_()
    (g,) = torch.autograd.grad(loss_of(*method(Y, k)), Y)
    return (g + g.mH) / 2


def ours(X: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The library with default options."""
    values, U = pmaf.ied(X, k)
    return values, U


def compare(batch: int, n: int, k: int, dtype: torch.dtype, spectrum: str, rounds: int, seconds: float) -> Row:
    """One case."""
    X = data(batch, n, k, dtype, spectrum)
    forward: dict[str, Callable[[], Any]] = {}
    backward: dict[str, Callable[[], Any]] = {}
    for name, method in (("eigh", torch_eigh), ("pmaf", ours)):
        Y = X.clone().requires_grad_()
        loss = loss_of(*method(Y, k))
        forward[name] = lambda Y=Y, method=method: method(Y, k)
        backward[name] = lambda Y=Y, loss=loss: torch.autograd.grad(loss, Y, retain_graph=True)[0]
    ahead, back = alternate(forward, rounds, seconds), alternate(backward, rounds, seconds)
    wide = X.to(torch.complex128 if X.is_complex() else F64)
    exact = gradient(torch_eigh, wide, k)
    error = torch.linalg.matrix_norm(gradient(ours, X, k).to(wide) - exact) / torch.linalg.matrix_norm(exact)
    kept = X.clone().requires_grad_()
    peak = allocations(lambda: torch.autograd.grad(loss_of(*ours(kept, k)), kept))[0]
    found = pmaf.ied_ex(X, k)
    return {
        "case": f"{batch}x{n}x{k}",
        "dtype": str(dtype).removeprefix("torch."),
        "spectrum": spectrum,
        "kernels": reason().split(" ")[0],
        "speedup": (ahead["eigh"] + back["eigh"]) / (ahead["pmaf"] + back["pmaf"]),
        "pmaf_forward_us": 1e6 * ahead["pmaf"],
        "pmaf_backward_us": 1e6 * back["pmaf"],
        "eigh_forward_us": 1e6 * ahead["eigh"],
        "eigh_backward_us": 1e6 * back["eigh"],
        "gradient_error": float(error.median()),
        "residual": float(found.residual.max()),
        "converged": int((found.status == pmaf.Status.CONVERGED).sum()),
        "peak_over_input": peak / (X.numel() * X.element_size()),
    }


def threads(rounds: int, seconds: float) -> list[Row]:
    """Two threads beside one, ``ied_ex`` and ``less_ex``, forward and backward."""
    rows = []
    for batch, n in ((1, 16), (64, 16), (1000, 16), (20000, 16), (1000, 32), (64, 64), (5, 256), (5, 512)):
        X = data(batch, n, 1, F32, "gaussian").requires_grad_()
        A = torch.randn(batch, 2 * n, n, generator=torch.Generator().manual_seed(1)).requires_grad_()
        b = torch.randn(batch, 2 * n, generator=torch.Generator().manual_seed(2))
        for name, step in (
            ("ied_ex", lambda X=X: torch.autograd.grad(weigh(*pmaf.ied_ex(X, 1)[:2]), X)),
            ("less_ex", lambda A=A, b=b: torch.autograd.grad(pmaf.less_ex(A, b).u.square().square().sum(), A)),
        ):
            tasks = {str(count): lambda count=count, step=step: with_threads(count, step) for count in (1, 2)}
            times = alternate(tasks, rounds, seconds)
            rows.append(
                {
                    "function": name,
                    "batch": batch,
                    "n": n,
                    "kernels": reason().split(" ")[0],
                    "one_thread_us": 1e6 * times["1"],
                    "two_threads_us": 1e6 * times["2"],
                    "gain": times["1"] / times["2"],
                }
            )
    return rows


def with_threads(count: int, step: Callable[[], object]) -> object:
    """A step with so many threads."""
    torch.set_num_threads(count)
    try:
        return step()
    finally:
        torch.set_num_threads(1)


def main() -> None:
    """Run every case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="most time a task may take in one case")
    parser.add_argument("--threads", action="store_true", help="two threads beside one, instead of eigh")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    name = reason().split(" ")[0] if pmaf.kernels.available() else "off"
    if chosen.threads:
        rows = threads(chosen.rounds, chosen.seconds)
        report(f"threads_{name}", "Forward and backward, float32, two threads beside one", rows)
        return
    rows = [compare(*case, chosen.rounds, chosen.seconds) for case in CASES]
    report(f"kernels_{name}", "Forward and backward beside torch.linalg.eigh and its autograd, one thread", rows)


if __name__ == "__main__":
    main()
