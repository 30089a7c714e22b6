"""Eigenpairs of sparse matrices in a sparse metric, or next to a number: check → differentiate → answer."""

from __future__ import annotations

import torch
from torch import Tensor

from pmaf.checks.extras import needs
from pmaf.checks.tensors import check_start
from pmaf.checks.values import check_real, describe
from pmaf.forward.pencil import PencilForward
from pmaf.implicit.modes import Implicit
from pmaf.implicit.pencil import PencilEquations
from pmaf.layers.doors import Options, differentiate
from pmaf.layers.eigen_arguments import check_reference, columns_of, sparse_metric
from pmaf.layers.gauge import fix_phase
from pmaf.layers.verdict import narrowed_values
from pmaf.operators.base import Operator
from pmaf.operators.factors import Factors
from pmaf.operators.sparse import Sparse
from pmaf.solution import IEDSolution
from pmaf.solvers.eigen.shift_invert import ShiftInvert
from pmaf.transforms import compiling, no_autocast, on_host, readable

__all__ = ["of_sparse_pencil"]


def of_sparse_pencil(
    options: Options,
    X: Sparse,
    metric: Tensor | Operator | None,
    k: int,
    near: float | None,
    reference: Tensor | None,
    dtype: torch.dtype,
) -> IEDSolution:
    """Pairs of X u = λ B u by one factorisation of X − σB, which serves the gradient as well.

    Args:
        options: of the call.
        X: the matrix, in the type that is computed in.
        metric: B, or ``None`` for the identity.
        k: how many pairs.
        near: a number, or ``None`` for an end of the spectrum.
        reference: what signs are measured by.
        dtype: of the input.

    Returns:
        The solution.

    Raises:
        ValueError: if an option does not go together with this.
    """
    name, solver, known = options.name, options.solver, options.tolerances
    if near is not None:
        near = check_real(name, "near", near, "finite")
        if not options.largest:
            raise ValueError(f"pmaf.{name}: near={near} and largest=False exclude each other; leave one of them out")
    if not (solver is None or solver == "shift_invert" or isinstance(solver, ShiftInvert)):
        raise ValueError(
            f"pmaf.{name}: a sparse X with metric= or near= is solved by 'shift_invert', got "
            f"solver={describe(solver)}; leave it out"
        )
    if not isinstance(options.mode, Implicit):
        raise ValueError(
            f"pmaf.{name}: backward={options.mode} does not apply to a sparse X with metric= or near=; use Implicit()"
        )
    if compiling() or not (on_host(X.tensors[0]) and readable(X.tensors[0])):
        raise ValueError(
            f"pmaf.{name}: a sparse X with metric= or near= is factorised on the CPU, outside of transforms, got "
            f"{X.device}; move it with .cpu(), or make it dense"
        )
    with needs("sparse", f"pmaf.{name} of a sparse X with metric= or near="):
        import scipy.sparse.linalg  # noqa: F401
    B = sparse_metric(name, X, metric)
    check_reference(name, X, reference, k)
    start = check_start(name, options.start, X.n, (X.batch_shape,), X.tensors[0], block=True)
    left = Factors()
    forward = PencilForward(X.structure(), B.structure(), k, options.largest, near, start, left, known.rtol, known.atol)
    largest = options.largest and near is None
    equations = PencilEquations(
        options.policy, X.structure(), largest, known.rtol, known.atol, metric=B.structure(), left=left
    )
    with no_autocast(X.tensors[0]):
        params = (*X.tensors, *B.tensors)
        found = differentiate(options, "sparse pencils", {Implicit: lambda: equations}, forward, params, ())
        U, values = found.solution
        length = torch.linalg.vector_norm(U.detach(), dim=-2, keepdim=True)
        columns = columns_of(reference, X, U)
        U = fix_phase(found.aux.norm, U / length, values, found.report, columns, dtype) * length
    told = found.report
    status = told.status
    if U.dtype != dtype:
        values, status = narrowed_values(values, dtype, status)
    return IEDSolution(values, U.to(dtype), status, told.steps, told.residual, told.gap)
