"""The two kernels of leading eigenpairs with the least of Python around them, for one small matrix as for many.

A tensor costs a microsecond to make, as much as the mathematics of a 4×4 matrix; so what is only kept for the backward
pass lies in one, ``notes``: rows of the next eigenvalue, the norm, the residual, and the codes of the items; for
complex vectors also what their phases were decided by, k numbers an item.
"""

from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pmaf.kernels.eigenpairs import CLOSED, EIGEN_GRADIENT, EIGENPAIRS, factor_rows
from pmaf.kernels.loader import kernels

__all__ = ["ALL_ONES", "KINDS", "NEXT", "NORM", "RESIDUAL", "Reference", "phases", "quick_gradient", "quick_pairs"]

KINDS = {  # how the kernels number the type, its real type and the bytes of that
    torch.float32: (0, torch.float32, 4),
    torch.float64: (1, torch.float64, 8),
    torch.complex64: (2, torch.float32, 4),
    torch.complex128: (3, torch.float64, 8),
}
NEXT, NORM, RESIDUAL, CODE, PHASE = range(5)  # rows of the notes
NOTHING = torch.zeros((), dtype=torch.float32)  # in place of the factor, which the closed form of small.h does without
PAIRS, GRADIENT = EIGENPAIRS.struct, EIGEN_GRADIENT.struct


class Reference(NamedTuple):
    """What decides signs and phases."""

    columns: Tensor | None  # (*, n, 1 or k), in memory; all ones if None
    item: int  # numbers from the one of an item to that of the next
    each: int  # how many columns: one for all vectors, or one for each


ALL_ONES = Reference(None, 0, 1)


@cache
def entry(name: str) -> tuple[Any, int] | None:
    """A function of the library and the number of the instruction set; ``None`` if there is no library."""
    found = kernels()
    return None if found is None else (getattr(found.library, name), found.isa)


def quick_pairs(
    X: Tensor, k: int, largest: bool, skew: float, rtol: float, reference: Reference = ALL_ONES
) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
    """The k leading eigenpairs of matrices on the CPU, if nothing whatever is to be said of any item.

    Args:
        X: ``(*, n, n)``, contiguous, of a type in ``KINDS``, with at least one item; 1 ≤ k ≤ n.
        k: how many.
        largest: which end of the spectrum.
        skew: ‖X − Xᴴ‖ ≤ 2·skew·‖X‖ passes for Hermitian.
        rtol: differences of selected values up to rtol·‖X‖ are called repeated.
        reference: what decides signs and phases.

    Returns:
        Values ``(*, k)``, vectors ``(*, n, k)``, the factor ``(*, ⌊n/2⌋ + 2, n)`` and the notes ``(4, items)``, of
        complex X ``(4 + k, items)``; ``None`` where there is no library, or an item has a code. Where the closed form
        of ``small.h`` needs no factor, it is a zero without dimensions.
    """
    function = entry("pmaf_eigenpairs")
    if function is None:
        return None
    dtype, shape = X.dtype, X.shape
    kind, real, size = KINDS[dtype]
    batch, n = shape[:-2], shape[-1]
    count = batch.numel()
    values, vectors = torch.empty((*batch, k), dtype=real), torch.empty((*batch, n, k), dtype=dtype)
    turns = kind > 1
    notes = torch.empty((4 + k if turns else 4, count), dtype=real)
    columns, item, each = reference
    spared = k == 1 and n in CLOSED and kind == 0 and columns is None
    factor = NOTHING if spared else torch.empty((*batch, factor_rows(n), n), dtype=dtype)
    row, step = notes.data_ptr(), count * size
    call = PAIRS.pack(
        *(kind, count, n, k, largest, X.data_ptr(), 0 if columns is None else columns.data_ptr(), item, each),
        *(skew, rtol, 0.0, torch.get_num_threads(), values.data_ptr(), vectors.data_ptr()),
        *(row, row + step, row + 2 * step, row + 3 * step, factor.data_ptr(), row + 4 * step if turns else 0),
    )
    return None if function[0](function[1], call) else (values, vectors, factor, notes)


def phases(notes: Tensor, k: int) -> Tensor:
    """What decided the phase of each vector, ``(items, k)``: see ``calls.h``."""
    return notes[PHASE:].reshape(-1, k)


def quick_gradient(
    X: Tensor,
    found: tuple[Tensor, Tensor, Tensor, Tensor],
    cotangents: tuple[Tensor | None, Tensor | None],
    largest: bool,
    rtol: float,
    reference: Reference = ALL_ONES,
) -> Tensor | None:
    """The Hermitian gradient of X from the cotangents of vectors and values.

    Args:
        X: what :func:`quick_pairs` was given.
        found: what it returned.
        cotangents: contiguous, of the vectors, ``(*, n, k)``, and of the values, ``(*, k)``; ``None`` for zero.
        largest: as before.
        rtol: as before.
        reference: as before.

    Returns:
        ``(*, n, n)``; ``None`` where an item needs an eigenbasis.
    """
    function = entry("pmaf_eigen_gradient")
    if function is None:
        return None
    values, vectors, factor, notes = found
    kind, _, size = KINDS[X.dtype]
    gradient, count, (n, k) = torch.empty_like(X), notes.shape[-1], vectors.shape[-2:]
    row, step = notes.data_ptr(), count * size
    H, scalars, against = (0 if c is None else c.data_ptr() for c in (*cotangents, reference.columns))
    call = GRADIENT.pack(
        *(kind, count, n, k, largest, X.data_ptr(), factor.data_ptr(), values.data_ptr(), vectors.data_ptr()),
        *(row, row + step, row + 3 * step, H, scalars, row + 4 * step if kind > 1 else 0, against, *reference[1:]),
        *(rtol, 0.0, torch.get_num_threads(), 0, gradient.data_ptr(), 0),
    )
    return None if function[0](function[1], call) else gradient
