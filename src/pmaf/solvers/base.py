r"""What a solver is given and what it gives back.

A solver is a frozen dataclass with one method, ``solve``. It sees plain tensors, knows nothing of autograd, and
writes no tensor in place, so that the same code can be unrolled. Leading dimensions are batch dimensions that
broadcast against each other.
"""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from pmaf.linalg.batched import adjoint_matvec, matvec
from pmaf.operators.base import Operator


class LeastSquares(NamedTuple):
    r"""Minimise :math:`\tfrac12\|A u - b\|^2` subject to :math:`\|u\| = r`; weights and free unknowns are gone."""

    A: Tensor  # (*, m, n)
    b: Tensor  # (*, m)
    radius: Tensor  # (*,), real

    @property
    def batch_shape(self) -> torch.Size:
        """The common batch shape of A, b and the radius."""
        return torch.Size(torch.broadcast_shapes(self.A.shape[:-2], self.b.shape[:-1], self.radius.shape))

    @property
    def n(self) -> int:
        """The number of unknowns."""
        return self.A.shape[-1]

    def objective(self, u: Tensor) -> Tensor:
        """½‖A u − b‖²."""
        return (matvec(self.A, u) - self.b).abs().square().sum(-1) / 2

    def gradient(self, u: Tensor) -> Tensor:
        """Aᴴ(A u − b)."""
        return adjoint_matvec(self.A, matvec(self.A, u) - self.b)


class SphereQuadratic(NamedTuple):
    r"""Minimise :math:`\tfrac12 u^H H u - \mathrm{Re}\,g^H u` subject to :math:`\|u\| = r`; H Hermitian, any signs."""

    H: Tensor  # (*, n, n)
    g: Tensor  # (*, n)
    radius: Tensor  # (*,), real

    @property
    def batch_shape(self) -> torch.Size:
        """The common batch shape of H, g and the radius."""
        return torch.Size(torch.broadcast_shapes(self.H.shape[:-2], self.g.shape[:-1], self.radius.shape))

    @property
    def n(self) -> int:
        """The number of unknowns."""
        return self.H.shape[-1]

    def objective(self, u: Tensor) -> Tensor:
        """½ uᴴHu − Re gᴴu."""
        curved = matvec(self.H, u)
        return ((u.conj() * curved).sum(-1) / 2 - (self.g.conj() * u).sum(-1)).real

    def gradient(self, u: Tensor) -> Tensor:
        """H u − g."""
        return matvec(self.H, u) - self.g


class SphereAnswer(NamedTuple):
    """A point on the sphere and what the solver learnt on the way; ``None`` where it learnt nothing."""

    u: Tensor  # (*, n)
    finished: Tensor  # (*,) bool: the solver's own stopping rule was met
    steps: Tensor  # (*,) int64
    multiplier: Tensor | None = None  # (*,) real
    gap: Tensor | None = None  # (*,) λ + λ_min(Q), with all the digits the solver has
    spectrum: Tensor | None = None  # (*, n) eigenvalues of Q, ascending
    basis: Tensor | None = None  # (*, n, n) eigenvectors of Q
    norm: Tensor | None = None  # (*,) an estimate of ‖Q‖, given together with the gap where the spectrum is not there


class EigenAnswer(NamedTuple):
    """The k wanted eigenpairs, in order, and what the solver learnt of the rest."""

    eigenvalues: Tensor  # (*, k) real; descending for the largest, ascending for the smallest
    eigenvectors: Tensor  # (*, n, k) orthonormal
    finished: Tensor  # (*,) bool: the solver's own stopping rule was met
    steps: Tensor  # (*,) int64
    next: Tensor | None = None  # (*,) best estimate of the nearest eigenvalue left out
    spectrum: Tensor | None = None  # (*, n) all eigenvalues, ascending
    basis: Tensor | None = None  # (*, n, n) all eigenvectors
    norm: Tensor | None = None  # (*,) an estimate of ‖X‖, where the spectrum is not there to tell
    residual: Tensor | None = None  # (*,) the largest ‖Xu − λu‖/norm, where the solver has measured it on X itself


class SphereSolver(Protocol):
    """Any object that can solve a problem on the sphere."""

    def solve(self, problem: LeastSquares | SphereQuadratic, start: Tensor | None = None) -> SphereAnswer:
        """Solve every item of the batch."""


class EigenSolver(Protocol):
    """Any object that can find leading eigenpairs."""

    def solve(self, X: Operator, k: int, largest: bool, start: Tensor | None = None) -> EigenAnswer:
        """Find the k algebraically largest (smallest) eigenpairs of every item of the batch."""
