"""Generalised eigenpairs and truncated SVD beside what people write by hand, forward and backward.

Run ``python benchmarks/family.py`` (a few minutes on one core). Generalised: Cholesky, ``eigh`` and autograd through
both; ``scipy.linalg.eigh(b=)`` and xitorch where it is installed. SVD: ``torch.linalg.svd`` and autograd,
``svd_lowrank``. The loss of the backward pass is a fixed function of values and vectors. Errors are of the values,
relative. Times are those of the processor, on one thread.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

import pmaf
from harness import Row, alternate, report

torch.set_num_threads(1)


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


def main() -> None:
    """Both tables in one file."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    torch.manual_seed(0)
    rows: list[Row] = []
    for dtype in (torch.float32, torch.float64):
        for n in (32, 64):
            rows += generalised(n, 1, dtype)
        for shape in ((64, 200, 20), (200_000, 64)):
            rows += triplets(shape, 3, dtype)
    report("family", "Generalised eigenpairs and truncated SVD", rows)


if __name__ == "__main__":
    main()
