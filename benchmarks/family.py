"""Generalised eigenpairs, truncated SVD and functions of a matrix beside what else there is, forward and backward.

Run ``python benchmarks/family.py`` (a few minutes on one core). Generalised: Cholesky, ``eigh`` and autograd through
both; ``scipy.linalg.eigh(b=)`` and xitorch where it is installed. SVD: ``torch.linalg.svd`` and autograd,
``svd_lowrank``. Functions of a matrix: ``eigh`` and autograd, and geomstats where it is installed; of covariances, and
of matrices with repeated eigenvalues. The loss of the backward pass is a fixed function of values and vectors, or a
linear one of the matrix. Errors are of the values, relative, and of gradients in the Frobenius norm; the reference for
functions is SciPy's, of [[X, W], [0, X]]. Times are those of the processor, on one thread.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.linalg
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

import pmaf
from harness import Row, alternate, report
from spectral_function import both, error, matrices

torch.set_num_threads(1)
threadpool_limits(1)  # SciPy's own


def by_hand(X: Tensor, B: Tensor, k: int) -> tuple[Tensor, ...]:
    """Cholesky, the standard problem, and back."""
    L = torch.linalg.cholesky(B)
    half = torch.linalg.solve_triangular(L, X, upper=False)
    s, V = torch.linalg.eigh(torch.linalg.solve_triangular(L, half.mT, upper=False))
    return s[..., -k:].flip(-1), torch.linalg.solve_triangular(L.mT, V[..., -k:].flip(-1), upper=True)


def xitorch_pairs(X: Tensor, B: Tensor, k: int) -> tuple[Tensor, ...]:
    """Through all pairs, which is its fastest way at these sizes."""
    from xitorch import LinearOperator
    from xitorch.linalg import symeig

    A, M = LinearOperator.m(X, is_hermitian=True), LinearOperator.m(B, is_hermitian=True)
    s, V = symeig(A, neig=k, mode="uppest", M=M, method="exacteig")
    return s.flip(-1), V.flip(-1)


def scipy_pairs(X: Tensor, B: Tensor, k: int) -> tuple[Tensor, ...]:
    """Item by item; no gradient."""
    n = X.shape[-1]
    found = [scipy.linalg.eigh(x, b, subset_by_index=[n - k, n - 1]) for x, b in zip(X.numpy(), B.numpy(), strict=True)]
    return torch.from_numpy(np.stack([s[::-1] for s, _ in found])), torch.from_numpy(np.stack([V for _, V in found]))


def torch_svd(A: Tensor, k: int) -> tuple[Tensor, ...]:
    """All triplets, cut."""
    U, S, Vh = torch.linalg.svd(A, full_matrices=False)
    return S[..., :k], U[..., :k], Vh[..., :k, :]


def lowrank(A: Tensor, k: int) -> tuple[Tensor, ...]:
    """Randomised, two iterations."""
    U, S, V = torch.svd_lowrank(A, q=k + 4)
    return S[..., :k], U[..., :k], V[..., :k].mT


def our_svd(A: Tensor, k: int) -> tuple[Tensor, ...]:
    """The library."""
    U, S, Vh = pmaf.svd(A, k)
    return S, U, Vh


def loss(values: Tensor, *vectors: Tensor) -> Tensor:
    """A smooth function that does not see signs."""
    total = values.sum()
    for V in vectors:
        weight = torch.linspace(-1, 1, V[0].numel() if V.dim() > 2 else V.numel(), dtype=V.dtype)
        total = total + (weight.reshape(V.shape[-2:]) * V.square()).sum()
    return total


def measure(task: str, inputs: tuple[Tensor, ...], k: int, methods: dict[str, Any], truth: Tensor) -> list[Row]:
    """Forward alone, and forward with backward, of each method in turn."""
    tasks: dict[str, Callable[[], object]] = {}
    leaves = tuple(x.clone().requires_grad_() for x in inputs)
    errors = {}
    for name, method in methods.items():
        values = method(*inputs, k)[0].detach()
        errors[name] = float(((values - truth) / truth).abs().max())
        tasks[f"{name}, forward"] = lambda method=method: method(*inputs, k)
        if name != "scipy":
            tasks[f"{name}, both"] = lambda method=method: torch.autograd.grad(loss(*method(*leaves, k)), leaves)
    if task.startswith("svd"):
        tasks["two Gram products, forward"] = lambda: [inputs[0].mT @ inputs[0] for _ in range(2)]
    times = alternate(tasks, 9, clock=time.process_time)
    rows = []
    for name in {name.rsplit(", ", 1)[0]: None for name in tasks}:
        both = times.get(f"{name}, both")
        rows.append(
            {
                "task": task,
                "method": name,
                "forward_ms": 1e3 * times[f"{name}, forward"],
                "both_ms": None if both is None else 1e3 * both,
                "ratio_to_pmaf": None if both is None else both / times["pmaf, both"],
                "error": errors.get(name),
                "gradient_error": None,
            }
        )
    return rows


def generalised(n: int, k: int, dtype: torch.dtype) -> list[Row]:
    """64 problems of order n."""
    X = torch.randn(64, n, n, dtype=dtype)
    F = torch.randn(64, 2 * n, n, dtype=dtype)
    X, B = X + X.mT, F.mT @ F / n
    methods: dict[str, Any] = {
        "pmaf": lambda X, B, k: pmaf.ied(X, k, metric=B),
        "by hand": by_hand,
        "scipy": scipy_pairs,
    }
    try:
        xitorch_pairs(X, B, k)
        methods["xitorch"] = xitorch_pairs
    except (ImportError, RuntimeError):
        pass
    truth = by_hand(X.double(), B.double(), k)[0]
    return measure(f"generalised, 64×{n}×{n}, k = {k}, {dtype}", (X, B), k, methods, truth)


def triplets(shape: tuple[int, ...], k: int, dtype: torch.dtype) -> list[Row]:
    """Random matrices."""
    A = torch.randn(shape, dtype=dtype)
    methods = {"pmaf": our_svd, "torch.linalg.svd": torch_svd, "torch.svd_lowrank": lowrank}
    truth = torch_svd(A.double(), k)[0]
    return measure(f"svd, {'×'.join(map(str, shape))}, k = {k}, {dtype}", (A,), k, methods, truth)


FUNCTIONS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Any], Any]]] = {
    "log": (torch.log, scipy.linalg.logm),
    "exp": (torch.exp, scipy.linalg.expm),
    "sqrt": (torch.sqrt, scipy.linalg.sqrtm),
}


def through_eigh(fn: str) -> Callable[[Tensor], Tensor]:
    """What people write; its gradient divides by differences of eigenvalues."""

    def function(X: Tensor) -> Tensor:
        s, U = torch.linalg.eigh(X)
        return (U * FUNCTIONS[fn][0](s)[..., None, :]) @ U.mT

    return function


def geomstats_functions(fn: str) -> dict[str, Callable[[Tensor], Tensor]]:
    """Through ``eigh`` as well, and for the logarithm by SciPy; importing it sets torch's default type."""
    os.environ["GEOMSTATS_BACKEND"] = "pytorch"
    default = torch.get_default_dtype()
    if not hasattr(np, "trapz"):
        setattr(np, "trapz", np.trapezoid)  # noqa: B010  # geomstats 2.8 imports it by its old name
    try:
        import geomstats.backend as gs
        from geomstats.geometry.hermitian_matrices import expmh, powermh
        from geomstats.geometry.spd_matrices import logmh
    except ImportError:
        return {}
    finally:
        torch.set_default_dtype(default)
    found: dict[str, Any] = {"log": logmh, "exp": expmh, "sqrt": lambda X: powermh(X, 0.5)}
    return {"geomstats": found[fn]} | ({"geomstats, by SciPy": gs.linalg.logm} if fn == "log" else {})


def functions(fn: str, spectrum: str, n: int, dtype: torch.dtype) -> list[Row]:
    """64 matrices of order n."""
    X = matrices(spectrum, 64, n)
    W = torch.randn(64, n, n, dtype=X.dtype)
    W = (W + W.mT) / 2
    whole = torch.cat((torch.cat((X, W), -1), torch.cat((torch.zeros_like(X), X), -1)), -2)[:4]
    truth = torch.stack([torch.from_numpy(np.real(FUNCTIONS[fn][1](x))) for x in whole.numpy()])
    methods: dict[str, Any] = {
        "pmaf": lambda X: pmaf.spectral_function(X, fn),
        "eigh, autograd": through_eigh(fn),
        **geomstats_functions(fn),
    }
    x, w = X.to(dtype), W.to(dtype)
    tasks: dict[str, Callable[[], object]] = {}
    for name, method in methods.items():
        tasks[f"{name}, forward"] = lambda method=method: method(x)
        tasks[f"{name}, both"] = lambda method=method: both(method, x, w)
    times = alternate(tasks, 9, clock=time.process_time)
    rows = []
    for name, method in methods.items():
        value, gradient = both(method, x[:4], w[:4])
        rows.append(
            {
                "task": f"{fn}, {spectrum}, 64×{n}×{n}, {dtype}",
                "method": name,
                "forward_ms": 1e3 * times[f"{name}, forward"],
                "both_ms": 1e3 * times[f"{name}, both"],
                "ratio_to_pmaf": times[f"{name}, both"] / times["pmaf, both"],
                "error": error(value, truth[:, :n, :n]),
                "gradient_error": error(gradient, truth[:, :n, n:]),
            }
        )
    return rows


def main() -> None:
    """All tables in one file."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    torch.manual_seed(0)
    rows: list[Row] = []
    for dtype in (torch.float32, torch.float64):
        for n in (32, 64):
            rows += generalised(n, 1, dtype)
        for shape in ((64, 200, 20), (200_000, 64)):
            rows += triplets(shape, 3, dtype)
        for fn in FUNCTIONS:
            for spectrum in ("covariance", "repeated"):
                rows += functions(fn, spectrum, 32, dtype)
    report("family", "Generalised eigenpairs, truncated SVD and functions of a matrix", rows)


if __name__ == "__main__":
    main()
