r"""Pooling a feature map to the principal directions of its pixels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pmaf.checks.values import check_tensor, describe
from pmaf.layers.eigen import ied
from pmaf.layers.projector import principal_projector
from pmaf.layers.spectral_function import spectral_function
from pmaf.linalg.dtypes import working_dtype
from pmaf.operators.gram import Gram

__all__ = ["principal_pool"]


def principal_pool(
    features: Tensor, k: int, kind: str, *, center: bool, scale: bool, solver: Any, degenerate: str
) -> Tensor:
    """Pool ``(*, C, H, W)`` to ``(*, k·C)``, or, as a projector, to ``(*, C·C)``.

    Args:
        features: the feature maps.
        k: how many directions.
        kind: ``"vectors"`` or ``"projector"``.
        center: subtract the mean feature first.
        scale: by the root mean square along each direction.
        solver: for the eigenpairs.
        degenerate: the policy for answers that are not unique.

    Returns:
        The k directions of each map, one after the other, or the rows of the projector.

    Raises:
        ValueError: if there are no channels or pixels.
    """
    check_tensor("nn.PrincipalPool2d", "features", features, 3, "(*, C, H, W)")
    if 0 in features.shape[-3:]:
        raise ValueError(f"pmaf.nn.PrincipalPool2d: features must have channels and pixels, got {describe(features)}")
    F = features.flatten(-2).mT.to(working_dtype(features.dtype))  # (*, H·W, C)
    mean = F.mean(-2)  # (*, C)
    centred = F - mean[..., None, :] if center else F
    if kind == "projector":
        return projector(centred, k, scale, solver, degenerate).flatten(-2).to(features.dtype)
    row = torch.linalg.vector_norm(F.detach(), dim=(-2, -1)) / F.shape[-2] ** 0.5  # the length of a typical feature
    noise = 8 * torch.finfo(features.dtype).eps * row
    # Of features that are normalised over the pixels the mean is rounding and says nothing of the sign.
    mean = torch.where((torch.linalg.vector_norm(mean, dim=-1) > noise)[..., None], mean, 0)
    values, U = ied(Gram(centred), k, reference=mean, solver=solver, degenerate=degenerate)
    if scale:
        kept = values > 1e-12 * values.amax(-1, keepdim=True)  # √ has no slope at zero
        root = torch.where(kept, torch.where(kept, values / F.shape[-2], 1).sqrt(), 0)
        U = U * root[..., None, :]
    return U.mT.flatten(-2).to(features.dtype)


def projector(F: Tensor, k: int, scale: bool, solver: Any, degenerate: str) -> Tensor:
    """U Uᵀ, ``(*, C, C)``, or with the root mean square along each direction in between."""
    if scale:
        return spectral_function(Gram(F / F.shape[-2] ** 0.5), "sqrt", k, solver=solver, degenerate=degenerate)
    return principal_projector(Gram(F), k, solver=solver, degenerate=degenerate)
