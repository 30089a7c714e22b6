r"""Eigenpairs of a sparse pencil, X u = λ B u, at an end of the spectrum or next to a number."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pmaf.linalg.metric_krylov import MetricSpace, orthonormal_in
from pmaf.linalg.sparse_factor import SparseFactor, SparsePencil
from pmaf.linalg.vectors import random_block
from pmaf.operators.sparse import Sparse
from pmaf.solvers.eigen.nearest import Nearest
from pmaf.solvers.eigen.subspace import NEAR, default_rtol

__all__ = ["PencilAnswer", "pencil_of", "solve_pencil"]

GOAL = 10 * default_rtol(torch.float64)  # of (‖X‖ + |λ|‖B‖)‖u‖: the residual of a pair that is found
BLOCKS = 40  # that a space may hold until it begins anew
SURE = 1e-7  # of the first vector left out: its value is known to the square of it
ROUNDS = 6  # spaces
FAR, CLOSE = 10.0, 1e-2  # times the spread of the wanted values: how far and how near σ may lie
TOUCH = 1e-9  # of ‖X‖/‖B‖: how near σ may be to a value in any case
STEPS = (
    1e-6,
    1e-3,
    0.1,
    1.0,
    3.0,
    10.0,
    100.0,
    1e3,
    1e5,
    1e7,
    1e9,
)  # of ‖X‖/‖B‖: how far below zero σ is put, until it is below all values


class PencilAnswer(NamedTuple):
    """What was found, in double precision."""

    values: Tensor  # (k,)
    U: Tensor  # (n, k), UᴴBU = I
    finished: bool
    gap: float  # of the last to the next; NaN where it is not proved that none is missing
    residual: float
    steps: int
    factor: SparseFactor | None


def pencil_of(X: Sparse, B: Sparse) -> SparsePencil:
    """Both matrices for SciPy."""
    return SparsePencil(
        (*X.pattern.compressed, X.tensors[0]), (*B.pattern.compressed, B.tensors[0]), (X.symmetric(), B.symmetric())
    )


def solve_pencil(X: Sparse, B: Sparse, k: int, largest: bool, near: float | None, start: Tensor | None) -> PencilAnswer:
    """The k smallest (largest) pairs, or the k nearest to a number, in order.

    Args:
        X: in double precision, finite.
        B: in double precision, positive definite.
        k: how many.
        largest: of the algebraically largest values; without a meaning where ``near`` is given.
        near: σ.
        start: first guesses, ``(n, p)``.

    Returns:
        The pairs.
    """
    sign = -1.0 if largest and near is None else 1.0
    n, scale = X.n, X.size / (B.size or 1.0) or 1.0
    pencil = pencil_of(X, B)
    noise = random_block(n, k + 1, X.dtype, X.device)
    block = noise[:, : min(k + 1, 3)]
    if start is not None:
        block = torch.cat((start.to(X.dtype).reshape(n, -1)[:, :k], noise[:, -1:]), -1)
    factor, steps = first_factor(pencil, sign, scale, near), 0
    if factor is None:
        nothing = noise[0, :k].real * torch.nan
        return PencilAnswer(nothing, noise[:, :k] * torch.nan, False, float("nan"), float("nan"), 0, None)
    values, U, found, gap, residual = noise[0, :k].real, noise[:, :k], False, float("nan"), float("inf")
    for _ in range(ROUNDS):
        values, U, found, residual, used = in_space(X, B, sign, factor, block, k, near)
        steps += used
        nearer = better(pencil, factor, sign, values, near, scale, found)
        if nearer is not None:
            factor, block = nearer, torch.cat((U, noise[:, -1:]), -1)
            continue
        if not found:
            block = torch.cat((U, noise.roll(steps, 0)[:, -1:]), -1)
            continue
        missing, gap = counted(pencil, sign, values, k, near, GOAL * scale)
        if missing <= 0:
            break
        block = torch.cat((U[:, :k], noise.roll(steps, 0)[:, : min(missing, k) + 1]), -1)
        gap, found = float("nan"), False
    values, U = sign * values[:k], U[:, :k]
    if near is not None:  # of equal distance the larger first
        order = Nearest(shift=near).order(values)
        values, U = values[order], U[:, order]
    return PencilAnswer(values, U, found, gap, residual, steps, factor)


def first_factor(pencil: SparsePencil, sign: float, scale: float, near: float | None) -> SparseFactor | None:
    """Factors of ±X − σB: σ the number, moved a little if it is an eigenvalue, or below all eigenvalues."""
    if near is not None:
        moved = (near, *(near + t * max(abs(near), scale) for t in (1e-10, 1e-8)))
        return next((f for f in (pencil.factor(1.0, shift) for shift in moved) if f is not None), None)
    tried = (pencil.factor(sign, -t * scale) for t in STEPS)
    return next((f for f in tried if f is not None and f.count() == 0), None)


def in_space(
    X: Sparse, B: Sparse, sign: float, factor: SparseFactor, block: Tensor, k: int, near: float | None
) -> tuple[Tensor, Tensor, bool, float, int]:
    """The k + 1 pairs of ±X first in order that a space of (±X − σB)⁻¹B holds.

    Returns:
        Values of ±X and vectors, whether they are found, the largest residual of the k, and how many solves there were.
    """
    space = MetricSpace(lambda V: factor.solve(B.matmat(V)), B.matmat, orthonormal_in(B.matmat, block)[0])
    wanted, size_X, size_B = min(k + 1, X.n), X.size, B.size
    values, U, worst, step, met = block[0, :k].real, block[:, :k], float("inf"), 0, False
    for step in range(1, BLOCKS + 1 + 2 * k):
        space.extend()
        last = space.ahead.shape[-1] == 0 or step == BLOCKS + 2 * k
        if space.V.shape[-1] < wanted and not last:
            continue
        t, S = torch.linalg.eigh((space.H + space.H.mH) / 2)
        mu = factor.shift + 1 / torch.where(t.abs() > 0, t, torch.finfo(t.dtype).tiny)
        if near is not None:
            order = (mu - near).abs().argsort()[:wanted]
        else:  # all that counts lies above σ
            order = torch.where(t > 0, mu, torch.inf).argsort()[:wanted]
        p = space.ahead.shape[-1]
        Q = S[:, order]
        tail = space.coupling @ Q[-space.coupling.shape[-1] :] if p else Q[:0]
        size = torch.linalg.vector_norm(tail, dim=0) / t[order].abs()  # relative change of the vector in a solve
        if last or bool((size[:k] <= 1e-9).all()):
            U = space.V @ Q + (space.ahead @ (tail / t[order]) if p else 0)
            U = U / (U.conj() * B.matmat(U)).sum(0).real.sqrt()
            image, weight = sign * X.matmat(U), B.matmat(U)
            values = (U.conj() * image).sum(0).real
            misfit = torch.linalg.vector_norm(image - weight * values, dim=0)
            relative = misfit / ((size_X + values.abs() * size_B) * torch.linalg.vector_norm(U, dim=0))
            worst = float(relative[:k].amax())
            known = len(values) <= k or bool(size[k] <= SURE)
            met = worst <= GOAL and known and len(values) >= k
        if met or last:
            break
    if met:
        U = orthogonal_inside(U, B, k)
    return values, U, met, worst, step


def orthogonal_inside(U: Tensor, B: Sparse, k: int) -> Tensor:
    """The first k vectors, orthonormal in B to rounding, which values that lie close together need."""
    first = U[:, :k]
    gram = first.mH @ B.matmat(first)
    first = torch.linalg.solve_triangular(torch.linalg.cholesky(gram).mH, first, upper=True, left=False)
    return torch.cat((first, U[:, k:]), -1)


def better(
    pencil: SparsePencil,
    factor: SparseFactor,
    sign: float,
    values: Tensor,
    near: float | None,
    scale: float,
    found: bool,
) -> SparseFactor | None:
    """Factors with a better σ, where it is too far from the wanted values or too close, beside their spread."""
    if near is not None:
        away = (values - factor.shift).abs()
        far = max(float(away.max()), 1e-6 * scale)
        drowned = not found if factor.shift == near else float(away.min()) <= min(CLOSE * far, TOUCH * scale)
        return pencil.factor(1.0, near + 0.03 * far) if drowned else None
    spread, distance = float(values[-1] - values[0]), float(values[0]) - factor.shift
    if distance > FAR * spread:
        shift = float(values[0]) - max(spread, 0.02 * distance)
    elif distance < CLOSE * spread:
        shift = float(values[0]) - spread / FAR
    else:
        return None
    nearer = pencil.factor(sign, shift)
    return nearer if nearer is not None and nearer.count() == 0 else None


def counted(
    pencil: SparsePencil, sign: float, values: Tensor, k: int, near: float | None, tolerance: float
) -> tuple[int, float]:
    """How many are missing among the first k, by Sylvester's law, and the gap; NaN where it is not known."""
    if len(values) <= k:
        return 0, float("inf")
    at = 0.0 if near is None else near
    distance = (values - at).abs() if near is not None else values
    gap = float(distance[k] - distance[k - 1])
    if not gap > tolerance:
        return 0, abs(gap)
    reach = float(distance[k]) - NEAR * gap
    ends = (reach,) if near is None else (at - reach, at + reach)
    counts: list[int] = []
    for tau in ends:
        factor = pencil.factor(sign, tau)
        if factor is None or factor.count() < 0 or not factor.margin < NEAR * gap * pencil.lightest:
            return 0, float("nan")
        counts.append(factor.count())
    number = counts[0] if near is None else counts[1] - counts[0]
    return number - k, (gap if number == k else float("nan"))
