r"""Which of the unit multiples of an eigenvector is returned, and a warning where a loss looks at what is left open.

Inside a repeated eigenvalue any basis is as good as any other. A loss L does not see which one was returned exactly
when it is constant along the rotations :math:`dU = U\Omega`, :math:`\Omega^H = -\Omega`, of the block, that is when
:math:`U^H\bar U` is Hermitian there, :math:`\bar U = \partial L/\partial U`. A rotation that mixes a selected vector u
with one v that was left out, because the selection cuts through the block, must change nothing either: v ⟂ ū.
"""

import warnings

import torch
from torch import Tensor

from pmaf.checks.tensors import first_index
from pmaf.errors import GaugeWarning
from pmaf.handover import EigenAux, Report
from pmaf.implicit.modes import Implicit
from pmaf.linalg.reduction import forth
from pmaf.linalg.robust_eigh import hermitian_eigh
from pmaf.linalg.signs import decided_sign
from pmaf.linalg.tolerances import relative_tolerance
from pmaf.operators.base import Operator
from pmaf.operators.dense import Dense
from pmaf.operators.gram import Gram
from pmaf.operators.separation import separation_tolerance
from pmaf.operators.sparse import Sparse
from pmaf.transforms import readable

__all__ = ["decided_phase", "fix_phase", "watch_gauge"]


def fix_phase(
    X: Operator | Tensor,
    U: Tensor,
    eigenvalues: Tensor,
    report: Report,
    reference: Tensor | None,
    dtype: torch.dtype,
) -> Tensor:
    """Turn each column so that its inner product with the reference is real and non-negative.

    A column that is orthogonal to the reference, to rounding, is turned by a second, fixed vector.

    Args:
        X: the matrix, or its norm, ``(*,)``.
        U: unit columns, ``(*, n, k)``.
        eigenvalues: theirs, ``(*, k)``.
        report: of the solve.
        reference: ``(*, n, 1)`` for all columns, or ``(*, n, k)``; the all-ones vector if ``None``.
        dtype: of the input.

    Returns:
        The turned columns.
    """
    return U * decided_phase(X, U, eigenvalues, report, reference, dtype)


def decided_phase(
    X: Operator | Tensor,
    U: Tensor,
    eigenvalues: Tensor,
    report: Report,
    reference: Tensor | None,
    dtype: torch.dtype,
) -> Tensor:
    """The unit numbers by which :func:`fix_phase` turns columns, ``(*, 1, k)``; the arguments are the same."""
    return decided_sign(U, reference, lambda: rounding_of_vectors(X, eigenvalues, report, dtype))


@torch.no_grad()
def rounding_of_vectors(X: Operator | Tensor, eigenvalues: Tensor, report: Report, dtype: torch.dtype) -> Tensor:
    """What rounding and the solver's tolerance leave open of each eigenvector: ε‖X‖/gap, at most ε^¼.

    Where it is more the vector is next to arbitrary, and so is its sign.

    Args:
        X: the matrix, or its norm, ``(*,)``.
        eigenvalues: the selected ones, ``(*, k)``.
        report: of the solve.
        dtype: of the input, which was rounded to it.

    Returns:
        ``(*, k)``, where gaps are not known ``(*, 1)``.
    """
    eps, k = torch.finfo(dtype).eps, eigenvalues.shape[-1]
    most = torch.finfo(eigenvalues.dtype).eps ** 0.25
    gap = torch.where(report.gap.isnan(), torch.inf, report.gap)[..., None]
    if k > 1:
        ordered, order = eigenvalues.sort(dim=-1)
        between = torch.nn.functional.pad(ordered.diff(dim=-1), (1, 1), value=torch.inf)
        nearest = torch.minimum(between[..., 1:], between[..., :-1])
        gap = torch.minimum(torch.empty_like(nearest).scatter(-1, order, nearest), gap)
    if isinstance(X, Tensor):
        ratio = X[..., None] / gap
    elif isinstance(X, Gram):
        ratio = (torch.linalg.vector_norm(X.factor, dim=(-2, -1))[..., None] / gap.sqrt()).square()
    elif isinstance(X, (Dense, Sparse)):
        ratio = torch.linalg.vector_norm(X.tensors[0], dim=(-2, -1) if X.core_dims else None)[..., None] / gap
    else:  # the norm is not known, but rarely more
        ratio = eigenvalues.abs().amax(-1, keepdim=True) / gap
    rounding: Tensor = ((8 * eps + report.residual[..., None]) * ratio + 32 * eps).clamp_max(most)
    return rounding.nan_to_num(most)


def watch_gauge(
    function: str,
    X: Operator,
    U: Tensor,
    eigenvalues: Tensor,
    aux: EigenAux,
    known: Implicit,
    L: Tensor | None = None,
) -> None:
    """Look at the gradient that reaches U, and warn if it depends on the choice of basis.

    Only where values can be read, so not inside vmap or while compiling. The vectors that were left out are not known
    where an iterative solver found the wanted ones.

    Args:
        function: the public function, for the message.
        X: the operator.
        U: selected eigenvectors, ``(*, n, k)``, in the graph of the loss.
        eigenvalues: theirs, ``(*, k)``.
        aux: what the forward pass left: the whole spectrum and eigenbasis, if the solver found them.
        known: what counts as repeated.
        L: the lower triangular factor of a metric, where X and aux belong to the reduced problem.
    """
    if not U.requires_grad or not readable(U):
        return
    vectors, values, rest, basis = (t.detach() for t in (U, eigenvalues, aux.spectrum, aux.V))
    vectors = vectors if L is None else L.mH @ vectors
    k, n = vectors.shape[-1], vectors.shape[-2]
    if aux.factor.shape[-1] == n:  # the whole spectrum is not known, but within reach
        with torch.no_grad():
            rest, basis, _ = hermitian_eigh(X.dense())
    seen_values = values if basis.shape[-1] < n else rest
    norm = seen_values.abs().amax(-1)[..., None, None]
    tolerance = relative_tolerance(known.rtol, vectors.dtype, n)
    enough = torch.finfo(vectors.dtype).eps ** 0.5

    def repeated(left: Tensor, right: Tensor) -> Tensor:
        left, right = left[..., :, None], right[..., None, :]
        return (left - right).abs() <= separation_tolerance(X, left, right, norm, tolerance, known.atol)

    def look(gradient: Tensor | None) -> None:
        if gradient is None or not readable(gradient):
            return
        with torch.no_grad():
            gradient = gradient if L is None else forth(L, gradient)
            size = torch.linalg.vector_norm(gradient, dim=-2)  # (*, k)
            size = torch.maximum(size[..., :, None], size[..., None, :]) * enough
            G = vectors.mH @ gradient
            off = ~torch.eye(k, dtype=torch.bool, device=G.device)
            seen = (repeated(values, values) & off & ((G - G.mH).abs() > size)).flatten(-2).any(-1)
            if basis.shape[-1] == n:
                outside = gradient - vectors @ G
                block = repeated(rest, values)  # (*, n, k)
                part = (basis.mH @ outside).abs()
                seen = seen | (block & (part > size.amax(-1)[..., None, :])).flatten(-2).any(-1)
        if bool(seen.any()):
            where = f"item {first_index(seen)}" if seen.dim() else "the problem"
            warnings.warn(
                f"pmaf.{function}: the loss depends on which basis was returned for a repeated eigenvalue of {where}, "
                "so its gradient is arbitrary there; use a loss that does not, such as one of principal_projector, or "
                "separate the eigenvalues",
                GaugeWarning,
                stacklevel=2,
            )

    U.register_hook(look)
