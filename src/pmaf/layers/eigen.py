r"""Implicit eigen decomposition: check → choose a solver → differentiate → answer."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pmaf.checks.symmetry import asymmetry_allowed, check_square, check_symmetric
from pmaf.checks.tensors import check_broadcast, check_counts, check_nonnegative, check_sizes, check_start
from pmaf.checks.values import check_real, check_tensor, describe
from pmaf.forward.eigen import EigenForward
from pmaf.forward.generalised import GeneralisedForward
from pmaf.handover import Report
from pmaf.implicit.dense_jacobian import DenseJacobian, EigenpairJacobian
from pmaf.implicit.eigen import EigenpairEquations, SubspaceEquations
from pmaf.implicit.fixed_point import FixedPoint, FixedPointPair
from pmaf.implicit.generalised import GeneralisedEquations
from pmaf.implicit.modes import Backward, Implicit, Unrolled
from pmaf.kernels.quick import NEXT, NORM, RESIDUAL
from pmaf.layers.direct import direct_pairs
from pmaf.layers.doors import Door, Modes, Options, differentiate, raising, reporting
from pmaf.layers.gauge import fix_phase, watch_gauge
from pmaf.layers.verdict import narrowed_values
from pmaf.linalg.dtypes import working_dtype
from pmaf.operators.base import Operator
from pmaf.operators.convert import as_operator
from pmaf.operators.dense import Dense
from pmaf.operators.function import MatVec
from pmaf.operators.gram import Gram
from pmaf.operators.probe import check_symmetric_operator
from pmaf.operators.scaled import from_units, in_units
from pmaf.operators.sparse import Sparse
from pmaf.solution import IEDSolution, ProjectorSolution
from pmaf.solvers import DENSE_LIMIT, EIGEN, BlockLanczos, Eigh, named, select
from pmaf.solvers.base import EigenSolver
from pmaf.solvers.eigen.nearest import Nearest
from pmaf.transforms import compiling, no_autocast

__all__ = [
    "Eigenpairs",
    "ied",
    "ied_ex",
    "nothing_selected",
    "prepare",
    "principal_projector",
    "principal_projector_ex",
    "reads_values",
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

    Cost: that of the solver, and O(n²k) for the backward pass. Checks the result, which synchronises the device;
    :func:`ied_ex` does not. A matrix that is not symmetric has a
    :func:`dominant_pair`.

    Args:
        X: ``(*, n, n)``, a tensor, a sparse tensor, or an operator such as :class:`pmaf.Gram`.
        k: how many pairs, 0 ≤ k ≤ n.
        largest: the algebraically largest in descending order, else the smallest in ascending order.
        metric: ``(*, n, n)``, a positive definite B, a tensor or a :class:`pmaf.Gram`, for the pairs of
            :math:`X u = \lambda B u`, with :math:`U^H B U = I`. An item whose B is not positive definite to working
            precision is NOT_DEFINITE. X is a tensor or a Gram matrix then. Gradients reach both.
        near: a number σ, for the k pairs whose eigenvalues are nearest to it, nearest first, of equal distance the
            larger first; all pairs of a dense matrix are found for that.
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
    mode, known = options.mode, options.tolerances
    wait = known.check_gauge or reads_values(_door, X)
    operator, k, dtype = prepare(_door.name, X, k, check_values=wait)
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
    elif start is None or not wait:
        chosen = select("ied", operator, k, largest, wait=wait)
    else:  # a start is wasted on a direct solver
        chosen = BlockLanczos()
    if isinstance(mode, FixedPoint) and k != 1:
        raise ValueError(
            f"pmaf.{_door.name}: backward={mode} is for k = 1, got k = {k}; use Implicit() or DenseJacobian()"
        )
    by_products = isinstance(operator, MatVec) or (isinstance(operator, Gram) and operator.weights is None)
    if not (isinstance(mode, Implicit) or (isinstance(mode, Unrolled) and by_products)):
        stored = Dense(operator.tensors[0]) if isinstance(operator, Dense) else operator
        operator = Dense(stored.dense())  # the Hermitian part, so that the gradient is Hermitian in every mode
    operator, unit = (operator, None) if known.atol or near is not None else in_units(operator)
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
        found = differentiate(options, what, modes, forward, params, core_dims)
        U, values = found.solution
        judged, L = (operator, None) if B is None else (Dense(found.aux.reduced), found.aux.L)
        if known.check_gauge:
            watch_gauge(_door.name, judged, U, values, found.aux, known, L)
        length = 1 if B is None else torch.linalg.vector_norm(U.detach(), dim=-2, keepdim=True)
        U = fix_phase(judged, U / length, values, found.report, columns_of(reference, operator, U), dtype) * length
    told = found.report
    values, status = from_units(operator, unit, values), told.status
    if unit is not None or U.dtype != dtype:
        values, status = narrowed_values(values, dtype, status)
    gap = from_units(operator, unit, told.gap[..., None])[..., 0]
    return IEDSolution(values, U.to(dtype), status, told.steps, told.residual, gap)


def _principal_projector(
    _door: Door,
    X: Tensor | Operator,
    k: int,
    *,
    largest: bool = True,
    solver: EigenSolver | str | None = None,
    degenerate: str = "drop",
) -> ProjectorSolution:
    r"""The orthogonal projector :math:`P = U U^H` onto the span of the k leading eigenvectors.

    Only the gap between the selected eigenvalues and the others counts: the projector, and its derivatives of every
    order, are exact however often eigenvalues repeat inside the selected block.

    Args:
        X: ``(*, n, n)``, a tensor, a sparse tensor, or an operator.
        k: the dimension of the subspace, 0 ≤ k ≤ n.
        largest: of the algebraically largest eigenvalues, else of the smallest.
        solver: an object or a short name; chosen if not given.
        degenerate: as in :func:`ied`.

    Returns:
        P, ``(*, n, n)``.

    Raises:
        TypeError: if an argument has the wrong type or dtype.
        ValueError: if an argument has the wrong shape or value.
        ConvergenceError: if an item could not be solved; the message names the first.
        DegeneracyError: if the subspace is not unique and ``degenerate="raise"``.

    Example:
        >>> import torch, pmaf
        >>> pmaf.principal_projector(torch.diag(torch.tensor([5.0, 5.0, 1.0])), 2)
        tensor([[1., 0., 0.],
                [0., 1., 0.],
                [0., 0., 0.]])
    """
    options = Options(_door, None, solver, None, degenerate, largest=largest)
    wait = reads_values(_door, X)
    operator, k, dtype = prepare(_door.name, X, k, check_values=wait)
    if k == 0:
        U, _, told = nothing_selected(operator)
        return ProjectorSolution((U @ U.mH).to(dtype), *told)
    given = solver is not None
    chosen = named(_door.name, solver, EIGEN) if given else select("ied", operator, k, largest, wait=wait)
    known = options.tolerances
    operator, unit = (operator, None) if known.atol else in_units(operator)
    shell = operator.structure()
    slack = asymmetry_allowed(dtype)
    forward = EigenForward(shell, k, largest, chosen, None, known.rtol, known.atol, True, slack)
    modes: Modes = {Implicit: lambda: SubspaceEquations(degenerate, shell, largest, known.rtol, known.atol)}
    with no_autocast(operator.tensors[0]):
        found = differentiate(options, "a subspace", modes, forward, operator.tensors, shell.core_dims)
        U = found.solution[0]
        P = U @ U.mH
    told = found.report
    gap = from_units(operator, unit, told.gap[..., None])[..., 0]
    return ProjectorSolution(P.to(dtype), *told._replace(gap=gap))


def reads_values(door: Door, X: Tensor | Operator) -> bool:
    """Whether the call may wait for the values of X."""
    first = X.tensors[0] if isinstance(X, Operator) and X.tensors else X
    return not isinstance(first, Tensor) or door.may_wait(first)


def prepare(
    function: str, X: Tensor | Operator, k: int | None, *, check_values: bool, general: bool = False
) -> tuple[Operator, int, torch.dtype]:
    """Check the arguments and bring X into the type that is computed in, and k into Python's.

    Args:
        function: the public function, for messages.
        X: what the user gave.
        k: how many pairs; ``None`` for all.
        check_values: whether to look at the values of X.
        general: X need not be symmetric.

    Returns:
        X as an operator, k, and the type of the input.

    Raises:
        TypeError: if X is neither a tensor nor an operator.
        ValueError: if X is a Gram matrix of no rows.
    """
    if not isinstance(X, (Tensor, Operator)):
        raise TypeError(f"pmaf.{function}: X must be a tensor or an operator such as pmaf.Gram, got {describe(X)}")
    exact = False
    if isinstance(X, Tensor):
        check_tensor(function, "X", X, 2, "(*, n, n)", sparse=True)
        least = 0 if k is None or (k == 0 and not general) else 1
        if X.layout == torch.strided and check_values and not general:
            instead = ", or pmaf.dominant_pair for a general matrix"
            exact = check_symmetric(function, "X", X, instead=instead, least=least)
        else:
            check_square(function, "X", X, least=least)
    operator = Dense(X, exact=True) if exact and isinstance(X, Tensor) else as_operator(X)
    if isinstance(operator, Gram):
        if operator.tensors[0].shape[-2] == 0:
            F = describe(operator.tensors[0])
            raise ValueError(f"pmaf.{function}: F of pmaf.Gram must have at least one row, got {F}")
        if operator.weights is not None:
            check_nonnegative(function, "weights of pmaf.Gram", operator.weights, wait=check_values)
    k = operator.n if k is None else check_counts(function, k, operator.n)
    if isinstance(operator, MatVec) and compiling() and operator.n <= DENSE_LIMIT:
        eye = torch.eye(operator.n, dtype=operator.dtype, device=operator.device)
        operator = Dense(operator.matmat(eye))  # a graph can hold a matrix, made in the graph, but no function
    dtype = operator.dtype
    if dtype != working_dtype(dtype):
        operator = operator.with_tensors([t.to(working_dtype(dtype)) for t in operator.tensors])
    if check_values and not general and isinstance(operator, (Sparse, MatVec)):
        check_symmetric_operator(function, "X", operator, asymmetry_allowed(dtype))
    return operator, k, dtype


def nothing_selected(X: Operator) -> tuple[Tensor, Tensor, Report]:
    """The eigenvectors, eigenvalues and report of k = 0 pairs, which depend on X as a sum over nothing does."""
    anchor = sum((t.sum() for t in X.tensors if t.is_floating_point() or t.is_complex()), torch.zeros(()).to(X.device))
    like = X.tensors[0]
    U = like.new_zeros(*X.batch_shape, X.n, 0, dtype=X.dtype) + anchor.to(X.dtype)
    values = U.sum(-2).real
    zero = torch.zeros(X.batch_shape, dtype=values.dtype, device=X.device)
    status = zero.to(torch.int64)
    return U, values, Report(status, status.clone(), zero, torch.full_like(zero, torch.inf))


def with_metric(
    function: str, X: Operator, metric: Tensor | Gram, dtype: torch.dtype, *, check_values: bool
) -> tuple[Dense, Tensor]:
    """X as a dense matrix, and the metric as a matrix of the same kind.

    Args:
        function: the public function, for messages.
        X: the operator, in the type that is computed in.
        metric: what the user gave.
        dtype: the type of X as the user gave it.
        check_values: whether to look at the values of the metric.

    Returns:
        Both.

    Raises:
        TypeError: if either is not a dense or a Gram matrix, or their types differ.
        ValueError: if their sizes do not fit together.
    """
    if not isinstance(X, (Dense, Gram)):
        raise TypeError(
            f"pmaf.{function}: with a metric X must be a dense tensor or pmaf.Gram, got {type(X).__name__} of order "
            f"{X.n}; make it dense if its order allows"
        )
    if not isinstance(metric, (Tensor, Gram)):
        raise TypeError(f"pmaf.{function}: metric must be a tensor (*, n, n) or pmaf.Gram, got {describe(metric)}")
    exact = False
    if isinstance(metric, Tensor):
        check_tensor(function, "metric", metric, 2, "(*, n, n)")
        exact = check_symmetric(function, "metric", metric, wait=check_values)
    elif metric.weights is not None:
        check_nonnegative(function, "weights of pmaf.Gram", metric.weights, wait=check_values)
    given = metric.tensors[0] if isinstance(metric, Gram) else metric
    check_sizes(function, metric=("the order of X", X.n, given.shape[-1]))
    if given.dtype != dtype and not torch.is_autocast_enabled(given.device.type):
        raise TypeError(
            f"pmaf.{function}: arguments must share one dtype, got X {dtype}, metric {given.dtype}; convert with "
            ".to(dtype)"
        )
    if given.device != X.device:
        raise ValueError(f"pmaf.{function}: metric is on {given.device} but X on {X.device}; move one with .to")
    check_broadcast(function, X=X.batch_shape, metric=given.shape[:-2])
    with no_autocast(given):
        if isinstance(metric, Gram):
            B = metric.with_tensors([t.to(working_dtype(t.dtype)) for t in metric.tensors]).dense()
        else:
            B = metric.to(working_dtype(dtype))
            B = B if exact else (B + B.mH) / 2  # a factorisation reads one triangle
        B = B.to(working_dtype(dtype))
        return X if isinstance(X, Dense) else Dense(X.dense()), B


def nearest(function: str, X: Operator, near: float, largest: bool, solver: object) -> Nearest:
    """The solver for the pairs nearest to a number.

    Args:
        function: the public function, for messages.
        X: the operator.
        near: the number.
        largest: must be as by default.
        solver: must not be given, or be the one that finds all pairs.

    Returns:
        The solver.

    Raises:
        TypeError: if X is not a dense or a Gram matrix.
        ValueError: if an end of the spectrum, or a solver for one, is asked for as well.
    """
    shift = check_real(function, "near", near, "finite")
    if not largest:
        raise ValueError(f"pmaf.{function}: near={near} and largest=False exclude each other; leave one of them out")
    if solver is not None and solver != "eigh" and not isinstance(solver, Eigh):
        raise ValueError(
            f"pmaf.{function}: near={near} finds all pairs with 'eigh', got solver={describe(solver)}; leave it out"
        )
    if not isinstance(X, (Dense, Gram)):
        raise TypeError(
            f"pmaf.{function}: with near= X must be a dense tensor or pmaf.Gram, got {type(X).__name__} of order "
            f"{X.n}; make it dense if its order allows"
        )
    return Nearest(shift=shift)


def check_reference(
    function: str, operator: Operator, reference: Tensor | None, k: int, batch: torch.Size | None = None
) -> None:
    """What the sign of eigenvectors is measured by.

    Args:
        function: the public function, for messages.
        operator: X.
        reference: what the user gave.
        k: how many pairs.
        batch: of the problem, if it is more than that of X.

    Raises:
        TypeError: if the reference is complex and X is not.
    """
    if reference is None:
        return
    batch = operator.batch_shape if batch is None else batch
    check_tensor(function, "reference", reference, 1, "(*, n) or (*, n, k)")
    if one_for_each(reference, operator, k):
        check_broadcast(function, X=batch, reference=reference.shape[:-2])
    else:
        check_sizes(function, reference=("the order of X", operator.n, reference.shape[-1]))
        check_broadcast(function, X=batch, reference=reference.shape[:-1])
    if reference.is_complex() and not operator.dtype.is_complex:
        raise TypeError(f"pmaf.{function}: reference must be real, as X is, got {describe(reference)}")


def one_for_each(reference: Tensor, operator: Operator, k: int) -> bool:
    """Whether a reference has a vector for each of the k columns."""
    return reference.dim() == len(operator.batch_shape) + 2 and reference.shape[-2:] == (operator.n, k)


def columns_of(reference: Tensor | None, operator: Operator, U: Tensor) -> Tensor | None:
    """References as columns, ``(*, n, 1)`` or ``(*, n, k)``, in the type of U."""
    if reference is None:
        return None
    columns = reference if one_for_each(reference, operator, U.shape[-1]) else reference[..., None]
    return columns.detach().to(U.dtype)


def short_ied(*args: object, **kwargs: object) -> Eigenpairs | None:
    """The short way of :func:`ied`, or ``None``."""
    quick = direct_pairs(*args, **kwargs)
    if quick is None:
        return None
    if quick[0].is_complex():
        solution = reported(quick)
        return Eigenpairs(solution.eigenvalues, solution.eigenvectors)
    return Eigenpairs(quick[1], quick[0])


def short_ied_ex(*args: object, **kwargs: object) -> IEDSolution | None:
    """The short way of :func:`ied_ex`, or ``None``."""
    quick = direct_pairs(*args, **kwargs)
    return None if quick is None else reported(quick)


def reported(quick: tuple[Tensor, Tensor, Tensor]) -> IEDSolution:
    """The solution, of which every item is known to be well, the phase of complex vectors fixed."""
    U, values, notes = quick
    last = values.detach()[..., -1]
    following, residual = notes[NEXT].reshape(last.shape), notes[RESIDUAL].reshape(last.shape).clone()
    gap = (last - following).abs() if U.shape[-1] < U.shape[-2] else torch.full_like(last, torch.inf)
    status = torch.zeros(last.shape, dtype=torch.int64)
    report = Report(status, torch.ones_like(status), residual, gap)
    if U.is_complex():
        U = fix_phase(notes[NORM].reshape(last.shape), U, values.detach(), report, None, U.dtype)
    return IEDSolution(values, U, *report)


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
principal_projector = raising("principal_projector", _principal_projector, lambda solution: solution.projector)
principal_projector_ex = reporting(
    "principal_projector_ex",
    _principal_projector,
    """:func:`principal_projector` that reports a status for each item instead of raising.

The arguments are those of :func:`principal_projector`.

Returns:
    A :class:`ProjectorSolution`.

Example:
    >>> import torch, pmaf
    >>> pmaf.principal_projector_ex(torch.diag(torch.tensor([5.0, 5.0, 1.0])), 2).gap
    tensor(4.)
""",
)
