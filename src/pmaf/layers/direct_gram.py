"""The short way of ``ied(Gram(F))``, with weights or without: factors of few columns, from the door to the kernel.

Most go through X = FᴴF in double precision. For single F that keeps singular values down to about 1e-8‖F‖, more than
rounding F to single precision leaves of them; for double F those above ``SAFE``‖F‖. Narrow real F in double precision
goes through F itself, which keeps all of them. Items that the kernel has something to say of, that are not unique or
whose squares are near the end of the range or have not all digits are solved again by the general path, they alone, so
that the others keep their answer to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pmaf.forward.triplets import SAFE
from pmaf.handover import EigenAux, Report
from pmaf.implicit.autograd import run_solve
from pmaf.implicit.eigen import EigenpairEquations
from pmaf.kernels import available
from pmaf.kernels.calls import in_memory
from pmaf.kernels.eigenpairs import Eigenpairs, eigen_solve, eigenpairs
from pmaf.kernels.gram import GramFound, gram_eigenpairs, gram_gradient, gram_outer, gram_product
from pmaf.layers.direct import PLAIN, tolerance
from pmaf.layers.gauge import fix_phase
from pmaf.operators.gram import Gram
from pmaf.operators.separation import separation_tolerance
from pmaf.solution import IEDSolution
from pmaf.solvers.eigen.eigh import Eigh
from pmaf.transforms import follows_nothing, mapped_the_older_way, open_to_kernels, recorded

__all__ = ["direct_gram"]

# Columns up to which the kernel wins, and the same for factors of fewer rows, whose other square is smaller.
MOST = {torch.float32: 256, torch.float64: 256, torch.complex64: 128, torch.complex128: 128}
MOST_WIDE = 64
MOST_ITSELF = 32  # columns up to which double F is taken itself
EQUATIONS = {
    (weighted, largest): EigenpairEquations(
        "drop", Gram(torch.empty(1, 1), torch.empty(1) if weighted else None).structure(), largest
    )
    for weighted in (False, True)
    for largest in (False, True)
}
Parts = tuple[Tensor, ...]  # F (B, m, n) and, if there are any, the weights (B, m)
Again = Callable[[Gram], IEDSolution]


class Pairs(NamedTuple):
    """Eigenpairs of FᵀF, one item after the other, and what a kernel left for their gradient."""

    values: Tensor  # (B, k)
    vectors: Tensor  # (B, n, k)
    next: Tensor  # (B,)
    norm: Tensor  # (B,) of the Gram matrix
    size: Tensor  # (B,) the Frobenius norm of √W F
    residual: Tensor  # (B,)
    code: Tensor  # (B,) int32, not zero where there is no answer
    left: tuple[Tensor, ...]  # for single precision X and what was found of it, else what was found of F


def by_itself(F: Tensor, k: int, largest: bool) -> bool:
    """Whether the kernel that takes F itself is asked, not the one for its square, which knows the first value well."""
    return F.dtype == torch.float64 and F.shape[-1] <= min(F.shape[-2], MOST_ITSELF) and (k > 1 or not largest)


def solved(parts: Parts, k: int, largest: bool, keep: bool) -> Pairs:
    """The eigenpairs of Fᴴ diag(w) F."""
    F, w = parts[0], parts[1] if len(parts) > 1 else None
    S = F if w is None else F * w.sqrt()[..., None]
    if by_itself(F, k, largest):
        found = gram_eigenpairs(F, k, w, largest=largest, keep_factor=keep)
        squares = [x.square() for x in (found.singular_values, found.next, found.norm)]
        left = tuple(x for x in found[:-1] if isinstance(x, Tensor)) if keep else ()
        size = torch.linalg.vector_norm(S, dim=(-2, -1))
        return Pairs(squares[0], found.vectors, squares[1], squares[2], size, found.residual, found.code, left)
    X = gram_product(S)
    pairs = eigenpairs(X, k, largest=largest)
    real, code = F.dtype.to_real(), pairs.code
    values, following, norm = (x.clamp_min(0).to(real) for x in (pairs.values, pairs.next, pairs.norm))
    size = X.diagonal(dim1=-2, dim2=-1).real.sum(-1).sqrt().to(real)
    residual = pairs.residual.to(real)
    if F.dtype == X.dtype:
        code = torch.where(values.amin(-1) > SAFE**2 * norm, code, 1)
    else:
        residual = residual + torch.finfo(real).eps / 2  # what rounding the vectors may add
    left = (X, *pairs[:-1]) if keep else ()
    return Pairs(values, pairs.vectors.to(F.dtype), following, norm, size, residual, code, left)


def gradient(
    parts: Parts,
    U: Tensor,
    code: Tensor,
    left: tuple[Tensor, ...],
    cotangents: tuple[Tensor | None, ...],
    largest: bool,
) -> tuple[Tensor | None, ...]:
    """F̄ = diag(w) M and w̄ = ½ Re Σ F̅ ∘ M; zero where there is a code.

    M = (FU)Wᴴ + (FW)Uᴴ with wᵢ = (λᵢI − X)⁺hᵢ + λ̄ᵢuᵢ.
    """
    F, w = parts[0], parts[1] if len(parts) > 1 else None
    H, along = cotangents
    if by_itself(F, U.shape[-1], largest):
        found = GramFound(*left, 0)._replace(vectors=U, code=code)  # type: ignore[call-arg, arg-type]
        return gram_gradient(F, found, H, along, w, needs=(True, w is not None))[: len(parts)]
    X, pairs = left[0], Eigenpairs(*left[1:], 0)._replace(code=code)  # type: ignore[call-arg, arg-type]
    # In double precision, turned as what was returned.
    V = pairs.vectors if U.is_complex() else torch.copysign(pairs.vectors, U)
    W = torch.zeros_like(V) if H is None else eigen_solve(X, pairs, H.to(X.dtype), largest=largest)[0]
    M = gram_outer(F, V, W if along is None else W + V * along[:, None], code)
    return (M,) if w is None else (M * w[..., None], (F.conj() * M).real.sum(-1) / 2)


class DirectGram(torch.autograd.Function):
    """Eigenpairs of a Gram matrix that are already there, as a function of F and the weights."""

    @staticmethod
    def forward(ctx: Any, pairs: Pairs, largest: bool, *parts: Tensor) -> Any:
        """Hand the solution over, and keep what the kernel left."""
        ctx.largest, ctx.count, batch = largest, len(parts), parts[0].shape[:-2]
        U, values = (x.reshape(*batch, *x.shape[1:]) for x in (pairs.vectors, pairs.values))
        ctx.save_for_backward(*parts, U, values, pairs.next, pairs.norm, pairs.code, *pairs.left)
        ctx.set_materialize_grads(False)
        return U, values

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        """The kernel where no further derivative is asked for, else the equations."""
        saved = ctx.saved_tensors  # may be computed anew each time they are asked for
        parts, (U, values, following, norm, code, *left) = saved[: ctx.count], saved[ctx.count :]
        given = [c for c in cotangents if c is not None]
        if not torch.is_grad_enabled() and follows_nothing() and not any(map(mapped_the_older_way, given)):
            flat = tuple(None if c is None else items(c, d) for c, d in zip(cotangents, (2, 1), strict=True))
            found = gradient(flattened(parts), items(U, 2), code, tuple(left), flat, ctx.largest)
            return None, None, *(None if g is None else g.reshape(x.shape) for g, x in zip(found, parts, strict=True))
        batch = parts[0].shape[:-2]
        basis = Eigh().solve(Gram(*(x.detach() for x in parts)), U.shape[-1], ctx.largest, None)
        assert basis.spectrum is not None
        assert basis.basis is not None
        failed = code.ne(0).reshape(batch)
        aux = EigenAux(
            *(failed, failed, values.detach(), basis.spectrum, basis.basis),
            *(following.reshape(batch), norm.reshape(batch), U.detach()[..., :0, :0]),
        )
        equations = EQUATIONS[ctx.count > 1, ctx.largest]
        needs = ctx.needs_input_grad[2:]
        return None, None, *equations.gradient(parts, (U, values), aux, cotangents, needs, run_solve)


def items(x: Tensor, core: int) -> Tensor:
    """One batch dimension in front."""
    return x.reshape(-1, *x.shape[x.dim() - core :])


def flattened(parts: Parts) -> Parts:
    """F and the weights with one batch dimension in front, where a kernel can read them."""
    return tuple(in_memory(items(x.detach(), core)) for x, core in zip(parts, (2, 1), strict=False))


def direct_gram(X: object, k: object, largest: bool, again: Again) -> IEDSolution | None:
    """Leading eigenpairs of a Gram matrix, with derivatives attached; ``None`` where the general path has to look.

    Args:
        X: what the user gave.
        k: how many pairs.
        largest: which end of the spectrum.
        again: the general path, for the matrices of some items.

    Returns:
        The solution.
    """
    if not (type(X) is Gram and type(k) is int):
        return None
    parts = X.tensors
    F = parts[0]
    if F.dtype not in MOST or not open_to_kernels(F):
        return None
    if not all(type(x) in PLAIN and x.layout == torch.strided for x in parts):
        return None
    if len(parts) > 1 and parts[1].dtype != F.dtype.to_real():
        return None
    if len(parts) > 1 and bool((parts[1] < 0).any()):
        return None
    batch, (m, n) = F.shape[:-2], F.shape[-2:]
    if not available() or F.numel() == 0 or not 1 <= k <= n <= (MOST[F.dtype] if m >= n else MOST_WIDE):
        return None
    differentiated = any(map(recorded, parts))
    pairs, info = solved(flattened(parts), k, largest, differentiated), torch.finfo(F.dtype)
    following = (
        pairs.next[:, None] if k < n else torch.full_like(pairs.next, -torch.inf if largest else torch.inf)[:, None]
    )
    right = torch.cat((pairs.values[:, 1:], following), -1)
    step = (pairs.values - right).abs()
    near = right if k < n else torch.where(right.isfinite(), right, 0)
    level = separation_tolerance(X, pairs.values, near, pairs.norm[:, None], tolerance(F.dtype, n), 0.0)
    fine = ((step - level).amin(-1) > 0) & (pairs.norm > info.tiny / info.eps**2) & (pairs.norm < info.max / 4)
    pairs = pairs._replace(code=torch.where(fine & (pairs.code == 0), 0, 1).to(torch.int32))
    steps = torch.ones_like(pairs.code, dtype=torch.int64)
    told = Report(steps - 1, steps, pairs.residual, step[:, -1].clone())
    if not F.is_complex():  # a phase moves with F, a sign does not
        turned = fix_phase(pairs.size.square(), pairs.vectors, pairs.values, told, None, F.dtype)
        pairs = pairs._replace(vectors=turned)
    if differentiated:
        U, values = DirectGram.apply(pairs, largest, *parts)  # type: ignore[no-untyped-call]
    else:
        U, values = (x.reshape(*batch, *x.shape[1:]) for x in (pairs.vectors, pairs.values))
    told = Report(*(x.reshape(batch) for x in told))
    if F.is_complex():
        U = fix_phase(pairs.size.square().reshape(batch), U, values.detach(), told, None, F.dtype)
    answer = IEDSolution(values, U, *told)
    at = pairs.code.nonzero()[:, 0]
    if len(at) == 0:
        return answer
    better = again(Gram(*(items(x, core)[at] for x, core in zip(parts, X.core_dims, strict=True))))

    def put(old: Tensor, new: Tensor) -> Tensor:
        flat = old.reshape(-1, *old.shape[len(batch) :])
        return flat.index_copy(0, at, new.to(old.dtype)).reshape(old.shape)

    return IEDSolution(*map(put, answer, better))
