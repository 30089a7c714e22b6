"""An operator in units in which its wanted eigenvalues are the largest and of order one."""

from typing import NamedTuple

import torch
from torch import Tensor

from pmaf.linalg.scaling import exponent_of, times_power
from pmaf.operators.base import Operator
from pmaf.operators.dense import Dense
from pmaf.operators.gram import Gram
from pmaf.operators.sparse import Sparse

__all__ = ["ScaledOperator", "degree", "from_units", "in_units", "scaled"]


def in_units(X: Operator) -> tuple[Operator, Tensor | None]:
    """X in units, powers of two, in which nothing that follows over- or underflows; see :func:`exponent_of`.

    Args:
        X: the operator; one known as a function is left as it is.

    Returns:
        The operator, and the exponents of the units of its first tensor, ``(*,)``; ``None`` if they are zero.
    """
    if not isinstance(X, (Dense, Gram, Sparse)):
        return X, None
    A, *rest = X.tensors
    core = X.core_dims[0] if X.core_dims else 1
    bits = 10 if isinstance(X, Gram) else 30  # gradients of Gram matrices divide by fourth powers of singular values
    exponent = exponent_of(X.factor if isinstance(X, Gram) else A, tuple(range(-core, 0)), bits)
    if exponent is None:
        return X, None
    return X.with_tensors((times_power(A, -exponent), *rest)), exponent


def degree(X: Operator) -> int:
    """Which power of the units of X those of its eigenvalues are."""
    return 2 if isinstance(X, Gram) else 1


def from_units(X: Operator, exponent: Tensor | None, values: Tensor) -> Tensor:
    """Eigenvalues, or their differences, ``(*, …)``, in the units of the data."""
    return values if exponent is None else times_power(values, degree(X) * exponent)


class ScaledOperator(NamedTuple):
    """±X divided by its size, so that the wanted eigenvalues are the largest and squares neither over- nor underflow.

    Items whose products are not finite count as zero matrices and are not ``finite``.
    """

    X: Operator
    sign: float
    scale: Tensor  # (*,) real, of the order of ‖X‖
    finite: Tensor  # (*,) bool

    def __call__(self, V: Tensor) -> Tensor:
        """±X V / scale, ``(*, n, p)``."""
        product = torch.where(self.finite[..., None, None], self.X.matmat(V), 0)
        firm = self.scale.clamp_min(4 * torch.finfo(self.scale.dtype).tiny)  # which has a reciprocal
        return product * (self.sign / firm)[..., None, None] * (firm / self.scale)[..., None, None]

    def original(self, theta: Tensor) -> Tensor:
        """Eigenvalues of X from those of the scaled operator; NaN where X is not finite."""
        return torch.where(self.finite[..., None], theta * (self.sign * self.scale)[..., None], torch.nan)


def scaled(X: Operator, largest: bool, V: Tensor) -> ScaledOperator:
    """The scaled operator, its scale taken from the product with an orthonormal block V."""
    with torch.no_grad():  # the scale is a choice of units: it has no part in the gradient
        product = X.matmat(V)  # (*, n, p)
        peak = product.abs().amax((-2, -1))  # (*,)
        finite = peak.isfinite()
        peak = torch.where(finite & (peak > 0), peak, 1)
        length = torch.linalg.vector_norm(
            torch.where(finite[..., None, None], product.abs(), 0) / peak[..., None, None], dim=-2
        )
        scale = peak * torch.where(length.amax(-1) > 0, length.amax(-1), 1)
        finite = finite & scale.isfinite()
        return ScaledOperator(X, 1.0 if largest else -1.0, torch.where(finite, scale, 1), finite)
