"""What is asked of, and chosen for, the dominant pair of a general matrix."""

import math
from typing import Any

import torch
from torch import Tensor

from pmaf.degeneracy import relative_tolerance
from pmaf.implicit.comparison import Backward
from pmaf.implicit.fixed_point import FixedPoint
from pmaf.implicit.modes import Unrolled
from pmaf.operators import Dense, Operator, describe
from pmaf.solvers.power_iteration import PowerIteration

__all__ = ["dense_general", "general_choices", "general_rtol"]


def dense_general(function: str, X: Tensor | Operator, k: int, largest: bool) -> Dense:
    """X as a full real matrix that need not be symmetric.

    Args:
        function: the public function, for messages.
        X: ``(*, n, n)``, dense or sparse.
        k: must be 1.
        largest: must be true.

    Returns:
        The operator.

    Raises:
        TypeError: if X is not a real tensor.
        ValueError: if more, or something else, than the dominant pair is asked for.
    """
    if not isinstance(X, Tensor) or X.is_complex():
        raise TypeError(f"pmaf.{function}: symmetric=False needs a real tensor, got {describe(X)}")
    if k != 1 or not largest:
        raise ValueError(
            f"pmaf.{function}: symmetric=False finds the one eigenvalue of largest magnitude, got k={k}, "
            f"largest={largest}"
        )
    return Dense(X if X.layout == torch.strided else X.to_dense())


def general_choices(
    function: str, solver: Any, backward: Backward | None
) -> tuple[PowerIteration, FixedPoint | Unrolled]:
    """The solver and the backward mode.

    Args:
        function: the public function, for messages.
        solver: a power iteration, its name, or ``None``.
        backward: a mode, or ``None``.

    Returns:
        Both.

    Raises:
        ValueError: if either needs a symmetric matrix.
    """
    chosen = PowerIteration(symmetric=False) if solver is None or solver == "power_iteration" else solver
    if not isinstance(chosen, PowerIteration) or chosen.symmetric:
        raise ValueError(
            f"pmaf.{function}: symmetric=False needs solver=PowerIteration(symmetric=False), got {describe(solver)}"
        )
    mode = FixedPoint() if backward is None else backward
    if not isinstance(mode, (FixedPoint, Unrolled)):
        raise ValueError(f"pmaf.{function}: symmetric=False needs backward=FixedPoint() or Unrolled(), got {mode}")
    return chosen, mode


def general_rtol(X: Operator) -> float:
    """How close, relative to λ, the next eigenvalue may come: a defective pair moves by the *root* of rounding."""
    return 2 * math.sqrt(relative_tolerance(None, X.dtype, X.n))
