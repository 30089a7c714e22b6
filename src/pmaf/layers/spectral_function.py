r"""Functions of Hermitian matrices: check → choose a solver → differentiate → answer."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pmaf.checks.symmetry import asymmetry_allowed
from pmaf.checks.values import describe
from pmaf.forward.eigen import EigenForward
from pmaf.forward.spectral_function import SpectralForward
from pmaf.handover import ForwardResult, Report
from pmaf.implicit.autograd import apply_layer
from pmaf.implicit.modes import Implicit
from pmaf.implicit.spectral_function import SpectralDerivative
from pmaf.implicit.subspace import SubspaceEquations
from pmaf.layers.doors import Door, Modes, Options, differentiate, raising, reporting
from pmaf.layers.eigen_arguments import nothing_selected, prepare, reads_values
from pmaf.layers.units import units_of
from pmaf.linalg.divided_differences import NAMED, Elementwise, Power, ScalarFunction
from pmaf.linalg.dtypes import working_dtype
from pmaf.linalg.scaling import times_power
from pmaf.operators.base import Operator
from pmaf.operators.dense import Dense
from pmaf.operators.gram import Gram
from pmaf.operators.scaled import degree, from_units, in_units
from pmaf.solution import SpectralFunctionSolution, Status
from pmaf.solvers import EIGEN, named, select
from pmaf.solvers.base import EigenSolver
from pmaf.transforms import no_autocast

__all__ = ["Function", "scalar_function", "spectral_function", "spectral_function_ex"]

Function = str | float | Callable[[Tensor], Tensor]


def scalar_function(function: str, fn: Any, like: Tensor | None = None) -> ScalarFunction:
    """What the caller names, or gives, as a function with divided differences.

    Args:
        function: the public function, for messages.
        fn: a name, a power, or a function of a tensor.
        like: a tensor of the data, if there are any yet.

    Returns:
        The scalar function.

    Raises:
        TypeError: if it is none of these.
        ValueError: if there is no function of that name, the power is not finite, or fn depends on what is learned.
    """
    if isinstance(fn, str):
        if fn not in NAMED:
            raise ValueError(
                f"pmaf.{function}: fn must be one of {', '.join(map(repr, NAMED))}, a number for a power, or a "
                f"function of a tensor, got {fn!r}"
            )
        return NAMED[fn]
    if isinstance(fn, (int, float)) and fn is not True and fn is not False:
        power = float(fn)
        if not math.isfinite(power):
            raise ValueError(f"pmaf.{function}: fn as a power must be finite, got {power}")
        closed = {0.5: "sqrt", -0.5: "inverse_sqrt", -1.0: "inverse"}
        return NAMED[closed[power]] if power in closed else Power(power)
    if not callable(fn):
        raise TypeError(
            f"pmaf.{function}: fn must be a name, a number for a power, or a function of a tensor, got {describe(fn)}"
        )
    if like is None or not torch.is_grad_enabled():
        return Elementwise(fn, function)
    sample = torch.ones(1, dtype=like.new_empty(0).real.dtype, device=like.device)
    if getattr(fn(sample), "requires_grad", False):
        raise ValueError(
            f"pmaf.{function}: fn must not depend on tensors that require a gradient, which would not reach them; use "
            "pmaf.ied and (U * fn(eigenvalues)[..., None, :]) @ U.mH"
        )
    return Elementwise(fn, function)


def _spectral_function(
    _door: Door,
    X: Tensor | Operator,
    fn: Function,
    k: int | None = None,
    *,
    largest: bool = True,
    solver: EigenSolver | str | None = None,
    degenerate: str = "drop",
) -> SpectralFunctionSolution:
    r"""A function of a symmetric (Hermitian) matrix, or of its k leading eigenpairs.

    .. math:: Y = U f(\Lambda) U^H, \qquad X = U \Lambda U^H

    First and second derivatives are exact however eigenvalues repeat among the selected ones: they are made of divided
    differences, with the limit :math:`f'(\lambda)` where eigenvalues coincide, so that ``sqrt`` of a multiple of the
    identity has a gradient, where that of ``torch.linalg.eigh`` is NaN. Of k < n pairs, the selected eigenvalues
    have to be separated from the others. Third derivatives are refused.

    Supports float32, float64, complex64 and complex128; half precision is computed in float32 and returned in the
    input's type. Leading dimensions are batch dimensions. The gradient with respect to X is symmetric.

    An item outside the domain of ``fn`` ends as NON_FINITE: ``sqrt`` of a matrix with a negative eigenvalue; ``log``,
    ``inverse``, ``inverse_sqrt`` and negative powers where one is zero as well. Down to 4ε√n‖X‖ an eigenvalue counts as
    zero. The root of a singular matrix is there, but no gradient of what happens inside its null space, see
    ``degenerate``; ``abs`` and ``sign`` likewise, and ``sign`` of a singular matrix is NOT_UNIQUE. Where Y
    of k < n pairs of a :class:`pmaf.Gram` is too small for its type (a factor of 1e-30 in float32), the part of the
    gradient that turns the eigenvectors is lost with it: OUT_OF_RANGE. A factor in other units has it.

    Cost: O(n³) for all pairs, forward and backward, by ``torch.linalg.eigh``; of k < n pairs that of :func:`ied` and
    O(n²k). A second derivative costs O(n⁴), or O(n²k + k⁴). Checks the result, which synchronises the device;
    :func:`spectral_function_ex` does not.

    Args:
        X: ``(*, n, n)``, a tensor, a sparse tensor, or an operator such as :class:`pmaf.Gram`.
        fn: ``"sqrt"``, ``"inverse_sqrt"``, ``"log"``, ``"exp"``, ``"inverse"``, ``"abs"``, ``"sign"``; a number, for a
            power; or a function that maps a real tensor to one of the same shape, element by element, which torch can
            differentiate (twice, for second derivatives).
        k: how many pairs, 0 ≤ k ≤ n; all if not given.
        largest: of the algebraically largest eigenvalues, else of the smallest.
        solver: an object or a short name; chosen if not given.
        degenerate: what becomes of a gradient that is not determined: ``"drop"`` it and warn, ``"nan"`` or ``"raise"``.

    Returns:
        Y, ``(*, n, n)``.

    Raises:
        TypeError: if an argument has the wrong type or dtype.
        ValueError: if an argument has the wrong shape or value.
        ConvergenceError: if an item could not be solved or is outside the domain; the message names the first.
        DegeneracyError: if an item is not unique and ``degenerate="raise"``.

    References:
        Higham: Functions of Matrices (2008), chapter 3.

    Example:
        >>> import torch, pmaf
        >>> X = (2 * torch.eye(2)).requires_grad_()
        >>> Y = pmaf.spectral_function(X, "sqrt")
        >>> bool((Y @ Y - X).abs().max() < 1e-6)
        True
        >>> torch.autograd.grad(Y.sum(), X)[0]  # everywhere 1/(2√2)
        tensor([[0.3536, 0.3536],
                [0.3536, 0.3536]])
    """
    options = Options(_door, None, solver, None, degenerate, largest=largest)
    wait = reads_values(_door, X)
    operator, k, dtype = prepare(_door.name, X, k, check_values=wait)
    scalar = scalar_function(_door.name, fn, operator.tensors[0])
    chosen = None if solver is None else named(_door.name, solver, EIGEN)
    with no_autocast(operator.tensors[0]):
        if k == 0:
            U, _, report = nothing_selected(operator)
            Y = U @ U.mH
        elif k == operator.n and chosen is None and isinstance(operator, (Dense, Gram)):
            found, exponent = of_all(scalar, operator, degenerate)
            Y, report = from_half(scalar, operator, exponent, found.solution[0]), found.report
        else:
            chosen = select("ied", operator, k, largest, wait=wait) if chosen is None else chosen
            Y, report = of_block(options, scalar, operator, k, chosen, asymmetry_allowed(dtype))
    status = report.status
    if dtype != working_dtype(dtype):
        Y = Y.to(dtype)
        overflow = ~Y.isfinite().flatten(-2).all(-1)
        status = torch.where(overflow & ~(status > 0), Status.NON_FINITE, status)
    return SpectralFunctionSolution(Y, *report._replace(status=status))


def whole(scalar: ScalarFunction, X: Tensor, policy: str) -> ForwardResult:
    """f(X) of all pairs of X."""
    return apply_layer(SpectralDerivative(policy, scalar), SpectralForward(scalar), (X,))


def of_all(scalar: ScalarFunction, operator: Operator, policy: str) -> tuple[ForwardResult, Tensor | None]:
    """f(X) of all pairs; of a Gram matrix whose squares may leave the range f(X/2ᵉ), and e."""
    X, exponent = in_units(operator) if isinstance(operator, Gram) and scalar.degree is not None else (operator, None)
    M = X.dense()
    return whole(scalar, M if exponent is None else times_power(M, exponent), policy), exponent


def from_half(scalar: ScalarFunction, X: Operator, exponent: Tensor | None, Y: Tensor) -> Tensor:
    """f(X) = 2^(p e) f(X/2ᵉ) for f of degree p; X/2ᵉ is as large as its factor, and fits the range where that does.

    Args:
        scalar: f.
        X: the matrix.
        exponent: e, or ``None`` for zero.
        Y: f(X/2ᵉ) if X is a Gram matrix and f has a degree, else f(X).
    """
    p = scalar.degree
    return Y if exponent is None or p is None or not isinstance(X, Gram) else times_power(Y, exponent * p)


def of_block(
    options: Options, scalar: ScalarFunction, operator: Operator, k: int, solver: EigenSolver, slack: float
) -> tuple[Tensor, Report]:
    """U f(T) Uᴴ with the k leading pairs as a block, in which eigenvalues may repeat.

    Args:
        options: of the call.
        scalar: f.
        operator: X.
        k: how many pairs.
        solver: that finds them.
        slack: what of X need not be Hermitian.

    Returns:
        Y and the report.
    """
    known = options.tolerances
    exponent = None if known.atol else in_units(operator)[1]
    units = units_of(operator, exponent, ((0,), (1 if scalar.degree is not None else degree(operator),)))
    shell, largest, policy = operator.structure(), options.largest, options.policy
    forward = EigenForward(shell, k, largest, solver, None, known.rtol, known.atol, True, slack)
    modes: Modes = {Implicit: lambda: SubspaceEquations(policy, shell, largest, known.rtol, known.atol)}
    found = differentiate(options, "a subspace", modes, forward, operator.tensors, shell.core_dims, units)
    U, T = found.solution
    inner = whole(scalar, T, policy)
    told = found.report
    status = torch.where(told.status > 0, told.status, inner.report.status)  # CONVERGED is zero
    gap = from_units(operator, exponent, told.gap)
    half = U @ inner.solution[0] @ U.mH
    Y = from_half(scalar, operator, exponent, half)
    if exponent is not None and isinstance(operator, Gram):  # with Y the part of its gradient goes that turns U
        sizes = [x.detach().abs().amax((-2, -1)) for x in (half, Y)]
        lost = (sizes[0] > 0) & (sizes[1] < torch.finfo(Y.dtype).tiny) & (status == Status.CONVERGED)
        status = torch.where(lost, Status.OUT_OF_RANGE, status)
    return Y, told._replace(status=status, gap=gap)


spectral_function = raising("spectral_function", _spectral_function, lambda solution: solution.matrix)
spectral_function_ex = reporting(
    "spectral_function_ex",
    _spectral_function,
    """:func:`spectral_function` that reports a status for each item instead of raising.

The arguments are those of :func:`spectral_function`. An item without an answer is NaN, its gradient is zero and its
status says why.

Returns:
    A :class:`SpectralFunctionSolution`.

Example:
    >>> import torch, pmaf
    >>> X = torch.stack((torch.diag(torch.tensor([1.0, 4.0])), torch.diag(torch.tensor([1.0, -1.0]))))
    >>> [pmaf.Status(int(code)).name for code in pmaf.spectral_function_ex(X, "log").status]
    ['CONVERGED', 'NON_FINITE']
""",
)
