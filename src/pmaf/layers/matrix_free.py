"""Least squares and quadratics on the sphere whose matrix is known by its products: check → solve → differentiate."""

from __future__ import annotations

from torch import Tensor

from pmaf.checks.symmetry import asymmetry_allowed
from pmaf.checks.tensors import check_sizes, check_start, common_dtype, positive_radius
from pmaf.checks.values import check_tensor, describe
from pmaf.forward.matrix_free import OUTPUTS, MatrixFreeForward
from pmaf.implicit.autograd import apply_layer
from pmaf.implicit.explicit import Backward
from pmaf.implicit.matrix_free import MatrixFreeAux, MatrixFreeLeastSquares, MatrixFreeQuadratic
from pmaf.implicit.modes import Implicit
from pmaf.linalg.dtypes import working_dtype
from pmaf.operators.base import LinearMap, Operator
from pmaf.operators.probe import check_symmetric_operator
from pmaf.solution import LESSSolution, less_solution
from pmaf.solvers import SPHERE, KrylovTrustRegion, named
from pmaf.solvers.base import SphereSolver
from pmaf.transforms import no_autocast

__all__ = ["refuse_with_operator", "solve_matrix_free"]


def refuse_with_operator(function: str, name: str, ball: bool, **given: object) -> None:
    """Name what a matrix known by its products does not go with.

    Raises:
        ValueError: if something of it was given.
    """
    wrong = [key for key, value in given.items() if value is not None and not isinstance(value, Implicit)]
    if ball:
        wrong.append("constraint='ball'")
    if wrong:
        raise ValueError(f"pmaf.{function}: {', '.join(wrong)} needs a dense {name}; make it one with .to_dense()")


def solve_matrix_free(
    function: str,
    matrix: LinearMap | Operator,
    linear: Tensor,
    radius: float | Tensor,
    start: Tensor | None,
    solver: SphereSolver | str | None,
    backward: Backward | None,
    degenerate: str,
) -> LESSSolution:
    """Least squares or a quadratic whose matrix is known by its products only.

    Raises:
        ValueError: if an argument has a shape or kind that does not go with an operator.
    """
    name = "b" if isinstance(matrix, LinearMap) else "g"
    check_tensor(function, name, linear, 1, "(m,)" if name == "b" else "(n,)")
    if linear.dim() != 1:
        raise ValueError(f"pmaf.{function}: with an operator {name} has no batch dimensions, got {describe(linear)}")
    rows = matrix.rows if isinstance(matrix, LinearMap) else matrix.n
    if rows is not None:
        of = "the rows of A" if name == "b" else "the order of H"
        check_sizes(function, **{name: (of, rows, linear.shape[0])})
    if matrix.n == 0:
        raise ValueError(f"pmaf.{function}: the matrix must have at least one column")
    dtype = common_dtype(function, operator=matrix.tensors[0], **{name: linear})
    work = working_dtype(dtype)
    if work != dtype:
        matrix, linear = matrix.with_tensors([t.to(work) for t in matrix.tensors]), linear.to(work)
    check_start(function, start, matrix.n, (), linear)
    chosen = KrylovTrustRegion() if solver is None else named(function, solver, SPHERE)
    if not isinstance(chosen, KrylovTrustRegion):
        raise ValueError(f"pmaf.{function}: with an operator the solver must be 'krylov_trust_region', got {chosen!r}")
    r = positive_radius(function, radius, linear, wait=True)
    if r.dim():
        raise ValueError(f"pmaf.{function}: with an operator the radius has no batch dimensions, got {describe(r)}")
    if isinstance(matrix, Operator):
        check_symmetric_operator(function, "H", matrix, asymmetry_allowed(dtype))
    mode = backward if isinstance(backward, Implicit) else Implicit()
    shell = matrix.hollow()
    equations = MatrixFreeLeastSquares(shell) if isinstance(shell, LinearMap) else MatrixFreeQuadratic(shell)
    forward = MatrixFreeForward(shell, chosen, start, mode.rtol, mode.atol)
    with no_autocast(linear):
        params = (*matrix.tensors, linear, r)
        outputs = apply_layer(equations, MatrixFreeAux, degenerate, forward, params, OUTPUTS)
    return less_solution(outputs, dtype)
