"""How answers leave the library: in the type of the input, and with an error or a warning from the plain functions."""

import warnings

import torch
from torch import Tensor

from pmaf.checks.tensors import first_index
from pmaf.errors import ConvergenceError, DegeneracyError, DegeneracyWarning, LocalSolutionWarning, RangeWarning
from pmaf.linalg.dtypes import working_dtype
from pmaf.solution import Status
from pmaf.transforms import readable

__all__ = ["judge", "narrowed", "narrowed_values"]

FAILURES = (Status.NON_FINITE, Status.NOT_DEFINITE, Status.MAX_STEPS)


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


def narrowed_values(values: Tensor, dtype: torch.dtype, status: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues in the type of the input, and the status, OUT_OF_RANGE where they leave the range of that type.

    Args:
        values: eigenvalues, ``(*, k)``, NaN where there is no answer.
        dtype: the type of the input.
        status: codes, ``(*,)``.

    Returns:
        Both.
    """
    narrow = values if dtype.is_complex else values.to(dtype)
    return narrow, torch.where(narrow.isinf().any(-1), Status.OUT_OF_RANGE, status)


def judge(function: str, status: Tensor, degenerate: str, differentiates: bool, depth: int = 3) -> None:
    """Raise for the first item without an answer, or warn; says nothing where values cannot be read.

    Args:
        function: the public function, for the message.
        status: codes, ``(*,)``.
        degenerate: the caller's policy for answers that are not unique.
        differentiates: whether a gradient may be asked for, so that a dropped component matters.
        depth: how many calls above lies what warnings are about.

    Raises:
        ConvergenceError: if an item has no answer.
        DegeneracyError: if an item has several and the policy is "raise".
    """
    if not readable(status) or not bool(status.any()):  # CONVERGED is zero
        return
    failed = torch.isin(status, status.new_tensor(FAILURES))
    if bool(failed.any()):
        first = Status(int(status.flatten()[failed.flatten().nonzero()[0]]))
        raise ConvergenceError(message(function, status, first))
    if bool((status == Status.NOT_UNIQUE).any()):
        if degenerate == "raise":
            raise DegeneracyError(message(function, status, Status.NOT_UNIQUE))
        if degenerate == "drop" and differentiates:
            text = message(function, status, Status.NOT_UNIQUE)
            warnings.warn(
                f"{text} The gradient leaves out what is not determined.", DegeneracyWarning, stacklevel=depth
            )
    if bool((status == Status.OUT_OF_RANGE).any()):
        warnings.warn(message(function, status, Status.OUT_OF_RANGE), RangeWarning, stacklevel=depth)
    if bool((status == Status.NOT_GLOBAL).any()):
        warnings.warn(message(function, status, Status.NOT_GLOBAL), LocalSolutionWarning, stacklevel=depth)


def message(function: str, status: Tensor, kind: Status) -> str:
    """One sentence on which item ended so and what to try."""
    mask = status == kind
    where = f"item {first_index(mask)}" if status.dim() else "the problem"
    count = f" ({int(mask.sum())} of {mask.numel()} items)" if status.dim() else ""
    return f"pmaf.{function}: {where} ended with {kind.name}{count}. {kind.remedy_for(function)}"
