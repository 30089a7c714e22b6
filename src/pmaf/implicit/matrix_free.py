r"""Stationarity on the sphere when the matrix is known by its products only.

The equations are those of :mod:`pmaf.implicit.sphere`. The bordered system

    [ K   u ] [ w ]   [ h ]
    [ uᴴ  0 ] [ μ ] = [ f ],     K = Q + λI,

is split into w = (f/r²) u + w', w' ⟂ u: on the tangent space K is positive definite, so conjugate gradients find w'
from h − (f/r²) K u, and μ = uᴴ(h − K w)/r². One vector–Jacobian product of a product with two columns carries the
gradient to whatever the matrix is made of:

    least squares:  θ̄ = ∂ Re(⟨ρ, A(θ) w⟩ − ⟨A w, A(θ) u⟩)/∂θ,  b̄ = A w;
    quadratic:      θ̄ = −∂ Re⟨w, H(θ) u⟩/∂θ,  ḡ = w.
"""

import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pmaf.errors import GradientWarning
from pmaf.linalg.projected_cg import complement_cg
from pmaf.operators.base import LinearMap, Operator
from pmaf.operators.derived import Normal

__all__ = ["MatrixFreeAux", "MatrixFreeLeastSquares", "MatrixFreeQuadratic"]

Params = tuple[Tensor, ...]
Vectors = tuple[Tensor, ...]


class MatrixFreeAux(NamedTuple):
    """What the forward pass leaves for the bordered solve, beside the solution; no gradient flows through it."""

    bad: Tensor  # () bool: no usable answer, its gradient is zero
    doubtful: Tensor  # () bool: the answer is not unique


@dataclass(frozen=True)
class _MatrixFree(ABC):
    """What both problems share; parameters (*operator's tensors, b or g, radius)."""

    @property
    def solution_size(self) -> int:
        """Two: u and λ."""
        return 2

    def core_dims(self) -> tuple[int, ...]:
        """None: operators carry no batch."""
        return ()

    def transposed(self) -> "_MatrixFree":
        """These equations: M is self-adjoint."""
        return self

    @abstractmethod
    def Q(self, params: Params) -> Operator:
        """The matrix of the quadratic."""

    def apply(self, params: Params, solution: Vectors, aux: MatrixFreeAux, y: Vectors) -> Vectors:
        """M y."""
        u, multiplier = solution
        w, mu = y
        upper = self.Q(params).hermitian_matmat(w[:, None])[:, 0] + multiplier * w + mu * u
        return upper, (u.conj() * w).sum(-1).real

    def solve(self, params: Params, solution: Vectors, aux: MatrixFreeAux, rhs: Vectors) -> Vectors:
        """M⁻¹ rhs by conjugate gradients on the tangent space."""
        u, multiplier = solution
        h, f = rhs
        Q = self.Q(params)

        def K(x: Tensor) -> Tensor:
            return Q.hermitian_matmat(x[:, None])[:, 0] + multiplier * x

        squared = u.abs().square().sum()
        squared = torch.where(squared > 0, squared, 1)
        along = (f / squared) * u
        normal = (u / squared.sqrt())[:, None]

        def project(V: Tensor) -> Tensor:  # over the complex numbers i·u is tangent to the sphere
            return V - normal * (normal.conj() * V).sum(0).real

        goal = project((h - K(along))[:, None])
        tangent = complement_cg(
            lambda V: -project(Q.hermitian_matmat(V)), multiplier[None], u.new_zeros(*u.shape, 0), goal
        )[0]
        tangent = project(tangent)
        misfit = torch.linalg.vector_norm(project(K(tangent[:, 0])[:, None]) - goal)
        size = torch.linalg.vector_norm(goal)
        worst = float(misfit / torch.where(size > 0, size, 1))
        if not (worst <= torch.finfo(h.dtype).eps ** 0.5 or bool(aux.bad)):
            warnings.warn(
                f"pmaf: conjugate gradients for the gradient on the sphere stopped at a residual of {worst:.1e}: "
                "the gap is small, so use a dense matrix if it fits",
                GradientWarning,
                stacklevel=2,
            )
        w = along + tangent[:, 0]
        return w, (u.conj() * (h - K(w))).sum(-1).real / squared


@dataclass(frozen=True)
class MatrixFreeLeastSquares(_MatrixFree):
    """½‖A u − b‖² with A known by its products."""

    A: LinearMap  # only its structure counts

    def filled(self, params: Params) -> LinearMap:
        """A made of the parameters."""
        return self.A.with_tensors(params[:-2])

    def Q(self, params: Params) -> Operator:
        """AᴴA."""
        return Normal(self.filled(params))

    def pullback(
        self, params: Params, solution: Vectors, aux: MatrixFreeAux, y: Vectors, needs: tuple[bool, ...]
    ) -> tuple[Tensor | None, ...]:
        """−∂⟨y, F⟩/∂θ."""
        A, b, radius = self.filled(params), params[-2], params[-1]
        u, (w, mu) = solution[0], y
        Av, Au = A.matmat(torch.stack((w, u), -1)).unbind(-1)
        gradients = A.pullback(torch.stack((b - Au, -Av), -1), torch.stack((w, u), -1))
        return (*gradients, Av, mu * radius)

    def pushforward(
        self, params: Params, tangents: tuple[Tensor | None, ...], solution: Vectors, aux: MatrixFreeAux
    ) -> Vectors:
        """−∂F/∂θ dθ."""
        A, b, radius = self.filled(params), params[-2], params[-1]
        *dA, db, dr = tangents
        u = solution[0][:, None]
        rho = b[:, None] - A.matmat(u)
        change = A.pushforward(dA, u)
        if db is not None:
            change = change - db[:, None]
        upper = A.pushforward_adjoint(dA, rho) - A.adjoint(change)
        return upper[:, 0], torch.zeros_like(solution[1]) if dr is None else radius * dr


@dataclass(frozen=True)
class MatrixFreeQuadratic(_MatrixFree):
    """½ uᴴHu − Re gᴴu with H known by its products."""

    H: Operator  # only its structure counts

    def Q(self, params: Params) -> Operator:
        """H."""
        return self.H.with_tensors(params[:-2])

    def pullback(
        self, params: Params, solution: Vectors, aux: MatrixFreeAux, y: Vectors, needs: tuple[bool, ...]
    ) -> tuple[Tensor | None, ...]:
        """−∂⟨y, F⟩/∂θ."""
        w, mu = y
        return (*self.Q(params).pullback(-w[:, None], solution[0][:, None]), w, mu * params[-1])

    def pushforward(
        self, params: Params, tangents: tuple[Tensor | None, ...], solution: Vectors, aux: MatrixFreeAux
    ) -> Vectors:
        """−∂F/∂θ dθ."""
        *dH, dg, dr = tangents
        upper = -self.Q(params).pushforward(dH, solution[0][:, None])[:, 0]
        if dg is not None:
            upper = upper + dg
        return upper, torch.zeros_like(solution[1]) if dr is None else params[-1] * dr
