r"""The dominant pair of a general matrix: check → choose a solver → differentiate → answer."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from torch import Tensor

from pmaf.checks.symmetry import asymmetry_allowed
from pmaf.checks.tensors import check_start
from pmaf.checks.values import describe
from pmaf.forward.eigen import EigenForward
from pmaf.implicit.base import Derivative
from pmaf.implicit.dominant import DominantEquations
from pmaf.implicit.fixed_point import FixedPoint, FixedPointPair
from pmaf.implicit.modes import Backward, Unrolled
from pmaf.layers.doors import Door, Options, differentiate, raising, reporting
from pmaf.layers.eigen_arguments import check_reference, columns_of, prepare
from pmaf.layers.gauge import fix_phase
from pmaf.layers.units import units_of
from pmaf.layers.verdict import narrowed_values
from pmaf.linalg.tolerances import relative_tolerance
from pmaf.operators.base import Operator
from pmaf.operators.dense import Dense
from pmaf.operators.function import MatVec
from pmaf.operators.scaled import in_units
from pmaf.operators.sparse import Sparse
from pmaf.solution import DominantSolution
from pmaf.solvers.eigen.power_iteration import PowerIteration
from pmaf.transforms import no_autocast

__all__ = ["DominantPair", "dominant_pair", "dominant_pair_ex"]


class DominantPair(NamedTuple):
    """Eigenvalue ``(*,)`` and eigenvector ``(*, n)``."""

    eigenvalue: Tensor
    eigenvector: Tensor


def _dominant_pair(
    _door: Door,
    X: Tensor | Operator,
    *,
    reference: Tensor | None = None,
    start: Tensor | None = None,
    solver: PowerIteration | str | None = None,
    backward: Backward | None = None,
) -> DominantSolution:
    r"""The eigenpair of strictly largest magnitude of a real square matrix, symmetric or not.

    .. math:: X u = \lambda u, \qquad \|u\| = 1, \qquad |\lambda| > |\lambda_j| \ \text{for all others}

    Found by power iteration and differentiated as its fixed point, see :class:`pmaf.FixedPoint`: what PageRank, Markov
    chains and Perron vectors need. Sparse matrices and functions are only multiplied by, forward and backward. A tie in
    magnitude or a complex pair on top ends as NOT_UNIQUE or MAX_STEPS. The gradient is that of the entries, not
    symmetric.

    Real dtypes; half precision is computed in float32 and returned in the input's type. Leading dimensions are batch
    dimensions. Cost: O(n²) a step, and as many steps as :math:`|\lambda_2/\lambda_1|` asks for; O(n³) for the
    backward pass of a dense matrix. Checks the result, which synchronises the device; :func:`dominant_pair_ex` does
    not.

    Args:
        X: ``(*, n, n)``, a tensor; or, without batch dimensions, a sparse tensor or a :class:`pmaf.MatVec`, which may
            multiply vectors that are divided among ranks.
        reference: ``(*, n)``; u has a non-negative inner product with it. The all-ones vector if not given.
        start: ``(*, n, 1)`` or ``(n,)``, where the iteration begins.
        solver: ``PowerIteration(symmetric=False)``, the default, with other limits.
        backward: :class:`pmaf.FixedPoint`, the default, or :class:`pmaf.Unrolled`.

    Returns:
        The named pair ``(eigenvalue, eigenvector)`` of shapes ``(*,)`` and ``(*, n)``.

    Raises:
        TypeError: if X is not real, or an argument has the wrong type.
        ValueError: if an argument has the wrong shape or value.
        ConvergenceError: if an item could not be solved; the message names the first.

    Example:
        >>> import torch, pmaf
        >>> P = torch.tensor([[0.9, 0.5], [0.1, 0.5]])  # columns sum to one
        >>> eigenvalue, u = pmaf.dominant_pair(P)
        >>> u / u.sum()  # the stationary distribution
        tensor([0.8333, 0.1667])
    """
    options = Options(_door, start, solver, backward)
    operator, _, dtype = prepare(_door.name, X, 1, check_values=False, general=True)
    matrix = general_operator(_door.name, operator)
    check_reference(_door.name, operator, reference, 1)
    start = check_start(_door.name, start, operator.n, (operator.batch_shape,), operator.tensors[0], block=True)
    chosen, mode = general_choices(_door.name, matrix, solver, backward)
    # A defective pair moves by the *root* of rounding: that close may the next eigenvalue come, relative to λ.
    rtol = 2 * math.sqrt(relative_tolerance(None, matrix.dtype, matrix.n))
    shell = matrix.structure()
    moderate, exponent = in_units(matrix)
    units = units_of(matrix, exponent, ((0,), (1,)))
    forward = EigenForward(shell, 1, True, chosen, start, rtol, 0.0, False, asymmetry_allowed(dtype))

    def fixed_point() -> Derivative:
        if isinstance(shell, Dense):
            return FixedPointPair("drop", mode == FixedPoint(dense=True))
        return DominantEquations("drop", shell)

    with no_autocast(matrix.tensors[0]):
        options = Options(_door, start, solver, mode)
        found = differentiate(
            options, "a pair", {FixedPoint: fixed_point}, forward, matrix.tensors, shell.core_dims, units
        )
        U, values = found.solution
        own, columns = found.aux.eigenvalues, columns_of(reference, matrix, U)
        U = fix_phase(moderate, U, own, found.report, columns, dtype)
    status, told = found.report.status, found.report
    if exponent is not None or values.dtype != dtype:
        values, status = narrowed_values(values, dtype, status)
    told = told if units is None else told._replace(gap=units.value(told.gap, 1))
    return DominantSolution(values[..., 0], U[..., 0].to(dtype), status, *told[1:])


def general_operator(function: str, X: Operator) -> Operator:
    """X as a real matrix that need not be symmetric.

    Args:
        function: the public function, for messages.
        X: the operator that the matrix would be if it were symmetric.

    Returns:
        The operator.

    Raises:
        TypeError: if X is not real, or a Gram matrix.
    """
    if not isinstance(X, (Dense, Sparse, MatVec)) or X.dtype.is_complex:
        raise TypeError(
            f"pmaf.{function}: X must be a real tensor, dense or sparse, or a real pmaf.MatVec, got "
            f"{type(X).__name__} of {X.dtype}"
        )
    return X.general()


def general_choices(
    function: str, X: Operator, solver: Any, backward: Backward | None
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
        raise ValueError(f"pmaf.{function}: solver must be PowerIteration(symmetric=False), got {describe(solver)}")
    mode = FixedPoint() if backward is None else backward
    if not isinstance(mode, (FixedPoint, Unrolled)):
        raise ValueError(f"pmaf.{function}: backward must be FixedPoint() or Unrolled(), got {mode}")
    if mode == FixedPoint(dense=True) and not isinstance(X, Dense):
        raise ValueError(
            f"pmaf.{function}: backward={mode} forms the n×n² Jacobian of a dense matrix; for a sparse matrix or a "
            "function use FixedPoint(), which needs products alone"
        )
    return chosen, mode


dominant_pair = raising("dominant_pair", _dominant_pair, lambda s: DominantPair(s.eigenvalue, s.eigenvector))
dominant_pair_ex = reporting(
    "dominant_pair_ex",
    _dominant_pair,
    """:func:`dominant_pair` that reports a status for each item instead of raising.

The arguments are those of :func:`dominant_pair`.

Returns:
    A :class:`DominantSolution`.

Example:
    >>> import torch, pmaf
    >>> found = pmaf.dominant_pair_ex(torch.tensor([[2.0, 1.0], [0.0, -1.0]]))
    >>> round(float(found.eigenvalue), 4), pmaf.Status(int(found.status)).name
    (2.0, 'CONVERGED')
""",
)
