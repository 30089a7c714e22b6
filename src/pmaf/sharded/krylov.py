r"""Leading eigenpairs, and the solve of their derivatives, of a matrix whose vectors are divided by rows among ranks.

Each rank holds its rows of every vector. All that it needs of the others is products with the matrix, which is somebody
else's business, and inner products, small all-reduces. Projected problems are the same on every rank.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from pmaf.linalg.dtypes import double
from pmaf.linalg.krylov import rayleigh_ritz
from pmaf.sharded.collectives import Groups, reduce
from pmaf.solvers.eigen.subspace import following

__all__ = ["Pairs", "complement", "inner", "leading"]

Product = Callable[[Tensor], Tensor]


class Pairs(NamedTuple):
    """Leading pairs and what is known of them."""

    eigenvalues: Tensor  # (k,)
    U: Tensor  # (nᵢ, k), this rank's rows
    following: Tensor  # the next eigenvalue
    norm: Tensor  # ‖X‖, from its Ritz values
    residual: Tensor  # the largest ‖Xu − λu‖ / ‖X‖
    steps: int
    finished: bool
    skew: Tensor  # ‖G − Gᴴ‖ / ‖G‖ of G = PᴴXP, P the first block


def inner(X: Tensor, Y: Tensor, groups: Groups) -> Tensor:
    """XᴴY over the rows of all ranks."""
    return reduce(X.mH @ Y, groups)


def orthonormal(W: Tensor, V: Tensor, noise: Product, groups: Groups) -> Tensor:
    """An orthonormal basis of the part of W outside span(V), twice, from Gram matrices.

    Directions that W has only by rounding are replaced by others.

    Args:
        W: columns of unit length, ``(nᵢ, p)``.
        V: orthonormal columns.
        noise: columns of no particular direction, of the shape of others.
        groups: the ranks.

    Returns:
        The columns, ``(nᵢ, p)``.
    """
    wide = double(W)
    lost = (100 * torch.finfo(W.dtype).eps) ** 2
    for _ in range(PASSES):
        W = W - V @ inner(V, W, groups)
        size, Q = torch.linalg.eigh(inner(W.to(wide), W.to(wide), groups).nan_to_num(0))
        spent = size <= (10 * torch.finfo(wide).eps * size.amax()).clamp_min(lost)
        W = W @ (Q / torch.where(spent, 1, size).sqrt()).to(W.dtype)
        if bool(spent.any()):
            W = torch.where(spent, noise(W), W)
        elif bool(size.amin() > 0.5):  # they were orthonormal to some digits already, and are now to all
            break
    return W


PASSES = 10


def leading(
    product: Product, noise: Product, first: Tensor, n: int, k: int, largest: bool, rtol: float, groups: Groups
) -> Pairs:
    """The k leading pairs from a basis that grows by the residuals of its Ritz pairs.

    The residuals of p Ritz pairs span what the next step of block Lanczos would add. Kept with its products, the basis
    restarts from its leading Ritz vectors without loss (thick restart), however few ranks' rounding is alike.

    Args:
        product: multiplies a block by X.
        noise: columns of no particular direction, of the shape of others.
        first: columns to begin with, ``(nᵢ, p)``, p > k unless p = n.
        n: the order of X.
        k: how many pairs.
        largest: the algebraically largest, else the smallest.
        rtol: residual relative to ‖X‖ to reach.
        groups: the ranks.

    Returns:
        The pairs.
    """
    sign, p = 1.0 if largest else -1.0, first.shape[-1]
    V = orthonormal(first / inner(first, first, groups).diagonal().real.sqrt(), first[:, :0], noise, groups)
    Y = sign * product(V)
    H = inner(V, Y, groups)
    skew = torch.linalg.vector_norm(H - H.mH) / torch.linalg.vector_norm(H).clamp_min(torch.finfo(H.dtype).tiny)
    limit = max(64, 3 * k + 2 * p)
    norm = torch.zeros_like(skew)
    for step in range(1, STEPS + 1):
        theta, Q = rayleigh_ritz(H)
        norm = torch.maximum(norm, theta.abs().amax())
        wanted = Q[:, :p]
        U = V @ wanted
        R = Y @ wanted - U * theta[:p]
        misfit = inner(R, R, groups).diagonal().real.sqrt()
        rest, known = following(theta, misfit, k, n, rtol * norm)
        finished = bool((misfit[:k].amax() <= rtol * norm) & known)
        if finished or not bool(misfit.isfinite().all()) or step == STEPS or V.shape[-1] == n:
            break
        if V.shape[-1] + p > limit:
            Q = Q[:, : k + (limit - k - p) // 3]
            V, Y, H = V @ Q, Y @ Q, torch.diag(theta[: Q.shape[-1]]).to(H.dtype)
        W = (R / torch.where(misfit > 0, misfit, 1))[:, : n - V.shape[-1]]
        W = orthonormal(W, V, noise, groups)
        Z = sign * product(W)
        C = inner(torch.cat((V, W), -1), Z, groups)
        old = V.shape[-1]
        H = torch.cat((torch.cat((H, C[:old].mH), -2), torch.cat((C[:old], (C[old:] + C[old:].mH) / 2), -2)), -1)
        V, Y = torch.cat((V, W), -1), torch.cat((Y, Z), -1)
    residual = misfit[:k].amax() / torch.where(norm > 0, norm, 1)
    finished = finished or (V.shape[-1] == n and bool(residual <= 100 * rtol))
    return Pairs(sign * theta[:k], U[:, :k], sign * rest, norm, residual, step, finished, skew)


STEPS = 1000


def complement(product: Product, values: Tensor, U: Tensor, B: Tensor, groups: Groups) -> tuple[Tensor, Tensor]:
    """Solve (λᵢ − X)wᵢ = P bᵢ, wᵢ ⟂ U, P = I − UUᴴ, for leading pairs, by conjugate gradients.

    Args:
        product: multiplies a block by X; by −X, with −λ, for the smallest pairs, so that the matrix is definite.
        values: λ, ``(k,)``.
        U: all selected vectors, ``(nᵢ, k)``.
        B: right-hand sides, ``(nᵢ, k)``.
        groups: the ranks.

    Returns:
        W, and which of its columns are solved.
    """

    def project(X: Tensor) -> Tensor:
        return X - U @ inner(U, X, groups)

    def dots(X: Tensor, Y: Tensor) -> Tensor:
        return reduce((X.conj() * Y).sum(0).real, groups)

    rtol = 20 * torch.finfo(B.dtype).eps
    whole = dots(B, B)
    R = project(project(B))
    W, P, rho = torch.zeros_like(R), R, dots(R, R)
    bound = rtol**2 * whole
    for _ in range(STEPS):
        active = rho > bound
        if not bool(active.any()):
            break
        image = project(values * P - product(P))
        curvature = dots(P, image)
        active = active & (curvature > 0)
        alpha = torch.where(active, rho / torch.where(active, curvature, 1), 0)
        W, R = W + alpha * P, R - alpha * image
        fresh = dots(R, R)
        P = R + torch.where(active, fresh / torch.where(active, rho, 1), 0) * P
        rho = torch.where(active, fresh, rho)
        if not bool(active.any()):
            break
    return project(W), rho <= 1e4 * bound
