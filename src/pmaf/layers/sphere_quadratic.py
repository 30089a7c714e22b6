"""Quadratics on the sphere: check → choose a solver → differentiate → answer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pmaf.checks.symmetry import check_square, check_symmetric
from pmaf.checks.tensors import check_broadcast, check_sizes, check_start, common_dtype, positive_radius
from pmaf.checks.values import check_tensor
from pmaf.forward.sphere import QuadraticForward
from pmaf.implicit.dense_jacobian import DenseJacobian, QuadraticJacobian
from pmaf.implicit.modes import Backward, Implicit
from pmaf.implicit.sphere import QuadraticEquations
from pmaf.layers.direct_sphere import direct_quadratic
from pmaf.layers.doors import Door, Options, differentiate, raising, reporting
from pmaf.layers.matrix_free import refuse_with_operator, solve_matrix_free
from pmaf.layers.sphere import settings_of, solution_of
from pmaf.layers.units import quadratic_units, with_gap
from pmaf.linalg.dtypes import working_dtype
from pmaf.operators.base import Operator
from pmaf.operators.convert import as_operator
from pmaf.solution import LESSSolution
from pmaf.solvers.base import SphereSolver
from pmaf.transforms import no_autocast

__all__ = ["sphere_quadratic", "sphere_quadratic_ex"]


def _sphere_quadratic(
    _door: Door,
    H: Tensor | Operator,
    g: Tensor,
    *,
    radius: float | Tensor = 1.0,
    constraint: str = "sphere",
    start: Tensor | None = None,
    solver: SphereSolver | str | None = None,
    backward: Backward | None = None,
    degenerate: str = "drop",
) -> LESSSolution:
    r"""The global minimiser of a quadratic, convex or not, on the sphere or the ball.

    .. math:: u^\star = \operatorname{argmin}_u\ \tfrac12 u^H H u - \mathrm{Re}\,g^H u
              \quad\text{subject to}\quad \|u\| = r

    With ``constraint="ball"`` this is the trust-region subproblem. The gradient with respect to H is Hermitian.

    Args:
        H: symmetric (Hermitian), of any signs, ``(*, n, n)``; or, without batch dimensions, a sparse tensor or an
            operator, which are only multiplied by.
        g: ``(*, n)``.
        radius: r > 0, finite, a number or ``(*,)``.
        constraint: ``"sphere"`` for ‖u‖ = r or ``"ball"`` for ‖u‖ ≤ r.
        start: ``(*, n)``, where an iterative solver begins.
        solver: an object or a short name; chosen if not given.
        backward: how to differentiate; :class:`pmaf.Implicit` if not given.
        degenerate: as in :func:`less`.

    Returns:
        u, ``(*, n)``.

    Raises:
        TypeError: if an argument has the wrong type or dtype.
        ValueError: if an argument has the wrong shape or value.
        ConvergenceError: if an item could not be solved; the message names the first.
        DegeneracyError: if an item is not unique and ``degenerate="raise"``.

    Example:
        >>> import torch, pmaf
        >>> pmaf.sphere_quadratic(torch.diag(torch.tensor([-1.0, 2.0])), torch.tensor([1.0, 0.0]), radius=2.0)
        tensor([2., 0.])
    """
    options = Options(_door, start, solver, backward, degenerate, constraint)
    if start is None and solver is None and backward is None:

        def again(H: Any, g: Any, _: None, radius: Any) -> LESSSolution:
            return _general_quadratic(options, H, g, radius)

        quick = direct_quadratic(H, g, radius, constraint == "ball", again)
        if quick is not None:
            return quick.solution()
    return _general_quadratic(options, H, g, radius)


def _general_quadratic(options: Options, H: Tensor | Operator, g: Tensor, radius: float | Tensor) -> LESSSolution:
    """A quadratic in any form, on any device, by any solver."""
    _door, start, degenerate = options.door, options.start, options.policy
    if isinstance(H, Operator) or (isinstance(H, Tensor) and H.layout != torch.strided):
        if isinstance(H, Tensor):
            check_tensor(_door.name, "H", H, 2, "(n, n)", sparse=True)
            check_square(_door.name, "H", H)
        refuse_with_operator(options, "H")
        return solve_matrix_free(options, as_operator(H), g, radius)
    check_tensor(_door.name, "H", H, 2, "(*, n, n)")
    check_tensor(_door.name, "g", g, 1, "(*, n)")
    wait = _door.may_wait(H)
    check_symmetric(_door.name, "H", H, wait=wait)
    n = H.shape[-1]
    check_sizes(_door.name, g=("the order of H", n, g.shape[-1]))
    dtype = common_dtype(_door.name, H=H, g=g)
    work = working_dtype(dtype)
    r = positive_radius(_door.name, radius, H.to(work), wait)
    check_broadcast(_door.name, H=H.shape[:-2], g=g.shape[:-1], radius=r.shape)
    check_start(_door.name, start, n, (H.shape[:-2], g.shape[:-1], r.shape), H)
    forward = QuadraticForward(*settings_of(options, "sphere_quadratic", wait))
    known = {
        Implicit: lambda: QuadraticEquations(degenerate),
        DenseJacobian: lambda: QuadraticJacobian(degenerate),
    }
    params: tuple[Tensor, ...] = (H.to(work), g.to(work), r)
    with no_autocast(H):
        units = None if options.tolerances.atol else quadratic_units(*params)
        what, core_dims = "quadratics on the sphere", QuadraticEquations.core_dims
        found = with_gap(differentiate(options, what, known, forward, params, core_dims, units), units)
    return solution_of(found, dtype)


sphere_quadratic = raising("sphere_quadratic", _sphere_quadratic, lambda solution: solution.u)
sphere_quadratic_ex = reporting(
    "sphere_quadratic_ex",
    _sphere_quadratic,
    """:func:`sphere_quadratic` that returns the certificate and reports a status for each item instead of raising.

The arguments are those of :func:`sphere_quadratic`.

Returns:
    A :class:`LESSSolution`.

Example:
    >>> import torch, pmaf
    >>> pmaf.sphere_quadratic_ex(torch.diag(torch.tensor([-1.0, 2.0])), torch.tensor([1.0, 0.0])).multiplier
    tensor(2.)
""",
)
