r"""The complement solve of leading eigenpairs in the tridiagonal form that a compiled kernel left.

With X = Q T Qᴴ, wᵢ = Q (λᵢI − T)⁺ Qᴴ hᵢ: O(n) between two products with Q, no eigenbasis and no new factorisation.
Items in which a selected eigenvalue coincides with one left out have several singular directions there; they are solved
from an eigenbasis, which tells these apart.
"""

from typing import Any

import torch
from torch import Tensor

from pmaf.handover import EigenAux
from pmaf.implicit.complement.eigenbasis import solve_in_basis
from pmaf.kernels.calls import in_memory
from pmaf.kernels.eigenpairs import Code, Eigenpairs, eigen_gradient, eigen_solve
from pmaf.linalg.robust_eigh import hermitian_eigh
from pmaf.linalg.tolerances import relative_tolerance
from pmaf.operators.dense import Dense
from pmaf.transforms import compiling, one_node

__all__ = ["gradient_in_tridiagonal", "solve_in_tridiagonal"]


def kept(aux: EigenAux, U: Tensor) -> Eigenpairs:
    """What the kernel found, as its derivatives want it."""
    code = aux.failed.to(torch.int32) * int(Code.NOT_FINITE)
    values, following, norm, factor = (in_memory(x) for x in (aux.eigenvalues, aux.following, aux.norm, aux.factor))
    return Eigenpairs(values, in_memory(U), following, norm, norm, in_memory(code), factor, 0)


def solve_in_tridiagonal(
    X: Tensor,
    aux: EigenAux,
    U: Tensor,
    H: Tensor,
    *,
    largest: bool,
    whole_block: bool,
    rtol: float | None,
    atol: float,
) -> Tensor:
    """Columns wᵢ = Σ_j v_j (v_jᴴhᵢ)/(λᵢ − s_j) over the eigenvectors that are separated from λᵢ.

    Args:
        X: the matrices, ``(*, n, n)``; their Hermitian part counts.
        aux: what the forward pass left.
        U: the selected eigenvectors, ``(*, n, k)``.
        H: right-hand sides, ``(*, n, k)``.
        largest: which end of the spectrum was selected.
        whole_block: leave out all selected eigenvectors, not only those that coincide.
        rtol: relative tolerance of what coincides, or ``None`` for the default.
        atol: absolute tolerance.

    Returns:
        W, ``(*, n, k)``.
    """
    rtol = relative_tolerance(rtol, U.dtype, U.shape[-2])
    if compiling():
        traced: Tensor = torch.ops.pmaf.complement_tridiagonal(X, *aux, U, H, largest, whole_block, rtol, atol)
        return traced
    batch = torch.broadcast_shapes(X.shape[:-2], U.shape[:-2], H.shape[:-2])
    X, U, H = (in_memory(x.expand(batch + x.shape[-2:])) for x in (X, U, H))
    aux = EigenAux(*(in_memory(x.expand(batch + x.shape[x.dim() - c :])) for x, c in zip(aux, CORE, strict=True)))
    W, code, seen = eigen_solve(X, kept(aux, U), H, largest=largest, rtol=rtol, atol=atol)
    if seen & Code.NEEDS_BASIS:
        W = from_basis(X, aux, U, H, W, (code & Code.NEEDS_BASIS).ne(0), largest, whole_block, rtol, atol)
    return W - U @ (U.mH @ W) if whole_block else W


CORE = (0, 0, 1, 1, 2, 0, 0, 2)  # non-batch dimensions of the fields of EigenAux


def some(x: Tensor, core: int, at: Tensor) -> Tensor:
    """The items at these places of the batch, which become one dimension."""
    items = x.reshape(x.shape[: x.dim() - core].numel(), *x.shape[x.dim() - core :])
    return items[at]


def from_basis(
    X: Tensor,
    aux: EigenAux,
    U: Tensor,
    H: Tensor,
    W: Tensor,
    wanted: Tensor,
    largest: bool,
    whole_block: bool,
    rtol: float,
    atol: float,
) -> Tensor:
    """W, with the wanted items solved in an eigenbasis made for them."""
    n, k = U.shape[-2:]
    at = wanted.reshape(-1).nonzero()[:, 0]
    items = Dense(some(X, 2, at))
    spectrum, V, _ = hermitian_eigh(items.dense())
    own = EigenAux(*(some(x, c, at) for x, c in zip(aux, CORE, strict=True)))._replace(spectrum=spectrum, V=V)
    block = (slice(n - k, n) if largest else slice(0, k)) if whole_block else None
    right, columns = some(H, 2, at), some(U, 2, at)
    right = right - columns * (columns.conj() * right).sum(-2, keepdim=True)
    solved = solve_in_basis(items, own, columns, right, block=block, rtol=rtol, atol=atol)
    return W.reshape(-1, n, k).index_copy(0, at, solved).reshape(W.shape)


def gradient_in_tridiagonal(
    X: Tensor,
    aux: EigenAux,
    U: Tensor,
    cotangents: tuple[Tensor | None, Tensor | None],
    *,
    largest: bool,
    rtol: float | None,
    atol: float,
) -> Tensor:
    """The gradient of X in one pass, exactly Hermitian; an eigenbasis helps where it has to.

    Args:
        X: the matrices, ``(*, n, n)``; their Hermitian part counts.
        aux: what the forward pass left.
        U: the selected eigenvectors, ``(*, n, k)``.
        cotangents: of U and of the eigenvalues, or ``None`` for zero.
        largest: which end of the spectrum was selected.
        rtol: relative tolerance of what coincides, or ``None`` for the default.
        atol: absolute tolerance.

    Returns:
        The gradient, ``(*, n, n)``.
    """
    rtol = relative_tolerance(rtol, U.dtype, U.shape[-2])
    gradient, code, seen = eigen_gradient(X, kept(aux, U), *cotangents, largest=largest, rtol=rtol, atol=atol)
    if not seen & Code.NEEDS_BASIS:
        return gradient
    at = (code & Code.NEEDS_BASIS).reshape(-1).nonzero()[:, 0]  # they alone, so that the others keep their bits
    own, columns = EigenAux(*(some(x, c, at) for x, c in zip(aux, CORE, strict=True))), some(U, 2, at)
    W, items = torch.zeros_like(columns), some(X, 2, at)
    if cotangents[0] is not None:
        H, every = some(cotangents[0], 2, at), torch.ones_like(own.failed)
        W = from_basis(items, own, columns, H, W, every, largest, False, rtol, atol)
    if cotangents[1] is not None:
        W = W + columns * some(cotangents[1], 1, at)[..., None, :]
    (missing,) = Dense(items).vjp(W, columns)
    assert missing is not None
    return gradient.reshape(-1, *missing.shape[1:]).index_copy(0, at, missing).reshape(gradient.shape)


@one_node("pmaf::complement_tridiagonal")
def complement_tridiagonal(
    X: Tensor,
    failed: Tensor,
    degenerate: Tensor,
    eigenvalues: Tensor,
    spectrum: Tensor,
    V: Tensor,
    following: Tensor,
    norm: Tensor,
    factor: Tensor,
    U: Tensor,
    H: Tensor,
    largest: bool,
    whole_block: bool,
    rtol: float,
    atol: float,
) -> Tensor:
    """:func:`solve_in_tridiagonal` as one node of a graph."""
    aux = EigenAux(failed, degenerate, eigenvalues, spectrum, V, following, norm, factor)
    return solve_in_tridiagonal(X, aux, U, H, largest=largest, whole_block=whole_block, rtol=rtol, atol=atol)


@complement_tridiagonal.register_fake
def _(*inputs: Any) -> Tensor:
    *_, H, _largest, _whole_block, _rtol, _atol = inputs
    return torch.empty_like(H, memory_format=torch.contiguous_format)
