"""The short way of the everyday call: dense matrices on the CPU with default options, from the door to the kernel.

It applies where nothing but reverse mode can be watching and every item is solved, unique and Hermitian to rounding,
all of which the kernel itself finds out. Anything else takes the general path, which says what is wrong.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from pmaf.handover import EigenAux
from pmaf.implicit.autograd import run_solve
from pmaf.implicit.eigen import EigenpairEquations
from pmaf.kernels.calls import in_memory
from pmaf.kernels.eigenpairs import factor_rows
from pmaf.kernels.quick import ALL_ONES, KINDS, NEXT, NORM, Reference, phases, quick_gradient, quick_pairs
from pmaf.linalg.signs import of_turned
from pmaf.linalg.tolerances import relative_tolerance
from pmaf.operators.dense import Dense
from pmaf.solvers.eigen.tridiagonal import Tridiagonal
from pmaf.transforms import follows_nothing, mapped_the_older_way, open_to_kernels, recorded

__all__ = ["direct_pairs"]

SKEW = 1e-5  # relative to ‖X‖; what is further from symmetric is judged by the general path
PLAIN = (Tensor, torch.nn.Parameter)
POLICIES = ("drop", "nan", "raise")  # which come to the same where every answer is unique
OTHERS = ("metric", "near", "start", "solver", "backward")
EQUATIONS = {
    largest: EigenpairEquations("drop", Dense(torch.empty(0, 0)).structure(), largest) for largest in (False, True)
}

tolerance = cache(lambda dtype, n: relative_tolerance(None, dtype, n))


class DirectPairs(torch.autograd.Function):
    """Eigenvectors and eigenvalues that are already there, as a function of X."""

    @staticmethod
    def forward(ctx: Any, X: Tensor, found: tuple[Tensor, ...], largest: bool, reference: Reference) -> Any:
        """Hand the solution over, and keep what the kernel left."""
        values, vectors, factor, notes = found
        ctx.largest, ctx.reference = largest, reference if X.is_complex() else ALL_ONES  # real signs do not move
        ctx.save_for_backward(X, values, vectors, factor, notes, ctx.reference.columns)  # so that its change is noticed
        ctx.set_materialize_grads(False)
        return vectors, values

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        """The kernel where no further derivative is asked for, else the equations."""
        X, values, vectors, factor, notes, _ = ctx.saved_tensors
        told = ctx.largest, tolerance(X.dtype, X.shape[-1]), ctx.reference
        given = [c for c in cotangents if c is not None]
        if not torch.is_grad_enabled() and follows_nothing() and not any(map(mapped_the_older_way, given)):
            right = tuple(None if c is None else in_memory(c) for c in cotangents)
            gradient = quick_gradient(X, (values, vectors, factor, notes), right, *told)  # type: ignore[arg-type]
            if gradient is not None:
                return gradient, None, None, None
        batch, (U_bar, values_bar) = X.shape[:-2], cotangents
        if U_bar is not None and X.is_complex():
            k = values.shape[-1]
            U_bar = of_turned(vectors, U_bar, phases(notes, k).reshape(*batch, 1, k), ctx.reference.columns)
        none, empty = torch.zeros(batch, dtype=torch.bool), values.detach()[..., :0]
        factor = factor if factor.dim() > 0 else factor.expand(*batch, factor_rows(X.shape[-1]), X.shape[-1])
        following, norm = notes[NEXT].reshape(batch), notes[NORM].reshape(batch)
        aux = EigenAux(none, none, values.detach(), empty, empty[..., None].mT[..., :0], following, norm, factor)
        equations = EQUATIONS[ctx.largest]
        (gradient,) = equations.gradient((X,), (vectors, values), aux, (U_bar, values_bar), (True,), run_solve)
        return gradient, None, None, None


def direct_pairs(
    X: object,
    k: object = 1,
    *,
    largest: object = True,
    degenerate: object = "drop",
    reference: object = None,
    **options: object,
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Leading eigenpairs with derivatives attached; ``None`` where the general path has to look.

    Args:
        X: what the user gave.
        k: how many pairs.
        largest: which end of the spectrum.
        degenerate: the policy for answers that are not unique, of which there are none here.
        reference: what decides signs and phases.
        options: other arguments of :func:`pmaf.ied`; all of them have to be as they are by default.

    Returns:
        Eigenvectors, eigenvalues, and the notes of the kernel.
    """
    if not (type(X) in PLAIN and isinstance(X, Tensor) and type(k) is int and type(largest) is bool):
        return None
    if degenerate not in POLICIES or not all(value is None and name in OTHERS for name, value in options.items()):
        return None
    shape = X.shape
    if len(shape) < 2 or not 1 <= k <= shape[-1] == shape[-2] <= Tridiagonal.first or X.dtype not in KINDS:
        return None
    if not (X.layout == torch.strided and open_to_kernels(X)) or X.numel() == 0:
        return None
    against = ALL_ONES if reference is None else columns_of(reference, X, k)
    if against is None:
        return None
    X = in_memory(X)
    found = quick_pairs(X, k, largest, SKEW, tolerance(X.dtype, shape[-1]), against)
    if found is None:
        return None
    if recorded(X):
        U, values = DirectPairs.apply(X, found, largest, against)  # type: ignore[no-untyped-call]
        return U, values, found[3]
    return found[1], found[0], found[3]


def columns_of(reference: object, X: Tensor, k: int) -> Reference | None:
    """References as columns, ``(*, n, 1)`` or ``(*, n, k)``; ``None`` where the general path has to look."""
    if not (type(reference) in PLAIN and isinstance(reference, Tensor) and reference.dtype == X.dtype):
        return None
    if not (reference.layout == torch.strided and open_to_kernels(reference)):
        return None
    each = k if reference.dim() == X.dim() else 1
    columns = reference.detach() if reference.dim() == X.dim() else reference.detach()[..., None]
    batch = columns.shape[:-2]
    if columns.shape[len(batch) :] != (X.shape[-1], each) or batch not in ((), X.shape[:-2]):
        return None
    return Reference(in_memory(columns), X.shape[-1] * each if batch else 0, each)
