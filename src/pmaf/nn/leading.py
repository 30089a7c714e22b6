"""Leading eigenpairs and singular triplets as modules."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from pmaf.checks.values import check_integer
from pmaf.layers.eigen import Eigenpairs, ied
from pmaf.layers.svd import Triplets, svd
from pmaf.nn.configuration import check_configuration, non_default
from pmaf.operators.base import Operator
from pmaf.solvers import EIGEN

__all__ = ["IED", "SVD"]


class Leading(nn.Module):
    """What the modules have in common that select k leading pairs or triplets."""

    def __init__(
        self, k: int = 1, *, largest: bool = True, solver: Any = None, backward: Any = None, degenerate: str = "drop"
    ) -> None:
        super().__init__()
        name = f"nn.{type(self).__name__}"
        check_configuration(name, solver, EIGEN, degenerate, backward, largest=largest)
        self.k, self.largest = check_integer(name, "k", k), largest
        self.solver, self.backward_mode, self.degenerate = solver, backward, degenerate

    @property
    def options(self) -> dict[str, Any]:
        """The configuration but for k, as keyword arguments of the function."""
        return {
            "largest": self.largest,
            "solver": self.solver,
            "backward": self.backward_mode,
            "degenerate": self.degenerate,
        }

    def extra_repr(self) -> str:
        """The configuration."""
        return non_default(
            k=(self.k, None),
            largest=(self.largest, True),
            solver=(self.solver, None),
            backward=(self.backward_mode, None),
            degenerate=(self.degenerate, "drop"),
        )


class IED(Leading):
    r"""Implicit eigen decomposition as a module; see :func:`pmaf.ied`.

    Args:
        k: how many eigenpairs.
        largest: the algebraically largest, else the smallest.
        solver: an object or a short name; chosen if not given.
        backward: how to differentiate.
        degenerate: ``"drop"``, ``"nan"`` or ``"raise"``.

    Example:
        >>> import torch, pmaf
        >>> layer = pmaf.nn.IED(k=2)
        >>> layer(torch.diag(torch.tensor([1.0, 3.0, 2.0]))).eigenvalues
        tensor([3., 2.])
        >>> layer
        IED(k=2)
    """

    def forward(self, X: Tensor | Operator, reference: Tensor | None = None) -> Eigenpairs:
        """The named pair of eigenvalues ``(*, k)`` and eigenvectors ``(*, n, k)`` of X ``(*, n, n)``."""
        return ied(X, self.k, reference=reference, **self.options)


class SVD(Leading):
    r"""Leading singular triplets as a module; see :func:`pmaf.svd`.

    Args:
        k: how many triplets.
        largest: the largest, else the smallest.
        solver: an object or a short name; chosen if not given.
        backward: how to differentiate.
        degenerate: ``"drop"``, ``"nan"`` or ``"raise"``.

    Example:
        >>> import torch, pmaf
        >>> layer = pmaf.nn.SVD(k=2)
        >>> layer(torch.diag(torch.tensor([1.0, 3.0, 2.0]))).S
        tensor([3., 2.])
        >>> layer
        SVD(k=2)
    """

    def forward(self, A: Tensor, reference: Tensor | None = None) -> Triplets:
        """The named triple of U ``(*, m, k)``, S ``(*, k)`` and Vh ``(*, k, n)`` of A ``(*, m, n)``."""
        return svd(A, self.k, reference=reference, **self.options)
