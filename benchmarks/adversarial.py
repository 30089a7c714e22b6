"""Layers of the sphere on inputs chosen to break them, judged by certificates of their own.

A cell is a layer × dtype × size × options; its batch mixes spectra × right-hand sides × scales × radii. An item is a
*silent failure* if it is CONVERGED and :func:`pmaf.certify` (:func:`pmaf.certify_quadratic`), in float64, does not
prove it to be a global minimiser, or it misses the constraint by more than a few roundings. A sample is judged once
more with forty digits by mpmath. Ends with status 1 if there is a silent failure.

    python benchmarks/adversarial.py --items 100000
"""

from __future__ import annotations

import argparse
import csv
import itertools
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import mpmath
import torch
from torch import Tensor

import pmaf
from pmaf import Status

RESULTS = Path(__file__).parent / "results" / "adversarial_sphere.csv"
DTYPES = (torch.float64, torch.float32, torch.complex128, torch.complex64)
SIZES = ((1, 1), (1, 3), (2, 2), (3, 5), (4, 3), (9, 4), (12, 12), (30, 8))
SCALES = {torch.float64: (1.0, 1e-100, 1e100), torch.float32: (1.0, 1e-15, 1e15)}
SOLVERS = (None, "secular", "more_sorensen")
OPTIONS = ("", "weights", "free")
SINGULAR = ("gaussian", "graded", "repeated", "rank one", "tiny last", "zero", "integers", "equal columns")
SIGNED = ("indefinite", "semidefinite", "definite", "repeated bottom", "nearly repeated", "graded", "zero", "negative")
RIGHT = ("random", "zero", "hard", "edge", "tiny", "huge", "orthogonal")


class Cell(NamedTuple):
    """What the items of one batch have in common."""

    layer: str
    dtype: torch.dtype
    size: tuple[int, int]
    constraint: str
    solver: str | None
    option: str


class Problem(NamedTuple):
    """A batch of items: A, b and the rest for ``less``; H and g for ``sphere_quadratic``."""

    matrix: Tensor
    right: Tensor
    radius: Tensor
    extra: dict[str, Tensor]
    names: list[str]  # of spectrum and right-hand side, for each item


class Found(NamedTuple):
    """What became of a batch."""

    statuses: Counter[int]
    silent: Tensor  # (items,) bool
    refuted: int  # items with another status that says there is an answer, which the certificate refutes
    worst: float  # residual of CONVERGED items, in roundings
    u: Tensor
    status: Tensor


def cells() -> Iterator[Cell]:
    """All cells."""
    for dtype, size, constraint, solver in itertools.product(DTYPES, SIZES, ("sphere", "ball"), SOLVERS):
        for option in OPTIONS:
            if option != "free" or size[0] > size[1] + 2:
                yield Cell("less", dtype, size, constraint, solver, option)
        if size[0] >= size[1]:
            yield Cell("sphere_quadratic", dtype, size, constraint, solver, "")


def orthogonal(batch: int, n: int, dtype: torch.dtype) -> Tensor:
    """Random orthogonal (unitary) matrices."""
    return torch.linalg.qr(torch.randn(batch, n, n, dtype=dtype))[0]


def matrices(spectrum: str, batch: int, m: int, n: int, dtype: torch.dtype) -> Tensor:
    """A of ``less``, in double precision."""
    if spectrum == "gaussian":
        return torch.randn(batch, m, n, dtype=dtype)
    if spectrum == "integers":
        return torch.randint(-2, 3, (batch, m, n)).to(dtype)
    if spectrum == "equal columns":
        A = torch.randn(batch, m, n, dtype=dtype)
        A[..., -1] = A[..., 0]
        return A
    r = min(m, n)
    steps = torch.linspace(0, 1, r, dtype=torch.float64)
    sigma = {
        "graded": 10 ** (-steps * torch.rand(batch, 1, dtype=torch.float64) * 16),
        "repeated": torch.ones(batch, r, dtype=torch.float64),
        "rank one": (steps == 0).double().expand(batch, r),
        "tiny last": torch.where(steps < 1, 1.0, 10 ** (-16 * torch.rand(batch, 1, dtype=torch.float64))),
        "zero": torch.zeros(batch, r, dtype=torch.float64),
    }[spectrum]
    return (orthogonal(batch, m, dtype)[..., :r] * sigma[:, None, :]) @ orthogonal(batch, n, dtype)[..., :r].mH


def hermitian(spectrum: str, batch: int, n: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """H of ``sphere_quadratic``, in double precision, with its eigenvalues, ascending, and vectors."""
    s = torch.randn(batch, n, dtype=torch.float64).sort(-1)[0]
    tiny = 10 ** (-16 * torch.rand(batch, dtype=torch.float64))
    if spectrum in ("semidefinite", "definite", "negative"):
        s = s.abs().sort(-1)[0]
    if spectrum == "semidefinite":
        s[:, : (n + 1) // 2] = 0
    if spectrum == "negative":
        s = -s.flip(-1)
    if spectrum == "repeated bottom":
        s[:, : (n + 2) // 2] = s[:, :1]
    if spectrum == "nearly repeated" and n > 1:
        s[:, 1] = s[:, 0] + tiny
        s = s.sort(-1)[0]
    if spectrum == "graded":
        s = 10 ** (-16 * torch.rand(batch, n, dtype=torch.float64)).sort(-1)[0]
    if spectrum == "zero":
        s = torch.zeros_like(s)
    V = orthogonal(batch, n, dtype)
    H = (V * s[:, None, :]) @ V.mH
    return (H + H.mH) / 2, s, V


def right_side(kind: str, s: Tensor, V: Tensor) -> Tensor:
    """The vector g by its coefficients in the eigenvectors, for a sphere of radius one."""
    batch, n = s.shape
    p = torch.randn(batch, n, dtype=V.dtype)
    size = 10 ** (16 * torch.rand(batch, 1, dtype=torch.float64))
    if kind == "zero":
        p = torch.zeros_like(p)
    elif kind == "tiny":
        p = p / size
    elif kind == "huge":
        p = p * size
    elif kind != "random":  # the solution at λ = −λ_min: no part along the bottom, and a length of one at most
        p = p * (torch.arange(n) > 0)
        length = torch.linalg.vector_norm(p, dim=-1, keepdim=True)
        short = torch.rand(batch, 1, dtype=torch.float64) if kind == "hard" else 1 - 1 / size
        p = (s - s[:, :1]) * p / torch.where(length > 0, length, 1) * short
    return (V @ p[..., None])[..., 0]


def least_squares(spectrum: str, right: str, batch: int, m: int, n: int, wide: torch.dtype) -> tuple[Tensor, Tensor]:
    """A and b, in double precision, for a sphere of radius one."""
    A = matrices(spectrum, batch, m, n, wide)
    b = torch.randn(batch, m, dtype=wide)
    if right in ("hard", "edge", "orthogonal"):
        r = min(m, n)
        W, sigma, Vh = torch.linalg.svd(A)
        if right == "orthogonal":
            b = b - (W[..., :r] @ (W[..., :r].mH @ b[..., None]))[..., 0]
            return A, b * 10 ** (8 * torch.rand(batch, 1, dtype=torch.float64))
        s = torch.nn.functional.pad(sigma, (0, n - r)).square().flip(-1)
        g = right_side(right, s, Vh.mH.flip(-1))
        inverse = torch.where(sigma > 1e-12, 1 / sigma, 0)
        return A, (W[..., :r] @ (inverse * (Vh[..., :r, :] @ g[..., None])[..., 0])[..., None])[..., 0]
    return A, b * {"random": 1.0, "zero": 0.0, "tiny": 1e-9, "huge": 1e9}[right]


def make(cell: Cell, batch: int, number: int, seed: int) -> Problem:
    """The items of a cell: as many of each spectrum, each with another right-hand side from cell to cell."""
    torch.manual_seed(seed + number)
    m, n = cell.size
    wide = torch.complex128 if cell.dtype.is_complex else torch.float64
    real = cell.dtype.to_real()
    parts, names = [], []
    for place, spectrum in enumerate(SINGULAR if cell.layer == "less" else SIGNED):
        right = RIGHT[(place + number + seed) % len(RIGHT)]
        if cell.layer == "less":
            parts.append(least_squares(spectrum, right, batch, m, n, wide))
        else:
            H, s, V = hermitian(spectrum, batch, n, wide)
            parts.append((H, right_side(right, s, V)))
        names += [f"{spectrum}, {right}"] * batch
    matrix, vector = (torch.cat(part) for part in zip(*parts, strict=True))
    items = len(matrix)
    radius = 10 ** (6 * torch.rand(items, dtype=torch.float64) - 3)
    scale = torch.tensor(SCALES[real], dtype=torch.float64)[torch.randint(0, 3, (items,))]
    extra = {}
    if cell.option == "weights":
        extra["weights"] = (torch.rand(items, m, dtype=torch.float64) * (torch.rand(items, m) > 0.2)).to(real)
    if cell.option == "free":
        extra["free"] = torch.randn(items, m, 1, dtype=wide).to(cell.dtype)
    vector = (scale * radius)[:, None] * vector
    return Problem((scale[:, None, None] * matrix).to(cell.dtype), vector.to(cell.dtype), radius.to(real), extra, names)


def judge(cell: Cell, problem: Problem) -> Found:
    """Solve the items and count what came out."""
    layer = pmaf.less_ex if cell.layer == "less" else pmaf.sphere_quadratic_ex
    certificate = pmaf.certify if cell.layer == "less" else pmaf.certify_quadratic
    matrix, right, radius, extra, _ = problem
    options = {"radius": radius, "constraint": cell.constraint, **extra}
    solution = layer(matrix, right, solver=cell.solver, **options)
    proof = certificate(matrix, right, solution.u, **options)
    finite = right.isfinite().all(-1) & matrix.isfinite().flatten(-2).all(-1)
    eps = torch.finfo(cell.dtype).eps
    length = torch.linalg.vector_norm(solution.u.to(torch.promote_types(cell.dtype, torch.float64)), dim=-1)
    excess = length / radius.double() - 1
    feasible = (excess if cell.constraint == "ball" else excess.abs()) <= 8 * eps * cell.size[1] ** 0.5
    right_answer = proof.is_global & feasible
    converged = solution.status == Status.CONVERGED
    worst = float((solution.residual[converged] / eps).max()) if converged.any() else 0.0
    refuted = int((finite & (solution.status == Status.NOT_UNIQUE) & ~right_answer).sum())
    return Found(
        Counter(solution.status.tolist()), converged & ~right_answer, refuted, worst, solution.u, solution.status
    )


def exact_excess(cell: Cell, problem: Problem, u: Tensor, item: int) -> float:
    """How far the objective at u is above its minimum, in units of the rounding allowed, with forty digits."""
    with mpmath.workdps(40):
        M = mpmath.matrix(problem.matrix[item].double().tolist())
        y = mpmath.matrix(problem.right[item].double().tolist())
        r = mpmath.mpf(float(problem.radius[item]))
        Q, g = (M.T * M, M.T * y) if cell.layer == "less" else ((M + M.T) / 2, y)
        s, V = mpmath.eigsy(Q)
        n, gamma = Q.rows, V.T * g
        norm = max(abs(x) for x in s)
        size = mpmath.norm(g) if cell.layer != "less" else mpmath.sqrt(norm) * mpmath.norm(y)

        def point(t: mpmath.mpf) -> list[mpmath.mpf]:
            return [gamma[i] / (s[i] - s[0] + t) if s[i] - s[0] + t > 0 else mpmath.mpf(0) for i in range(n)]

        least = max(mpmath.mpf(0), s[0]) if cell.constraint == "ball" else mpmath.mpf(0)
        tiny = (norm + size / r) * mpmath.mpf(10) ** -36
        low, high = least + tiny, least + tiny + mpmath.norm(g) / r
        for _ in range(140):
            middle = (low + high) / 2
            low, high = (middle, high) if mpmath.norm(point(middle)) > r else (low, middle)
        p = point(high)
        multiplier = high - s[0]
        dual = -sum(gamma[i] * p[i] for i in range(n)) / 2 - multiplier * r**2 / 2
        v = V.T * mpmath.matrix(u[item].double().tolist())
        value = sum(s[i] * v[i] ** 2 / 2 - gamma[i] * v[i] for i in range(n))
        tau = 32 * torch.finfo(cell.dtype).eps * (max(cell.size) + 8) ** 0.5
        allowed = 5 * tau * (norm * r + size) * r
        return float((value - dual) / allowed) if allowed > 0 else 0.0


def main() -> int:
    """Run, print a summary, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=100_000, help="how many items in all, about")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--exact", type=int, default=500, help="how many are judged with forty digits")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    every = list(cells())
    batch = max(1, round(options.items / len(every) / len(SIGNED)))
    rows: dict[tuple[str, ...], Counter[str]] = {}
    worst: dict[tuple[str, ...], float] = {}
    kinds: Counter[str] = Counter()
    begin, exact, above = time.perf_counter(), 0, 0.0
    for number, cell in enumerate(every):
        problem = make(cell, batch, number, options.seed)
        found = judge(cell, problem)
        items = len(problem.names)
        kind = str(cell.dtype).removeprefix("torch.")
        key = (cell.layer, cell.constraint, cell.solver or "default", kind, cell.option or "plain")
        row = rows.setdefault(key, Counter())
        row.update({Status(code).name: count for code, count in found.statuses.items()})
        row.update({"items": items, "silent": int(found.silent.sum()), "refuted_not_unique": found.refuted})
        worst[key] = max(worst.get(key, 0.0), found.worst)
        for item in found.silent.nonzero()[:, 0].tolist():
            kinds[problem.names[item]] += 1
            print("silent:", problem.names[item], "item", item, "of cell", number, cell, flush=True)
        if cell.dtype.is_complex or cell.option or cell.size[1] > 5:
            continue
        for item in torch.randperm(items)[: max(1, options.exact // 100)].tolist():
            if int(found.status[item]) in (Status.CONVERGED, Status.NOT_UNIQUE):
                exact += 1
                excess = exact_excess(cell, problem, found.u, item)
                above = max(above, excess)
                if excess > 1:
                    kinds[problem.names[item]] += 1
                    print("above the minimum:", excess, problem.names[item], "item", item, "of cell", number, cell)
    columns = (
        "items",
        "CONVERGED",
        "NOT_UNIQUE",
        "MAX_STEPS",
        "NON_FINITE",
        "NOT_GLOBAL",
        "silent",
        "refuted_not_unique",
    )
    options.out.parent.mkdir(exist_ok=True)
    with options.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        names = ("layer", "constraint", "solver", "dtype", "option")
        writer.writerow((*names, *(name.lower() for name in columns), "worst_residual_eps"))
        for key, row in rows.items():
            writer.writerow((*key, *(row[name] for name in columns), f"{worst[key]:.3g}"))
    total: Counter[str] = sum(rows.values(), Counter())
    print(f"{total['items']} items, {len(every)} cells, {time.perf_counter() - begin:.0f} s: {dict(total)}")
    print(f"{exact} with forty digits: at most {above:.3g} of the rounding allowed above the minimum")
    print("failures by kind:", dict(kinds))
    return int(bool(kinds))


if __name__ == "__main__":
    raise SystemExit(main())
