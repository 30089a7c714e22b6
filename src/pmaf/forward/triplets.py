r"""Singular triplets without autograd: solve, measure, and give every item its status.

Of A, or of Aᴴ where A is wide, so that m ≥ n. Where the wanted singular values are of the order of the largest, they
come from eigenpairs of AᴴA, formed in double precision: u = A v/σ then has all its digits. Squaring loses those of
small ones, which come from a singular value decomposition of A, or of R where A = Q R is tall. Nothing of size m² is
formed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pmaf.forward.custom_ops import encode, fresh, register, with_start
from pmaf.forward.eigen import EigenForward
from pmaf.handover import ForwardResult, Report, TripletAux
from pmaf.linalg.batched import narrow_adjoint, narrow_product
from pmaf.linalg.dtypes import double
from pmaf.linalg.scaling import divisor
from pmaf.linalg.tolerances import relative_tolerance
from pmaf.operators.dense import Dense
from pmaf.solution import Status
from pmaf.solvers.base import EigenSolver
from pmaf.transforms import anywhere, cheap, compiling, one_node, recorded

__all__ = ["TripletForward", "upright"]

SAFE = 0.1  # wanted singular values above this share of the largest have all digits in the Gram matrix
TALL = 1.5  # rows for each column from which A = Q R comes first
ROWS = 8192  # of A that are brought to double precision at a time


def upright(A: Tensor) -> Tensor:
    """A, or Aᴴ where A has more columns than rows."""
    return A if A.shape[-2] >= A.shape[-1] else A.mH


@dataclass(frozen=True)
class TripletForward:
    """The forward pass as a function of A alone."""

    k: int
    largest: bool
    solver: EigenSolver | None  # of the Gram matrix; None where there is to be none
    start: Tensor | None
    rtol: float | None
    atol: float

    def __call__(self, A: Tensor) -> ForwardResult:
        """Run, as one opaque node while a graph is traced.

        Args:
            A: ``(*, m, n)``.

        Returns:
            What :meth:`run` returns.
        """
        if not compiling():
            return self.run(A)
        return ForwardResult.of(tuple(torch.ops.pmaf.singular_triplets(A, self.start, encode(self))), 2, TripletAux)

    def run(self, A: Tensor) -> ForwardResult:
        """Solve, measure, and give every item its status.

        Args:
            A: ``(*, m, n)``.

        Returns:
            The solution Z = (U; V)/√2 and S, what is left for derivatives, and the report.
        """
        T = upright(A)
        found = self.from_gram(T) if self.solver is not None and not recorded(A) and cheap(A) and A.numel() else None
        left, S, right, following, aux, residual, steps = found or self.decomposed(T)
        norm = aux.norm
        rtol = relative_tolerance(self.rtol, A.dtype, min(A.shape[-2:]))
        tolerance = (rtol * norm + self.atol)[..., None]
        steps_apart = (S - torch.cat((S[..., 1:], following[..., None]), -1)).abs()
        lowest = S[..., -1:] if self.largest else S[..., :1]
        degenerate = (steps_apart <= tolerance).any(-1) | (lowest <= tolerance)[..., 0]
        failed = ~(residual < torch.inf)  # which NaN in A reaches
        degenerate = degenerate & ~failed
        status = torch.where(degenerate, int(Status.NOT_UNIQUE), steps * 0)
        gap = steps_apart[..., -1].clone()
        if anywhere(failed):
            status = torch.where(failed, Status.NON_FINITE, status)
            S, gap = torch.where(failed[..., None], torch.nan, S), torch.where(failed, torch.nan, gap)
            left, right = (torch.where(failed[..., None, None], torch.nan, x) for x in (left, right))
        U, V = (left, right) if T is A else (right, left)
        Z = torch.cat((U, V), -2) * 0.5**0.5
        aux = aux._replace(failed=failed, degenerate=degenerate, eigenvalues=S.detach().clone())
        S = S.clone(memory_format=torch.contiguous_format)  # no view may leave
        return ForwardResult((Z, S), aux, Report(status, steps, residual, gap))

    def from_gram(self, T: Tensor) -> Any:
        """Triplets from the Gram matrix; ``None`` where it does not tell all of them to full precision."""
        solver: Any = self.solver
        G = gram(T)
        shell = Dense(G[..., :0, :0], exact=True).structure()
        start = None if self.start is None else self.start.to(G.dtype)
        forward = EigenForward(shell, self.k, self.largest, solver, start, 0.0, 0.0, False)
        (V, squares), aux, told = forward.run(G)
        size = aux.norm if aux.spectrum.shape[-1] == 0 else aux.spectrum.abs().amax(-1)
        lowest = squares[..., -1] if self.largest else squares[..., 0]
        rtol = relative_tolerance(self.rtol, T.dtype, min(T.shape[-2:]))
        S = squares.clamp_min(0).sqrt()
        following = torch.where(aux.following.isfinite(), aux.following.clamp_min(0).sqrt(), aux.following)
        if self.k == T.shape[-1]:
            following = torch.full_like(following, -torch.inf if self.largest else torch.inf)
        apart = (S - torch.cat((S[..., 1:], following[..., None]), -1)).abs().amin(-1)
        sound = told.status.eq(Status.CONVERGED) & (lowest > SAFE**2 * size)
        if not bool((sound & (apart > rtol * size.sqrt() + self.atol)).all()):
            return None
        real = T.real.dtype
        right = V.to(T.dtype)
        image = narrow_product(T, right)
        length = torch.linalg.vector_norm(image, dim=-2, keepdim=True)
        left = image / length
        # T v is length·u by construction, and Tᴴu = G v/length.
        there = (length[..., 0, :] - S).abs().amax(-1)
        back = torch.linalg.vector_norm(G @ V / length - V * S[..., None, :], dim=-2).amax(-1)
        residual = (torch.maximum(there, back) / size.sqrt()).to(real)
        none = T.new_zeros(*T.shape[:-2], 0, 0)
        kept = TripletAux(
            aux.failed,
            aux.degenerate,
            S.to(real),
            S[..., :0].to(real),
            none,
            none,
            size.sqrt().to(real),
            G,
            V,
            squares,
            aux.spectrum,
            aux.V,
            aux.factor,
        )
        return left, S.to(real), right, following.to(real), kept, residual, told.steps

    def decomposed(self, T: Tensor) -> Any:
        """Triplets from a whole decomposition."""
        m, n = T.shape[-2:]
        finite = T.detach().isfinite().flatten(-2).all(-1)
        T = torch.where(finite[..., None, None], T, 0) if anywhere(~finite) else T
        if m > TALL * n:
            Q, R = torch.linalg.qr(T)
            left, S, Vh = torch.linalg.svd(R, full_matrices=False)
            left = Q @ left
        else:
            left, S, Vh = torch.linalg.svd(T, full_matrices=False)
        right, k = Vh.mH, self.k
        wanted = slice(0, k) if self.largest else slice(n - k, n)
        chosen = [left[..., wanted], S[..., wanted], right[..., wanted]]
        if not self.largest:
            chosen = [x.flip(-1) for x in chosen]
        if k == n:
            following = torch.full_like(S[..., 0], -torch.inf if self.largest else torch.inf)
        else:
            following = S[..., k] if self.largest else S[..., n - k - 1]
        wide = double(T.dtype)
        none = T.new_zeros(*T.shape[:-2], 0, 0, dtype=wide)
        few = T.new_zeros(*T.shape[:-2], 0, dtype=none.real.dtype)
        batch = T.shape[:-2]
        off = torch.zeros(batch, dtype=torch.bool, device=T.device)
        parts = (S, left, right, S.amax(-1))
        parts = tuple(x.detach().clone(memory_format=torch.contiguous_format) for x in parts)
        empty = (none, none.clone(), few, few.clone(), none.clone(), none.clone())
        kept = TripletAux(off, off.clone(), S[..., :k].detach(), *parts, *empty)
        steps = torch.ones(batch, dtype=torch.int64, device=T.device)
        residual = measured(T, chosen[0], chosen[1], chosen[2], S.detach().amax(-1))
        return *chosen, following, kept, torch.where(finite, residual, torch.nan), steps


def gram(T: Tensor) -> Tensor:
    """TᴴT in double precision, ``(*, n, n)``."""
    wide = double(T.dtype)
    if T.dtype == wide:
        return T.mH @ T
    total = torch.zeros((), dtype=wide, device=T.device)
    for rows in T.split(ROWS, -2):
        rows = rows.to(wide)
        total = total + rows.mH @ rows
    return total


def measured(T: Tensor, left: Tensor, S: Tensor, right: Tensor, norm: Tensor) -> Tensor:
    """The largest ‖T v − σu‖ and ‖Tᴴu − σv‖ of each item, relative to the largest singular value, ``(*,)``."""
    values = S[..., None, :]
    there = torch.linalg.vector_norm(narrow_product(T, right) - left * values, dim=-2).amax(-1)
    back = torch.linalg.vector_norm(narrow_adjoint(T, left) - right * values, dim=-2).amax(-1)
    return torch.maximum(there, back) / divisor(norm)


register(TripletForward)


@one_node("pmaf::singular_triplets")
def singular_triplets(A: Tensor, start: Tensor | None, settings: str) -> list[Tensor]:
    """The forward pass of singular triplets."""
    forward: Any = with_start(settings, start)
    return fresh(forward.run(A).flat())


@singular_triplets.register_fake
def _(A: Tensor, start: Tensor | None, settings: str) -> list[Tensor]:
    k: int = with_start(settings, start).k
    T = upright(A)
    batch, (m, n) = T.shape[:-2], T.shape[-2:]
    real, wide = A.real.dtype, double(A.dtype)
    few = double(real)

    def of(*shape: Any, dtype: torch.dtype = real) -> Tensor:
        return A.new_empty((*batch, *shape), dtype=dtype)

    return [
        of(m + n, k, dtype=A.dtype),
        of(k),
        of(dtype=torch.bool),
        of(dtype=torch.bool),
        of(k),
        of(n),
        of(m, n, dtype=A.dtype),
        of(n, n, dtype=A.dtype),
        of(),
        of(0, 0, dtype=wide),
        of(0, 0, dtype=wide),
        of(0, dtype=few),
        of(0, dtype=few),
        of(0, 0, dtype=wide),
        of(0, 0, dtype=wide),
        of(dtype=torch.int64),
        of(dtype=torch.int64),
        of(),
        of(),
    ]
