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

from pmaf.forward.triplets import SAFE, upright
from pmaf.handover import Report, TripletAux
from pmaf.implicit.autograd import run_solve
from pmaf.implicit.triplets import TripletEquations
from pmaf.kernels import available
from pmaf.kernels.eigenpairs import Eigenpairs, eigen_solve, eigenpairs
from pmaf.kernels.gram import gram_image, gram_product, triplet_gradient
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
FEW = 8  # columns for which the kernel's product with T is no slower than BLAS
SKEW = 1e-6  # relative to ‖G‖, far above what rounding makes of a product
EQUATIONS = {
    largest: TripletEquations("drop", JordanWielandt(torch.empty(1, 1)).structure(), largest)
    for largest in (False, True)
}


class Found(NamedTuple):
    """Triplets of A, and what is left of the Gram matrix of T."""

    U: Tensor  # (*, m, k)
    S: Tensor  # (*, k)
    Vh: Tensor  # (*, k, n)
    gram: Tensor  # (*, n, n) in double precision
    pairs: Eigenpairs  # of it, whose vectors are turned as those of A are

    def report(self, A: Tensor) -> Report:
        """What is told of each item, every one of which converged; the residual is that of both sides."""
        T, norm = upright(A), self.pairs.norm.sqrt().to(A.dtype)
        left, right = (self.U, self.Vh.mT) if T is A else (self.Vh.mT, self.U)
        values = self.S[..., None, :]
        there = torch.linalg.vector_norm(narrow_product(T, right) - left * values, dim=-2).amax(-1)
        back = torch.linalg.vector_norm(narrow_adjoint(T, left) - right * values, dim=-2).amax(-1)
        status = torch.zeros(norm.shape, dtype=torch.int64)
        return Report(status, torch.ones_like(status), torch.maximum(there, back) / norm, self.gap())

    def gap(self) -> Tensor:
        """From the singular values to the nearest one left out, ``(*,)``."""
        last = self.pairs.values[..., -1].sqrt()
        if self.S.shape[-1] == self.gram.shape[-1]:
            return torch.full_like(last, torch.inf, dtype=self.S.dtype)
        return (last - self.pairs.next.clamp_min(0).sqrt()).abs().to(self.S.dtype)


class DirectTriplets(torch.autograd.Function):
    """Singular triplets that are already there, as a function of A."""

    @staticmethod
    def forward(ctx: Any, A: Tensor, found: Found, largest: bool) -> Any:
        """Hand the solution over, and keep what the kernel left."""
        ctx.largest = largest
        ctx.save_for_backward(A, *found[:4], *found.pairs[:-1])
        ctx.set_materialize_grads(False)
        return found[:3]

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        """The kernel where no further derivative is asked for, else the equations."""
        A, U, S, Vh, G, *left = ctx.saved_tensors
        pairs, (U_bar, S_bar, Vh_bar) = Eigenpairs._make((*left, 0)), cotangents
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
            none, norm = A.detach()[..., :0, :0], pairs.norm.sqrt().to(A.dtype)
            off = torch.zeros_like(norm, dtype=torch.bool)
            aux = TripletAux(
                *(off, off, S.detach(), S.detach()[..., :0], none, none, norm, G, pairs.vectors, pairs.values),
                *(pairs.values[..., :0], empty, pairs.factor),
            )
            equations: Any = EQUATIONS[ctx.largest]
            Z = torch.cat((U, Vh.mT), -2) / root
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
    """T̄ of the formula above, in two passes over T, the second of which writes it; Tᵀu = σv saves those over u."""
    u_bar, S_bar, v_bar = cotangents
    values = S[..., None, :]
    along = torch.zeros_like(values) if S_bar is None else S_bar[..., None, :]
    if u_bar is None and v_bar is None:
        return u @ (v * along).mT
    h = v_bar
    if u_bar is not None:
        pulled = narrow_adjoint(T, u_bar)
        alpha = (v * pulled).sum(-2, keepdim=True) / values
        pulled, along = pulled / values - v * alpha, along - alpha / values
        h = pulled if h is None else h + pulled
    assert h is not None
    wide = pairs.values[..., None, :].sqrt()
    w = eigen_solve(G, pairs, h.to(G.dtype), largest=largest)[0] * wide
    P, Q, k = w + pairs.vectors * along, pairs.vectors / wide, v.shape[-1]
    if k <= FEW and T.is_contiguous():
        H = None if u_bar is None else stacked(u_bar)
        gradient = triplet_gradient(stacked(T), stacked(u), H, stacked(w), stacked(P), stacked(Q))
        return gradient.reshape(T.shape)
    image = narrow_product(T, w.to(T.dtype))
    ahead = image if u_bar is None else u_bar + image
    return torch.cat((u, ahead), -1) @ torch.cat((P, Q), -1).to(T.dtype).mT


def direct_svd(
    measured: bool,
    /,
    A: object,
    k: object = 1,
    *,
    largest: object = True,
    degenerate: object = "drop",
    **options: object,
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
    if not (degenerate in POLICIES and all(v is None and n in OTHERS for n, v in options.items())):
        return None
    if A.dtype not in REAL or A.dim() < 2 or A.numel() == 0 or not 1 <= k <= min(A.shape[-2:]) <= Tridiagonal.first:
        return None
    if not (A.layout == torch.strided and open_to_kernels(A) and available()):
        return None
    with torch.no_grad(), no_autocast(A):
        found = triplets(A.detach(), k, largest)
    if found is None:
        return None
    solution = DirectTriplets.apply(A, found, largest) if recorded(A) else found[:3]  # type: ignore[no-untyped-call]
    told = found.report(A.detach()) if measured else found.pairs[-5:-1]  # which nobody looks at
    return SVDSolution._make((*solution, *told))


def triplets(A: Tensor, k: int, largest: bool) -> Found | None:
    """The triplets of A; ``None`` where G does not tell all of them to full precision, or they are not unique."""
    tall, dtype, info = A.shape[-2] >= A.shape[-1], A.dtype, torch.finfo(A.dtype)
    T = upright(A)
    n = T.shape[-1]
    if dtype == torch.float32:
        T = T.contiguous()
        G = gram_product(stacked(T)).reshape(*T.shape[:-2], n, n)
    else:
        G = T.mT @ T
    # σᵢ² − σⱼ² = (σᵢ + σⱼ)(σᵢ − σⱼ) ≤ 2‖A‖(σᵢ − σⱼ): what passes here is apart in singular values as well.
    pairs = eigenpairs(G, k, largest=largest, allowed=SKEW, rtol=2 * tolerance(dtype, n))
    if pairs.seen:
        return None
    lowest = pairs.values[..., -1] if largest else pairs.values[..., 0]
    if not bool((lowest > SAFE**2 * pairs.norm).all()):
        return None
    least, most = (float(x) for x in pairs.norm.aminmax())
    if not (info.tiny < least and most < info.max):
        return None
    V, roots = pairs.vectors, pairs.values.sqrt()
    S, right, left = roots.to(dtype), V.to(dtype), unit_images(T, V, roots)
    found = Found(left, S, right.mT.contiguous(), G, pairs)
    if not (tall and turned_by_kernel(pairs, G, info.eps)):
        told = Report(S, S, pairs.residual.to(dtype), found.gap())
        size = G.diagonal(dim1=-2, dim2=-1).sum(-1).sqrt().to(dtype)
        sign = decided_phase(size, right if tall else left, S, told, None, dtype)
        pairs = pairs._replace(vectors=V * sign)
        found = found._replace(U=left * sign, Vh=found.Vh * sign.mT, pairs=pairs)
    return found if tall else found._replace(U=found.Vh.mT.contiguous(), Vh=found.U.mT.contiguous())


def stacked(X: Tensor) -> Tensor:
    """Matrices ``(*, m, n)`` as ``(B, m, n)``."""
    return X.reshape(-1, *X.shape[-2:])


def unit_images(T: Tensor, V: Tensor, S: Tensor) -> Tensor:
    """T v/‖T v‖, ``(*, m, k)`` in rows; V and the singular values S in double precision, of which σ = ‖T v‖.

    Of single precision that holds to the last digit, so that one pass over T does all.
    """
    single, k = T.dtype == torch.float32, V.shape[-1]
    if k <= FEW and T.is_contiguous():
        image = gram_image(stacked(T), stacked(V / S[..., None, :] if single else V)).reshape(*T.shape[:-1], k)
        return image if single else image.div_(lengths(image))
    image = narrow_product(T, V.to(T.dtype))
    length = S[..., None, :].to(T.dtype) if single else lengths(image)
    return torch.mul(image, 1 / length, out=torch.empty(image.shape, dtype=T.dtype))  # in rows, however it came


def turned_by_kernel(pairs: Eigenpairs, G: Tensor, eps: float) -> bool:
    """Whether all inner products with the all-ones vector, which the kernel turned by, are clear of the rounding of A.

    That is at most (8ε + residual)‖A‖/gap + 32ε, as in :mod:`pmaf.layers.gauge`.
    """
    inner, values, n = pairs.vectors.sum(-2).abs(), pairs.values, G.shape[-1]
    if n == 1:
        return True
    if values.shape[-1] < n:
        values = torch.cat((values, pairs.next.clamp_min(0)[..., None]), -1)
    gap = values.sqrt().diff(dim=-1).abs().amin(-1)
    ratio = G.diagonal(dim1=-2, dim2=-1).sum(-1).sqrt() / gap
    least: Tensor = ((8 * eps + pairs.residual) * ratio + 32 * eps).clamp_max(eps**0.25) * n**0.5
    return bool((inner > least[..., None]).all())
