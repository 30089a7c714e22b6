r"""A proof, or a refutation, that a vector minimises least squares on the sphere, whatever it came from."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pmaf.checks.tensors import check_broadcast, check_nonnegative, check_sizes, positive_radius
from pmaf.checks.values import CONSTRAINTS, check_choice, check_tensor, describe
from pmaf.linalg.batched import adjoint_matvec, matvec
from pmaf.linalg.bordered import safe_inverse
from pmaf.linalg.scaling import magnitude
from pmaf.solvers.sphere.secular import solve_secular
from pmaf.transforms import no_autocast

__all__ = ["Certificate", "certify"]

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


def certify(
    A: Tensor,
    b: Tensor,
    u: Tensor,
    radius: float | Tensor = 1.0,
    *,
    weights: Tensor | None = None,
    constraint: str = "sphere",
) -> Certificate:
    r"""Prove or refute that u minimises :math:`f(u) = \tfrac12\|A u - b\|^2` subject to :math:`\|u\| = r`.

    With :math:`Q = A^H A` and :math:`g = A^H b`, a feasible u is a *global* minimiser exactly when a real λ satisfies

    .. math:: (Q + \lambda I)u = g, \qquad Q + \lambda I \succeq 0 .

    ``is_global`` tests both with :math:`\lambda = -\mathrm{Re}\,u^H(Qu - g)/\|u\|^2`, within a tolerance τ that follows
    from the dtype of u, :math:`\tau = 32\,\varepsilon\sqrt{\max(m, n) + 8}`. On the sphere, what passes has
    :math:`f(u) - f^\star \le \tfrac92\tau\|A\|(\|A\|r + \|b\|)\,r`: use :math:`\lambda + 2\tau\|A\|(\|A\| + \|b\|/r)`
    in the bound below.

    ``suboptimality`` needs no tolerance. For *any* :math:`\lambda \ge -\lambda_{\min}(Q)`, weak duality bounds the
    minimum from below by :math:`d(\lambda) = \min_v f(v) + \tfrac12\lambda(\|v\|^2 - r^2)`, and on the sphere

    .. math:: f(u) - f^\star \le f(u) - d(\lambda) = \tfrac12\,\rho^H (Q + \lambda I)^{+} \rho,
              \qquad \rho = (Q + \lambda I)u - g .

    The right-hand side has no cancellation, unlike :math:`f(u) - d(\lambda)`. It is evaluated at the multiplier of the
    global minimum, the root of the secular equation, where it *equals* f(u) − f*, and with an allowance for rounding:
    :math:`|\rho|` grows by, and :math:`\lambda + \lambda_{\min}` is at least, some units in the last place of the data.
    In the ball, λ ≥ 0 as well, and :math:`\tfrac12\lambda(r^2 - \|u\|^2)` is added.

    All arithmetic is in float64 (complex128), from a singular value decomposition of A: O(mn·min(m, n) + n³) for each
    item. Any rank, m < n, b = 0, A = 0 and the hard case are covered; scales of A, b and r do not matter. Batched;
    synchronises the device; not differentiable.

    Args:
        A: ``(*, m, n)``.
        b: ``(*, m)``.
        u: the vector to judge, ``(*, n)``, in the precision that it was computed in.
        radius: r > 0, a number or ``(*,)``.
        weights: non-negative, real, ``(*, m)``, as in :func:`pmaf.less`.
        constraint: ``"sphere"`` for ‖u‖ = r or ``"ball"`` for ‖u‖ ≤ r.

    Returns:
        A :class:`Certificate`. Items that are not finite are not certified and NaN.

    Raises:
        TypeError: if an argument has the wrong type or dtype.
        ValueError: if an argument has the wrong shape or value.

    References:
        Gay: Computing optimal locally constrained steps, SIAM J. Sci. Stat. Comput. 2 (1981).
        Moré, Sorensen: Computing a trust region step, SIAM J. Sci. Stat. Comput. 4 (1983).
        Fortin, Wolkowicz: The trust region subproblem and semidefinite programming, Optim. Methods Softw. 19 (2004).

    Example:
        >>> import torch, pmaf
        >>> A, b = torch.eye(2), torch.tensor([3.0, 4.0])
        >>> pmaf.certify(A, b, torch.tensor([0.6, 0.8])).is_global
        tensor(True)
        >>> refuted = pmaf.certify(A, b, torch.tensor([-0.6, -0.8]))  # stationary, but the worst point
        >>> refuted.is_global, refuted.residual < 1e-6, refuted.suboptimality.round(decimals=4)
        (tensor(False), tensor(True), tensor(10., dtype=torch.float64))
    """
    check_choice("certify", "constraint", constraint, CONSTRAINTS)
    check_tensor("certify", "A", A, 2, "(*, m, n)")
    check_tensor("certify", "b", b, 1, "(*, m)")
    check_tensor("certify", "u", u, 1, "(*, n)")
    m, n = A.shape[-2:]
    if n == 0:
        raise ValueError(f"pmaf.certify: A must have at least one column, got {describe(A)}")
    check_sizes("certify", b=("the rows of A", m, b.shape[-1]), u=("the columns of A", n, u.shape[-1]))
    shapes = {"A": A.shape[:-2], "b": b.shape[:-1], "u": u.shape[:-1]}
    if weights is not None:
        check_tensor("certify", "weights", weights, 1, "(*, m)")
        check_sizes("certify", weights=("the rows of A", m, weights.shape[-1]))
        check_nonnegative("certify", "weights", weights, strictly=False)
        shapes["weights"] = weights.shape[:-1]
    r = positive_radius("certify", radius, A.new_empty((), dtype=torch.float64), wait=True)
    check_broadcast("certify", **shapes, radius=r.shape)

    wide = torch.complex128 if A.is_complex() or b.is_complex() or u.is_complex() else torch.float64
    tolerance = 32 * torch.finfo(u.dtype).eps * float(max(m, n) + 8) ** 0.5
    with torch.no_grad(), no_autocast(A):
        A, b, v, r = A.to(wide), b.to(wide), u.to(wide), r.to(torch.float64)
        if weights is not None:
            root = weights.to(torch.float64).sqrt()
            A, b = root[..., None] * A, root * b
        batch = torch.broadcast_shapes(A.shape[:-2], b.shape[:-1], v.shape[:-1], r.shape)
        finite = torch.isfinite(A).flatten(-2).all(-1) & torch.isfinite(b).all(-1) & torch.isfinite(v).all(-1)
        finite = (finite & torch.isfinite(r)).expand(batch)
        A, b = torch.where(finite[..., None, None], A, 0), torch.where(finite[..., None], b, 0)
        v, r = torch.where(finite[..., None], v, 0), torch.where(finite, r, 1)
        found = _judge(A, b, v, r, constraint == "ball", tolerance)
    return Certificate(*(f & finite if f.dtype == torch.bool else torch.where(finite, f, torch.nan) for f in found))


def _judge(A: Tensor, b: Tensor, u: Tensor, r: Tensor, ball: bool, tolerance: float) -> Certificate:
    """The certificate in double precision; in units in which the largest entry of A and the radius are one."""
    entry = magnitude(A)
    A, b, u = A / entry[..., None, None], b / entry[..., None] / r[..., None], u / r[..., None]
    beta, length = torch.linalg.vector_norm(b, dim=-1), torch.linalg.vector_norm(u, dim=-1)
    s, gamma, V = _diagonalise(A, b)
    size = s[..., -1].sqrt()  # ‖A‖

    # Stationarity at u itself.
    slope = _slope(A, b, u)
    inside = (length < 1 - tolerance) if ball else torch.zeros_like(length, dtype=torch.bool)
    fit = -(u.conj() * slope).sum(-1).real * safe_inverse(length.square(), length > 0)
    multiplier = torch.where(inside, 0, fit)
    scale = size * (size * length + beta)
    residual = torch.linalg.vector_norm(slope + multiplier[..., None] * u, dim=-1) * safe_inverse(scale, scale > 0)
    gap = multiplier + s[..., 0]
    excess = (length - 1).clamp(min=0) if ball else (length - 1).abs()
    slack = tolerance * size * (size + beta)
    second_order = (multiplier if ball else gap) >= -slack
    is_global = (residual <= tolerance) & (excess <= tolerance) & second_order

    # The dual bound at the multiplier of the global minimum.
    t = _root(s, gamma)
    if ball:
        t = torch.maximum(t, s[..., 0])
    shrink = torch.where((length > 1) | (not ball), safe_inverse(length, length > 0), 1)
    x = u * shrink[..., None]
    slope = _slope(A, b, x)
    unit = ROUNDING * torch.finfo(torch.float64).eps * float(max(A.shape[-2:]) + 16) ** 0.5
    rounding = unit * size * (size + torch.linalg.vector_norm(matvec(A, x) - b, dim=-1))
    t = torch.maximum(t, rounding)
    dual = t - s[..., 0]
    rho = adjoint_matvec(V, slope + dual[..., None] * x).abs() + rounding[..., None]
    pole = (s - s[..., :1]) + t[..., None]
    bound = (rho.square() * safe_inverse(pole, pole > 0)).sum(-1) / 2
    if ball:
        bound = bound + dual * ((1 - x.abs().square().sum(-1)).clamp(min=0) + unit) / 2
    else:
        bound = torch.where(length > 0, bound, torch.inf)
    square = entry.square()
    return Certificate(multiplier * square, residual, gap * square, is_global, excess, bound * square * r * r)


def _slope(A: Tensor, b: Tensor, u: Tensor) -> Tensor:
    """The gradient Aᴴ(A u − b)."""
    return matvec(A.mH, matvec(A, u) - b)


def _diagonalise(A: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Eigenvalues of Q = AᴴA, ascending, the coefficients Vᴴg, and V, from a singular value decomposition of A."""
    m, n = A.shape[-2:]
    W, sigma, Vh = torch.linalg.svd(A, full_matrices=m < n)
    padding = (0, n - sigma.shape[-1])
    coefficients = sigma * adjoint_matvec(W, b)[..., : sigma.shape[-1]]
    s = torch.nn.functional.pad(sigma, padding).square().flip(-1)
    return s, torch.nn.functional.pad(coefficients, padding).flip(-1), Vh.mH.flip(-1)


def _root(s: Tensor, gamma: Tensor) -> Tensor:
    """The secular equation's root t = λ + λ_min, scaled so that squares stay in range."""
    scale = torch.maximum(gamma.abs().amax(-1), s[..., -1])
    scale = torch.where(scale > 0, scale, 1)
    return solve_secular((s - s[..., :1]) / scale[..., None], gamma / scale[..., None])[0] * scale
