r"""Implicit eigen decomposition: check → choose a solver → differentiate → answer."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pmaf.checks.symmetry import asymmetry_allowed
from pmaf.checks.tensors import check_start
from pmaf.forward.eigen import EigenForward
from pmaf.forward.generalised import GeneralisedForward
from pmaf.implicit.dense_jacobian import DenseJacobian, EigenpairJacobian
from pmaf.implicit.eigen import EigenpairEquations
from pmaf.implicit.fixed_point import FixedPoint, FixedPointPair
from pmaf.implicit.generalised import GeneralisedEquations
from pmaf.implicit.modes import Backward, Implicit, Unrolled
from pmaf.kernels.quick import NEXT, RESIDUAL
from pmaf.layers.direct import direct_pairs
from pmaf.layers.direct_generalised import direct_generalised
from pmaf.layers.direct_gram import direct_gram
from pmaf.layers.doors import Door, Modes, Options, differentiate, raising, reporting
from pmaf.layers.eigen_arguments import (
    check_reference,
    columns_of,
    nearest,
    nothing_selected,
    prepare,
    reads_values,
    with_metric,
)
from pmaf.layers.gauge import fix_phase, watch_gauge
from pmaf.layers.sparse_batch import is_sparse_batch, of_sparse_batch
from pmaf.layers.sparse_pencil import of_sparse_pencil
from pmaf.layers.units import pencil_units, units_of
from pmaf.layers.verdict import narrowed_values
from pmaf.operators.base import Operator
from pmaf.operators.dense import Dense
from pmaf.operators.function import MatVec
from pmaf.operators.gram import Gram
from pmaf.operators.scaled import degree, in_units
from pmaf.operators.sparse import Sparse
from pmaf.solution import IEDSolution
from pmaf.solvers import EIGEN, BlockLanczos, named, select
from pmaf.solvers.base import EigenSolver
from pmaf.transforms import no_autocast

__all__ = [
    "Eigenpairs",
    "ied",
    "ied_ex",
]


class Eigenpairs(NamedTuple):
    """Eigenvalues ``(*, k)`` and eigenvectors ``(*, n, k)``."""

    eigenvalues: Tensor
    eigenvectors: Tensor


def _ied(
    _door: Door,
    X: Tensor | Operator,
    k: int = 1,
    *,
    largest: bool = True,
    metric: Tensor | Gram | None = None,
    near: float | None = None,
    reference: Tensor | None = None,
    start: Tensor | None = None,
    solver: EigenSolver | str | None = None,
    backward: Backward | None = None,
    degenerate: str = "drop",
) -> IEDSolution:
    r"""The k leading eigenpairs of a symmetric (Hermitian) matrix.

    .. math:: U^\star = \operatorname{argmax}\ \mathrm{tr}(U^H X U)\quad\text{subject to}\quad U^H U = I

    Supports float32, float64, complex64 and complex128; half precision is computed in float32 and returned in the
    input's type; an eigenvalue beyond its range is infinite, with the status OUT_OF_RANGE and a
    :class:`pmaf.RangeWarning`, and its vector is right. Leading dimensions are batch
    dimensions. Eigenvalues are ordered algebraically, never by magnitude. Gradients need the *selected* eigenvalues to
    be separated from the others; whatever repeats among the others does not matter. The gradient with respect to X is
    symmetric.

    Implicit differentiation, the default, leaves every operator as it is. The modes to compare with make X dense,
    except ``Unrolled()``, which runs through the products of a Gram matrix or a function.

    DTensors that are divided along batch dimensions are solved where they lie; a :class:`pmaf.Gram` may be divided by
    the rows of its factor, and a :class:`pmaf.MatVec` may multiply vectors that are divided themselves.

    Cost: that of the solver, and O(n²k) for the backward pass. Checks the result, which synchronises the device;
    :func:`ied_ex` does not. A matrix that is not symmetric has a
    :func:`dominant_pair`.

    Args:
        X: ``(*, n, n)``, a tensor, a sparse tensor, or an operator such as :class:`pmaf.Gram`. The sparse matrices of a
            batch (CSR, or COO of all dimensions) are solved one after the other.
        k: how many pairs, 0 ≤ k ≤ n.
        largest: the algebraically largest in descending order, else the smallest in ascending order.
        metric: ``(*, n, n)``, a positive definite B, a tensor or a :class:`pmaf.Gram`, for the pairs of
            :math:`X u = \lambda B u`, with :math:`U^H B U = I`. An item whose B is not positive definite to working
            precision is NOT_DEFINITE. X is a tensor or a Gram matrix then; a sparse X takes a sparse B. Gradients
            reach both.
        near: a number σ, for the k pairs whose eigenvalues are nearest to it, nearest first, of equal distance the
            larger first; all pairs of a dense matrix are found for that, and X − σB of a sparse one is factorised.
        reference: ``(*, n)``; each eigenvector has a real, non-negative inner product with it. With as many dimensions
            as X and last sizes ``(n, k)``, one for each eigenvector. The all-ones vector if not given. An eigenvector
            that is orthogonal to it, to rounding, as of a graph Laplacian, is turned by a fixed vector of no
            particular direction instead. No gradient reaches it.
        start: ``(*, n, p)`` or ``(n,)``, where an iterative solver begins; finite, and real if X is.
        solver: an object or a short name; see :mod:`pmaf.solvers`. Chosen if not given.
        backward: how to differentiate; :class:`pmaf.Implicit` if not given.
        degenerate: what becomes of a gradient that is not determined: ``"drop"`` it and warn, ``"nan"`` or ``"raise"``.

    Returns:
        The named pair ``(eigenvalues, eigenvectors)`` of shapes ``(*, k)`` and ``(*, n, k)``.

    Raises:
        TypeError: if an argument has the wrong type or dtype.
        ValueError: if an argument has the wrong shape or value.
        ConvergenceError: if an item could not be solved; the message names the first.
        DegeneracyError: if an item is not unique and ``degenerate="raise"``.

    References:
        Xu, Wang, Liu, Gould: PMaF: Deep Declarative Layers for Principal Matrix Features (2023), arXiv 2306.14759.

    Example:
        >>> import torch, pmaf
        >>> X = torch.tensor([[2.0, 1.0], [1.0, 2.0]])
        >>> eigenvalues, U = pmaf.ied(X, 1)
        >>> eigenvalues
        tensor([3.])
        >>> bool(torch.linalg.vector_norm(X @ U - 3 * U) < 1e-6)
        True
    """
    options = Options(_door, start, solver, backward, degenerate, largest=largest)
    plain = all(x is None for x in (metric, near, reference, start, solver, backward))
    quick = direct_gram(X, k, largest, lambda some: _general(options, some, k)) if plain else None
    return _general(options, X, k, metric, near, reference) if quick is None else quick


def _general(
    options: Options,
    X: Tensor | Operator,
    k: int,
    metric: Tensor | Operator | None = None,
    near: float | None = None,
    reference: Tensor | None = None,
) -> IEDSolution:
    """Eigenpairs of a matrix in any form, on any device, by any solver; the arguments are those of :func:`ied`.

    Raises:
        ValueError: if the backward mode does not apply.
    """
    if isinstance(X, Tensor) and is_sparse_batch(X, metric):
        return of_sparse_batch(_general, options, X, k, metric, near, reference)
    _door, start, solver = options.door, options.start, options.solver
    degenerate, largest = options.policy, options.largest
    mode, known = options.mode, options.tolerances
    wait = known.check_gauge or reads_values(_door, X)
    operator, k, dtype = prepare(_door.name, X, k, check_values=wait)
    if isinstance(operator, Sparse) and (metric is not None or near is not None) and k > 0:
        return of_sparse_pencil(options, operator, metric, k, near, reference, dtype)
    B = None
    if metric is not None:
        operator, B = with_metric(_door.name, operator, metric, dtype, check_values=wait)
    batch = operator.batch_shape if B is None else torch.broadcast_shapes(operator.batch_shape, B.shape[:-2])
    check_reference(_door.name, operator, reference, k, batch)
    start = check_start(_door.name, start, operator.n, (batch,), operator.tensors[0], block=True)
    if k == 0:
        U, values, told = nothing_selected(operator)
        return IEDSolution(values if dtype.is_complex else values.to(dtype), U.to(dtype), *told)
    chosen: EigenSolver
    if near is not None:
        chosen, largest = nearest(_door.name, operator, near, largest, solver), False
    elif solver is not None:
        chosen = named(_door.name, solver, EIGEN)
    else:
        usual = select("ied", operator, k, largest, wait=wait)
        wasted = start is not None and wait and not (isinstance(operator, (Sparse, MatVec)) and usual.takes_start)
        chosen = BlockLanczos() if wasted else usual  # a start is wasted on a direct solver
    if isinstance(mode, FixedPoint) and k != 1:
        raise ValueError(
            f"pmaf.{_door.name}: backward={mode} is for k = 1, got k = {k}; use Implicit() or DenseJacobian()"
        )
    by_products = isinstance(operator, MatVec) or (isinstance(operator, Gram) and operator.weights is None)
    if not (isinstance(mode, Implicit) or (isinstance(mode, Unrolled) and by_products)):
        stored = Dense(operator.tensors[0]) if isinstance(operator, Dense) else operator
        operator = Dense(stored.dense())  # the Hermitian part, so that the gradient is Hermitian in every mode
    moderate, exponent = (operator, None) if known.atol or near is not None else in_units(operator)
    units = units_of(operator, exponent, ((0,), (degree(operator),)))
    if B is not None and not known.atol and near is None:
        units = pencil_units(operator, exponent, B)
    shell = operator.structure()
    slack = asymmetry_allowed(dtype)
    kind = EigenForward if B is None else GeneralisedForward
    params, core_dims = (operator.tensors, shell.core_dims) if B is None else ((*operator.tensors, B), (2, 2))
    forward = kind(shell, k, largest, chosen, start, known.rtol, known.atol, False, slack)
    modes: Modes = {Implicit: lambda: GeneralisedEquations(degenerate, shell, largest, known.rtol, known.atol)}
    modes = (
        modes
        if B is not None
        else {
            Implicit: lambda: EigenpairEquations(degenerate, shell, largest, known.rtol, known.atol),
            DenseJacobian: lambda: EigenpairJacobian(degenerate),
            FixedPoint: lambda: FixedPointPair(degenerate, mode == FixedPoint(dense=True)),
        }
    )
    with no_autocast(operator.tensors[0]):
        what = "eigenpairs" if B is None else "generalised eigenpairs"
        found = differentiate(options, what, modes, forward, params, core_dims, units)
        U, values = found.solution
        own = found.aux.eigenvalues  # in units
        judged, L = (moderate, None) if B is None else (Dense(found.aux.reduced), found.aux.L)
        if known.check_gauge:
            watch_gauge(_door.name, judged, U, own, found.aux, known, L)
        length = 1 if B is None else torch.linalg.vector_norm(U.detach(), dim=-2, keepdim=True)
        U = fix_phase(judged, U / length, own, found.report, columns_of(reference, operator, U), dtype) * length
    told = found.report
    status, gap = told.status, told.gap if units is None else units.value(told.gap, 1)
    if units is not None or U.dtype != dtype:
        values, status = narrowed_values(values, dtype, status)
    return IEDSolution(values, U.to(dtype), status, told.steps, told.residual, gap)


def short_ied(*args: object, **kwargs: object) -> Eigenpairs | None:
    """The short way of :func:`ied`, or ``None``."""
    quick = direct_pairs(*args, **kwargs)
    if quick is None:
        generalised = direct_generalised(False, *args, **kwargs)
        return None if generalised is None else Eigenpairs(*generalised[:2])
    return Eigenpairs(quick[1], quick[0])


def short_ied_ex(*args: object, **kwargs: object) -> IEDSolution | None:
    """The short way of :func:`ied_ex`, or ``None``."""
    quick = direct_pairs(*args, **kwargs)
    return direct_generalised(True, *args, **kwargs) if quick is None else reported(quick)


def reported(quick: tuple[Tensor, Tensor, Tensor]) -> IEDSolution:
    """The solution, of which every item is known to be well."""
    U, values, notes = quick
    last = values.detach()[..., -1]
    following, residual = notes[NEXT].reshape(last.shape), notes[RESIDUAL].reshape(last.shape).clone()
    gap = (last - following).abs() if U.shape[-1] < U.shape[-2] else torch.full_like(last, torch.inf)
    status = torch.zeros(last.shape, dtype=torch.int64)
    return IEDSolution(values, U, status, torch.ones_like(status), residual, gap)


ied = raising("ied", _ied, lambda solution: Eigenpairs(solution.eigenvalues, solution.eigenvectors), short_ied)
ied_ex = reporting(
    "ied_ex",
    _ied,
    """:func:`ied` that reports a status for each item instead of raising.

The arguments are those of :func:`ied`. Nothing is raised for numerical reasons, with ``degenerate="raise"`` not
before a gradient is asked for; an item without an answer is NaN, its gradient is zero and its status says why.

Returns:
    An :class:`IEDSolution`.

Example:
    >>> import torch, pmaf
    >>> solution = pmaf.ied_ex(torch.diag(torch.tensor([1.0, 4.0, 2.0])), 1)
    >>> solution.gap, pmaf.Status(int(solution.status)).name
    (tensor(2.), 'CONVERGED')
""",
    short_ied_ex,
)
