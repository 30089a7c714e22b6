r"""What gradients of eigenvalues and eigenvectors leave open where selected eigenvalues repeat, told by a warning.

Inside a repeated eigenvalue the true solution is a block (U_B, T_B) and the pairs are one of its bases, with
T_B = diag(λ). When X moves, T_B gets entries off its diagonal, which eigenvalues do not show. With
:math:`G = U^H\bar U`, a component of the gradient there is left out

- where a loss sees the choice of basis: :math:`G \ne G^H`, or the cotangents of eigenvalues differ;
- where it may depend on values *and* vectors: for :math:`\mathrm{tr}(C\,U f(\Lambda) U^H)` the component is
  :math:`f'(\lambda)` times the entry of :math:`U^H C U` off the diagonal, and its cotangents are those of a loss of
  vectors plus one of values, for which it is 0;
- in a second derivative, where the cotangents of eigenvalues depend on them, as for Σ λ².
"""

import warnings
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from pmaf.errors import DegeneracyWarning
from pmaf.transforms import cheap, innermost

__all__ = ["SECOND", "Embedded", "moves", "seen", "tangent", "undetermined", "warn_undetermined", "watch"]

SECOND = "a second derivative needs how cotangents of eigenvalues depend on them"


def seen(mask: Tensor) -> bool:
    """Whether any item is marked, also below transforms of torch.func; no, where that would wait for a device."""
    mask = innermost(mask.detach())
    return cheap(mask) and bool(mask.any())


def undetermined(C: Tensor, U: Tensor, eigenvalues: Tensor, U_bar: Tensor, values_bar: Tensor) -> Tensor:
    """Which pairs in a block have a component that the cotangents do not determine, ``(*, k, k)``.

    Args:
        C: pairs of different columns that are in one block, ``(*, k, k)``.
        U: eigenvectors, ``(*, n, k)``.
        eigenvalues: theirs, ``(*, k)``.
        U_bar: their cotangents.
        values_bar: the cotangents of the eigenvalues, ``(*, k)``.
    """
    rounding = torch.finfo(U.dtype).eps ** 0.5
    G = U.mH @ U_bar
    length, size = torch.linalg.vector_norm(U_bar, dim=-2), values_bar.abs()
    length = torch.maximum(length[..., :, None], length[..., None, :]) * rounding
    size = torch.maximum(size[..., :, None], size[..., None, :])
    basis = (G - G.mH).abs() > length
    values = (values_bar[..., :, None] - values_bar[..., None, :]).abs() > size * rounding
    both = (
        size * eigenvalues.detach().abs().amax(-1)[..., None, None] > length
    )  # in the units of the loss, and more than rounding
    together = ((G + G.mH).abs() > length) & both
    open_: Tensor = C & (basis | values | together)
    return open_


def warn_undetermined(what: str) -> None:
    """Say what was left out, and where it can be had."""
    warnings.warn(
        f"pmaf: selected eigenvalues repeat, and {what} there, which gradients of eigenvalues and eigenvectors do not "
        "determine; that component is left out. pmaf.spectral_function has all derivatives of functions of values and "
        "vectors together; of a loss that depends on the basis there is none",
        DegeneracyWarning,
        stacklevel=2,
    )


class Embedded(torch.autograd.Function):
    """Cotangents of eigenvalues as a diagonal matrix; warns where a derivative needs more than the diagonal."""

    generate_vmap_rule = True

    @staticmethod
    def forward(values_bar: Tensor, T: Tensor, C: Tensor) -> Tensor:
        """diag(λ̄)."""
        return torch.diag_embed(values_bar).to(T.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep the blocks."""
        _, _, C = inputs
        ctx.save_for_backward(C)
        ctx.save_for_forward(C)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor | None) -> Any:
        """The diagonal; the rest belongs to entries of T_B that eigenvalues do not show."""
        if gradient is None or not ctx.needs_input_grad[0]:
            return None, None, None
        (C,) = ctx.saved_tensors
        watch(C, gradient)
        return gradient.diagonal(dim1=-2, dim2=-1).real, None, None

    @staticmethod
    def jvp(ctx: Any, dvalues: Tensor | None, dT: Any, _: None) -> Any:
        """The same of the change."""
        if dvalues is None:
            return torch.zeros_like(dT)
        (C,) = ctx.saved_tensors
        if dT is not None:
            watch(C, dT)
        return torch.diag_embed(dvalues).to(dvalues.dtype if dT is None else dT.dtype)


def watch(C: Tensor, M: Tensor) -> None:
    """Warn if a matrix has entries inside a block and off the diagonal."""
    if moves(C, M, M):
        warn_undetermined(SECOND)


def tangent(M: Tensor) -> Tensor:
    """The change of M along the innermost level of forward mode, or zero."""
    change = forward_ad.unpack_dual(M).tangent
    return torch.zeros_like(M) if change is None else change


def moves(C: Tensor, M: Tensor, scale: Tensor) -> bool:
    """Whether a matrix has entries inside a block and off the diagonal, more than rounding of entries like these."""
    with torch.no_grad():
        size = scale.abs().amax((-2, -1), keepdim=True)
        return seen(C & (M.abs() > size * torch.finfo(M.dtype).eps ** 0.5))
