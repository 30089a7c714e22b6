r"""Least squares and quadratics on the sphere: check → choose a solver → differentiate → answer."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from pmaf.checks.symmetry import check_square, check_symmetric
from pmaf.checks.tensors import (
    check_broadcast,
    check_nonnegative,
    check_sizes,
    check_start,
    common_dtype,
    positive_radius,
)
from pmaf.checks.values import CONSTRAINTS, POLICIES, check_choice, check_tensor, describe
from pmaf.forward.sphere import LeastSquaresForward, QuadraticForward
from pmaf.implicit.autograd import apply_layer
from pmaf.implicit.dense_jacobian import DenseJacobian
from pmaf.implicit.explicit import Backward, compare
from pmaf.implicit.modes import Implicit
from pmaf.implicit.sphere import LeastSquaresEquations, QuadraticEquations, SphereAux
from pmaf.layers.matrix_free import refuse_with_operator, solve_matrix_free
from pmaf.layers.units import LeastSquaresUnits, QuadraticUnits
from pmaf.linalg.dtypes import working_dtype
from pmaf.operators.base import Operator, may_wait
from pmaf.operators.convert import as_linear_map, as_operator
from pmaf.solution import FreeLESSSolution, LESSSolution, judge, less_solution, narrowed
from pmaf.solvers import SPHERE, named, select
from pmaf.solvers.base import SphereSolver
from pmaf.transforms import no_autocast

__all__ = ["less", "less_ex", "sphere_quadratic", "sphere_quadratic_ex"]


def less(
    A: Tensor | Operator,
    b: Tensor,
    *,
    radius: float | Tensor = 1.0,
    weights: Tensor | None = None,
    free: Tensor | None = None,
    constraint: str = "sphere",
    start: Tensor | None = None,
    solver: SphereSolver | str | None = None,
    backward: Backward | None = None,
    degenerate: str = "drop",
) -> Tensor:
    r"""Least squares on the sphere: the global minimiser of a least-squares misfit among vectors of given length.

    .. math:: u^\star = \operatorname{argmin}_u\ \tfrac12\|A u - b\|^2 \quad\text{subject to}\quad \|u\| = r

    With ``weights`` and ``free``, the misfit is :math:`\|W^{1/2}(A u + C z - b)\|^2`, minimised over z as well.

    Supports float32, float64, complex64 and complex128; half precision is computed in float32 and returned in the
    input's type. Leading dimensions are batch dimensions and broadcast. The minimiser is unique unless the *gap*
    :math:`\lambda + \lambda_{\min}(A^H A)` is zero, see :func:`less_ex`. Differentiable, to any order, with respect to
    A, b, radius, weights and free.

    Cost: O(mn² + n³) forward, O(mn + n²) backward. Checks the result, which synchronises the device; :func:`less_ex`
    does not.

    Args:
        A: ``(*, m, n)``, any m ≥ 0 and n ≥ 1, any rank; or, without batch dimensions, a sparse tensor or an operator
            such as :class:`pmaf.MatVec` (there ``fn`` need not be symmetric), which are only multiplied by.
        b: ``(*, m)``; A, b, weights and free share one precision.
        radius: r > 0, a number or ``(*,)``.
        weights: non-negative, real, ``(*, m)``; all one if not given.
        free: C, ``(*, m, p)``, the columns of unknowns that the constraint does not see.
        constraint: ``"sphere"`` for ‖u‖ = r or ``"ball"`` for ‖u‖ ≤ r.
        start: ``(*, n)``, where an iterative solver begins; finite, and real if A is.
        solver: an object or a short name; see :mod:`pmaf.solvers`. Chosen if not given.
        backward: how to differentiate; :class:`pmaf.Implicit` if not given.
        degenerate: what becomes of a gradient that is not determined: ``"drop"`` it and warn, ``"nan"`` or ``"raise"``.

    Returns:
        u, ``(*, n)``.

    Raises:
        TypeError: if an argument has the wrong type or dtype.
        ValueError: if an argument has the wrong shape or value.
        ConvergenceError: if an item could not be solved; the message names the first.
        DegeneracyError: if an item is not unique and ``degenerate="raise"``.

    References:
        Xu, Wang, Liu, Gould: PMaF: Deep Declarative Layers for Principal Matrix Features (2023), arXiv 2306.14759.

    Example:
        >>> import torch, pmaf
        >>> A = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
        >>> u = pmaf.less(A, torch.tensor([6.0, 4.0]))
        >>> bool((torch.linalg.vector_norm(u) - 1).abs() < 1e-6)
        True
    """
    solution = _less("less", A, b, radius, weights, free, constraint, start, solver, backward, degenerate)
    judge("less", solution.status, degenerate, solution.u.requires_grad)
    return solution.u


def less_ex(
    A: Tensor | Operator,
    b: Tensor,
    *,
    radius: float | Tensor = 1.0,
    weights: Tensor | None = None,
    free: Tensor | None = None,
    constraint: str = "sphere",
    start: Tensor | None = None,
    solver: SphereSolver | str | None = None,
    backward: Backward | None = None,
    degenerate: str = "drop",
) -> LESSSolution | FreeLESSSolution:
    r""":func:`less` that returns the certificate and reports a status for each item instead of raising.

    A point with :math:`(A^H W A + \lambda I) u = A^H W b` and :math:`\mathrm{gap} = \lambda + \lambda_{\min} \ge 0` is
    a global minimiser, and the only one if the gap is positive: the answer carries its own proof. ``multiplier`` is
    differentiable like ``u``; ``gap`` and ``residual`` are not.

    Args:
        A: see :func:`less`.
        b: see :func:`less`.
        radius: see :func:`less`.
        weights: see :func:`less`.
        free: see :func:`less`.
        constraint: see :func:`less`.
        start: see :func:`less`.
        solver: see :func:`less`.
        backward: see :func:`less`.
        degenerate: see :func:`less`; with ``"raise"``, not before a gradient is asked for.

    Returns:
        A :class:`LESSSolution`, with a last field ``z`` if ``free`` is given.

    Example:
        >>> import torch, pmaf
        >>> solution = pmaf.less_ex(torch.eye(2), torch.tensor([3.0, 4.0]))
        >>> solution.u, solution.multiplier
        (tensor([0.6000, 0.8000]), tensor(4.))
    """
    return _less("less_ex", A, b, radius, weights, free, constraint, start, solver, backward, degenerate)


def sphere_quadratic(
    H: Tensor | Operator,
    g: Tensor,
    *,
    radius: float | Tensor = 1.0,
    constraint: str = "sphere",
    start: Tensor | None = None,
    solver: SphereSolver | str | None = None,
    backward: Backward | None = None,
    degenerate: str = "drop",
) -> Tensor:
    r"""The global minimiser of a quadratic, convex or not, on the sphere or the ball.

    .. math:: u^\star = \operatorname{argmin}_u\ \tfrac12 u^H H u - \mathrm{Re}\,g^H u
              \quad\text{subject to}\quad \|u\| = r

    With ``constraint="ball"`` this is the trust-region subproblem. The gradient with respect to H is Hermitian.

    Args:
        H: symmetric (Hermitian), of any signs, ``(*, n, n)``; or, without batch dimensions, a sparse tensor or an
            operator, which are only multiplied by.
        g: ``(*, n)``.
        radius: r > 0, a number or ``(*,)``.
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
    solution = _sphere_quadratic("sphere_quadratic", H, g, radius, constraint, start, solver, backward, degenerate)
    judge("sphere_quadratic", solution.status, degenerate, solution.u.requires_grad)
    return solution.u


def sphere_quadratic_ex(
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
    """:func:`sphere_quadratic` that returns the certificate and reports a status for each item instead of raising.

    Args:
        H: see :func:`sphere_quadratic`.
        g: see :func:`sphere_quadratic`.
        radius: see :func:`sphere_quadratic`.
        constraint: see :func:`sphere_quadratic`.
        start: see :func:`sphere_quadratic`.
        solver: see :func:`sphere_quadratic`.
        backward: see :func:`sphere_quadratic`.
        degenerate: see :func:`sphere_quadratic`; with ``"raise"``, not before a gradient is asked for.

    Returns:
        A :class:`LESSSolution`.

    Example:
        >>> import torch, pmaf
        >>> pmaf.sphere_quadratic_ex(torch.diag(torch.tensor([-1.0, 2.0])), torch.tensor([1.0, 0.0])).multiplier
        tensor(2.)
    """
    return _sphere_quadratic("sphere_quadratic_ex", H, g, radius, constraint, start, solver, backward, degenerate)


def _choose(function: str, solver: SphereSolver | str | None, wait: bool) -> SphereSolver:
    """The solver object."""
    if solver is not None:
        return cast("SphereSolver", named(function, solver, SPHERE))
    return cast("SphereSolver", select(function.removesuffix("_ex"), wait=wait))


def _tolerances(function: str, mode: Backward, constraint: str) -> tuple[float | None, float]:
    """What counts as zero: the mode's tolerances, or the default ones.

    Raises:
        ValueError: if the mode does not know the constraint.
    """
    if isinstance(mode, DenseJacobian) and constraint == "ball":
        raise ValueError(f"pmaf.{function}: backward=DenseJacobian() knows the sphere only, got constraint='ball'")
    known = mode if isinstance(mode, Implicit) else Implicit()
    return known.rtol, known.atol


def _less(
    function: str,
    A: Tensor | Operator,
    b: Tensor,
    radius: float | Tensor,
    weights: Tensor | None,
    free: Tensor | None,
    constraint: str,
    start: Tensor | None,
    solver: SphereSolver | str | None,
    backward: Backward | None,
    degenerate: str,
) -> LESSSolution | FreeLESSSolution:
    """The path that both doors of least squares share.

    Raises:
        ValueError: if A has no columns.
    """
    check_choice(function, "degenerate", degenerate, POLICIES)
    check_choice(function, "constraint", constraint, CONSTRAINTS)
    if isinstance(A, Operator) or (isinstance(A, Tensor) and A.layout != torch.strided):
        if isinstance(A, Tensor):
            check_tensor(function, "A", A, 2, "(m, n)", sparse=True)
        refuse_with_operator(function, "A", weights=weights, free=free, backward=backward, ball=constraint == "ball")
        return solve_matrix_free(function, as_linear_map(A), b, radius, start, solver, backward, degenerate)
    check_tensor(function, "A", A, 2, "(*, m, n)")
    check_tensor(function, "b", b, 1, "(*, m)")
    wait = may_wait(A, not function.endswith("_ex"))
    m, n = A.shape[-2:]
    if n == 0:
        raise ValueError(f"pmaf.{function}: A must have at least one column, got {describe(A)}")
    check_sizes(function, b=("the rows of A", m, b.shape[-1]))
    shapes = {"A": A.shape[:-2], "b": b.shape[:-1]}
    if weights is not None:
        check_tensor(function, "weights", weights, 1, "(*, m)")
        check_sizes(function, weights=("the rows of A", m, weights.shape[-1]))
        check_nonnegative(function, "weights", weights, strictly=False, wait=wait)
        shapes["weights"] = weights.shape[:-1]
    if free is not None:
        check_tensor(function, "free", free, 2, "(*, m, p)")
        check_sizes(function, free=("the rows of A", m, free.shape[-2]))
        shapes["free"] = free.shape[:-2]
    dtype = common_dtype(function, A=A, b=b, free=free, weights=weights)
    work = working_dtype(dtype)
    r = positive_radius(function, radius, A.to(work), wait)
    shapes["radius"] = r.shape
    check_broadcast(function, **shapes)
    check_start(function, start, n, tuple(shapes.values()), A)
    empty = None
    if free is not None and free.shape[-1] == 0:  # a block without columns is none, and z is empty
        free, empty = None, A.new_zeros(*torch.broadcast_shapes(*shapes.values()), 0, dtype=dtype)
    real = r.dtype
    params: tuple[Any, ...] = (
        A.to(work),
        b.to(work),
        None if weights is None else weights.to(A.device, real),
        None if free is None else free.to(work),
        r,
    )
    mode = Implicit() if backward is None else backward
    if isinstance(mode, DenseJacobian) and (weights is not None or free is not None):
        raise ValueError(f"pmaf.{function}: backward=DenseJacobian() knows no weights and no free unknowns")
    rtol, atol = _tolerances(function, mode, constraint)
    forward = LeastSquaresForward(_choose(function, solver, wait), constraint == "ball", start, rtol, atol)
    equations = LeastSquaresEquations(free is not None)
    core_dims, size = equations.core_dims(), equations.solution_size
    with no_autocast(A):
        units = None if atol else LeastSquaresUnits.of(*params)  # an absolute tolerance has the units of the data
        params = params if units is None else units.inwards(*params)
        if isinstance(mode, Implicit):
            outputs = apply_layer(equations, SphereAux, degenerate, forward, params, 13 if free is not None else 12)
        else:
            outputs = compare(function, mode, "least_squares", degenerate, forward, params, core_dims, size)
        outputs = outputs if units is None else units.outwards(outputs)
    solution = less_solution(outputs, dtype)
    if free is None:
        return solution if empty is None else FreeLESSSolution(*solution, empty)
    z, status = narrowed(outputs[2], dtype, solution.status)
    return FreeLESSSolution(*solution._replace(status=status), z)


def _sphere_quadratic(
    function: str,
    H: Tensor | Operator,
    g: Tensor,
    radius: float | Tensor,
    constraint: str,
    start: Tensor | None,
    solver: SphereSolver | str | None,
    backward: Backward | None,
    degenerate: str,
) -> LESSSolution:
    """The path that both doors of quadratics share."""
    check_choice(function, "degenerate", degenerate, POLICIES)
    check_choice(function, "constraint", constraint, CONSTRAINTS)
    if isinstance(H, Operator) or (isinstance(H, Tensor) and H.layout != torch.strided):
        if isinstance(H, Tensor):
            check_tensor(function, "H", H, 2, "(n, n)", sparse=True)
            check_square(function, "H", H)
        refuse_with_operator(function, "H", backward=backward, ball=constraint == "ball")
        return solve_matrix_free(function, as_operator(H), g, radius, start, solver, backward, degenerate)
    check_tensor(function, "H", H, 2, "(*, n, n)")
    check_tensor(function, "g", g, 1, "(*, n)")
    wait = may_wait(H, not function.endswith("_ex"))
    check_symmetric(function, "H", H, wait=wait)
    n = H.shape[-1]
    check_sizes(function, g=("the order of H", n, g.shape[-1]))
    dtype = common_dtype(function, H=H, g=g)
    work = working_dtype(dtype)
    r = positive_radius(function, radius, H.to(work), wait)
    check_broadcast(function, H=H.shape[:-2], g=g.shape[:-1], radius=r.shape)
    check_start(function, start, n, (H.shape[:-2], g.shape[:-1], r.shape), H)
    mode = Implicit() if backward is None else backward
    rtol, atol = _tolerances(function, mode, constraint)
    forward = QuadraticForward(_choose(function, solver, wait), constraint == "ball", start, rtol, atol)
    equations = QuadraticEquations()
    params: tuple[Tensor, ...] = (H.to(work), g.to(work), r)
    with no_autocast(H):
        units = None if atol else QuadraticUnits.of(*params)
        params = params if units is None else units.inwards(*params)
        if isinstance(mode, Implicit):
            outputs = apply_layer(equations, SphereAux, degenerate, forward, params, 12)
        else:
            outputs = compare(function, mode, "quadratic", degenerate, forward, params, equations.core_dims())
        outputs = outputs if units is None else units.outwards(outputs)
    return less_solution(outputs, dtype)
