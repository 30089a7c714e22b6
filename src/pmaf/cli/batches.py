"""A file of problems in, a file of answers out: what each layer reads, and how it solves a piece of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

import pmaf
from pmaf.checks.devices import check_device
from pmaf.checks.extras import needs
from pmaf.checks.symmetry import skew_items
from pmaf.checks.tensors import positive_radius
from pmaf.cli.files import FileError, Source, check_output
from pmaf.cli.plan import Cell, Plan
from pmaf.cli.summary import Summary
from pmaf.cli.work import Batch, Run, work

__all__ = ["solve_ied_file", "solve_less_files", "solve_svd_file"]

with needs("cli", "pmaf.cli.batches"):
    import numpy as np


_MEASURED: dict[str, tuple[int, ...]] = {"status": (), "residual": (), "gap": ()}


def solve_less_files(
    A_path: Path,
    b_path: Path,
    output: Path,
    *,
    weights: Path | None = None,
    free: Path | None = None,
    radius: float = 1.0,
    solver: str | None = None,
    constraint: str = "sphere",
    device: str = "cpu",
    run: Run | None = None,
) -> Summary | None:
    """Solve least squares on the sphere for every pair (A, b) in two files.

    Args:
        A_path: file of matrices, ``(*, m, n)``.
        b_path: file of right-hand sides, ``(*, m)``; the leading dimensions of all files broadcast.
        output: where ``u`` goes: a ``.npy`` file holds it alone, the others also what was measured, and ``z``.
        weights: file of non-negative weights of the rows, ``(*, m)``.
        free: file of the columns C of unknowns that the constraint does not see, ``(*, m, p)``.
        radius: radius of the sphere.
        solver: name of a solver, or ``None`` for the default.
        constraint: ``"sphere"`` or ``"ball"``.
        device: where to compute.
        run: how the files are worked through: by this process alone, if left out.

    Returns:
        What became of the batch; ``None`` from all processes of a job but the first.

    Raises:
        FileError: if a file is refused, the shapes do not fit together, or the output is one of the inputs.
    """
    paths = [path for path in (A_path, b_path, weights, free) if path is not None]
    run = run or Run()
    check_device(device)
    check_output(output, paths, alone=True)
    A, b = Source(A_path, ("A",), 2), Source(b_path, ("b",), 1)
    if A.core[0] != b.core[0]:
        raise FileError(
            f"A must have the shape (*, m, n) and b the shape (*, m), "
            f"but {A_path} is {A.shape} and {b_path} is {b.shape}"
        )
    m, n = A.core
    W = None if weights is None else Source(weights, ("weights", "w"), 1)
    C = None if free is None else Source(free, ("free", "C"), 2)
    if W is not None and (W.core != (m,) or W.dtype.kind == "c"):
        raise FileError(f"the weights must be real, of shape (*, {m}) as A has rows, but {weights} is {W.shape}")
    if C is not None and C.core[0] != m:
        raise FileError(f"free must have the shape (*, {m}, p), as A has rows, but {free} is {C.shape}")
    sources = [source for source in (A, b, W, C) if source is not None]
    batch = _broadcast(sources)
    dtype = np.result_type(*(source.dtype for source in sources))
    positive_radius("less_ex", radius, _tensor(np.zeros(1), dtype, "cpu"), wait=True)
    here = run.job.device(device)

    def solve(cell: Cell) -> Mapping[str, torch.Tensor | None]:
        w = None if W is None else _tensor(W.read(cell.box), np.zeros(0, dtype).real.dtype, here)
        if w is not None and bool((w < 0).any()):
            at = cell.start + int((w < 0).nonzero()[0, 0])
            raise FileError(f"the weights must be non-negative, but {_item(at, batch, weights)} has a negative one")
        return pmaf.less_ex(
            _tensor(A.read(cell.box), dtype, here),
            _tensor(b.read(cell.box), dtype, here),
            weights=w,
            free=None if C is None else _tensor(C.read(cell.box), dtype, here),
            radius=radius,
            solver=solver,
            constraint=constraint,
        )._asdict()

    cores: dict[str, tuple[int, ...]] = {"u": (n,)}
    if output.suffix != ".npy":
        cores |= {"multiplier": ()} | _MEASURED | ({} if C is None else {"z": (C.core[1],)})
    problems = Batch(
        layer="less",
        sources=sources,
        batch=batch,
        dtype=dtype,
        cores=cores,
        vectors=frozenset({"u", "z"} & set(cores)),
        solve=solve,
        options=f"{W is not None} {C is not None} {radius!r} {solver} {constraint} {device}",
    )
    return work(problems, output, run)


def solve_ied_file(
    X_path: Path,
    k: int,
    output: Path,
    *,
    largest: bool = True,
    metric: Path | None = None,
    solver: str | None = None,
    device: str = "cpu",
    run: Run | None = None,
) -> Summary | None:
    """Find the k leading eigenpairs of every matrix in a file.

    Args:
        X_path: file of symmetric or Hermitian matrices, ``(*, n, n)``.
        k: how many eigenpairs.
        output: a file for eigenvalues, eigenvectors and what was measured.
        largest: whether to take the largest eigenvalues or the smallest.
        metric: file of positive definite matrices B, ``(*, n, n)``, for the pairs of X u = λ B u; the leading
            dimensions broadcast.
        solver: name of a solver, or ``None`` for the default.
        device: where to compute.
        run: how the files are worked through: by this process alone, if left out.

    Returns:
        What became of the batch; ``None`` from all processes of a job but the first.

    Raises:
        FileError: if the file is refused or is the output, or its matrices are not square, not symmetric, or have
            fewer than k rows.
    """
    run = run or Run()
    check_device(device)
    check_output(output, [X_path] if metric is None else [X_path, metric])
    X = Source(X_path, ("X",), 2)
    n = X.core[0]
    if X.core != (n, n):
        raise FileError(f"X must hold square matrices, (*, n, n), but {X_path} is {X.shape}")
    if not 1 <= k <= n:
        raise FileError(f"k must be between 1 and the order of the matrices, {n}, but is {k}")
    B = None if metric is None else Source(metric, ("B", "metric"), 2)
    if B is not None and B.core != (n, n):
        raise FileError(f"the metric must have the shape (*, {n}, {n}), as X has, but {metric} is {B.shape}")
    sources = [source for source in (X, B) if source is not None]
    batch = _broadcast(sources)
    dtype = np.result_type(*(source.dtype for source in sources))
    here = run.job.device(device)

    def hermitian(source: Source, cell: Cell) -> torch.Tensor:
        matrices = _tensor(source.read(cell.box), dtype, here)
        skew = skew_items(matrices)
        if bool(skew.any()):
            at = _item(cell.start + int(skew.nonzero()[0]), batch, source.path)
            raise FileError(f"the matrices must be symmetric (Hermitian), but {at} is not")
        return matrices

    def solve(cell: Cell) -> Mapping[str, torch.Tensor | None]:
        of_B = None if B is None else hermitian(B, cell)
        return pmaf.ied_ex(hermitian(X, cell), k, largest=largest, metric=of_B, solver=solver)._asdict()

    problems = Batch(
        layer="ied",
        sources=sources,
        batch=batch,
        dtype=dtype,
        cores={"eigenvalues": (k,), "eigenvectors": (n, k)} | _MEASURED,
        vectors=frozenset({"eigenvectors"}),
        solve=solve,
        options=f"{B is not None} {k} {largest} {solver} {device}",
    )
    return work(problems, output, run)


def solve_svd_file(
    A_path: Path,
    k: int,
    output: Path,
    *,
    largest: bool = True,
    solver: str | None = None,
    device: str = "cpu",
    run: Run | None = None,
) -> Summary | None:
    """Find the k leading singular triplets of every matrix in a file.

    Args:
        A_path: file of matrices, ``(*, m, n)``.
        k: how many triplets.
        output: a file for U, S, Vh and what was measured.
        largest: whether to take the largest singular values or the smallest.
        solver: name of a solver, or ``None`` for the default.
        device: where to compute.
        run: how the files are worked through: by this process alone, if left out.

    Returns:
        What became of the batch; ``None`` from all processes of a job but the first.

    Raises:
        FileError: if the file is refused or is the output, or its matrices have fewer than k rows or columns.
    """
    run = run or Run()
    check_device(device)
    check_output(output, [A_path])
    A = Source(A_path, ("A", "X"), 2)
    m, n = A.core
    if not 1 <= k <= min(m, n):
        raise FileError(f"k must be between 1 and the smaller side of the matrices, {min(m, n)}, but is {k}")
    here = run.job.device(device)

    def solve(cell: Cell) -> Mapping[str, torch.Tensor | None]:
        of_A = _tensor(A.read(cell.box), A.dtype, here)
        return pmaf.svd_ex(of_A, k, largest=largest, solver=solver)._asdict()

    problems = Batch(
        layer="svd",
        sources=[A],
        batch=A.batch,
        dtype=A.dtype,
        cores={"U": (m, k), "S": (k,), "Vh": (k, n)} | _MEASURED,
        vectors=frozenset({"U", "Vh"}),
        solve=solve,
        options=f"{k} {largest} {solver} {device}",
    )
    return work(problems, output, run)


def _broadcast(sources: list[Source]) -> tuple[int, ...]:
    """The dimensions that the batches of several files broadcast to.

    Raises:
        FileError: if they do not.
    """
    try:
        return np.broadcast_shapes(*(source.batch for source in sources))
    except ValueError:
        told = ", ".join(f"{source.batch} of {source.path}" for source in sources)
        raise FileError(f"the batch dimensions do not broadcast against each other: {told}") from None


def _item(at: int, batch: tuple[int, ...], path: Path | None) -> str:
    """What an item is called in a message."""
    return f"item {', '.join(map(str, Plan.index(at, batch)))} of {path}" if batch else str(path)


def _tensor(array: Any, dtype: np.dtype[Any], device: str) -> torch.Tensor:
    return torch.from_numpy(np.array(array, dtype, order="C")).to(device)  # a copy, as what is mapped is read-only
