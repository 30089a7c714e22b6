r"""What a solver is given, what it gives back, and what it says of itself.

A solver is a frozen dataclass with one method, ``solve``. It sees plain tensors, knows nothing of autograd, and
writes no tensor in place, so that the same code can be unrolled. Leading dimensions are batch dimensions that
broadcast against each other. What it can do are its class attributes, :class:`Solver`; tables, checks and choices
derive from them.
"""

from typing import Any, ClassVar, NamedTuple, Protocol

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
    factor: Tensor | None = None  # (*, n, n) the tridiagonal form of X that a compiled kernel left
    gap: Tensor | None = (
        None  # (*,) distance to ``next`` of the selected pair nearest to it, where they are in no order
    )


class SphereSolver(Protocol):
    """Any object that can solve a problem on the sphere."""

    def solve(self, problem: LeastSquares | SphereQuadratic, start: Tensor | None = None) -> SphereAnswer:
        """Solve every item of the batch."""


class EigenSolver(Protocol):
    """Any object that can find leading eigenpairs."""

    def solve(self, X: Operator, k: int, largest: bool, start: Tensor | None = None) -> EigenAnswer:
        """Find the k algebraically largest (smallest) eigenpairs of every item of the batch."""


class Solver:
    """What a solver says of itself; any object with ``solve`` will do, and counts as one that says none of this.

    The name and the problem of a solver are those of its file, ``solvers/problem/name.py``, unless it states others.
    """

    name: ClassVar[str]  # the short name
    problem: ClassVar[str]  # "sphere" or "eigen"
    use: ClassVar[str]  # what it is for, a line in the table of the documentation
    needs: ClassVar[str] = "the matrix"  # what of the matrix it works with
    certified: ClassVar[bool] = True  # finds the global answer of every problem, or says that it has not
    leaves_factor: ClassVar[bool] = False  # whether a tridiagonal form is there after the forward pass
    leaves_basis: ClassVar[bool] = False  # whether an eigenbasis is there after the forward pass, whatever the values
    gives_gap: ClassVar[bool] = True  # whether it knows the nearest eigenvalue left out
    takes_start: ClassVar[bool] = False  # whether a first guess saves work; else it is refused
    largest_k: ClassVar[int | None] = None  # the most pairs it finds
    largest_n: ClassVar[int | None] = None  # the largest order it takes
    dtypes: ClassVar[str] = "real and complex"
    waits: ClassVar[bool] = True  # whether the host has to wait for the device
    unrolls: ClassVar[bool] = True  # whether autograd can follow it

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _, problem, name = f"..{cls.__module__}".rsplit(".", 2)
        for attribute, value in (("problem", problem), ("name", name)):
            if attribute not in cls.__dict__:
                setattr(cls, attribute, value)

    @classmethod
    def suits(cls, n: int, k: int = 1, dtype: torch.dtype = torch.float64) -> bool:
        """Whether matrices of this order and type, and as many pairs, are for this solver."""
        small = (cls.largest_n is None or n <= cls.largest_n) and (cls.largest_k is None or k <= cls.largest_k)
        return small and not (dtype.is_complex and cls.dtypes == "real")

    @classmethod
    def accept(cls, X: Operator, k: int, start: Tensor | None) -> None:
        """Let a problem pass that is for this solver.

        Raises:
            ValueError: for more pairs, a larger order or another type than the solver takes, or a start it has no use
                for.
        """
        cls.refuse_start(start)
        if not cls.suits(X.n, k, X.dtype):
            kind = {None: "eigenpairs", 1: "one eigenpair"}.get(cls.largest_k, f"{cls.largest_k} eigenpairs")
            order = "" if cls.largest_n is None else f" of {cls.dtypes} matrices of order up to {cls.largest_n}"
            raise ValueError(
                f"pmaf.solvers.{cls.__name__}: finds {kind}{order}, got k={k}, n={X.n}, {X.dtype}; use Eigh() or "
                "BlockLanczos()"
            )

    @classmethod
    def refuse_start(cls, start: Tensor | None) -> None:
        """Let no start pass that the solver has no use for.

        Raises:
            ValueError: if there is one.
        """
        if start is not None and not cls.takes_start:
            kind = "direct" if cls.problem == "eigen" else "global"
            raise ValueError(
                f"pmaf.solvers.{cls.__name__}: is {kind} and needs no start, which is for iterative solvers"
            )
