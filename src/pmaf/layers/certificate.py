r"""A proof, or a refutation, that a vector minimises least squares on the sphere, whatever it came from."""

from __future__ import annotations

import torch
from torch import Tensor

from pmaf.checks.symmetry import check_symmetric
from pmaf.checks.tensors import check_broadcast, check_nonnegative, check_sizes, positive_radius
from pmaf.checks.values import CONSTRAINTS, check_choice, check_tensor, describe
from pmaf.forward.free_unknowns import eliminate
from pmaf.layers.doors import across_ranks
from pmaf.layers.optimality import Certificate, LeastSquaresCase, QuadraticCase, judged
from pmaf.linalg.scaling import magnitude
from pmaf.linalg.tolerances import relative_tolerance
from pmaf.transforms import no_autocast

__all__ = ["Certificate", "certify", "certify_quadratic"]


@across_ranks
def certify(
    A: Tensor,
    b: Tensor,
    u: Tensor,
    *,
    radius: float | Tensor = 1.0,
    weights: Tensor | None = None,
    free: Tensor | None = None,
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
        radius: r > 0, finite, a number or ``(*,)``.
        weights: non-negative, real, ``(*, m)``, as in :func:`pmaf.less`.
        free: C, ``(*, m, p)``, as in :func:`pmaf.less`; its unknowns are taken at their best for every u.
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
        check_nonnegative("certify", "weights", weights)
        shapes["weights"] = weights.shape[:-1]
    if free is not None:
        check_tensor("certify", "free", free, 2, "(*, m, p)")
        check_sizes("certify", free=("the rows of A", m, free.shape[-2]))
        shapes["free"] = free.shape[:-2]
    r = positive_radius("certify", radius, A.new_empty((), dtype=torch.float64), wait=True)
    check_broadcast("certify", **shapes, radius=r.shape)

    wide = torch.complex128 if A.is_complex() or b.is_complex() or u.is_complex() else torch.float64
    with torch.no_grad(), no_autocast(A):
        A, b, v, r = A.to(wide), b.to(wide), u.to(wide), r.to(torch.float64)
        C = None if free is None or free.shape[-1] == 0 else free.to(wide)
        if weights is not None:
            root = weights.to(torch.float64).sqrt()
            A, b, C = root[..., None] * A, root * b, None if C is None else root[..., None] * C
        if C is not None:
            A, b, *_ = eliminate(A, b, C, relative_tolerance(None, torch.float64, n))
        finite = torch.isfinite(A).flatten(-2).all(-1) & torch.isfinite(b).all(-1) & _usable(v, r)
        A, b = torch.where(finite[..., None, None], A, 0), torch.where(finite[..., None], b, 0)
        v, r = torch.where(finite[..., None], v, 0), torch.where(finite, r, 1)
        entry = magnitude(A)
        problem = LeastSquaresCase.of(A / entry[..., None, None], b / entry[..., None] / r[..., None])
        found = judged(problem, v / r[..., None], constraint == "ball", _tolerance(u, max(m, n)))
        return _in_units(found, entry.square(), r, finite)


@across_ranks
def certify_quadratic(
    H: Tensor, g: Tensor, u: Tensor, *, radius: float | Tensor = 1.0, constraint: str = "sphere"
) -> Certificate:
    r"""Prove or refute that u minimises :math:`\tfrac12 u^H H u - \mathrm{Re}\,g^H u` subject to :math:`\|u\| = r`.

    What :func:`certify` does, for any Hermitian H, convex or not: Q = H there. The residual is relative to
    :math:`\|H\|\,\|u\| + \|g\|`. From an eigendecomposition of H in float64, O(n³) for each item. Only the
    Hermitian part of H counts.

    Args:
        H: Hermitian, ``(*, n, n)``.
        g: ``(*, n)``.
        u: the vector to judge, ``(*, n)``, in the precision that it was computed in.
        radius: r > 0, finite, a number or ``(*,)``.
        constraint: ``"sphere"`` for ‖u‖ = r or ``"ball"`` for ‖u‖ ≤ r.

    Returns:
        A :class:`Certificate`. Items that are not finite are not certified and NaN.

    Raises:
        TypeError: if an argument has the wrong type or dtype.
        ValueError: if an argument has the wrong shape or value.

    Example:
        >>> import torch, pmaf
        >>> H, g = torch.diag(torch.tensor([-1.0, 2.0])), torch.tensor([1.0, 0.0])
        >>> pmaf.certify_quadratic(H, g, torch.tensor([1.0, 0.0])).is_global
        tensor(True)
        >>> pmaf.certify_quadratic(H, g, torch.tensor([-1.0, 0.0])).is_global
        tensor(False)
    """
    check_choice("certify_quadratic", "constraint", constraint, CONSTRAINTS)
    check_tensor("certify_quadratic", "H", H, 2, "(*, n, n)")
    check_symmetric("certify_quadratic", "H", H)
    check_tensor("certify_quadratic", "g", g, 1, "(*, n)")
    check_tensor("certify_quadratic", "u", u, 1, "(*, n)")
    n = H.shape[-1]
    if n == 0:
        raise ValueError(f"pmaf.certify_quadratic: H must have at least one column, got {describe(H)}")
    check_sizes("certify_quadratic", g=("the order of H", n, g.shape[-1]), u=("the order of H", n, u.shape[-1]))
    r = positive_radius("certify_quadratic", radius, H.new_empty((), dtype=torch.float64), wait=True)
    check_broadcast("certify_quadratic", H=H.shape[:-2], g=g.shape[:-1], u=u.shape[:-1], radius=r.shape)
    wide = torch.complex128 if H.is_complex() or g.is_complex() or u.is_complex() else torch.float64
    with torch.no_grad(), no_autocast(H):
        H, g, v, r = H.to(wide), g.to(wide), u.to(wide), r.to(torch.float64)
        H = H / 2 + H.mH / 2
        finite = torch.isfinite(H).flatten(-2).all(-1) & torch.isfinite(g).all(-1) & _usable(v, r)
        H, g = torch.where(finite[..., None, None], H, 0), torch.where(finite[..., None], g, 0)
        v, r = torch.where(finite[..., None], v, 0), torch.where(finite, r, 1)
        entry = magnitude(H)
        problem = QuadraticCase.of(H / entry[..., None, None], g / entry[..., None] / r[..., None])
        found = judged(problem, v / r[..., None], constraint == "ball", _tolerance(u, n))
        return _in_units(found, entry, r, finite)


def _usable(u: Tensor, r: Tensor) -> Tensor:
    """Whether vector and radius are finite."""
    return torch.isfinite(u).all(-1) & torch.isfinite(r)


def _tolerance(u: Tensor, n: int) -> float:
    """τ of the type that u was computed in."""
    tau: float = 32 * torch.finfo(u.dtype).eps * float(n + 8) ** 0.5
    return tau


def _in_units(found: Certificate, unit: Tensor, r: Tensor, finite: Tensor) -> Certificate:
    """A certificate in the units of the data, NaN where they are not finite."""
    multiplier, residual, gap, is_global, feasibility, bound = found
    scaled = (multiplier * unit, residual, gap * unit, is_global, feasibility, bound * unit * r * r)
    return Certificate(*(f & finite if f.dtype == torch.bool else torch.where(finite, f, torch.nan) for f in scaled))
