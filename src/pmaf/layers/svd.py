r"""Singular triplets: check → choose a solver → differentiate → answer."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from pmaf.checks.tensors import check_broadcast, check_sizes, check_start
from pmaf.checks.values import check_integer, check_tensor, describe
from pmaf.forward.triplets import TripletForward
from pmaf.implicit.modes import Backward, Implicit
from pmaf.implicit.triplets import TripletEquations
from pmaf.layers.direct_svd import direct_svd
from pmaf.layers.doors import Door, Modes, Options, differentiate, raising, reporting
from pmaf.layers.gauge import fix_phase
from pmaf.layers.svd_products import by_products
from pmaf.layers.units import units_of
from pmaf.layers.verdict import narrowed_values
from pmaf.linalg.dtypes import double, working_dtype
from pmaf.linalg.scaling import exponent_of, in_range, magnitude, times_power
from pmaf.linalg.tolerances import relative_tolerance
from pmaf.operators.dense import Dense
from pmaf.operators.function import MatVec
from pmaf.operators.jordan_wielandt import JordanWielandt
from pmaf.solution import SVDSolution
from pmaf.solvers import DENSE_LIMIT, EIGEN, BlockLanczos, named, select
from pmaf.solvers.base import EigenSolver
from pmaf.transforms import compiling, no_autocast

__all__ = ["Triplets", "svd", "svd_ex"]


class Triplets(NamedTuple):
    """Left singular vectors ``(*, m, k)``, singular values ``(*, k)`` and right singular vectors ``(*, k, n)``."""

    U: Tensor
    S: Tensor
    Vh: Tensor


def _svd(
    _door: Door,
    A: Tensor | MatVec,
    k: int = 1,
    *,
    largest: bool = True,
    reference: Tensor | None = None,
    start: Tensor | None = None,
    solver: EigenSolver | str | None = None,
    backward: Backward | None = None,
    degenerate: str = "drop",
) -> SVDSolution:
    r"""The k leading singular triplets of a matrix, as :func:`torch.linalg.svd` without its tail.

    .. math:: A \approx U \,\mathrm{diag}(S)\, V^H,\qquad U^H U = V^H V = I

    Leading dimensions are batch dimensions. Supports float32, float64, complex64 and complex128; half precision is
    computed in float32 and returned in the input's type. Gradients, in closed form and to any order, need the selected
    singular values to be separated from the others and, for single vectors, from each other; U of a tall matrix and V
    of a wide one also from zero. Whatever repeats or vanishes among the others does not matter. S alone has the
    subgradient of least norm where it is zero. Nothing of size max(m, n)² is formed.

    DTensors that are divided along batch dimensions are solved where they lie; where A is divided by rows, so is U.

    Cost: where the wanted singular values are of the order of the largest, a product AᴴA and its leading eigenpairs;
    else a whole decomposition of the small side, after A = QR. O(mnk) for the backward pass. Checks the result, which
    synchronises the device.

    Args:
        A: ``(*, m, n)``, a tensor; or ``(m, n)``, sparse or a :class:`pmaf.MatVec`, whose adjoint autograd finds: known
            by products with AᴴA, in which singular values below √ε‖A‖ are lost.
        k: how many triplets, 0 ≤ k ≤ min(m, n); at least one of a matrix known by products.
        largest: the largest singular values in descending order, else the smallest of the min(m, n) in ascending order.
        reference: ``(*, n)`` or ``(*, n, k)``; each *right* vector has a real, non-negative inner product with it, as
            in :func:`ied`. The all-ones vector if not given.
        start: ``(*, n, p)`` or ``(n,)``, right vectors where an iterative solver begins.
        solver: for the eigenpairs of AᴴA, or of AAᴴ where that is smaller; see :mod:`pmaf.solvers`. Chosen if not
            given.
        backward: :class:`pmaf.Implicit`, the default, or :class:`pmaf.Unrolled`.
        degenerate: what becomes of a gradient that is not determined: ``"drop"`` it and warn, ``"nan"`` or ``"raise"``.

    Returns:
        The named triple ``(U, S, Vh)`` of shapes ``(*, m, k)``, ``(*, k)`` and ``(*, k, n)``.

    Raises:
        TypeError: if an argument has the wrong type or dtype.
        ValueError: if an argument has the wrong shape or value.
        ConvergenceError: if an item could not be solved; the message names the first.
        DegeneracyError: if an item is not unique and ``degenerate="raise"``.

    Example:
        >>> import torch, pmaf
        >>> A = torch.tensor([[3.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
        >>> U, S, Vh = pmaf.svd(A, 1)
        >>> S, Vh
        (tensor([3.]), tensor([[1., 0.]]))
    """
    options = Options(_door, start, solver, backward, degenerate, largest=largest)
    known = options.tolerances
    if isinstance(A, MatVec) and compiling() and A.n <= DENSE_LIMIT:
        eye = torch.eye(A.n, dtype=A.dtype, device=A.device)
        A = A.general().matmat(eye)  # a graph can hold a matrix, made in the graph, but no function
    if isinstance(A, MatVec) or (isinstance(A, Tensor) and A.layout != torch.strided):
        ways: Any = {"reference": reference, "start": start, "solver": solver, "backward": backward}
        with no_autocast(A.tensors[0] if isinstance(A, MatVec) else A):
            return by_products(_door.name, A, k, largest=largest, degenerate=degenerate, **ways)
    k, work = check_matrix(_door.name, A, k), working_dtype(A.dtype)
    dtype, (m, n) = A.dtype, A.shape[-2:]
    check_right(_door.name, A, reference, k)
    if k == 0:
        return nothing_selected(A, dtype)
    start = check_start(_door.name, start, n, (A.shape[:-2],), A, block=True)
    chosen = choose(_door, A, k, largest, solver, start)
    if start is not None and m < n:
        start = A.detach().to(work) @ start.to(work)
    A = A.to(work)
    exponent = None if known.atol or in_range(magnitude(A)) else exponent_of(A, (-2, -1), 10)
    moderate, units = A if exponent is None else times_power(A, -exponent), units_of(Dense(A), exponent, ((0,), (1,)))
    rtol = relative_tolerance(known.rtol, A.dtype, min(m, n))  # what rounding leaves does not grow with the long side
    forward = TripletForward(k, largest, chosen, start, known.rtol, known.atol)
    shell = JordanWielandt(A).structure()
    modes: Modes = {Implicit: lambda: TripletEquations(degenerate, shell, largest, rtol, known.atol)}
    with no_autocast(A):
        found = differentiate(options, "singular triplets", modes, forward, (A,), (2,), units)
        Z, S = found.solution
        U, V = Z[..., :m, :] * 2**0.5, Z[..., m:, :] * 2**0.5
        columns = None
        if reference is not None:
            columns = reference if each(reference, A, k) else reference[..., None]
            columns = columns.detach().to(V.dtype)
        turned = fix_phase(Dense(moderate), V, found.aux.eigenvalues, found.report, columns, dtype)
        U = U * (V.conj() * turned).sum(-2, keepdim=True)
    told = found.report
    status, gap = told.status, told.gap
    if exponent is not None:
        gap = times_power(gap, exponent)
    if exponent is not None or S.dtype != dtype:
        S, status = narrowed_values(S, dtype, status)
    return SVDSolution(U.to(dtype), S, turned.mH.to(dtype), status, told.steps, told.residual, gap)


def check_matrix(function: str, A: Any, k: Any) -> int:
    """A is a dense matrix and has k singular values.

    Raises:
        TypeError: if A is no dense tensor.
        ValueError: if k is out of range.
    """
    if not isinstance(A, Tensor):
        raise TypeError(
            f"pmaf.{function}: A must be a tensor, dense (*, m, n) or sparse, or pmaf.MatVec, got {describe(A)}"
        )
    check_tensor(function, "A", A, 2, "(*, m, n)")
    own, most = check_integer(function, "k", k, least=None), min(A.shape[-2:])
    if not 0 <= own <= most:
        raise ValueError(f"pmaf.{function}: k must lie between 0 and min(m, n) = {most}, got {k}")
    return own


def nothing_selected(A: Tensor, dtype: torch.dtype) -> SVDSolution:
    """No triplets, which depend on A as a sum over nothing does."""
    U, Vh = A[..., :0].mT.contiguous().mT, A[..., :0, :]
    S = U.real.sum(-2)
    zero = S.detach().sum(-1)
    status = zero.to(torch.int64)
    return SVDSolution(
        U.to(dtype),
        S if dtype.is_complex else S.to(dtype),
        Vh,
        status,
        status.clone(),
        zero,
        torch.full_like(zero, torch.inf),
    )


def each(reference: Tensor, A: Tensor, k: int) -> bool:
    """Whether a reference has a vector for each of the k triplets."""
    return reference.dim() == A.dim() and reference.shape[-2:] == (A.shape[-1], k)


def check_right(function: str, A: Tensor, reference: Tensor | None, k: int) -> None:
    """What the sign of right vectors is measured by.

    Raises:
        TypeError: if the reference is complex and A is not.
    """
    if reference is None:
        return
    check_tensor(function, "reference", reference, 1, "(*, n) or (*, n, k)")
    single = not each(reference, A, k)
    if single:
        check_sizes(function, reference=("the columns of A", A.shape[-1], reference.shape[-1]))
    check_broadcast(function, A=A.shape[:-2], reference=reference.shape[: -1 if single else -2])
    if reference.is_complex() and not A.is_complex():
        raise TypeError(f"pmaf.{function}: reference must be real, as A is, got {describe(reference)}")


def choose(
    door: Door, A: Tensor, k: int, largest: bool, solver: EigenSolver | str | None, start: Tensor | None
) -> EigenSolver | None:
    """The solver for the Gram matrix; none while a graph is traced, whose outputs need a fixed shape."""
    if solver is not None:
        chosen: EigenSolver = named(door.name, solver, EIGEN)
    elif start is not None:
        chosen = BlockLanczos()
    else:
        n = min(A.shape[-2:])
        like = A.new_empty(1, dtype=double(working_dtype(A.dtype)))
        chosen = select("ied", Dense(like.expand(*A.shape[:-2], n, n)), k, largest)
    return None if compiling() else chosen


def short_svd(*args: object, **kwargs: object) -> Triplets | None:
    """The short way of :func:`svd`, or ``None``."""
    quick = direct_svd(False, *args, **kwargs)
    return None if quick is None else Triplets(*quick[:3])


def short_svd_ex(*args: object, **kwargs: object) -> SVDSolution | None:
    """The short way of :func:`svd_ex`, or ``None``."""
    return direct_svd(True, *args, **kwargs)


svd = raising("svd", _svd, lambda solution: Triplets(*solution[:3]), short_svd)
svd_ex = reporting(
    "svd_ex",
    _svd,
    """:func:`svd` that reports a status for each item instead of raising.

The arguments are those of :func:`svd`. Nothing is raised for numerical reasons, with ``degenerate="raise"`` not
before a gradient is asked for; an item without an answer is NaN, its gradient is zero and its status says why.

Returns:
    An :class:`SVDSolution`.

Example:
    >>> import torch, pmaf
    >>> found = pmaf.svd_ex(torch.diag(torch.tensor([1.0, 4.0, 2.0])), 1)
    >>> found.gap, pmaf.Status(int(found.status)).name
    (tensor(2.), 'CONVERGED')
""",
    short_svd_ex,
)
