r"""Fewer rows with the same Gram matrix, the same ones on every rank.

The rows of M = [A C b], weighted, lie on several ranks, Mᵢ on rank i. What a layer returns depends on MᴴM alone, so any
S with SᴴS = MᴴM will do, and S = QᴴM with orthonormal columns Q is as good as M to the last digit. Two ways to one:

1. Cholesky: S = R with RᴴR = G = Σᵢ MᵢᴴMᵢ, one all-reduce of the upper triangle of G. Squaring costs digits where M,
   its columns scaled to one length, is ill-conditioned: relative to what a QR decomposition of M leaves, the condition
   number. G is formed in double precision; whether its factor is good enough is seen from ‖R⁻¹‖.
2. Where it is not: Mᵢ = QᵢRᵢ on each rank, an all-gather of the triangles Rᵢ, and one more decomposition of these,
   stacked.

Derivatives. A function f of S that does not change when S is multiplied by a unitary matrix from the left has ∂f/∂S =
S N with N = 2 ∂f/∂G. In the first way they go through R and G by autograd, to any order. In the second, ∂f/∂M = M N =
Q S N = Q ∂f/∂S: as if Q were constant; but only the first derivative is.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from pmaf.sharded.collectives import Groups, gathered, reduce, total

__all__ = ["MAX", "Condensed", "condensed", "defect"]

FINE = {torch.float64: 1e2, torch.float32: 1e8}  # mean of the eigenvalues of G⁻¹, columns of length one, up to which
NEGATIVE, UNSAFE = 2, 1
MAX: Any = torch.distributed.ReduceOp.MAX


class Condensed(NamedTuple):
    """Rows of all ranks, replaced by fewer."""

    S: Tensor  # (*, s, N), the same on every rank
    Q: Tensor  # (*, mᵢ, s), this rank's part of M = Q S, or empty; no gradient flows through it


class Triangle:
    """The upper triangle of Hermitian matrices of one order as vectors."""

    def __init__(self, order: int, device: torch.device) -> None:
        self.order = order
        i, j = torch.triu_indices(order, order, device=device)
        self.places = i * order + j
        index = torch.empty(order, order, dtype=torch.int64, device=device)
        index[i, j] = index[j, i] = torch.arange(len(i), device=device)
        self.index, self.below = index.flatten(), torch.ones_like(index, dtype=torch.bool).tril(-1)

    def pack(self, G: Tensor) -> Tensor:
        """The entries on and above the diagonal, ``(*, N(N + 1)/2)``."""
        return G.flatten(-2).index_select(-1, self.places)

    def unpack(self, entries: Tensor) -> Tensor:
        """The matrices, ``(*, N, N)``."""
        G = entries.index_select(-1, self.index).unflatten(-1, (self.order, self.order))
        return torch.where(self.below, G.conj(), G) if G.is_complex() else G


def condensed(
    function: str,
    M: Tensor,
    weights: Tensor | None,
    lead: int,
    m: int,
    groups: Groups,
    kind: torch.dtype,
    left: bool,
) -> Condensed:
    """Fewer rows with the same Gram matrix.

    Args:
        function: the public function, for messages.
        M: this rank's rows, in double precision, ``(*, mᵢ, N)``.
        weights: of these rows, ``(*, mᵢ)``.
        lead: how many columns have to be independent for the first way: all, but for a right-hand side.
        m: the rows of all ranks.
        groups: the ranks.
        kind: the type of the data, real, which says how much squaring may cost.
        left: whether Q is needed; all columns have to be independent then.

    Returns:
        S and Q.

    Raises:
        ValueError: if a weight is negative on some rank.
    """
    batch, N = M.shape[:-2], M.shape[-1]
    negative = weights is not None and bool((weights < 0).any())
    if m < lead or N == 0:
        refuse_negative(function, int(reduce(torch.tensor(NEGATIVE * negative, device=M.device), groups, MAX)))
        return by_reflectors(M, weights, m, groups)
    triangle = Triangle(N, M.device)
    weighted = M if weights is None else weights[..., None] * M
    (entries,) = total(groups, triangle.pack(M.mH @ weighted))
    G = triangle.unpack(entries)
    bad = torch.where(good_enough(G.detach()[..., :lead, :lead], FINE[kind]), 0, UNSAFE)
    agreed = reduce(torch.where(torch.tensor(negative, device=bad.device), NEGATIVE, bad), groups, MAX)
    refuse_negative(function, int(agreed.amax()) if agreed.numel() else 0)
    bad = agreed == UNSAFE
    some = bool(bad.any())
    eye = torch.eye(N, dtype=G.dtype, device=G.device)
    S = by_cholesky(torch.where(bad[..., None, None], eye, G) if some else G, lead)
    Q = orthonormal_rows(M.detach(), weights, S.detach()) if left else M.detach()[..., :0]
    if not some:
        return Condensed(S, Q)
    at = bad.flatten().nonzero()[:, 0]
    w = None if weights is None else weights.expand(*batch, -1).reshape(-1, weights.shape[-1])[at]
    better = by_reflectors(M.reshape(-1, *M.shape[-2:])[at], w, m, groups)
    short = N - better.S.shape[-2]
    S = put(S, at, torch.nn.functional.pad(better.S, (0, 0, 0, short)))
    return Condensed(S, put(Q, at, torch.nn.functional.pad(better.Q, (0, short))) if left else Q)


def put(x: Tensor, at: Tensor, items: Tensor) -> Tensor:
    """Matrices of which some are replaced by others."""
    return x.reshape(-1, *x.shape[-2:]).index_copy(0, at, items).reshape(x.shape)


def orthonormal_rows(M: Tensor, weights: Tensor | None, R: Tensor) -> Tensor:
    """M R⁻¹, the rows of M weighted."""
    rows = M if weights is None else weights.detach().sqrt()[..., None] * M
    Q: Tensor = torch.linalg.solve_triangular(R, rows, upper=True, left=False)
    return Q


def refuse_negative(function: str, agreed: int) -> None:
    """Say on every rank that a weight on some rank is negative.

    Raises:
        ValueError: if one is.
    """
    if agreed == NEGATIVE:
        raise ValueError(f"pmaf.{function}: weights must be non-negative, but are not on some rank")


def good_enough(G: Tensor, limit: float) -> Tensor:
    """Whether the Cholesky factor of G, its columns scaled to one length, is far enough from singular, ``(*,)``."""
    size = G.diagonal(dim1=-2, dim2=-1).real
    info = torch.finfo(size.dtype)
    fine = ((size > info.tiny / info.eps**2) & (size < info.max * info.eps)).all(-1) & G.isfinite().flatten(-2).all(-1)
    root = torch.where(fine[..., None], size, 1).sqrt()
    eye = torch.eye(G.shape[-1], dtype=G.dtype, device=G.device)
    scaled = torch.where(fine[..., None, None], G / root[..., None, :] / root[..., :, None], eye)
    L, failed = torch.linalg.cholesky_ex(scaled)
    fine = fine & (failed == 0)
    inverse = torch.linalg.solve_triangular(torch.where(fine[..., None, None], L, eye), eye, upper=False)
    safe: Tensor = fine & (inverse.abs().square().sum((-2, -1)) <= limit * G.shape[-1])
    return safe


def by_cholesky(G: Tensor, lead: int) -> Tensor:
    """R with RᴴR = G; of the last column, if it is beyond the leading ones, only what they do not explain is rounded.

    That is a number on which no minimiser depends, and has no gradient.
    """
    L: Tensor = torch.linalg.cholesky(G[..., :lead, :lead])
    if lead == G.shape[-1]:
        return L.mH
    c = torch.linalg.solve_triangular(L, G[..., :lead, lead:], upper=False)
    explained = c.detach().abs().square().sum(-2, keepdim=True)
    rest = (G.detach()[..., lead:, lead:].real - explained).clamp_min(0).sqrt().to(G.dtype)
    return torch.cat((torch.cat((L.mH, c), -1), torch.cat((torch.zeros_like(c).mT, rest), -1)), -2)


def by_reflectors(M: Tensor, weights: Tensor | None, m: int, groups: Groups) -> Condensed:
    """The R factor of those of all ranks, stacked: as many rows as columns, or as there are rows at all."""
    found: tuple[Tensor, Tensor] = Reflected.apply(M, weights, m, groups)  # type: ignore[no-untyped-call]
    return Condensed(*found)


class Reflected(torch.autograd.Function):
    """S = QᴴM, from QR decompositions."""

    @staticmethod
    def forward(ctx: Any, M: Tensor, weights: Tensor | None, m: int, groups: Groups) -> Any:
        """Decompose, gather, decompose."""
        Q, S = torch.linalg.qr(M if weights is None else weights.sqrt()[..., None] * M)
        for group in groups:
            heights = [int(h) for h in gathered(torch.tensor([S.shape[-2]], device=M.device), group)]
            most, before = max(heights), sum(heights[: torch.distributed.get_rank(group)])
            i, j = torch.triu_indices(most, M.shape[-1], device=M.device)
            parts = []
            for entries, h in zip(
                gathered(torch.nn.functional.pad(S, (0, 0, 0, most - S.shape[-2]))[..., i, j], group),
                heights,
                strict=True,
            ):
                R = entries.new_zeros(*M.shape[:-2], most, M.shape[-1])
                R[..., i, j] = entries
                parts.append(R[..., :h, :])
            own = slice(before, before + S.shape[-2])
            Q2, S = torch.linalg.qr(torch.cat(parts, -2))
            Q = Q @ Q2[..., own, :]
        ctx.mark_non_differentiable(Q)
        ctx.save_for_backward(M, weights, Q, S)
        return S, Q

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor, _: Any) -> Any:
        """Q times the cotangent; of a row of weight zero by way of N = S⁺∂f/∂S."""
        M, weights, Q, S = ctx.saved_tensors
        moved = Q @ cotangent
        if weights is None:
            return once(moved, M, cotangent), None, None, None
        root = weights.sqrt()
        alone = torch.where(root > 0, 0.5 / torch.where(root > 0, root, 1), 0)[..., None] * moved
        if bool((root == 0).any()):
            full = M @ (torch.linalg.pinv(S) @ cotangent) / 2
            alone = torch.where((root == 0)[..., None], full, alone)
        of_weights = (M.conj() * alone).sum(-1).real.sum_to_size(weights.shape)
        return once(root[..., None] * moved, M, cotangent), once(of_weights, M, cotangent), None, None


class Once(torch.autograd.Function):
    """A derivative that has none itself."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *depends: Tensor) -> Tensor:
        """The value."""
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        """Refuse.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(
            "pmaf: rows on several ranks whose matrix is ill-conditioned have a first derivative only; for a second "
            "one scale the columns, or bring all rows together with .redistribute"
        )


def once(x: Tensor, *depends: Tensor) -> Tensor:
    """A value that depends on others in a way that is not known."""
    with torch.no_grad():
        x = x.detach()
    found: Tensor = Once.apply(x, *depends)  # type: ignore[no-untyped-call]
    return found


def defect(M: Tensor, weights: Tensor | None, S: Tensor, y: Tensor, groups: Groups) -> Tensor:
    """MᴴM y − SᴴS y, measured on the rows themselves, ``(*, N, k)``; one all-reduce of k vectors a problem."""
    with torch.no_grad():
        image = M @ y
        image = image if weights is None else weights[..., None] * image
        return reduce(M.mH @ image, groups) - S.mH @ (S @ y)
