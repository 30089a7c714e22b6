"""What a solve returns, a status for each item of the batch and the measured answer, and how it leaves the library.

It leaves in the type of the input, and from the plain functions with an error or a warning.
"""

import warnings
from enum import IntEnum
from typing import NamedTuple

import torch
from torch import Tensor

from pmaf.checks.tensors import first_index
from pmaf.errors import ConvergenceError, DegeneracyError, DegeneracyWarning, LocalSolutionWarning
from pmaf.linalg.dtypes import working_dtype
from pmaf.transforms import readable

__all__ = ["FreeLESSSolution", "IEDSolution", "LESSSolution", "Status", "judge", "less_solution", "narrowed"]

SEVERAL = "Several answers are equally good, so this is one of them: "
SEPARATE = {
    "less": "give A more rows, or b a part along its smallest singular vector; drop columns of free that depend on "
    "others; or use a loss that does not depend on the choice.",
    "sphere_quadratic": "give g a part along the smallest eigenvector of H, or use a loss that does not depend on the "
    "choice.",
    "ied": "separate the wanted eigenvalues from the others and from each other, or use a loss that does not depend on "
    "the choice, such as one of principal_projector.",
    "principal_projector": "choose a k at which the eigenvalues have a gap between the k-th and the next.",
}


class Status(IntEnum):
    """How the solve of one batch item ended.

    Statuses are kept in an ``int64`` tensor of the batch's shape; compare with the members,
    ``solution.status == pmaf.Status.CONVERGED``. ``Status(code).remedy`` says what to try, ``remedy_for`` what to try
    with a particular layer.
    """

    remedy: str

    CONVERGED = 0, "Nothing to do: the solver's tolerance was met and the residual was measured."
    MAX_STEPS = 1, "The step limit came first: raise max_steps, loosen the tolerance, or use the default solver."
    NON_FINITE = 2, "The input, or the answer, is NaN or infinite: look for overflow or a division by zero upstream."
    NOT_UNIQUE = 3, SEVERAL + "change the data so that the gap is positive, or use a loss that all of them share."
    NOT_GLOBAL = 4, "A local solver stopped where the objective is not globally minimal: use the default solver."

    def __new__(cls, code: int, remedy: str = "") -> "Status":
        """Store the remedy beside the integer code."""
        member = int.__new__(cls, code)
        member._value_ = code
        member.remedy = remedy
        return member

    def remedy_for(self, layer: str) -> str:
        """What to try, in the words of a layer.

        Args:
            layer: such as ``"less"`` or ``"ied"``.

        Returns:
            A sentence.
        """
        return SEVERAL + SEPARATE[layer] if self is Status.NOT_UNIQUE and layer in SEPARATE else self.remedy


class LESSSolution(NamedTuple):
    r"""Least squares on the sphere, solved, with its own certificate, of half-precision data in float32.

    Attributes:
        u: the minimiser, ``(*, n)``.
        multiplier: :math:`\lambda` in :math:`(Q + \lambda I) u = g`, ``(*,)``.
        status: a :class:`Status` code for each item, ``(*,)``.
        steps: iterations of the solver, ``(*,)``.
        residual: :math:`\|(Q + \lambda I) u - g\| / ((\|Q\| + |\lambda|)\,\|u\|)`, measured from the data, ``(*,)``.
        gap: :math:`\lambda + \lambda_{\min}(Q)`, non-negative at a global minimiser, ``(*,)``.
    """

    u: torch.Tensor
    multiplier: torch.Tensor
    status: torch.Tensor
    steps: torch.Tensor
    residual: torch.Tensor
    gap: torch.Tensor


class FreeLESSSolution(NamedTuple):
    """A :class:`LESSSolution` with the free unknowns ``z``, ``(*, p)``, as a last field."""

    u: torch.Tensor
    multiplier: torch.Tensor
    status: torch.Tensor
    steps: torch.Tensor
    residual: torch.Tensor
    gap: torch.Tensor
    z: torch.Tensor


class IEDSolution(NamedTuple):
    r"""Leading eigenpairs, with what was measured of them.

    Attributes:
        eigenvalues: ``(*, k)``, descending for the largest, ascending for the smallest.
        eigenvectors: ``(*, n, k)``, orthonormal columns.
        status: a :class:`Status` code for each item, ``(*,)``.
        steps: iterations of the solver, ``(*,)``.
        residual: :math:`\max_i \|X u_i - \lambda_i u_i\| / \|X\|`, measured, ``(*,)``.
        gap: distance from the selected eigenvalues to the nearest one left out, ``(*,)``;
            infinite where all are selected.
    """

    eigenvalues: torch.Tensor
    eigenvectors: torch.Tensor
    status: torch.Tensor
    steps: torch.Tensor
    residual: torch.Tensor
    gap: torch.Tensor


def narrowed(x: Tensor, dtype: torch.dtype, status: Tensor) -> tuple[Tensor, Tensor]:
    """An answer in the type of the input, and the status, NON_FINITE where it leaves the range of that type.

    Args:
        x: the answer, ``(*, n)``.
        dtype: the type of the input.
        status: codes, ``(*,)``.

    Returns:
        Both.
    """
    if dtype == working_dtype(dtype):
        return x, status
    narrow = x.to(dtype)
    return narrow, torch.where(narrow.isfinite().all(-1), status, Status.NON_FINITE)


def less_solution(outputs: tuple[Tensor, ...], dtype: torch.dtype) -> LESSSolution:
    """The named result: the minimiser in the type of the input, its certificate in that of the computation.

    Args:
        outputs: of a layer: u and λ first; status, steps, residual and gap last.
        dtype: that of the input.

    Returns:
        The solution.
    """
    u, multiplier, *_, status, steps, residual, gap = outputs
    u, status = narrowed(u, dtype, status)
    return LESSSolution(u, multiplier, status, steps, residual, gap)


def judge(function: str, status: Tensor, degenerate: str, differentiates: bool) -> None:
    """Raise or warn according to the worst status; says nothing where values cannot be read.

    Args:
        function: the public function, for the message.
        status: codes, ``(*,)``.
        degenerate: the caller's policy for answers that are not unique.
        differentiates: whether a gradient may be asked for, so that a dropped component matters.

    Raises:
        ConvergenceError: if an item has no answer.
        DegeneracyError: if an item has several and the policy is "raise".
    """
    if not readable(status) or not bool(status.any()):  # CONVERGED is zero
        return
    for failure in (Status.NON_FINITE, Status.MAX_STEPS):
        if bool((status == failure).any()):
            raise ConvergenceError(message(function, status, failure))
    if bool((status == Status.NOT_UNIQUE).any()):
        if degenerate == "raise":
            raise DegeneracyError(message(function, status, Status.NOT_UNIQUE))
        if degenerate == "drop" and differentiates:
            text = message(function, status, Status.NOT_UNIQUE)
            warnings.warn(f"{text} The gradient leaves out what is not determined.", DegeneracyWarning, stacklevel=3)
    if bool((status == Status.NOT_GLOBAL).any()):
        warnings.warn(message(function, status, Status.NOT_GLOBAL), LocalSolutionWarning, stacklevel=3)


def message(function: str, status: Tensor, kind: Status) -> str:
    """One sentence on which item ended so and what to try."""
    mask = status == kind
    where = f"item {first_index(mask)}" if status.dim() else "the problem"
    count = f" ({int(mask.sum())} of {mask.numel()} items)" if status.dim() else ""
    return f"pmaf.{function}: {where} ended with {kind.name}{count}. {kind.remedy_for(function)}"
