r"""The short way of ``svd``: real dense matrices on the CPU, from the door to the kernel.

What it applies to, and who takes the rest, is as in :mod:`pmaf.layers.direct`; moreover all wanted singular values have
to be of the order of the largest, so that the Gram matrix G = TᵀT, in double precision, has all their digits. T is A,
or Aᵀ where A is wide: T v = σu. A singular triplet then moves by

    dσ = uᵀdT v,   dv = (σ²I − G)⁺(σ dTᵀu + TᵀdT v),   du = (dT v + T dv − u dσ)/σ,

and so, with a = (ū − u uᵀū)/σ, one solve with the tridiagonal form of G makes the gradient:

    w = (σ²I − G)⁺(v̄ + Tᵀa),   T̄ = Σᵢ (a + T w + σ̄u) vᵀ + u (σw)ᵀ.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from pmaf.forward.triplets import SAFE, gram, upright
from pmaf.handover import Report, TripletAux
from pmaf.implicit.autograd import run_solve
from pmaf.implicit.triplets import TripletEquations
from pmaf.kernels import available
from pmaf.kernels.eigenpairs import Eigenpairs, eigen_solve, eigenpairs
from pmaf.kernels.gram import gram_product
from pmaf.layers.direct import PLAIN, POLICIES, tolerance
from pmaf.layers.gauge import decided_phase
from pmaf.linalg.batched import lengths, narrow_adjoint, narrow_product
from pmaf.operators.jordan_wielandt import JordanWielandt
from pmaf.solution import SVDSolution
from pmaf.solvers.eigen.tridiagonal import Tridiagonal
from pmaf.transforms import follows_nothing, mapped_the_older_way, no_autocast, open_to_kernels, recorded

__all__ = ["direct_svd"]

REAL = (torch.float32, torch.float64)
OTHERS = ("reference", "start", "solver", "backward")
SKEW = 1e-6  # relative to ‖G‖, far above what rounding makes of a product
EQUATIONS = {
    largest: TripletEquations("drop", JordanWielandt(torch.empty(1, 1)).structure(), largest)
    for largest in (False, True)
}


class Found(NamedTuple):
    """Triplets of T, ``(*, m, n)``, m ≥ n, and what is left of its Gram matrix, in double precision."""

    left: Tensor  # (*, m, k)
    values: Tensor  # (*, k)
    right: Tensor  # (*, n, k)
    gap: Tensor  # (*,) in singular values
    norm: Tensor  # (*,) the largest singular value, about
    gram: Tensor  # (*, n, n)
    pairs: Eigenpairs  # of it


class DirectTriplets(torch.autograd.Function):
    """Singular triplets that are already there, as a function of A."""

    @staticmethod
    def forward(ctx: Any, A: Tensor, found: Found, largest: bool) -> Any:
        """Hand the solution over, and keep what the kernel left."""
        ctx.largest = largest
        own = (found.left, found.right) if A.shape[-2] >= A.shape[-1] else (found.right, found.left)
        U, Vh = own[0], own[1].mT.contiguous()
        ctx.save_for_backward(A, U, found.values, Vh, found.norm, found.gram, *found.pairs[:-1])
        ctx.set_materialize_grads(False)
        return U, found.values, Vh

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        """The kernel where no further derivative is asked for, else the equations."""
        A, U, S, Vh, norm, G, *left = ctx.saved_tensors
        pairs, (U_bar, S_bar, Vh_bar) = Eigenpairs(*left, seen=0), cotangents
        given = [c for c in cotangents if c is not None]
        with no_autocast(A):
            if not torch.is_grad_enabled() and follows_nothing() and not any(map(mapped_the_older_way, given)):
                V_bar = None if Vh_bar is None else Vh_bar.mT
                if A.shape[-2] >= A.shape[-1]:
                    gradient = pulled_back(A, U, S, Vh.mT, (U_bar, S_bar, V_bar), G, pairs, ctx.largest)
                else:
                    gradient = pulled_back(A.mT, Vh.mT, S, U, (V_bar, S_bar, U_bar), G, pairs, ctx.largest).mT
                return gradient, None, None
            root, empty = 2**0.5, G[..., :0, :0]
            upper, lower = (torch.zeros_like(x) if c is None else c for x, c in ((U, U_bar), (Vh, Vh_bar)))
            whole = torch.cat((upper, lower.mT), -2) * root
            none, off = A.detach()[..., :0, :0], torch.zeros_like(norm, dtype=torch.bool)
            aux = TripletAux(
                *(off, off, S.detach(), S.detach()[..., :0], none, none, norm, G, pairs.vectors, pairs.values),
                *(pairs.values[..., :0], empty, pairs.factor),
            )
            Z, equations = torch.cat((U, Vh.mT), -2) / root, EQUATIONS[ctx.largest]
            (further,) = equations.gradient((A,), (Z, S), aux, (whole, S_bar), (True,), run_solve)
        return further, None, None


def pulled_back(
    T: Tensor,
    u: Tensor,
    S: Tensor,
    v: Tensor,
    cotangents: tuple[Tensor | None, Tensor | None, Tensor | None],
    G: Tensor,
    pairs: Eigenpairs,
    largest: bool,
) -> Tensor:
    """T̄ of the formula above, in two passes over T and one to write it."""
    u_bar, S_bar, v_bar = cotangents
    values = S[..., None, :]
    ahead = torch.zeros_like(u) if S_bar is None else u * S_bar[..., None, :]
    h = v_bar
    if u_bar is not None:
        a = (u_bar - u * (u * u_bar).sum(-2, keepdim=True)) / values
        ahead, pulled = ahead + a, narrow_adjoint(T, a)
        h = pulled if h is None else h + pulled
    if h is None:
        return ahead @ v.mT
    w = eigen_solve(G, pairs, h.to(G.dtype), largest=largest)[0].to(T.dtype)
    ahead += narrow_product(T, w)
    return torch.cat((ahead, u), -1) @ torch.cat((v, w * values), -1).mT


def direct_svd(
    measured: bool, A: object, k: object = 1, *, largest: object = True, degenerate: object = "drop", **options: object
) -> SVDSolution | None:
    """Leading singular triplets with derivatives attached; ``None`` where the general path has to look.

    Args:
        measured: whether the residual is to be that of both sides, not of the Gram matrix.
        A: what the user gave.
        k: how many triplets.
        largest: which end of the spectrum.
        degenerate: the policy for answers that are not unique, of which there are none here.
        options: other arguments of :func:`pmaf.svd`; all of them have to be as they are by default.

    Returns:
        The solution, each item of which converged.
    """
    if not (type(A) in PLAIN and isinstance(A, Tensor) and type(k) is int and type(largest) is bool):
        return None
    if not (degenerate in POLICIES and available() and all(v is None and n in OTHERS for n, v in options.items())):
        return None
    if A.dtype not in REAL or A.dim() < 2 or A.numel() == 0 or not 1 <= k <= min(A.shape[-2:]) <= Tridiagonal.first:
        return None
    if not (A.layout == torch.strided and open_to_kernels(A)):
        return None
    wide = A.shape[-1] > A.shape[-2]
    with torch.no_grad(), no_autocast(A):
        T = upright(A.detach())
        found = triplets(T, k, largest)
        if found is None:
            return None
        status = torch.zeros(found.gap.shape, dtype=torch.int64)
        off = residual(T, found) if measured else found.pairs.residual.to(A.dtype)
        report = Report(status, torch.ones_like(status), off, found.gap)
        of_A = found.left if wide else found.right
        size = found.gram.diagonal(dim1=-2, dim2=-1).sum(-1).sqrt().to(A.dtype)
        sign = decided_phase(size, of_A, found.values, report, None, A.dtype)
        pairs = found.pairs._replace(vectors=found.pairs.vectors * sign)
        found = found._replace(left=found.left * sign, right=found.right * sign, pairs=pairs)
    if recorded(A):
        return SVDSolution(*DirectTriplets.apply(A, found, largest), *report)  # type: ignore[no-untyped-call]
    U, V = (found.right, found.left) if wide else (found.left, found.right)
    return SVDSolution(U, found.values, V.mT, *report)


def triplets(T: Tensor, k: int, largest: bool) -> Found | None:
    """The triplets of T; ``None`` where G does not tell all of them to full precision, or they are not unique."""
    n, dtype, info = T.shape[-1], T.dtype, torch.finfo(T.dtype)
    if dtype == torch.float32:
        G = gram_product(T.reshape(-1, *T.shape[-2:]).contiguous()).reshape(*T.shape[:-2], n, n)
    else:
        G = gram(T)
    pairs = eigenpairs(G, k, largest=largest, allowed=SKEW)
    if pairs.seen:
        return None
    lowest = pairs.values[..., -1] if largest else pairs.values[..., 0]
    if not bool(((lowest > SAFE**2 * pairs.norm) & (pairs.norm > info.tiny) & (pairs.norm < info.max)).all()):
        return None
    values, norm = pairs.values.sqrt(), pairs.norm.sqrt()
    if k < n:
        following = pairs.next.clamp_min(0).sqrt()
    else:
        following = torch.full_like(norm, -torch.inf if largest else torch.inf)
    apart = (values - torch.cat((values[..., 1:], following[..., None]), -1)).abs()
    if not bool((apart.amin(-1) > tolerance(dtype, n) * norm).all()):
        return None
    right = pairs.vectors.to(dtype)
    image = narrow_product(T, right)
    return Found(image / lengths(image), values.to(dtype), right, apart[..., -1].to(dtype), norm.to(dtype), G, pairs)


def residual(T: Tensor, found: Found) -> Tensor:
    """The largest ‖T v − σu‖ and ‖Tᵀu − σv‖ of each item, relative to the largest singular value, ``(*,)``."""
    values = found.values[..., None, :]
    there = torch.linalg.vector_norm(narrow_product(T, found.right) - found.left * values, dim=-2).amax(-1)
    back = torch.linalg.vector_norm(narrow_adjoint(T, found.left) - found.right * values, dim=-2).amax(-1)
    return torch.maximum(there, back) / found.norm
