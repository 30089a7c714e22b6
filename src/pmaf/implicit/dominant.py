r"""The dominant pair of a general matrix, differentiated through products with it and its transpose alone.

The pair satisfies F = (λu − Xu, ½(uᵀu − 1)) = 0, so M (du, dλ) = (dX u, 0) with the bordered matrix

    M = [ λI − X   u ]
        [ uᵀ       0 ],

which is not self-adjoint: the pullback solves Mᵀ(w, μ) = (ū, λ̄), forward mode M. Both split w = f u + w', w' ⟂ u. With
P = I − uuᵀ and B = X, or Xᵀ in the pullback,

    w' = λ⁻¹ (P h + P B w'),   h = ū − f (λu − Bu),

a fixed point whose iteration matrix PBP/λ has the eigenvalues λⱼ/λ of the other pairs: it contracts as fast as the
power iteration that found the pair, and is the Neumann series of the exploited form of :class:`pmaf.FixedPoint`.
"""

import warnings
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pmaf.errors import GradientWarning
from pmaf.implicit.complement.eigenbasis import EigenAux
from pmaf.operators.derived import General
from pmaf.transforms import mapped_the_older_way

__all__ = ["DominantEquations"]

Params = tuple[Tensor | None, ...]
Vectors = tuple[Tensor, ...]
MAX_STEPS = 10_000


@dataclass(frozen=True)
class DominantEquations:
    """Equations of the pair; parameters are the operator's tensors, the solution is u, ``(n, 1)``, and λ, ``(1,)``."""

    operator: General  # only its structure counts
    adjoint: bool = False  # Mᵀ in place of M

    @property
    def solution_size(self) -> int:
        """Two: u and λ."""
        return 2

    def core_dims(self) -> tuple[int, ...]:
        """None: operators carry no batch."""
        return ()

    def transposed(self) -> "DominantEquations":
        """The equations with Mᵀ."""
        return replace(self, adjoint=not self.adjoint)

    def filled(self, params: Params) -> General:
        """The operator made of the parameters."""
        return self.operator.with_tensors([p for p in params if p is not None])

    def product(self, params: Params, V: Tensor) -> Tensor:
        """X V or XᵀV."""
        X = self.filled(params)
        return X.A.adjoint(V) if self.adjoint else X.matmat(V)

    def apply(self, params: Params, solution: Vectors, aux: EigenAux, y: Vectors) -> Vectors:
        """M y."""
        (u, value), (w, mu) = solution, y
        return value * w - self.product(params, w) + u * mu, (u * w).sum(-2)

    def solve(self, params: Params, solution: Vectors, aux: EigenAux, rhs: Vectors) -> Vectors:
        """M⁻¹ rhs.

        Raises:
            RuntimeError: inside the older vmap of ``is_grads_batched``.
        """
        (u, value), (h, f) = solution, rhs
        if mapped_the_older_way(h):
            raise RuntimeError(
                "pmaf: autograd.grad(..., is_grads_batched=True) cannot look at values, which the fixed-point "
                "iteration does; use torch.func.vmap or torch.func.jacrev, or a dense matrix"
            )

        def project(V: Tensor) -> Tensor:
            return V - u * (u * V).sum(-2)

        goal = project(h - f * (value * u - self.product(params, u)))
        divisor = torch.where(value == 0, 1, value)
        rtol = 4 * torch.finfo(h.dtype).eps
        w, change, size = torch.zeros_like(goal), goal, float(torch.linalg.vector_norm(goal))
        for _ in range(MAX_STEPS if size > 0 else 0):
            proposed = (goal + project(self.product(params, w))) / divisor
            change, w = (proposed - w) * divisor, proposed  # the residual of the w before
            if not float(torch.linalg.vector_norm(change)) > rtol * (size + float(torch.linalg.vector_norm(w * value))):
                break
        w = project(w)
        misfit = float(torch.linalg.vector_norm(goal - value * w + project(self.product(params, w))))
        if not misfit <= torch.finfo(h.dtype).eps ** 0.5 * size and not bool(aux.bad):
            warnings.warn(
                f"pmaf: the fixed-point iteration for the gradient of the dominant pair stopped at a residual of "
                f"{misfit / size:.1e}: the next eigenvalue is too close in magnitude",
                GradientWarning,
                stacklevel=2,
            )
        w = w + f * u
        return w, (u * (h - value * w + self.product(params, w))).sum(-2)

    def pullback(self, params: Params, solution: Vectors, aux: EigenAux, y: Vectors, needs: tuple[bool, ...]) -> Params:
        """∂⟨w, X u⟩/∂θ."""
        return self.filled(params).pullback(y[0], solution[0])

    def pushforward(self, params: Params, tangents: Params, solution: Vectors, aux: EigenAux) -> Vectors:
        """(dX u, 0)."""
        return self.filled(params).pushforward(tangents, solution[0]), torch.zeros_like(solution[1])
