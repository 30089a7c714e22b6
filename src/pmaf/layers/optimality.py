"""How a vector is judged: its multiplier, what it lacks of stationarity and length, what a better one could gain."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pmaf.linalg.batched import adjoint_matvec, matvec
from pmaf.linalg.bordered import safe_inverse
from pmaf.solvers.sphere.secular import solve_secular

__all__ = ["Certificate", "LeastSquaresCase", "QuadraticCase", "judged"]

ROUNDING = 4.0  # times √(max(m, n) + 16): roundings that the bound allows for, in units of the last place


class Certificate(NamedTuple):
    r"""What :func:`certify` found out about a vector u; every field is ``(*,)``, in float64.

    Attributes:
        multiplier: :math:`\lambda`, the best fit of stationarity at u; zero inside the ball.
        residual: :math:`\|(Q + \lambda I)u - g\| / \bigl(\|A\|(\|A\|\,\|u\| + \|b\|)\bigr)`: u is exactly stationary
            for some A and b that differ relatively by about as much from the given ones.
        gap: :math:`\lambda + \lambda_{\min}(Q)`, negative where u is stationary but not globally minimal.
        is_global: u is feasible, stationary, and satisfies the global second-order condition, all within tolerance.
        feasibility: :math:`|\,\|u\| - r\,| / r`; in the ball only what exceeds r counts.
        suboptimality: an upper bound on the objective at u, brought to the constraint by scaling, less its global
            minimum; infinite for u = 0 on the sphere.
    """

    multiplier: Tensor
    residual: Tensor
    gap: Tensor
    is_global: Tensor
    feasibility: Tensor
    suboptimality: Tensor


class LeastSquaresCase(NamedTuple):
    """What the judgement needs of ½‖A u − b‖² on the unit sphere."""

    s: Tensor  # (*, n) eigenvalues of Q, ascending
    gamma: Tensor  # (*, n) coefficients of g in their vectors
    V: Tensor  # (*, n, n)
    A: Tensor
    b: Tensor

    @classmethod
    def of(cls, A: Tensor, b: Tensor) -> LeastSquaresCase:
        """From A and b, by the singular values of A, which are not squared before they are known."""
        return cls(*diagonalise(A, b), A, b)

    def slope(self, u: Tensor) -> Tensor:
        """Q u − g = Aᴴ(A u − b)."""
        return matvec(self.A.mH, matvec(self.A, u) - self.b)

    def scale(self, length: Tensor) -> Tensor:
        """‖A‖(‖A‖ ‖u‖ + ‖b‖)."""
        size, beta = self.s[..., -1].sqrt(), torch.linalg.vector_norm(self.b, dim=-1)
        scale: Tensor = size * (size * length + beta)
        return scale

    def rounding(self, u: Tensor) -> Tensor:
        """What relative changes of A of one unit do to the slope at u."""
        size, misfit = self.s[..., -1].sqrt(), torch.linalg.vector_norm(matvec(self.A, u) - self.b, dim=-1)
        noise: Tensor = size * (size + misfit)
        return noise


class QuadraticCase(NamedTuple):
    """What the judgement needs of ½uᴴHu − Re gᴴu on the unit sphere."""

    s: Tensor
    gamma: Tensor
    V: Tensor
    H: Tensor
    g: Tensor

    @classmethod
    def of(cls, H: Tensor, g: Tensor) -> QuadraticCase:
        """From H and g."""
        s, V = torch.linalg.eigh(H)
        return cls(s, adjoint_matvec(V, g), V, H, g)

    def slope(self, u: Tensor) -> Tensor:
        """H u − g."""
        return matvec(self.H, u) - self.g

    def scale(self, length: Tensor) -> Tensor:
        """‖H‖ ‖u‖ + ‖g‖."""
        scale: Tensor = self.s.abs().amax(-1) * length + torch.linalg.vector_norm(self.g, dim=-1)
        return scale

    def rounding(self, u: Tensor) -> Tensor:
        """What relative changes of H and g of one unit do to the slope at u."""
        return self.scale(torch.ones_like(self.s[..., 0]))


def judged(problem: LeastSquaresCase | QuadraticCase, u: Tensor, ball: bool, tolerance: float) -> Certificate:
    """The certificate in double precision; in units in which the largest entry of the matrix and the radius are one."""
    s, n = problem.s, max(problem[3].shape[-2:])
    length = torch.linalg.vector_norm(u, dim=-1)

    # Stationarity at u itself.
    slope = problem.slope(u)
    inside = (length < 1 - tolerance) if ball else torch.zeros_like(length, dtype=torch.bool)
    fit = -(u.conj() * slope).sum(-1).real * safe_inverse(length.square(), length > 0)
    multiplier = torch.where(inside, 0, fit)
    scale = problem.scale(length)
    residual = torch.linalg.vector_norm(slope + multiplier[..., None] * u, dim=-1) * safe_inverse(scale, scale > 0)
    gap = multiplier + s[..., 0]
    excess = (length - 1).clamp(min=0) if ball else (length - 1).abs()
    slack = tolerance * problem.scale(torch.ones_like(length))
    second_order = gap >= -slack
    if ball:
        second_order = second_order & (multiplier >= -slack)
    is_global = (residual <= tolerance) & (excess <= tolerance) & second_order

    # The dual bound at the multiplier of the global minimum.
    t = root_of(s, problem.gamma)
    if ball:
        t = torch.maximum(t, s[..., 0])
    shrink = torch.where((length > 1) | (not ball), safe_inverse(length, length > 0), 1)
    x = u * shrink[..., None]
    slope = problem.slope(x)
    unit = ROUNDING * torch.finfo(torch.float64).eps * float(n + 16) ** 0.5
    rounding = unit * problem.rounding(x)
    t = torch.maximum(t, rounding)
    dual = t - s[..., 0]
    rho = adjoint_matvec(problem.V, slope + dual[..., None] * x).abs() + rounding[..., None]
    pole = (s - s[..., :1]) + t[..., None]
    bound = (rho.square() * safe_inverse(pole, pole > 0)).sum(-1) / 2
    if ball:
        bound = bound + dual * ((1 - x.abs().square().sum(-1)).clamp(min=0) + unit) / 2
    else:
        bound = torch.where(length > 0, bound, torch.inf)
    return Certificate(multiplier, residual, gap, is_global, excess, bound)


def diagonalise(A: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Eigenvalues of Q = AᴴA, ascending, the coefficients Vᴴg, and V, from a singular value decomposition of A."""
    m, n = A.shape[-2:]
    W, sigma, Vh = torch.linalg.svd(A, full_matrices=m < n)
    padding = (0, n - sigma.shape[-1])
    coefficients = sigma * adjoint_matvec(W, b)[..., : sigma.shape[-1]]
    s = torch.nn.functional.pad(sigma, padding).square().flip(-1)
    return s, torch.nn.functional.pad(coefficients, padding).flip(-1), Vh.mH.flip(-1)


def root_of(s: Tensor, gamma: Tensor) -> Tensor:
    """The secular equation's root t = λ + λ_min, scaled so that squares stay in range."""
    scale = torch.maximum(gamma.abs().amax(-1), s[..., -1] - s[..., 0])
    scale = torch.where(scale > 0, scale, 1)
    return solve_secular((s - s[..., :1]) / scale[..., None], gamma / scale[..., None])[0] * scale
