r"""The whole Jacobian of a declarative layer, as the textbook writes it: slow, large, and easy to trust."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pmaf.handover import EigenAux, SphereAux
from pmaf.implicit.base import Params, Vectors
from pmaf.implicit.explicit import Explicit
from pmaf.linalg.lu import solve

__all__ = ["DenseJacobian", "EigenpairJacobian", "LeastSquaresJacobian", "QuadraticJacobian"]


@dataclass(frozen=True)
class DenseJacobian:
    r"""Form the Jacobian :math:`Dy(x)` of Gould et al. and multiply by it (DDN-J); a reference, not for use.

    For y(x) = argmin f(x, y) subject to h(x, y) = 0, with multiplier ν of h,

    .. math:: Dy = H^{-1}A^\top (A H^{-1}A^\top)^{-1}(A H^{-1}B - C) - H^{-1}B

    .. math:: A = D_Y h,\quad B = D^2_{XY}f - \nu D^2_{XY}h,\quad C = D_X h,\quad H = D^2_{YY}f - \nu D^2_{YY}h .

    *Least squares on the sphere* has :math:`h = \tfrac12(\|u\|^2 - r^2)` and H = Q + λI, λ = −ν, which is invertible
    where the minimiser is unique. The Jacobian with respect to A alone is n×mn.

    *Eigenpairs* have H = λI − X, singular by definition, so that the formula divides by zero. What it abbreviates, the
    bordered system, is regular where the eigenvalue is simple, and is solved instead, for each pair i:

    .. math:: \begin{bmatrix} H_i & u_i \\ u_i^\top & 0 \end{bmatrix} \begin{bmatrix} Du_i \\ D\lambda_i \end{bmatrix}
              = \begin{bmatrix} -B_i \\ 0 \end{bmatrix},\qquad B_i\,dX = -dX\,u_i .

    Each Jacobian is (n + 1)×n²: memory and time grow as batch·k·n³ and batch·k·n⁴. A repeated eigenvalue, selected or
    not, that equals λᵢ gives infinities, as does the hard case. Real dtypes; no weights, free unknowns or ball.

    References:
        Gould, Hartley, Campbell: Deep Declarative Networks, IEEE Trans. PAMI 44 (2022), proposition 4.6.

    Example:
        >>> import torch, pmaf
        >>> A = torch.tensor([[2.0, 0.0], [0.0, 1.0]], requires_grad=True)
        >>> b = torch.tensor([6.0, 4.0])
        >>> (slow,) = torch.autograd.grad(pmaf.less(A, b, backward=pmaf.DenseJacobian())[0], A)
        >>> (fast,) = torch.autograd.grad(pmaf.less(A, b)[0], A)
        >>> torch.allclose(slow, fast, atol=1e-6)
        True
    """


@dataclass(frozen=True)
class LeastSquaresJacobian(Explicit):
    """Least squares on the sphere; parameters (A, b, weights, C, radius), of which weights and C are not there."""

    aux_type = SphereAux
    core_dims = (2, 1, 1, 2, 0)
    policy: str

    def formula(self, params: Any, solution: Vectors, cotangents: Vectors) -> Params:
        """Gradients of A, ``(*, m, n)``, b and the radius, from those of u and λ."""
        A, b, _, _, radius = params
        u, multiplier = solution
        m, n = A.shape[-2:]
        misfit = (A @ u[..., None])[..., 0] - b
        eye = torch.eye(n, dtype=A.dtype, device=A.device)
        # Stationarity Aᵀ(A u − b) by A_kl: δ_il misfit_k + A_ki u_l; by b: −Aᵀ; by r: 0.
        by_A = misfit[..., None, :, None] * eye[:, None, :] + A.mT[..., None] * u[..., None, None, :]
        B = torch.cat((by_A.flatten(-2), -A.mT, torch.zeros_like(u)[..., None]), -1)  # (*, n, mn + m + 1)
        grad = pull(A.mT @ A + multiplier[..., None, None] * eye, B, u, radius, cotangents)
        return grad[..., : m * n].unflatten(-1, (m, n)), grad[..., m * n : -1], None, None, grad[..., -1]


@dataclass(frozen=True)
class QuadraticJacobian(Explicit):
    """A quadratic on the sphere; parameters (H, g, radius)."""

    aux_type = SphereAux
    core_dims = (2, 1, 0)
    policy: str

    def formula(self, params: Any, solution: Vectors, cotangents: Vectors) -> Params:
        """Gradients of H, ``(*, n, n)``, symmetric, of g and of the radius, from those of u and λ."""
        H, _, radius = params
        u, multiplier = solution
        n = u.shape[-1]
        eye = torch.eye(n, dtype=H.dtype, device=H.device).expand(H.shape)
        B = torch.cat(
            (symmetric_product(u).flatten(-2), -eye, torch.zeros_like(u)[..., None]), -1
        )  # (*, n, n² + n + 1)
        grad = pull((H + H.mT) / 2 + multiplier[..., None, None] * eye, B, u, radius, cotangents)
        return grad[..., : n * n].unflatten(-1, (n, n)), grad[..., n * n : -1], grad[..., -1]


@dataclass(frozen=True)
class EigenpairJacobian(Explicit):
    """Leading eigenpairs; one parameter, X."""

    aux_type = EigenAux
    core_dims = (2,)
    policy: str

    def formula(self, params: Any, solution: Vectors, cotangents: Vectors) -> Params:
        """The gradient of X, ``(*, n, n)``, symmetric, from those of U, ``(*, n, k)``, and Λ, ``(*, k)``."""
        (X,) = params
        U, values = solution
        n = U.shape[-2]
        u = U.mT  # (*, k, n)
        eye = torch.eye(n, dtype=X.dtype, device=X.device)
        H = values[..., None, None] * eye - X[..., None, :, :]
        border = torch.cat((u, torch.zeros_like(values)[..., None]), -1)  # (*, k, n + 1)
        M = torch.cat((torch.cat((H, u[..., None, :]), -2), border[..., None]), -1)  # (*, k, n + 1, n + 1)
        B = torch.nn.functional.pad(symmetric_product(u).flatten(-2), (0, 0, 0, 1))  # (*, k, n + 1, n²)
        jacobian = solve(M, B)
        rows = torch.cat((cotangents[0].mT, cotangents[1][..., None]), -1)[..., None, :]
        return ((rows @ jacobian).sum((-3, -2)).unflatten(-1, (n, n)),)


def symmetric_product(u: Tensor) -> Tensor:
    """The derivative of sym(X) u by X_kl, ½(δ_ik u_l + δ_il u_k), ``(*, n, n, n)``."""
    eye = torch.eye(u.shape[-1], dtype=u.dtype, device=u.device)
    there = eye[:, :, None] * u[..., None, None, :]
    return (there + there.mT) / 2


def pull(H: Tensor, B: Tensor, u: Tensor, radius: Tensor, cotangents: Vectors) -> Tensor:
    """The textbook's Jacobian on the sphere, multiplied from the left.

    Args:
        H: ``(*, n, n)``.
        B: ``(*, n, p)``; its last column belongs to the radius.
        u: ``(*, n)``, which is also A = D_Y h.
        radius: ``(*,)``; C = D_X h is −r in the last column and zero elsewhere.
        cotangents: of u and of the multiplier.

    Returns:
        The gradient of all parameters, ``(*, p)``.
    """
    solved = solve(H, torch.cat((u[..., None], B), -1))
    HA, HB = solved[..., :1], solved[..., 1:]
    AHA = (u * HA[..., 0]).sum(-1)  # (*,)
    AHB = (u[..., None, :] @ HB)[..., 0, :]  # (*, p)
    minus_C = torch.nn.functional.pad(radius[..., None], (B.shape[-1] - 1, 0))
    by_nu = (AHB + minus_C) / AHA[..., None]
    jacobian = HA * by_nu[..., None, :] - HB  # Dy, (*, n, p)
    grad: Tensor = (cotangents[0][..., None, :] @ jacobian)[..., 0, :] - cotangents[1][..., None] * by_nu
    return grad
