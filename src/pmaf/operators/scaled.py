"""An operator in units in which its wanted eigenvalues are the largest and of order one."""

from typing import NamedTuple

import torch
from torch import Tensor

from pmaf.operators.base import Operator

__all__ = ["ScaledOperator", "scaled"]


class ScaledOperator(NamedTuple):
    """±X divided by its size, so that the wanted eigenvalues are the largest and squares neither over- nor underflow.

    Items whose products are not finite count as zero matrices and are not ``sound``.
    """

    X: Operator
    sign: float
    scale: Tensor  # (*,) real, of the order of ‖X‖
    sound: Tensor  # (*,) bool

    def __call__(self, V: Tensor) -> Tensor:
        """±X V / scale, ``(*, n, p)``."""
        product = torch.where(self.sound[..., None, None], self.X.matmat(V), 0)
        return product * (self.sign / self.scale)[..., None, None]

    def original(self, theta: Tensor) -> Tensor:
        """Eigenvalues of X from those of the scaled operator; NaN where X is not sound."""
        return torch.where(self.sound[..., None], theta * (self.sign * self.scale)[..., None], torch.nan)


def scaled(X: Operator, largest: bool, V: Tensor) -> ScaledOperator:
    """The scaled operator, its scale taken from the product with an orthonormal block V."""
    with torch.no_grad():  # the scale is a choice of units: it has no part in the gradient
        product = X.matmat(V)  # (*, n, p)
        peak = product.abs().amax((-2, -1))  # (*,)
        sound = peak.isfinite()
        peak = torch.where(sound & (peak > torch.finfo(peak.dtype).tiny), peak, 1)
        length = torch.linalg.vector_norm(
            torch.where(sound[..., None, None], product, 0) / peak[..., None, None], dim=-2
        )
        scale = peak * torch.where(length.amax(-1) > 0, length.amax(-1), 1)
        sound = sound & scale.isfinite()
        return ScaledOperator(X, 1.0 if largest else -1.0, torch.where(sound, scale, 1), sound)
