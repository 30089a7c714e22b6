"""What the arguments of the eigenproblems mean, and what is wrong with them."""

from __future__ import annotations

import torch
from torch import Tensor

from pmaf.checks.symmetry import asymmetry_allowed, check_square, check_symmetric
from pmaf.checks.tensors import check_broadcast, check_counts, check_nonnegative, check_sizes
from pmaf.checks.values import check_real, check_tensor, describe
from pmaf.handover import Report
from pmaf.layers.doors import Door
from pmaf.linalg.dtypes import working_dtype
from pmaf.operators.base import Operator
from pmaf.operators.convert import as_operator
from pmaf.operators.dense import Dense
from pmaf.operators.function import MatVec
from pmaf.operators.gram import Gram
from pmaf.operators.probe import check_symmetric_operator
from pmaf.operators.sparse import Pattern, Sparse
from pmaf.solvers import DENSE_LIMIT, Eigh
from pmaf.solvers.eigen.nearest import Nearest
from pmaf.transforms import compiling, no_autocast

__all__ = [
    "check_reference",
    "columns_of",
    "nearest",
    "nothing_selected",
    "prepare",
    "reads_values",
    "sparse_metric",
    "with_metric",
]


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
    function: str, X: Operator, metric: Tensor | Operator, dtype: torch.dtype, *, check_values: bool
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
        exact = check_symmetric(function, "metric", metric, wait=check_values, least=0)
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


def sparse_metric(function: str, X: Sparse, metric: Tensor | Operator | None) -> Sparse:
    """The metric of a sparse matrix, sparse itself; the identity if there is none.

    Args:
        function: the public function, for messages.
        X: the matrix, in the type that is computed in.
        metric: what the user gave.

    Returns:
        B.

    Raises:
        TypeError: if it is not sparse, or of another type.
        ValueError: if it is not symmetric, of another order, or elsewhere.
    """
    if metric is None:
        index = torch.arange(X.n, device=X.device)
        return Sparse(Pattern(index, index, (X.n, X.n)), torch.ones(X.n, dtype=X.dtype, device=X.device))
    if not isinstance(metric, Sparse):  # of a batch, which was looked at
        if not isinstance(metric, Tensor) or metric.layout == torch.strided:
            raise TypeError(
                f"pmaf.{function}: with a sparse X the metric must be a sparse tensor, got {describe(metric)}; make "
                "both sparse, or both dense"
            )
        check_tensor(function, "metric", metric, 2, "(n, n)", sparse=True)
        check_square(function, "metric", metric, least=0)
    B = metric if isinstance(metric, Sparse) else as_operator(metric)
    assert isinstance(B, Sparse)
    check_sizes(function, metric=("the order of X", X.n, B.n))
    if B.dtype != X.dtype:
        raise TypeError(
            f"pmaf.{function}: arguments must share one dtype, got X {X.dtype}, metric {B.dtype}; convert with "
            ".to(dtype)"
        )
    if B.device != X.device:
        raise ValueError(f"pmaf.{function}: metric is on {B.device} but X on {X.device}; move one with .to")
    check_symmetric_operator(function, "metric", B, asymmetry_allowed(B.dtype))
    return B


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
