"""The short way of ``ied(X, metric=B)``: two dense matrices on the CPU, from the door to the kernel.

What it applies to, and who takes the rest, is as in :mod:`pmaf.layers.direct`; moreover every metric has to be positive
definite. The derivatives are those of :mod:`pmaf.implicit.generalised` where every answer is unique.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from pmaf.checks.symmetry import asymmetry_allowed
from pmaf.forward.generalised import residual
from pmaf.handover import GeneralisedAux, Report
from pmaf.implicit.autograd import run_solve
from pmaf.implicit.generalised import GeneralisedEquations
from pmaf.kernels import available
from pmaf.kernels.eigenpairs import Eigenpairs, eigen_solve, eigenpairs
from pmaf.kernels.generalised import reduction
from pmaf.kernels.quick import KINDS
from pmaf.layers.direct import PLAIN, POLICIES, SKEW, tolerance
from pmaf.layers.gauge import decided_phase
from pmaf.linalg.reduction import forth, towards
from pmaf.operators.dense import Dense
from pmaf.solution import IEDSolution
from pmaf.solvers.eigen.tridiagonal import Tridiagonal
from pmaf.transforms import follows_nothing, mapped_the_older_way, no_autocast, open_to_kernels, recorded

__all__ = ["direct_generalised"]

OTHERS = ("reference", "near", "start", "solver", "backward")
EQUATIONS = {
    largest: GeneralisedEquations("drop", Dense(torch.empty(0, 0), exact=True).structure(), largest)
    for largest in (False, True)
}


class Pairs(NamedTuple):
    """Eigenpairs of X u = λ B u, and what is left of the reduced problem, whose vectors are turned alike."""

    U: Tensor  # (*, n, k)
    L: Tensor  # (*, n, n)
    reduced: Tensor  # (*, n, n) L⁻¹XL⁻ᴴ
    found: Eigenpairs  # of it


class DirectGeneralised(torch.autograd.Function):
    """Generalised eigenpairs that are already there, as a function of X and B."""

    @staticmethod
    def forward(ctx: Any, X: Tensor, B: Tensor, pairs: Pairs, largest: bool) -> Any:
        """Hand the solution over, and keep what the kernel left."""
        U, L, reduced, found = pairs
        ctx.largest = largest
        ctx.save_for_backward(X, B, U, L, reduced, *found[:-1])
        ctx.set_materialize_grads(False)
        return U, found.values

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        """The kernel where no further derivative is asked for, else the equations."""
        X, B, U, L, reduced, *left = ctx.saved_tensors
        found, needs = Eigenpairs._make((*left, 0)), ctx.needs_input_grad[:2]
        given = [c for c in cotangents if c is not None]
        with no_autocast(U):
            if not torch.is_grad_enabled() and follows_nothing() and not any(map(mapped_the_older_way, given)):
                W, mu = solved(Pairs(U, L, reduced, found), cotangents[0], cotangents[1], ctx.largest)
                by_X = outer(W, U) if needs[0] else None
                by_B = outer(-(W * found.values[..., None, :] + U * (mu / 2)[..., None, :]), U) if needs[1] else None
                return by_X, by_B, None, None
            batch, empty = X.shape[:-2], found.values.detach()[..., :0]
            none = torch.zeros(batch, dtype=torch.bool)
            aux = GeneralisedAux(
                *(none, none, found.values.detach(), empty, empty[..., None].mT[..., :0], found.next, found.norm),
                *(found.factor, L, reduced),
            )
            equations: Any = EQUATIONS[ctx.largest]
            by_both = equations.gradient((X, B), (U, found.values), aux, cotangents, needs, run_solve)
        return *by_both, None, None


def solved(pairs: Pairs, U_bar: Tensor | None, values_bar: Tensor | None, largest: bool) -> tuple[Tensor, Tensor]:
    """W and μ of the bordered system: wᵢ = L⁻ᴴ((λᵢI − L⁻¹XL⁻ᴴ)⁺ L⁻¹ūᵢ + λ̄ᵢvᵢ), μᵢ = Re⟨uᵢ, ūᵢ⟩."""
    U, L, reduced, found = pairs
    W, mu = torch.zeros_like(U), torch.zeros_like(found.values)
    if U_bar is not None:
        H, rtol = forth(L, U_bar), tolerance(U.dtype, U.shape[-2])
        W, _, _ = eigen_solve(reduced, found, H, largest=largest, rtol=rtol)
        W, mu = towards(L, W), (U.conj() * U_bar).sum(-2).real
    return W if values_bar is None else W + U * values_bar[..., None, :], mu


def outer(W: Tensor, U: Tensor) -> Tensor:
    """sym(W Uᴴ), Hermitian to the last digit."""
    half = W * (U.mH / 2) if U.shape[-1] == 1 else W @ (U.mH / 2)
    return half + half.mH


def direct_generalised(
    measured: bool,
    /,
    X: object,
    k: object = 1,
    *,
    largest: object = True,
    metric: object = None,
    degenerate: object = "drop",
    **options: object,
) -> IEDSolution | None:
    """Leading generalised eigenpairs with derivatives attached; ``None`` where the general path has to look.

    Args:
        measured: whether the residual is to be that of the given problem, not of the reduced one.
        X: what the user gave.
        k: how many pairs.
        largest: which end of the spectrum.
        metric: B, as the user gave it.
        degenerate: the policy for answers that are not unique, of which there are none here.
        options: other arguments of :func:`pmaf.ied`; all of them have to be as they are by default.

    Returns:
        The solution, each item of which converged.
    """
    if not (type(X) in PLAIN and isinstance(X, Tensor) and type(metric) in PLAIN and isinstance(metric, Tensor)):
        return None
    if not (type(k) is int and type(largest) is bool and degenerate in POLICIES):
        return None
    if not all(value is None and name in OTHERS for name, value in options.items()):
        return None
    shape, dtype = X.shape, X.dtype
    if metric.shape != shape or metric.dtype != dtype or dtype not in KINDS or X.numel() == 0 or len(shape) < 2:
        return None
    if not 1 <= k <= shape[-1] == shape[-2] <= Tridiagonal.first:
        return None
    if any(not (t.layout == torch.strided and open_to_kernels(t)) for t in (X, metric)) or not available():
        return None
    given, other = X.detach(), metric.detach()
    with torch.no_grad(), no_autocast(given):
        pairs = reduced_pairs(given, other, k, largest)
        if pairs is None:
            return None
        found = pairs.found
        last = found.values[..., -1]
        gap = (last - found.next).abs() if k < shape[-1] else torch.full_like(last, torch.inf)
        status = torch.zeros(last.shape, dtype=torch.int64)
        # What rounds in the reduced problem by n·ε of its norm is more for the given one where a value is small.
        most, rounding = asymmetry_allowed(dtype), shape[-1] * torch.finfo(dtype).eps
        look = measured or bool((found.values.abs().amin(-1) * most < found.norm * rounding).any())
        off = residual(given, other, pairs.U, found.values) if look else found.residual
        if look and not bool((off <= most).all()):
            return None
        report = Report(status, torch.ones_like(status), off, gap)
        pairs = pairs if X.is_complex() else turned(pairs, report)
    U, values = pairs.U, pairs.found.values
    if recorded(X, metric):
        U, values = DirectGeneralised.apply(X, metric, pairs, largest)  # type: ignore[no-untyped-call]
    if X.is_complex():  # a phase moves with the matrices, other than a sign
        U = U * phase(U, found, report)
    return IEDSolution(values, U, *report)


def reduced_pairs(X: Tensor, B: Tensor, k: int, largest: bool) -> Pairs | None:
    """The pairs of the reduced problem and U = L⁻ᴴV; ``None`` where there is anything to be said of an item."""
    reduced, L, _, seen = reduction(X, B, allowed=SKEW)
    if seen:
        return None
    rtol, info = tolerance(X.dtype, X.shape[-1]), torch.finfo(X.dtype)
    found = eigenpairs(reduced, k, largest=largest, allowed=asymmetry_allowed(X.dtype), rtol=rtol)
    if found.seen:
        return None
    least, most = (float(x) for x in found.norm.aminmax())
    if not (least > info.tiny / info.eps**2 and most < info.max * info.eps**2):  # digits may have been lost
        return None
    return Pairs(towards(L, found.vectors).contiguous(), L, reduced, found)


def turned(pairs: Pairs, report: Report) -> Pairs:
    """Both kinds of vectors with the sign that U is to have."""
    sign = phase(pairs.U, pairs.found, report)
    return pairs._replace(U=pairs.U * sign, found=pairs.found._replace(vectors=pairs.found.vectors * sign))


def phase(U: Tensor, found: Eigenpairs, report: Report) -> Tensor:
    """What turns U so that its plain inner product with the all-ones vector is real and not negative, ``(*, 1, k)``."""
    unit = U / torch.linalg.vector_norm(U.detach(), dim=-2, keepdim=True)
    return decided_phase(found.norm, unit, found.values, report, None, U.dtype)
