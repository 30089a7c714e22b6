r"""The implicit function theorem on the fixed point of power iteration, u = Xu/‖Xu‖, for any square matrix."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pmaf.checks.values import set_flags
from pmaf.handover import EigenAux
from pmaf.implicit.base import Params, Vectors
from pmaf.implicit.explicit import Explicit
from pmaf.linalg.lu import solve

__all__ = ["FixedPoint", "FixedPointPair"]


@dataclass(frozen=True)
class FixedPoint:
    r"""Differentiate the fixed point :math:`u = Xu/\|Xu\|` of power iteration (IFT-E, IFT-J).

    A unit eigenvector of a real square X, symmetric or not, with eigenvalue λ ≠ 0 is a fixed point of
    :math:`g(u, X) = \operatorname{sgn}(\lambda)\,Xu/\|Xu\|`, where with :math:`P = I - uu^\top`

    .. math:: \partial_u g = \tfrac1\lambda P X,\qquad \partial_X g\,[dX] = \tfrac1\lambda P\,dX\,u,\qquad
              du = (I - \tfrac1\lambda P X)^{-1}\,\tfrac1\lambda P\,dX\,u .

    The matrix is regular if λ is simple: its eigenvalues are 1 and 1 − λⱼ/λ. The gradient takes *one* solve with its
    transpose, :math:`(I - \tfrac1\lambda PX)^\top v = \bar u`, and is of rank one,
    :math:`\bar X = \tfrac1\lambda Pv\,u^\top`. The eigenvalue is :math:`\lambda = u^\top X u`; left eigenvectors are
    never needed.

    Of a sparse matrix or a function only products are taken, with X and its transpose, and the solve is a fixed-point
    iteration itself, as fast as the power iteration.

    Cost: O(n³) for each item of a dense matrix; with ``dense=True`` the n×n² Jacobian is formed first, O(n⁴). Real
    dtypes, k = 1. The condition of the system grows as 1/λ, and its solution is infinite where λ is repeated; where λ
    is zero, u counts as a constant.

    Args:
        dense: form the Jacobian (IFT-J), as a slow reference, instead of exploiting its structure (IFT-E).

    References:
        Xu, Wang, Liu, Gould: PMaF: Deep Declarative Layers for Principal Matrix Features (2023), arXiv 2306.14759.

    Example:
        >>> import torch, pmaf
        >>> X = torch.tensor([[2.0, 1.0], [1.0, 2.0]], requires_grad=True)
        >>> pmaf.ied(X, 1, backward=pmaf.FixedPoint()).eigenvalues.sum().backward()
        >>> torch.allclose(X.grad, torch.full((2, 2), 0.5))  # u uᵀ
        True
    """

    dense: bool = False

    def __post_init__(self) -> None:
        set_flags(self, "dense")


@dataclass(frozen=True)
class FixedPointPair(Explicit):
    """One eigenpair as a fixed point; one parameter, X."""

    aux_type = EigenAux
    core_dims = (2,)
    policy: str
    dense: bool

    def formula(self, params: Any, solution: Vectors, cotangents: Vectors) -> Params:
        """The gradient of X, ``(*, n, n)``, from those of U, ``(*, n, 1)``, and λ, ``(*, 1)``."""
        (X,) = params
        U, value = solution
        moves = value[..., None, :] != 0  # (*, 1, 1); else the vector is no fixed point, and counts as a constant
        scale = torch.where(moves, value[..., None, :], 1)
        # λ = uᵀXu depends on u as well.
        bar = cotangents[0] + (X @ U + X.mT @ U) * cotangents[1][..., None, :]
        along = cotangents[1][..., None, :] * (U @ U.mT)
        system = fixed_point_matrix(X, U, scale)
        if self.dense:
            n = X.shape[-1]
            eye = torch.eye(n, dtype=X.dtype, device=X.device)
            by_X = (eye - U @ U.mT)[..., None] * (U.mT / scale)[..., None, :, :]  # (*, n, n, n): P_ik u_l/λ
            jacobian = solve(system, by_X.flatten(-2))
            by_vector = (bar.mT @ jacobian)[..., 0, :].unflatten(-1, (n, n))
            return (along + torch.where(moves, by_vector, 0),)
        v = solve(system.mT, bar)
        v = torch.where(moves, (v - U @ (U.mT @ v)) / scale, 0)
        return (along + v @ U.mT,)

    def forward_formula(self, params: Any, tangents: Any, solution: Vectors) -> Vectors:
        """The change of U and λ when X changes."""
        (X,), (dX,) = params, tangents
        U, value = solution
        moves = value[..., None, :] != 0
        scale, change = torch.where(moves, value[..., None, :], 1), dX @ U
        dU = solve(fixed_point_matrix(X, U, scale), (change - U @ (U.mT @ change)) / scale)
        dU = torch.where(moves, dU, 0)
        return dU, (U * change + (X @ U + X.mT @ U) * dU).sum(-2)

    def residual(self, params: Any, solution: Any, aux: EigenAux) -> Vectors:
        """λu − Xu and ½(uᵀu − 1)."""
        (X,), (U, value) = params, solution
        return U * value[..., None, :] - X @ U, ((U * U).sum(-2) - 1) / 2

    def inverse(self, params: Params, solution: Vectors, aux: EigenAux, rhs: Vectors) -> Vectors:
        """What undoes the derivative of these, [λI − X, u; uᵀ, 0]; zero for items without an answer."""
        (X,), (U, value) = params, solution
        assert X is not None
        shifted = value[..., None, :] * torch.eye(X.shape[-1], dtype=X.dtype, device=X.device) - X
        upper = torch.cat((shifted, U), -1)
        bordered = torch.cat((upper, torch.cat((U.mT, torch.zeros_like(value)[..., None]), -1)), -2)
        found = solve(bordered, torch.cat((rhs[0], rhs[1][..., None]), -2))
        found = torch.where(aux.failed[..., None, None], 0, found)
        return found[..., :-1, :], found[..., -1:, 0]


def fixed_point_matrix(X: Tensor, U: Tensor, scale: Tensor) -> Tensor:
    """I − (I − uuᵀ)X/λ."""
    eye = torch.eye(X.shape[-1], dtype=X.dtype, device=X.device)
    return eye - (X - U @ (U.mT @ X)) / scale
