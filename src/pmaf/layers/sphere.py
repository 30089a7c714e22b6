r"""Least squares on the sphere: check → choose a solver → differentiate → answer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pmaf.checks.tensors import (
    check_broadcast,
    check_nonnegative,
    check_sizes,
    check_start,
    common_dtype,
    positive_radius,
)
from pmaf.checks.values import check_tensor, describe
from pmaf.forward.sphere import LeastSquaresForward
from pmaf.handover import ForwardResult
from pmaf.implicit.dense_jacobian import DenseJacobian, LeastSquaresJacobian
from pmaf.implicit.modes import Backward, Implicit
from pmaf.implicit.sphere import LeastSquaresEquations
from pmaf.layers.direct_sphere import direct_less
from pmaf.layers.doors import Door, Options, differentiate, raising, reporting
from pmaf.layers.matrix_free import refuse_with_operator, solve_matrix_free
from pmaf.layers.units import least_squares_units, with_gap
from pmaf.layers.verdict import judge, narrowed
from pmaf.linalg.dtypes import working_dtype
from pmaf.operators.base import Operator
from pmaf.operators.convert import as_operator
from pmaf.solution import LESSSolution
from pmaf.solvers import SPHERE, named, select
from pmaf.solvers.base import SphereSolver
from pmaf.transforms import no_autocast

__all__ = ["less", "less_ex", "settings_of", "solution_of"]


def _less(
    _door: Door,
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
) -> LESSSolution:
    r"""Least squares on the sphere: the global minimiser of a least-squares misfit among vectors of given length.

    .. math:: u^\star = \operatorname{argmin}_u\ \tfrac12\|A u - b\|^2 \quad\text{subject to}\quad \|u\| = r

    With ``weights`` and ``free``, the misfit is :math:`\|W^{1/2}(A u + C z - b)\|^2`, minimised over z as well.

    Supports float32, float64, complex64 and complex128; half precision is computed in float32 and returned in the
    input's type. Leading dimensions are batch dimensions and broadcast. The minimiser is unique unless the *gap*
    :math:`\lambda + \lambda_{\min}(A^H A)` is zero, see :func:`less_ex`. Differentiable, to any order, with respect to
    A, b, radius, weights and free.

    Cost: O(mn² + n³) forward, O(mn + n²) backward. Checks the result, which synchronises the device; :func:`less_ex`
    does not.

    DTensors that are divided along batch dimensions are solved where they lie. Of A, b, weights and free that are
    divided by rows, ``Shard(-2)`` of A, ranks send n²/2 + O(n) numbers a problem, once, and nothing for the gradient; u
    is replicated then. Columns cannot be divided.

    Args:
        A: ``(*, m, n)``, any m ≥ 0 and n ≥ 1, any rank; or, without batch dimensions, a sparse tensor or an operator
            such as :class:`pmaf.MatVec` (there ``fn`` need not be symmetric), which are only multiplied by.
        b: ``(*, m)``; A, b, weights and free share one precision.
        radius: r > 0, finite, a number or ``(*,)``.
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
    options = Options(_door, start, solver, backward, degenerate, constraint)

    def again(A: Any, b: Any, weights: Any, radius: Any) -> LESSSolution:
        return _general_less(options, A, b, radius, weights, None)

    given = {"weights": weights, "constraint": constraint, "free": free, "start": start, "solver": solver}
    quick = direct_less(again, A, b, radius=radius, backward=backward, **given)
    return _general_less(options, A, b, radius, weights, free) if quick is None else quick.solution()


def _general_less(
    options: Options,
    A: Tensor | Operator,
    b: Tensor,
    radius: float | Tensor,
    weights: Tensor | None,
    free: Tensor | None,
) -> LESSSolution:
    """Least squares in any form, on any device, by any solver.

    Raises:
        ValueError: if A has no columns, or the backward mode knows no weights or free unknowns.
    """
    _door, start, degenerate = options.door, options.start, options.policy
    if isinstance(A, Operator) or (isinstance(A, Tensor) and A.layout != torch.strided):
        if isinstance(A, Tensor):
            check_tensor(_door.name, "A", A, 2, "(m, n)", sparse=True)
        refuse_with_operator(options, "A", weights=weights, free=free)
        return solve_matrix_free(options, as_operator(A).general(), b, radius)
    check_tensor(_door.name, "A", A, 2, "(*, m, n)")
    check_tensor(_door.name, "b", b, 1, "(*, m)")
    wait = _door.may_wait(A)
    m, n = A.shape[-2:]
    if n == 0:
        raise ValueError(f"pmaf.{_door.name}: A must have at least one column, got {describe(A)}")
    check_sizes(_door.name, b=("the rows of A", m, b.shape[-1]))
    shapes = {"A": A.shape[:-2], "b": b.shape[:-1]}
    if weights is not None:
        check_tensor(_door.name, "weights", weights, 1, "(*, m)")
        check_sizes(_door.name, weights=("the rows of A", m, weights.shape[-1]))
        check_nonnegative(_door.name, "weights", weights, wait=wait)
        shapes["weights"] = weights.shape[:-1]
    if free is not None:
        check_tensor(_door.name, "free", free, 2, "(*, m, p)")
        check_sizes(_door.name, free=("the rows of A", m, free.shape[-2]))
        shapes["free"] = free.shape[:-2]
    dtype = common_dtype(_door.name, A=A, b=b, free=free, weights=weights)
    work = working_dtype(dtype)
    r = positive_radius(_door.name, radius, A.to(work), wait)
    shapes["radius"] = r.shape
    check_broadcast(_door.name, **shapes)
    check_start(_door.name, start, n, tuple(shapes.values()), A)
    if free is not None and free.shape[-1] == 0:  # a block without columns is none, and z is empty
        empty = A.new_zeros(*torch.broadcast_shapes(*shapes.values()), 0, dtype=dtype)
        given = {"constraint": options.constraint, "start": start, "solver": options.solver, "degenerate": degenerate}
        bare = _less(_door, A, b, radius=radius, weights=weights, backward=options.backward, **given)
        return bare._replace(z=empty)
    params: tuple[Any, ...] = (
        A.to(work),
        b.to(work),
        None if weights is None else weights.to(A.device, r.dtype),
        None if free is None else free.to(work),
        r,
    )
    if isinstance(options.mode, DenseJacobian) and (weights is not None or free is not None):
        raise ValueError(f"pmaf.{_door.name}: backward=DenseJacobian() knows no weights and no free unknowns")
    forward = LeastSquaresForward(*settings_of(options, "less", wait))
    known = {
        Implicit: lambda: LeastSquaresEquations(degenerate, free is not None),
        DenseJacobian: lambda: LeastSquaresJacobian(degenerate),
    }
    with no_autocast(A):
        # An absolute tolerance has the units of the data.
        units = None if options.tolerances.atol else least_squares_units(*params)
        core_dims = LeastSquaresEquations.core_dims
        found = with_gap(differentiate(options, "least squares", known, forward, params, core_dims, units), units)
    solution = solution_of(found, dtype)
    if free is None:
        return solution
    z, status = narrowed(found.solution[2], dtype, solution.status)
    return solution._replace(status=status, z=z)


def settings_of(options: Options, problem: str, wait: bool) -> tuple[SphereSolver, bool, Tensor | None, Any, float]:
    """Of a forward pass: the solver, whether the inside counts as well, the start, and what counts as zero.

    Raises:
        ValueError: if the mode does not know the constraint.
    """
    if isinstance(options.mode, DenseJacobian) and options.constraint == "ball":
        raise ValueError(f"pmaf.{options.name}: backward=DenseJacobian() knows the sphere only, got constraint='ball'")
    given, known = options.solver, options.tolerances
    solver: SphereSolver = select(problem, wait=wait) if given is None else named(options.name, given, SPHERE)
    return solver, options.constraint == "ball", options.start, known.rtol, known.atol


def solution_of(found: ForwardResult, dtype: torch.dtype) -> LESSSolution:
    """The named result: the minimiser in the type of the input, its certificate in that of the computation."""
    u, status = narrowed(found.solution[0], dtype, found.report.status)
    return LESSSolution(u, found.solution[1], status, *found.report[1:])


def short_less(*args: object, **kwargs: Any) -> Tensor | None:
    """The short way of :func:`less`, or ``None``; the status is looked at where the kernel had something to say."""

    def again(A: Any, b: Any, weights: Any, radius: Any) -> LESSSolution:
        door, given = Door("less", raises=True), {"constraint": kwargs.get("constraint", "sphere")}
        return _general_less(Options(door, policy=policy, **given), A, b, radius, weights, None)

    policy = kwargs.get("degenerate", "drop")
    quick = direct_less(again, *args, **kwargs)
    if quick is None or quick.whole is None:
        return None if quick is None else quick.u
    judge("less", quick.whole.status, policy, quick.whole.u.requires_grad, depth=4)
    return quick.whole.u


less = raising("less", _less, lambda solution: solution.u, short_less)
less_ex = reporting(
    "less_ex",
    _less,
    r""":func:`less` that returns the certificate and reports a status for each item instead of raising.

A point with :math:`(A^H W A + \lambda I) u = A^H W b` and :math:`\mathrm{gap} = \lambda + \lambda_{\min} \ge 0` is
a global minimiser, and the only one if the gap is positive: the answer carries its own proof. ``multiplier`` is
differentiable like ``u``; ``gap`` and ``residual`` are not.

The arguments are those of :func:`less`.

Returns:
    A :class:`LESSSolution`; its field ``z`` is ``None`` unless ``free`` is given.

Example:
    >>> import torch, pmaf
    >>> solution = pmaf.less_ex(torch.eye(2), torch.tensor([3.0, 4.0]))
    >>> solution.u, solution.multiplier
    (tensor([0.6000, 0.8000]), tensor(4.))
""",
)
