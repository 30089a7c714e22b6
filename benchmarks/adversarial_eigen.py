"""Eigenproblems meant to go wrong, judged by certificates that know nothing of the library.

Spectra × scales × types × sizes × k × ends, or the nearest to a number × solvers × starts, unlucky ones. An item
whose status claims an answer fails *silently* if, in double precision and for its own data, its residual, the
orthogonality of its vectors or the distance of its values from those of LAPACK (mpmath for a sample) exceed the
rounding of its type, or if it claims to be unique and is not; and its gradient, that of a weighted projector onto the
selected vectors, if it is off by more than rounding × condition. The exit status is the number of silent failures, at
most 1.

    python benchmarks/adversarial_eigen.py --items 100000
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import mpmath
import numpy as np
import torch
from torch import Tensor

import pmaf
from pmaf.kernels import available

RESULTS = Path(__file__).parent / "results" / "adversarial_eigen.csv"
DTYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128)
SIZES = (1, 2, 3, 4, 5, 8, 13, 24, 40)
BATCH = 100
SOLVERS = (None, "eigh", "tridiagonal", "lanczos_eigh", "cholesky_inverse_iteration", "eigvals_inverse_iteration",
           "closed_form", "power_iteration", "simultaneous_iteration", "block_lanczos")  # fmt: skip
SINGLE = ("power_iteration", "closed_form", "eigvals_inverse_iteration")  # one pair at a time
MEASURED = ("items", "claimed", "declined", "silent", "wrong values", "wrong gradient", "called unique", "by mpmath")


def spectrum(kind: str, n: int, generator: torch.Generator) -> Tensor:
    """Eigenvalues of order one, ``(BATCH, n)``, in double precision."""
    x = torch.rand(BATCH, n, dtype=torch.float64, generator=generator)
    near = 10.0 ** -torch.randint(1, 15, (BATCH, 1), generator=generator).double()
    index = torch.arange(n, dtype=torch.float64)
    return {
        "uniform": x,
        "both signs": 2 * x - 1,
        "graded": 10.0 ** -(index * 12 / max(n, 2)),
        "graded both signs": 10.0 ** -(index * 8 / max(n, 2)) * torch.where(x > 0.5, 1.0, -1.0),
        "cluster at the top": torch.where(index < (n + 1) // 2, 1 + near * x, -x),
        "cluster everywhere": 1 + near * x,
        "two at the top": torch.where(index < 2, 1 + near * index, x / 2),
        "repeated": torch.where(index < (n + 1) // 2, 1.0, 0.25).double(),
        "mirrored": torch.where(index % 2 == 0, 1.0, -1.0) * (1 + near * index),
        "one apart": torch.where(index == 0, 1.0, near * x),
        "low rank": torch.where(index < 1, 1.0, 0.0).double(),
        "identity": torch.ones(n, dtype=torch.float64),
        "zero": torch.zeros(n, dtype=torch.float64),
    }[kind].expand(BATCH, n)


KINDS = ("uniform", "both signs", "graded", "graded both signs", "cluster at the top", "cluster everywhere",
         "two at the top", "repeated", "mirrored", "one apart", "low rank", "identity", "zero")  # fmt: skip


def matrices(kind: str, n: int, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """A batch of Hermitian matrices with a spectrum of that kind: turned, block diagonal, or diagonal."""
    wide = torch.complex128 if dtype.is_complex else torch.float64
    Q = torch.linalg.qr(torch.randn(BATCH, n, n, dtype=wide, generator=generator))[0]
    Q[0], Q[1] = torch.eye(n, dtype=wide), torch.eye(n, dtype=wide).flip(0)
    X = (Q * spectrum(kind, n, generator)[:, None, :]) @ Q.mH
    return (X + X.mH).to(dtype) / 2


class Order(NamedTuple):
    """Which eigenvalues come first: the largest, the smallest, or the nearest to a number."""

    largest: bool
    near: float | None

    def key(self, values: np.ndarray) -> np.ndarray:
        """What ascends in that order."""
        if self.near is not None:
            return np.abs(values - self.near)
        return -values if self.largest else values


def claims(X: Tensor, k: int, order: Order, found: pmaf.IEDSolution, exponent: int) -> tuple[np.ndarray, np.ndarray]:
    """Masks of items that are wrong, and that are not unique although they say so; X and values of order one."""
    n, eps = X.shape[-1], torch.finfo(X.dtype).eps
    A = X.to(torch.complex128 if X.is_complex() else torch.float64)
    A = (A + A.mH) / 2
    s = np.linalg.eigvalsh(A.numpy())
    norm = np.abs(s).max(-1)
    s = np.sort(order.key(s), -1)
    values = torch.ldexp(found.eigenvalues.double(), torch.tensor(-exponent))
    U = found.eigenvectors.to(A.dtype)
    residual = torch.linalg.vector_norm(A @ U - U * values[:, None, :], dim=-2).amax(-1).numpy()
    skew = (U.mH @ U - torch.eye(k, dtype=A.dtype)).abs().amax((-2, -1)).numpy()
    allowed = (30 if eps > 1e-10 else 400) * eps * n**0.5
    off = np.abs(order.key(values.numpy()) - s[:, :k]).max(-1)
    lost = 2.0 ** (-1074 - exponent) if X.dtype in (torch.float64, torch.complex128) else 2.0 ** (-149 - exponent)
    wrong = ~((residual <= allowed * norm + lost) & (skew <= allowed) & (off <= allowed * norm + lost))
    if k == n:
        return wrong, np.zeros_like(wrong)
    return wrong, (np.abs(s[:, k - 1] - s[:, k]) <= eps * norm) & (found.status.numpy() == 0) & ~np.isnan(
        found.gap.numpy()
    )


def gradient_is_wrong(X: Tensor, k: int, order: Order, gradient: Tensor, C: Tensor) -> np.ndarray:
    """Whether the gradient of tr(C U Uᴴ) is off by more than rounding × condition; X of order one."""
    eps, n = torch.finfo(X.dtype).eps, X.shape[-1]
    A = X.to(C.dtype)
    s, V = torch.linalg.eigh((A + A.mH) / 2)
    wanted = torch.from_numpy(order.key(s.numpy()).argsort(-1, kind="stable").argsort(-1)) < k
    between = wanted[:, :, None] ^ wanted[:, None, :]
    difference = s[:, :, None] - s[:, None, :]
    slope = torch.where(between, 1 / torch.where(between, difference, 1), 0)  # of uᵢuⱼᴴ, i wanted and j not
    slope = torch.where(wanted[:, :, None], slope, -slope)
    truth = V @ (slope * (V.mH @ C @ V)) @ V.mH
    gap = torch.where(between, difference.abs(), torch.inf).amin((-2, -1))
    norm = s.abs().amax(-1)
    some = (wanted[:, :, None] | wanted[:, None, :]) & (difference.abs() > eps * norm[:, None, None])
    inside = torch.where(some, difference.abs(), torch.inf).amin((-2, -1))
    condition = norm / torch.minimum(gap, inside)  # what rounding leaves of zero is divided by gaps inside as well
    size = torch.linalg.matrix_norm(C) / gap
    allowed = (300 if eps > 1e-10 else 4000) * eps * n * condition
    error = torch.linalg.matrix_norm(gradient.to(C.dtype) - truth)
    keys = np.sort(order.key(s.numpy()), -1)
    chosen = torch.from_numpy(keys[:, k] - keys[:, k - 1])  # of equal distances rounding decides which pairs are meant
    judged = (allowed < 0.1) & (norm > 0) & (chosen > 100 * eps * norm)
    return (judged & ~(error <= allowed * size)).numpy()


def by_mpmath(X: Tensor, k: int, order: Order, values: Tensor, exponent: int) -> bool:
    """Whether the values of one item are those of forty digits."""
    eps, n = torch.finfo(X.dtype).eps, X.shape[-1]
    with mpmath.workdps(40):
        solve = mpmath.eighe if X.is_complex() else mpmath.eigsy
        s = np.array([float(x) for x in solve(mpmath.matrix(X.tolist()), eigvals_only=True)])
    scaled = torch.ldexp(values.double(), torch.tensor(-exponent)).numpy()
    allowed = (30 if eps > 1e-10 else 400) * eps * n**0.5 * np.abs(s).max() + 2.0 ** -(149 + exponent) * (eps > 1e-10)
    return bool(np.abs(order.key(scaled) - np.sort(order.key(s))[:k]).max() <= allowed)


def trial(generator: torch.Generator, counts: dict[tuple[str, ...], Counter[str]]) -> None:
    """One batch."""

    def pick(options):
        return options[int(torch.randint(len(options), (), generator=generator))]

    kind, n, dtype, largest, solver = pick(KINDS), pick(SIZES), pick(DTYPES), pick((True, False)), pick(SOLVERS)
    single = solver in SINGLE
    k = 1 if single else pick(tuple(range(1, min(n, 4) + 1)))
    if (solver == "closed_form" and (n > 4 or dtype.is_complex)) or (solver == "tridiagonal" and not available()):
        return
    small = dtype in (torch.float32, torch.complex64)
    exponent = pick((0, 0, 0, 20, -20, *((-60, 60, -120, 110) if small else (-500, 500, -1000, 1000))))
    X = matrices(kind, n, dtype, generator)
    options, order = {}, Order(largest, None)
    extra = pick(("", "", "start", "near"))
    if extra == "near" and solver is None:
        order = Order(True, pick((0.0, 1.0, 0.3, float(torch.linalg.eigvalsh(X[2])[n // 2]))))
        options["near"] = math.ldexp(order.near, exponent)
    elif extra == "start" and (solver is None or pmaf.solvers.EIGEN[solver].takes_start):
        options["start"] = torch.linalg.eigh(X)[1][..., torch.randperm(n, generator=generator)[:k]]
    unit = torch.ldexp(torch.ones((), dtype=X.real.dtype), torch.tensor(exponent))
    data = (X * unit).requires_grad_()
    found = pmaf.ied_ex(data, k, largest=order.largest, solver=solver, **options)
    wide = torch.complex128 if dtype.is_complex else torch.float64
    C = torch.randn(n, n, dtype=wide, generator=generator)
    C = (C + C.mH) / 2
    U = found.eigenvectors
    loss = (C.to(dtype).conj() * (U @ U.mH)).real.sum()
    (gradient,) = torch.autograd.grad(loss, data)
    found = pmaf.IEDSolution(*(x.detach() for x in found))
    claimed = np.isin(found.status.numpy(), (int(pmaf.Status.CONVERGED), int(pmaf.Status.NOT_UNIQUE)))
    wrong, tied = claims(X, k, order, found, exponent)
    off = np.zeros_like(wrong)
    if k < n:
        off = gradient_is_wrong(X, k, order, gradient * unit, C) & (np.abs(exponent) <= (100 if small else 900))
    sample = int(torch.randint(BATCH, (), generator=generator))
    checked = claimed[sample] and n <= 5
    bad_digits = checked and not by_mpmath(X[sample].detach(), k, order, found.eigenvalues[sample], exponent)
    silent = claimed & (wrong | off | tied)
    silent[sample] |= bad_digits
    option = next(iter(options), "plain")
    row = counts.setdefault((str(solver or "default"), option, str(dtype).removeprefix("torch.")), Counter())
    for name, number in {
        "items": BATCH,
        "claimed": claimed.sum(),
        "declined": (~claimed).sum(),
        "silent": silent.sum(),
        "wrong values": (claimed & wrong).sum(),
        "wrong gradient": (claimed & off).sum(),
        "called unique": (claimed & tied).sum(),
        "by mpmath": int(checked),
    }.items():
        row[name] += int(number)
    if silent.any():
        print(f"{kind}, n={n}, {dtype}, k={k}, {order}, {solver}, {option}, 2^{exponent}: items {silent.nonzero()[0]}",
              "values" * bool((claimed & wrong).any()), "gradient" * bool((claimed & off).any()),
              "unique" * bool((claimed & tied).any()), file=sys.stderr)  # fmt: skip


def main() -> int:
    """Run, print and save the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of what is left out where selected eigenvalues repeat
    generator = torch.Generator().manual_seed(options.seed)
    counts: dict[tuple[str, ...], Counter[str]] = {}
    while sum(c["items"] for c in counts.values()) < options.items:
        trial(generator, counts)
    with options.out.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("solver", "option", "dtype", *MEASURED))
        for key, c in sorted(counts.items()):
            table.writerow((*key, *(c[name] for name in MEASURED)))
    total = Counter[str]()
    for c in counts.values():
        total.update(c)
    print(", ".join(f"{name} {total[name]}" for name in MEASURED))
    return min(total["silent"], 1)


if __name__ == "__main__":
    sys.exit(main())
