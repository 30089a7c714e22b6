"""Functions of a matrix as a module."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from pmaf.checks.values import check_integer
from pmaf.layers.spectral_function import Function, scalar_function, spectral_function
from pmaf.nn.configuration import check_configuration, non_default
from pmaf.operators.base import Operator
from pmaf.solvers import EIGEN

__all__ = ["SpectralFunction"]


class SpectralFunction(nn.Module):
    r"""A function of a symmetric matrix as a module; see :func:`pmaf.spectral_function`.

    Args:
        fn: a name such as ``"sqrt"``, a number for a power, or a function of a tensor, element by element.
        k: of how many leading eigenpairs; all if not given.
        largest: of the algebraically largest eigenvalues, else of the smallest.
        solver: an object or a short name; chosen if not given.
        degenerate: ``"drop"``, ``"nan"`` or ``"raise"``.

    Example:
        >>> import torch, pmaf
        >>> layer = pmaf.nn.SpectralFunction("sqrt")
        >>> layer(torch.diag(torch.tensor([4.0, 9.0])))
        tensor([[2., 0.],
                [0., 3.]])
        >>> layer
        SpectralFunction(fn='sqrt')
    """

    def __init__(
        self,
        fn: Function,
        k: int | None = None,
        *,
        largest: bool = True,
        solver: Any = None,
        degenerate: str = "drop",
    ) -> None:
        super().__init__()
        check_configuration("nn.SpectralFunction", solver, EIGEN, degenerate, largest=largest)
        scalar_function("nn.SpectralFunction", fn)
        self.fn = fn
        self.k = None if k is None else check_integer("nn.SpectralFunction", "k", k, least=0)
        self.largest, self.solver, self.degenerate = largest, solver, degenerate

    def forward(self, X: Tensor | Operator) -> Tensor:
        """U f(Λ) Uᴴ, ``(*, n, n)``, of X ``(*, n, n)``."""
        return spectral_function(
            X, self.fn, self.k, largest=self.largest, solver=self.solver, degenerate=self.degenerate
        )

    def extra_repr(self) -> str:
        """The configuration."""
        return non_default(
            fn=(self.fn, None),
            k=(self.k, None),
            largest=(self.largest, True),
            solver=(self.solver, None),
            degenerate=(self.degenerate, "drop"),
        )
