r"""Singular triplets of a matrix that is known by its products: sparse, or a function.

With m ≥ n the right vectors are the eigenvectors of the operator AᴴA, V ↦ Aᴴ(A V), by :func:`pmaf.ied`; then σ = ‖A v‖
and u = A v/σ, in operations that autograd follows. With m < n it is the left ones, of A Aᴴ. Products square singular
values: one below √ε‖A‖ is lost in rounding, and its item is not CONVERGED. The residual is that of A itself.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pmaf.checks.tensors import check_start
from pmaf.checks.values import check_integer, check_tensor
from pmaf.handover import Report
from pmaf.implicit.modes import Backward
from pmaf.layers.eigen import ied_ex
from pmaf.layers.eigen_arguments import nothing_selected
from pmaf.layers.gauge import fix_phase
from pmaf.linalg.dtypes import working_dtype
from pmaf.linalg.scaling import divisor
from pmaf.operators.base import Operator
from pmaf.operators.convert import as_operator
from pmaf.operators.function import MatVec
from pmaf.solution import Status, SVDSolution
from pmaf.solvers.base import EigenSolver

__all__ = ["by_products"]

STEPS = 12  # of power iteration for ‖A‖, where it is not among what was asked for


def by_products(
    function: str,
    given: Tensor | MatVec,
    k: int,
    *,
    largest: bool,
    reference: Tensor | None,
    start: Tensor | None,
    solver: EigenSolver | str | None,
    backward: Backward | None,
    degenerate: str,
) -> SVDSolution:
    """The k leading singular triplets; the arguments are those of :func:`pmaf.svd`.

    Args:
        function: the public function, for messages.
        given: A.
        k: how many.
        largest: which end.
        reference: for the right vectors.
        start: right vectors.
        solver: for the eigenpairs.
        backward: how to differentiate those.
        degenerate: what becomes of a gradient that is not determined.

    Returns:
        The solution.

    Raises:
        ValueError: if an argument has the wrong shape or value.
    """
    if isinstance(given, Tensor):
        check_tensor(function, "A", given, 2, "(m, n)", sparse=True)
    A = as_operator(given).general()
    dtype, n = A.dtype, A.n
    A = A.with_tensors([t.to(working_dtype(t.dtype)) for t in A.tensors])
    m = A.rows if A.rows is not None else A.matmat(A.tensors[0].new_zeros(n, 1, dtype=A.dtype)).shape[0]
    own = check_integer(function, "k", k, least=None)
    if not 0 <= own <= min(m, n):
        raise ValueError(f"pmaf.{function}: k must lie between 0 and min(m, n) = {min(m, n)}, got {k}")
    if own == 0:
        V, S, report = nothing_selected(A)
        return SVDSolution(
            (V.new_zeros(m, 0) + V.sum()).to(dtype), S if dtype.is_complex else S.to(dtype), V.mH.to(dtype), *report
        )
    tall = m >= n

    def there(op: Operator, V: Tensor) -> Tensor:
        return op.matmat(V) if tall else op.rmatmat(V)

    def back(op: Operator, V: Tensor) -> Tensor:
        return op.rmatmat(V) if tall else op.matmat(V)

    def squared(*arguments: Tensor) -> Tensor:
        op = A.with_tensors(arguments[:-1])
        return back(op, there(op, arguments[-1]))

    if start is not None:
        start = check_start(function, start, n, (torch.Size(),), A.tensors[0], block=True)
        assert start is not None
        start = start if tall else A.matmat(start if start.dim() > 1 else start[:, None])
    gram = MatVec(squared, min(m, n), A.tensors)
    pairs = ied_ex(gram, own, largest=largest, start=start, solver=solver, backward=backward, degenerate=degenerate)
    inner = pairs.eigenvectors
    image = there(A, inner)
    S = torch.linalg.vector_norm(image, dim=-2)
    with torch.no_grad():
        norm = S.amax(-1) if largest else size(gram, inner).sqrt()
        root = torch.finfo(S.dtype).eps ** 0.5
        missing = ~(S / divisor(norm) > root)  # NaN too
        lost = missing.any(-1)
    outer = image / torch.where(missing, 1, S)[..., None, :]
    with torch.no_grad():
        misfit = torch.linalg.vector_norm(back(A, outer) - inner * S[..., None, :], dim=-2).amax(-1)
        residual = misfit / divisor(norm)
        status = torch.where(lost & pairs.status.ne(Status.NON_FINITE), int(Status.MAX_STEPS), pairs.status)
        step = -pairs.gap if largest else pairs.gap
        following = (pairs.eigenvalues[..., -1] + step).clamp_min(0).sqrt()
        gap = torch.where(pairs.gap.isinf(), pairs.gap, (S[..., -1] - following).abs())
    U, V = (outer, inner) if tall else (inner, outer)
    columns = None
    if reference is not None:
        columns = reference if reference.dim() == 2 and reference.shape == (n, own) else reference[..., None]
        columns = columns.detach().to(V.dtype)
    told = Report(status, pairs.steps, residual, gap)
    turned = fix_phase(divisor(norm), V, S.detach(), told, columns, S.dtype)
    U = U * (V.conj() * turned).sum(-2, keepdim=True) / divisor((V.conj() * V).real.sum(-2, keepdim=True))
    return SVDSolution(U.to(dtype), S if dtype.is_complex else S.to(dtype), turned.mH.to(dtype), *told)


def size(gram: MatVec, like: Tensor) -> Tensor:
    """About the largest eigenvalue of a semidefinite operator, from below."""
    v = torch.linspace(-2, 2, gram.n, dtype=like.real.dtype, device=like.device).exp().to(like.dtype)[:, None]
    found = like.real.new_zeros(())
    for _ in range(STEPS):
        found = torch.linalg.vector_norm(v)
        v = gram.matmat(v / divisor(found))
    largest: Tensor = torch.linalg.vector_norm(v)
    return largest
