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
from pmaf.linalg.tolerances import relative_tolerance
from pmaf.operators.base import Operator
from pmaf.operators.separation import separation_tolerance
from pmaf.transforms import readable

__all__ = ["fix_phase", "watch_gauge"]


def fix_phase(U: Tensor, reference: Tensor | None) -> Tensor:
    """Turn each column so that its inner product with the reference is real and non-negative.

    Written in differentiable operations: over the complex numbers the phase moves with the vector, and the derivative
    of what is returned includes that. A column (almost) orthogonal to the reference keeps the phase it has.

    Args:
        U: unit columns, ``(*, n, k)``.
        reference: ``(*, n)``; the all-ones vector if ``None``.

    Returns:
        The turned columns.
    """
    weighted = U if reference is None else reference.conj()[..., None] * U
    inner = weighted.sum(-2, keepdim=True)  # (*, 1, k)
    if not U.is_complex():
        return U * torch.ones_like(inner).copysign(inner.detach())
    n = U.shape[-2]
    length = n**0.5 if reference is None else torch.linalg.vector_norm(reference, dim=-1)[..., None, None]
    known = inner.detach().abs() > 32 * torch.finfo(inner.dtype).eps * length
    return U * torch.sgn(torch.where(known, inner, 1)).conj()


def watch_gauge(
    function: str,
    X: Operator,
    U: Tensor,
    eigenvalues: Tensor,
    spectrum: Tensor,
    V: Tensor,
    rtol: float | None,
    atol: float,
) -> None:
    """Look at the gradient that reaches U, and warn if it depends on the choice of basis.

    Only where values can be read, so not inside vmap or while compiling. The vectors that were left out are known only
    to solvers that find a whole eigenbasis.

    Args:
        function: the public function, for the message.
        X: the operator.
        U: selected eigenvectors, ``(*, n, k)``, in the graph of the loss.
        eigenvalues: theirs, ``(*, k)``.
        spectrum: all eigenvalues, ``(*, n)``, or an empty tensor.
        V: all eigenvectors, ``(*, n, n)``, or an empty tensor.
        rtol: relative tolerance of what counts as repeated.
        atol: absolute tolerance.
    """
    if not U.requires_grad or not readable(U):
        return
    vectors, values, rest, basis = (t.detach() for t in (U, eigenvalues, spectrum, V))
    k, n = vectors.shape[-1], vectors.shape[-2]
    known = values if basis.shape[-1] < n else rest
    norm = known.abs().amax(-1)[..., None, None]
    tolerance = relative_tolerance(rtol, vectors.dtype, n)
    enough = torch.finfo(vectors.dtype).eps ** 0.5

    def repeated(left: Tensor, right: Tensor) -> Tensor:
        left, right = left[..., :, None], right[..., None, :]
        return (left - right).abs() <= separation_tolerance(X, left, right, norm, tolerance, atol)

    def look(gradient: Tensor | None) -> None:
        if gradient is None or not readable(gradient):
            return
        with torch.no_grad():
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
