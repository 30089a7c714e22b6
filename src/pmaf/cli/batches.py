"""A file of problems in, a file of answers out: worked through in chunks, so that neither has to fit into memory."""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

import pmaf
from pmaf.checks.devices import check_device
from pmaf.checks.extras import needs
from pmaf.checks.symmetry import skew_items
from pmaf.checks.tensors import positive_radius
from pmaf.cli.files import Array, FileError, Output, check_output, floating, open_array
from pmaf.errors import DegeneracyWarning, LocalSolutionWarning
from pmaf.linalg.dtypes import working_dtype
from pmaf.paper.progress import print_table
from pmaf.solution import Status

__all__ = ["Summary", "print_summary", "solve_ied_file", "solve_less_files", "solve_svd_file"]

with needs("cli", "pmaf.cli.batches"):
    import numpy as np
    from rich.console import Console


Report = Callable[[int, int], None]

_FAILED = (Status.MAX_STEPS, Status.NON_FINITE, Status.NOT_DEFINITE)


# What measurements are stored in; those of half-precision problems need the range of single precision.
_REAL = {
    np.dtype(np.complex64): np.float32,
    np.dtype(np.complex128): np.float64,
    np.dtype(np.float16): np.float32,
}


class Summary(NamedTuple):
    """What became of a batch.

    Attributes:
        layer: what was solved, ``"less"``, ``"ied"`` or ``"svd"``.
        items: how many problems the file held.
        counts: how many ended with each status.
        first_failed: index of the first item without an answer, and its status.
        worst_residual: the largest measured residual among the items with an answer.
        smallest_gap: the smallest measured gap among them.
        seconds: time from the first chunk to the finished file.
        shapes: the arrays written, with their shapes.
    """

    layer: str
    items: int
    counts: dict[Status, int]
    first_failed: tuple[tuple[int, ...], Status] | None
    worst_residual: float
    smallest_gap: float
    seconds: float
    shapes: dict[str, tuple[int, ...]]

    @property
    def failed(self) -> int:
        """How many items have no answer."""
        return sum(self.counts.get(status, 0) for status in _FAILED)


def solve_less_files(
    A_path: Path,
    b_path: Path,
    output: Path,
    *,
    radius: float = 1.0,
    solver: str | None = None,
    constraint: str = "sphere",
    device: str = "cpu",
    chunk_bytes: int = 64 << 20,
    report: Report | None = None,
) -> Summary:
    """Solve least squares on the sphere for every pair (A, b) in two files.

    Args:
        A_path: file of matrices, ``(*, m, n)``.
        b_path: file of right-hand sides, ``(*, m)``; the leading dimensions broadcast.
        output: where ``u`` goes: a ``.npy`` file holds it alone, a ``.npz`` or ``.pt`` file also what was measured.
        radius: radius of the sphere.
        solver: name of a solver, or ``None`` for the default.
        constraint: ``"sphere"`` or ``"ball"``.
        device: where to compute.
        chunk_bytes: how much of the input to work on at a time.
        report: called with the items done and the items in all.

    Returns:
        What became of the batch.

    Raises:
        FileError: if a file is refused, the shapes do not fit together, or the output is one of the inputs.
    """
    members = ["u"] if output.suffix == ".npy" else ["u", "multiplier", "status", "residual", "gap"]
    check_device(device)
    check_output(output, len(members), (A_path, b_path))
    A, b = open_array(A_path, ("A",)), open_array(b_path, ("b",))
    if A.ndim < 2 or b.ndim < 1 or A.shape[-2] != b.shape[-1]:
        raise FileError(
            f"A must have the shape (*, m, n) and b the shape (*, m), "
            f"but {A_path} is {A.shape} and {b_path} is {b.shape}"
        )
    batch = _broadcast(A_path, A.shape[:-2], b_path, b.shape[:-1])
    dtype = np.result_type(floating(A, str(A_path)), floating(b, str(b_path)))
    like = _tensor(np.zeros(1), dtype, "cpu")
    positive_radius("less_ex", radius, like.to(working_dtype(like.dtype)), wait=True)
    A = np.broadcast_to(A, (batch or (1,)) + A.shape[-2:])
    b = np.broadcast_to(b, (batch or (1,)) + b.shape[-1:])

    def solve(chunk: tuple[Array, ...]) -> Mapping[str, torch.Tensor]:
        of_A, of_b = (_tensor(array[chunk], dtype, device) for array in (A, b))
        return pmaf.less_ex(of_A, of_b, radius=radius, solver=solver, constraint=constraint)._asdict()

    shapes = {"u": (A.shape[-1],), "multiplier": (), "status": (), "residual": (), "gap": ()}
    item_bytes = dtype.itemsize * (A.shape[-2] * A.shape[-1] + A.shape[-2])
    shapes = {name: shapes[name] for name in members}
    return _work("less", solve, batch, shapes, dtype, output, item_bytes, chunk_bytes, report)


def solve_ied_file(
    X_path: Path,
    k: int,
    output: Path,
    *,
    largest: bool = True,
    metric: Path | None = None,
    solver: str | None = None,
    device: str = "cpu",
    chunk_bytes: int = 64 << 20,
    report: Report | None = None,
) -> Summary:
    """Find the k leading eigenpairs of every matrix in a file.

    Args:
        X_path: file of symmetric or Hermitian matrices, ``(*, n, n)``.
        k: how many eigenpairs.
        output: a ``.npz`` or ``.pt`` file for eigenvalues, eigenvectors and what was measured.
        largest: whether to take the largest eigenvalues or the smallest.
        metric: file of positive definite matrices B, ``(*, n, n)``, for the pairs of X u = λ B u; the leading
            dimensions broadcast.
        solver: name of a solver, or ``None`` for the default.
        device: where to compute.
        chunk_bytes: how much of the input to work on at a time.
        report: called with the items done and the items in all.

    Returns:
        What became of the batch.

    Raises:
        FileError: if the file is refused or is the output, or its matrices are not square, not symmetric, or have
            fewer than k rows.
    """
    members = ("eigenvalues", "eigenvectors", "status", "residual", "gap")
    check_device(device)
    check_output(output, len(members), (X_path,) if metric is None else (X_path, metric))
    X = open_array(X_path, ("X",))
    if X.ndim < 2 or X.shape[-1] != X.shape[-2]:
        raise FileError(f"X must hold square matrices, (*, n, n), but {X_path} is {X.shape}")
    n = X.shape[-1]
    if not 1 <= k <= n:
        raise FileError(f"k must be between 1 and the order of the matrices, {n}, but is {k}")
    dtype = floating(X, str(X_path))
    batch = X.shape[:-2]
    B = None
    if metric is not None:
        B = open_array(metric, ("B", "metric"))
        if B.shape[-2:] != (n, n):
            raise FileError(f"the metric must have the shape (*, {n}, {n}), as X has, but {metric} is {B.shape}")
        batch = _broadcast(X_path, batch, metric, B.shape[:-2])
        dtype = np.result_type(dtype, floating(B, str(metric)))
        B = np.broadcast_to(B, (batch or (1,)) + (n, n))
    X = np.broadcast_to(X, (batch or (1,)) + (n, n))

    def hermitian(array: Array, path: Path, chunk: tuple[Array, ...]) -> torch.Tensor:
        matrices = _tensor(array[chunk], dtype, device)
        skew = skew_items(matrices)
        if bool(skew.any()):
            index = _index(chunk, int(skew.nonzero()[0]), batch)
            which = f"item {', '.join(map(str, index))} of {path}" if index else str(path)
            raise FileError(f"the matrices must be symmetric (Hermitian), but {which} is not")
        return matrices

    def solve(chunk: tuple[Array, ...]) -> Mapping[str, torch.Tensor]:
        of_B = None if B is None or metric is None else hermitian(B, metric, chunk)
        return pmaf.ied_ex(hermitian(X, X_path, chunk), k, largest=largest, metric=of_B, solver=solver)._asdict()

    shapes = dict(zip(members, ((k,), (n, k), (), (), ()), strict=True))
    return _work("ied", solve, batch, shapes, dtype, output, dtype.itemsize * n * n, chunk_bytes, report)


def solve_svd_file(
    A_path: Path,
    k: int,
    output: Path,
    *,
    largest: bool = True,
    solver: str | None = None,
    device: str = "cpu",
    chunk_bytes: int = 64 << 20,
    report: Report | None = None,
) -> Summary:
    """Find the k leading singular triplets of every matrix in a file.

    Args:
        A_path: file of matrices, ``(*, m, n)``.
        k: how many triplets.
        output: a ``.npz`` or ``.pt`` file for U, S, Vh and what was measured.
        largest: whether to take the largest singular values or the smallest.
        solver: name of a solver, or ``None`` for the default.
        device: where to compute.
        chunk_bytes: how much of the input to work on at a time.
        report: called with the items done and the items in all.

    Returns:
        What became of the batch.

    Raises:
        FileError: if the file is refused or is the output, or its matrices have fewer than k rows or columns.
    """
    members = ("U", "S", "Vh", "status", "residual", "gap")
    check_device(device)
    check_output(output, len(members), (A_path,))
    A = open_array(A_path, ("A", "X"))
    if A.ndim < 2:
        raise FileError(f"A must hold matrices, (*, m, n), but {A_path} is {A.shape}")
    m, n = A.shape[-2:]
    if not 1 <= k <= min(m, n):
        raise FileError(f"k must be between 1 and the smaller side of the matrices, {min(m, n)}, but is {k}")
    dtype, batch = floating(A, str(A_path)), A.shape[:-2]
    A = A.reshape((batch or (1,)) + A.shape[-2:])

    def solve(chunk: tuple[Array, ...]) -> Mapping[str, torch.Tensor]:
        return pmaf.svd_ex(_tensor(A[chunk], dtype, device), k, largest=largest, solver=solver)._asdict()

    shapes = dict(zip(members, ((m, k), (k,), (k, n), (), (), ()), strict=True))
    return _work("svd", solve, batch, shapes, dtype, output, dtype.itemsize * m * n, chunk_bytes, report)


def _work(
    layer: str,
    solve: Callable[[tuple[Array, ...]], Mapping[str, torch.Tensor]],
    batch: tuple[int, ...],
    shapes: Mapping[str, tuple[int, ...]],
    dtype: np.dtype[Any],
    output: Path,
    item_bytes: int,
    chunk_bytes: int,
    report: Report | None,
) -> Summary:
    """Solve chunk after chunk, write what comes out, and count how it ended."""
    items = int(np.prod(batch, dtype=np.int64))
    size = max(1, chunk_bytes // max(1, item_bytes))
    vectors = {"u", "eigenvectors", "U", "Vh"}
    types = {name: np.dtype(np.int64) if name == "status" else dtype for name in shapes}
    types |= {name: np.dtype(_REAL.get(dtype, dtype)) for name in shapes if name not in vectors | {"status"}}
    counts: Counter[int] = Counter()
    first_failed, worst, smallest = None, 0.0, float("inf")
    began = time.perf_counter()
    with Output(output, {name: ((items, *shape), types[name]) for name, shape in shapes.items()}) as out:
        for start in range(0, items, size):
            stop = min(start + size, items)
            chunk = np.unravel_index(np.arange(start, stop), batch or (1,))
            with torch.no_grad(), warnings.catch_warnings():
                for doubt in (DegeneracyWarning, LocalSolutionWarning):
                    warnings.simplefilter("ignore", doubt)  # the summary counts them
                found = solve(chunk)
            answer = {name: value.cpu().numpy() for name, value in found.items() if value is not None}
            out.write(start, stop, answer)
            status = answer["status"]
            counts.update(status.tolist())
            failed = np.isin(status, [int(code) for code in _FAILED])
            if first_failed is None and failed.any():
                at = int(failed.argmax())
                first_failed = (_index(chunk, at, batch), Status(int(status[at])))
            if not failed.all():
                worst = max(worst, float(answer["residual"][~failed].max()))
                smallest = min(smallest, float(answer["gap"][~failed].min()))
            if report is not None:
                report(stop, items)
        whole = {name: (*batch, *shape) for name, shape in shapes.items()}
        out.commit(whole)
    known = {Status(code): count for code, count in sorted(counts.items())}
    return Summary(layer, items, known, first_failed, worst, smallest, time.perf_counter() - began, whole)


def _broadcast(A_path: Path, of_A: tuple[int, ...], b_path: Path, of_b: tuple[int, ...]) -> tuple[int, ...]:
    try:
        return np.broadcast_shapes(of_A, of_b)
    except ValueError:
        raise FileError(
            f"the batch dimensions of {A_path}, {of_A}, and of {b_path}, {of_b}, do not broadcast against each other"
        ) from None


def _index(chunk: tuple[Array, ...], at: int, batch: tuple[int, ...]) -> tuple[int, ...]:
    """Where an item of a chunk stands in the file."""
    return tuple(int(i[at]) for i in chunk) if batch else ()


def _tensor(array: Array, dtype: np.dtype[Any], device: str) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=dtype)).to(device)


def print_summary(summary: Summary, output: Path) -> None:
    """Print how many items ended with which status, and on standard error what failed first.

    Args:
        summary: what became of the batch.
        output: where the answers are.
    """
    rows = [(status.name, str(count), status.remedy_for(summary.layer)) for status, count in summary.counts.items()]
    print_table(f"{summary.items} items", ("status", "items", "meaning"), rows)
    shapes = ", ".join(f"{name} {shape}" for name, shape in summary.shapes.items())
    print(f"wrote {output}: {shapes} in {summary.seconds:.2f} s")
    if summary.failed < summary.items:
        print(f"worst relative residual {summary.worst_residual:.1e}, smallest gap {summary.smallest_gap:.1e}")
    if summary.first_failed is not None:
        index, status = summary.first_failed
        where = f"item {', '.join(map(str, index))}" if index else "the only item"
        verb = "item has" if summary.failed == 1 else "items have"
        Console(stderr=True, soft_wrap=True, highlight=False).print(
            f"pmaf: {summary.failed} of {summary.items} {verb} no answer, first {where} with {status.name}: "
            f"{status.remedy_for(summary.layer)}"
        )
