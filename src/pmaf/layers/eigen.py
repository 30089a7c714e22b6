r"""Implicit eigen decomposition: check → choose a solver → differentiate → answer."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pmaf.checks.symmetry import asymmetry_allowed, check_square, check_symmetric
from pmaf.checks.tensors import check_broadcast, check_counts, check_sizes, check_start
from pmaf.checks.values import POLICIES, check_choice, check_flags, check_tensor, describe
from pmaf.forward.eigen import OUTPUTS, EigenForward
from pmaf.implicit.autograd import apply_layer
from pmaf.implicit.complement.eigenbasis import EigenAux
from pmaf.implicit.dominant import DominantEquations
from pmaf.implicit.eigen import EigenpairEquations, SubspaceEquations
from pmaf.implicit.explicit import Backward, compare
from pmaf.implicit.fixed_point import FixedPoint
from pmaf.implicit.modes import Implicit, Unrolled
from pmaf.layers.dominant import general_choices, general_operator, general_rtol
from pmaf.layers.gauge import fix_phase, watch_gauge
from pmaf.linalg.dtypes import working_dtype
from pmaf.operators.base import Operator, may_wait
from pmaf.operators.convert import as_operator
from pmaf.operators.dense import Dense, Gram
from pmaf.operators.derived import General
from pmaf.operators.function import MatVec
from pmaf.operators.probe import check_symmetric_operator
from pmaf.operators.sparse import Sparse
from pmaf.solution import IEDSolution, judge, narrowed
from pmaf.solvers import DENSE_LIMIT, EIGEN, BlockLanczos, named, select
from pmaf.solvers.base import EigenSolver
from pmaf.transforms import compiling, no_autocast

__all__ = ["Eigenpairs", "ied", "ied_ex", "principal_projector"]


def ied(
    X: Tensor | Operator,
    k: int = 1,
    *,
    largest: bool = True,
    reference: Tensor | None = None,
    start: Tensor | None = None,
    solver: EigenSolver | str | None = None,
    backward: Backward | None = None,
    degenerate: str = "drop",
    symmetric: bool = True,
    check_gauge: bool = False,
) -> Eigenpairs:
    r"""The k leading eigenpairs of a symmetric (Hermitian) matrix.

    .. math:: U^\star = \operatorname{argmax}\ \mathrm{tr}(U^H X U)\quad\text{subject to}\quad U^H U = I

    Supports float32, float64, complex64 and complex128; half precision is computed in float32 and returned in the
    input's type; an eigenvalue beyond its range is infinite, and the status NON_FINITE. Leading dimensions are batch
    dimensions. Eigenvalues are ordered algebraically, never by magnitude. Gradients need the *selected* eigenvalues to
    be separated from the others; whatever repeats among the others does not matter. The gradient with respect to X is
    symmetric.

    With ``symmetric=False``, X is any real square matrix, dense, sparse or a :class:`pmaf.MatVec`, and the pair is its
    *dominant* one, with a real λ of strictly largest magnitude, by power iteration, differentiated as a fixed point,
    see :class:`pmaf.FixedPoint`; sparse matrices and functions are only multiplied by, forward and backward. Ties and
    complex pairs end as NOT_UNIQUE or MAX_STEPS. The gradient is not symmetric then.

    Implicit differentiation, the default, leaves every operator as it is. The modes to compare with make X dense,
    except ``Unrolled()``, which runs through the products of a Gram matrix or a function.

    Cost: that of the solver, and O(n²k) for the backward pass. Checks the result, which synchronises the device;
    :func:`ied_ex` does not.

    Args:
        X: ``(*, n, n)``, a tensor, a sparse tensor, or an operator such as :class:`pmaf.Gram`.
        k: how many pairs, 1 ≤ k ≤ n.
        largest: the algebraically largest in descending order, else the smallest in ascending order.
        reference: ``(*, n)``; each eigenvector has a real, non-negative inner product with it. The all-ones vector if
            not given. No gradient reaches it.
        start: ``(*, n, p)`` or ``(n,)``, where an iterative solver begins; finite, and real if X is.
        solver: an object or a short name; see :mod:`pmaf.solvers`. Chosen if not given.
        backward: how to differentiate; :class:`pmaf.Implicit` if not given.
        degenerate: what becomes of a gradient that is not determined: ``"drop"`` it and warn, ``"nan"`` or ``"raise"``.
        symmetric: whether X is symmetric; if not, k must be 1 and largest true.
        check_gauge: in the backward pass, warn with :class:`pmaf.GaugeWarning` if the loss depends on the arbitrary
            choice of basis for a repeated eigenvalue. Synchronises the device.

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
    solution = _solve(
        "ied", X, k, largest, reference, start, solver, backward, degenerate, symmetric, check_gauge, True
    )
    judge("ied", solution.status, degenerate, solution.eigenvectors.requires_grad)
    return Eigenpairs(solution.eigenvalues, solution.eigenvectors)


def ied_ex(
    X: Tensor | Operator,
    k: int = 1,
    *,
    largest: bool = True,
    reference: Tensor | None = None,
    start: Tensor | None = None,
    solver: EigenSolver | str | None = None,
    backward: Backward | None = None,
    degenerate: str = "drop",
    symmetric: bool = True,
    check_gauge: bool = False,
) -> IEDSolution:
    """:func:`ied` that reports a status for each item instead of raising.

    The arguments are those of :func:`ied`. Nothing is raised for numerical reasons, with ``degenerate="raise"`` not
    before a gradient is asked for; an item without an answer is NaN, its gradient is zero and its status says why.

    Args:
        X: see :func:`ied`.
        k: see :func:`ied`.
        largest: see :func:`ied`.
        reference: see :func:`ied`.
        start: see :func:`ied`.
        solver: see :func:`ied`.
        backward: see :func:`ied`.
        degenerate: see :func:`ied`.
        symmetric: see :func:`ied`.
        check_gauge: see :func:`ied`.

    Returns:
        An :class:`IEDSolution`.

    Example:
        >>> import torch, pmaf
        >>> solution = pmaf.ied_ex(torch.diag(torch.tensor([1.0, 4.0, 2.0])), 1)
        >>> solution.gap, pmaf.Status(int(solution.status)).name
        (tensor(2.), 'CONVERGED')
    """
    return _solve(
        "ied_ex", X, k, largest, reference, start, solver, backward, degenerate, symmetric, check_gauge, False
    )


def principal_projector(
    X: Tensor | Operator,
    k: int,
    *,
    largest: bool = True,
    solver: EigenSolver | str | None = None,
    degenerate: str = "drop",
) -> Tensor:
    r"""The orthogonal projector :math:`P = U U^H` onto the span of the k leading eigenvectors.

    Only the gap between the selected eigenvalues and the others counts: the projector, and its derivatives of every
    order, are exact however often eigenvalues repeat inside the selected block.

    Args:
        X: ``(*, n, n)``, a tensor, a sparse tensor, or an operator.
        k: the dimension of the subspace, 1 ≤ k ≤ n.
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
    check_flags("principal_projector", largest=largest)
    operator, k, dtype = _prepare("principal_projector", X, k, None, degenerate, check_values=True)
    chosen = select("ied", operator, k, largest) if solver is None else named("principal_projector", solver, EIGEN)
    mode = Implicit()
    forward = EigenForward(
        operator.hollow(), k, largest, chosen, None, mode.rtol, mode.atol, True, asymmetry_allowed(dtype)
    )
    equations = SubspaceEquations(operator.hollow(), largest, mode.rtol, mode.atol)
    with no_autocast(operator.tensors[0]):
        U, _, _, _, _, _, _, status, *_ = apply_layer(
            equations, EigenAux, degenerate, forward, operator.tensors, OUTPUTS
        )
        P = U @ U.mH
    judge("principal_projector", status, degenerate, P.requires_grad)
    return P.to(dtype)


class Eigenpairs(NamedTuple):
    """Eigenvalues ``(*, k)`` and eigenvectors ``(*, n, k)``."""

    eigenvalues: Tensor
    eigenvectors: Tensor


def _prepare(
    function: str, X: Tensor | Operator, k: int, reference: Tensor | None, degenerate: str, *, check_values: bool
) -> tuple[Operator, int, torch.dtype]:
    """Check the arguments and bring X into the type that is computed in, and k into Python's.

    Raises:
        TypeError: if X is neither a tensor nor an operator, or the reference is complex and X is not.
        ValueError: if X is a Gram matrix of no rows.
    """
    check_choice(function, "degenerate", degenerate, POLICIES)
    if not isinstance(X, (Tensor, Operator)):
        raise TypeError(f"pmaf.{function}: X must be a tensor or an operator such as pmaf.Gram, got {describe(X)}")
    exact = False
    if isinstance(X, Tensor):
        check_tensor(function, "X", X, 2, "(*, n, n)", sparse=True)
        if X.layout == torch.strided and check_values:
            general = "" if function == "principal_projector" else ", or symmetric=False for a general matrix"
            exact = check_symmetric(function, "X", X, instead=general)
        else:
            check_square(function, "X", X)
    operator = Dense(X, exact=True) if exact and isinstance(X, Tensor) else as_operator(X)
    if isinstance(operator, Gram) and operator.factor.shape[-2] == 0:
        raise ValueError(f"pmaf.{function}: F of pmaf.Gram must have at least one row, got {describe(operator.factor)}")
    k = check_counts(function, k, operator.n)
    if isinstance(operator, MatVec) and compiling() and operator.n <= DENSE_LIMIT:
        eye = torch.eye(operator.n, dtype=operator.dtype, device=operator.device)
        operator = Dense(operator.matmat(eye))  # a graph can hold a matrix, made in the graph, but no function
    if reference is not None:
        check_tensor(function, "reference", reference, 1, "(*, n)")
        check_sizes(function, reference=("the order of X", operator.n, reference.shape[-1]))
        check_broadcast(function, X=operator.batch_shape, reference=reference.shape[:-1])
        if reference.is_complex() and not operator.dtype.is_complex:
            raise TypeError(f"pmaf.{function}: reference must be real, as X is, got {describe(reference)}")
    dtype = operator.dtype
    if dtype != working_dtype(dtype):
        operator = operator.with_tensors([t.to(working_dtype(dtype)) for t in operator.tensors])
    if check_values and isinstance(operator, (Sparse, MatVec)):
        check_symmetric_operator(function, "X", operator, asymmetry_allowed(dtype))
    return operator, k, dtype


def _solve(
    function: str,
    X: Tensor | Operator,
    k: int,
    largest: bool,
    reference: Tensor | None,
    start: Tensor | None,
    solver: EigenSolver | str | None,
    backward: Backward | None,
    degenerate: str,
    symmetric: bool,
    check_gauge: bool,
    plain: bool,
) -> IEDSolution:
    """The path that both doors share.

    Raises:
        ValueError: if the backward mode does not apply.
    """
    wait = may_wait(X, plain or check_gauge)
    check_flags(function, largest=largest, symmetric=symmetric, check_gauge=check_gauge)
    operator, k, dtype = _prepare(function, X, k, reference, degenerate, check_values=symmetric and wait)
    start = check_start(function, start, operator.n, (operator.batch_shape,), operator.tensors[0], block=True)
    if symmetric:
        if solver is not None:
            chosen = named(function, solver, EIGEN)
        elif start is None or not wait:
            chosen = select("ied", operator, k, largest, wait=wait)
        else:  # a start is wasted on a direct solver
            chosen = BlockLanczos()
        mode = Implicit() if backward is None else backward
    else:
        operator = general_operator(function, operator, k, largest)
        chosen, mode = general_choices(function, operator, solver, backward)
    if isinstance(mode, FixedPoint) and k != 1:
        raise ValueError(
            f"pmaf.{function}: backward={mode} is for k = 1, got k = {k}; use Implicit() or DenseJacobian()"
        )
    known = mode if isinstance(mode, Implicit) else Implicit(rtol=None if symmetric else general_rtol(operator))
    given = isinstance(mode, Implicit) or (isinstance(mode, Unrolled) and isinstance(operator, (Gram, MatVec)))
    if symmetric and not given:
        stored = Dense(operator.tensors[0]) if isinstance(operator, Dense) else operator
        operator = Dense(stored.dense())  # the Hermitian part, so that the gradient is Hermitian in every mode
    structure = operator.hollow()
    slack = asymmetry_allowed(dtype)
    forward = EigenForward(structure, k, largest, chosen, start, known.rtol, known.atol, False, slack)
    equations = EigenpairEquations(structure, largest, known.rtol, known.atol)
    with no_autocast(operator.tensors[0]):
        if isinstance(mode, Implicit):
            outputs = apply_layer(equations, EigenAux, degenerate, forward, operator.tensors, OUTPUTS)
        elif isinstance(mode, FixedPoint) and isinstance(structure, General):
            pair = DominantEquations(structure)
            outputs = apply_layer(pair, EigenAux, degenerate, forward, operator.tensors, OUTPUTS)
        else:
            outputs = compare(function, mode, "eigenpairs", degenerate, forward, operator.tensors, structure.core_dims)
        U, values, _, _, _, spectrum, V, status, steps, residual, gap = outputs
        if check_gauge:
            watch_gauge(function, operator, U, values, spectrum, V, known.rtol, known.atol)
        U = fix_phase(U, None if reference is None else reference.detach().to(U.dtype))
    values, status = narrowed(values, dtype, status)
    return IEDSolution(values, U.to(dtype), status, steps, residual, gap)
