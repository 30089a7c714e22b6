"""What is asked of, and chosen for, the dominant pair of a general matrix."""

import math
from typing import Any

from pmaf.checks.values import describe
from pmaf.implicit.explicit import Backward
from pmaf.implicit.fixed_point import FixedPoint
from pmaf.implicit.modes import Unrolled
from pmaf.linalg.tolerances import relative_tolerance
from pmaf.operators.base import Operator
from pmaf.operators.convert import as_linear_map
from pmaf.operators.dense import Dense
from pmaf.operators.derived import General
from pmaf.operators.function import MatVec
from pmaf.operators.sparse import Sparse, SparseMap
from pmaf.solvers.eigen.power_iteration import PowerIteration

__all__ = ["general_choices", "general_operator", "general_rtol"]


def general_operator(function: str, X: Operator, k: int, largest: bool) -> Dense | General:
    """X as a real matrix that need not be symmetric.

    Args:
        function: the public function, for messages.
        X: the operator that the matrix would be if it were symmetric.
        k: must be 1.
        largest: must be true.

    Returns:
        The operator.

    Raises:
        TypeError: if X is not real, or a Gram matrix.
        ValueError: if more, or something else, than the dominant pair is asked for.
    """
    if not isinstance(X, (Dense, Sparse, MatVec)) or X.dtype.is_complex:
        raise TypeError(
            f"pmaf.{function}: symmetric=False needs a real tensor, dense or sparse, or a real pmaf.MatVec, got "
            f"{type(X).__name__} of {X.dtype}"
        )
    if k != 1 or not largest:
        raise ValueError(
            f"pmaf.{function}: symmetric=False finds the one eigenvalue of largest magnitude, got k={k}, "
            f"largest={largest}"
        )
    if isinstance(X, Dense):
        return X
    return General(SparseMap(X.pattern, X.tensors[0]) if isinstance(X, Sparse) else as_linear_map(X))


def general_choices(
    function: str, X: Dense | General, solver: Any, backward: Backward | None
) -> tuple[PowerIteration, FixedPoint | Unrolled]:
    """The solver and the backward mode.

    Args:
        function: the public function, for messages.
        X: the operator.
        solver: a power iteration, its name, or ``None``.
        backward: a mode, or ``None``.

    Returns:
        Both.

    Raises:
        ValueError: if either needs a symmetric matrix, or the mode a dense one.
    """
    chosen = PowerIteration(symmetric=False) if solver is None or solver == "power_iteration" else solver
    if not isinstance(chosen, PowerIteration) or chosen.symmetric:
        raise ValueError(
            f"pmaf.{function}: symmetric=False needs solver=PowerIteration(symmetric=False), got {describe(solver)}"
        )
    mode = FixedPoint() if backward is None else backward
    if not isinstance(mode, (FixedPoint, Unrolled)):
        raise ValueError(f"pmaf.{function}: symmetric=False needs backward=FixedPoint() or Unrolled(), got {mode}")
    if mode == FixedPoint(dense=True) and isinstance(X, General):
        raise ValueError(
            f"pmaf.{function}: backward={mode} forms the n×n² Jacobian of a dense matrix; for a sparse matrix or a "
            "function use FixedPoint(), which needs products alone"
        )
    return chosen, mode


def general_rtol(X: Operator) -> float:
    """How close, relative to λ, the next eigenvalue may come: a defective pair moves by the *root* of rounding."""
    return 2 * math.sqrt(relative_tolerance(None, X.dtype, X.n))
