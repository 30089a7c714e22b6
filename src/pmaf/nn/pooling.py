"""Pooling of feature maps to their principal directions."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from pmaf.checks.values import check_choice, check_integer
from pmaf.layers.pooling import principal_pool
from pmaf.nn.configuration import check_configuration, non_default
from pmaf.solvers import EIGEN

__all__ = ["PrincipalPool2d"]

KINDS = ("vectors", "projector")


class PrincipalPool2d(nn.Module):
    r"""Pool a feature map to the principal directions of its pixels.

    The pixels of one map are the rows of a matrix F, (H·W)×C. The layer returns its k principal right singular
    vectors,

    .. math:: U^\star = \operatorname{argmax}\ \|F U\|_F^2 \quad\text{subject to}\quad U^T U = I,

    one after the other: where average pooling keeps the mean feature, this keeps the directions that explain the most
    energy. F is never multiplied out on its larger side. The sign of each vector is that of its inner product with the
    mean feature, or, where that vanishes to rounding, with a fixed vector of no particular direction. Where a map has
    no unique principal direction, such as an all-zero map, a unit vector comes back and no gradient for what is
    undetermined.

    Several vectors are a poor feature for whatever is learned after them: where two singular values cross from one map
    to the next, the vectors change places, and each sign is a choice, which k = 1 with the mean as reference makes well
    and k > 1 cannot. The projector onto the same directions, ``kind="projector"``, depends on neither; prefer it for
    k > 1.

    Args:
        k: how many directions.
        kind: ``"vectors"``, one after the other; or ``"projector"``, the matrix :math:`U U^T`.
        center: subtract the mean feature first, as principal component analysis does.
        scale: multiply each direction by its singular value divided by √(H·W), the root mean square along it; as a
            projector, the square root of the second moments, cut to rank k.
        solver: for :func:`pmaf.ied`; chosen if not given.
        degenerate: as in :func:`pmaf.ied`.

    Example:
        >>> import torch, pmaf
        >>> pool = pmaf.nn.PrincipalPool2d(2, center=True)
        >>> pool(torch.randn(8, 16, 7, 7)).shape
        torch.Size([8, 32])
        >>> pool
        PrincipalPool2d(k=2, center=True)
        >>> pmaf.nn.PrincipalPool2d(2, "projector")(torch.randn(8, 16, 7, 7)).shape
        torch.Size([8, 256])
    """

    def __init__(
        self,
        k: int = 1,
        kind: str = "vectors",
        *,
        center: bool = False,
        scale: bool = False,
        solver: Any = None,
        degenerate: str = "drop",
    ) -> None:
        super().__init__()
        check_configuration("nn.PrincipalPool2d", solver, EIGEN, degenerate, center=center, scale=scale)
        check_choice("nn.PrincipalPool2d", "kind", kind, KINDS)
        self.kind = kind
        self.k, self.center, self.scale = check_integer("nn.PrincipalPool2d", "k", k), center, scale
        self.solver, self.degenerate = solver, degenerate

    def forward(self, features: Tensor) -> Tensor:
        """Pool ``(B, C, H, W)``, or ``(C, H, W)``, to ``(B, k·C)``, or, as a projector, to ``(B, C·C)``.

        Args:
            features: the feature maps.

        Returns:
            The k directions of each map, one after the other, or the rows of the projector.

        Raises:
            ValueError: if there are no channels or pixels.
        """
        return principal_pool(
            features,
            self.k,
            self.kind,
            center=self.center,
            scale=self.scale,
            solver=self.solver,
            degenerate=self.degenerate,
        )

    def extra_repr(self) -> str:
        """The configuration."""
        return non_default(
            k=(self.k, None),
            kind=(self.kind, "vectors"),
            center=(self.center, False),
            scale=(self.scale, False),
            solver=(self.solver, None),
            degenerate=(self.degenerate, "drop"),
        )
