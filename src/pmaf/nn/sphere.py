"""Least squares on the sphere as a module."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from pmaf.checks.values import CONSTRAINTS, check_choice, check_real
from pmaf.layers.sphere import less
from pmaf.nn.configuration import check_configuration, non_default
from pmaf.solvers import SPHERE

__all__ = ["LESS"]


class LESS(nn.Module):
    r"""Least squares on the sphere as a module; see :func:`pmaf.less`.

    Args:
        radius: r > 0, a number or a tensor, such as a parameter to be learned.
        constraint: ``"sphere"`` or ``"ball"``.
        solver: an object or a short name; chosen if not given.
        backward: how to differentiate.
        degenerate: ``"drop"``, ``"nan"`` or ``"raise"``.

    Example:
        >>> import torch, pmaf
        >>> layer = pmaf.nn.LESS(radius=9.81)
        >>> layer(torch.eye(3), torch.tensor([0.0, 0.0, 2.0]))
        tensor([0.0000, 0.0000, 9.8100])
        >>> layer
        LESS(radius=9.81)
    """

    def __init__(
        self,
        radius: float | Tensor = 1.0,
        *,
        constraint: str = "sphere",
        solver: Any = None,
        backward: Any = None,
        degenerate: str = "drop",
    ) -> None:
        super().__init__()
        if not isinstance(radius, Tensor):
            radius = check_real("nn.LESS", "radius", radius, "positive and finite")
        check_choice("nn.LESS", "constraint", constraint, CONSTRAINTS)
        check_configuration("nn.LESS", solver, SPHERE, degenerate, backward)
        self.radius, self.constraint = radius, constraint
        self.solver, self.backward_mode, self.degenerate = solver, backward, degenerate

    def forward(self, A: Tensor, b: Tensor, weights: Tensor | None = None, free: Tensor | None = None) -> Tensor:
        """The minimiser u, ``(*, n)``, for A ``(*, m, n)`` and b ``(*, m)``."""
        return less(
            A,
            b,
            radius=self.radius,
            weights=weights,
            free=free,
            constraint=self.constraint,
            solver=self.solver,
            backward=self.backward_mode,
            degenerate=self.degenerate,
        )

    def extra_repr(self) -> str:
        """The configuration."""
        return non_default(
            radius=(self.radius, None),
            constraint=(self.constraint, "sphere"),
            solver=(self.solver, None),
            backward=(self.backward_mode, None),
            degenerate=(self.degenerate, "drop"),
        )
