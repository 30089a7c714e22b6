r"""Generalised eigenpair equations, and how their solution moves with both matrices.

Each pair satisfies F = (λ B u − X u, ½(uᴴBu − 1)) = 0, so that M (du, dλ) = (dX u − λ dB u, −½ uᴴdB u) with the
self-adjoint bordered matrix

    M = [ λB − X   B u ]
        [ uᴴB      0   ]

Reverse mode solves M (w, μ) = (ū, λ̄) and returns, of rank 2k each,

    X̄ = sym(Σ wᵢuᵢᴴ),    B̄ = −sym(Σ (λᵢwᵢ + ½μᵢuᵢ) uᵢᴴ).

With B = L Lᴴ the system is that of the reduced matrix L⁻¹XL⁻ᴴ in w' = Lᴴw and u' = Lᴴu, its right-hand side
(L⁻¹ū, λ̄): the complement of u in the metric is solved in whatever form the forward pass left, and no derivative ever
passes through L. Where selected eigenvalues repeat the pairs of one block move together, F = (B U T − X U,
½(UᴴBU − I)), as those of the standard problem do.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from pmaf.handover import GeneralisedAux
from pmaf.implicit.base import Params, Vectors
from pmaf.implicit.eigen import EigenpairEquations, in_blocks, off_diagonal
from pmaf.linalg.reduction import forth, towards
from pmaf.operators.base import Operator
from pmaf.operators.dense import Dense

__all__ = ["GeneralisedEquations"]


@dataclass(frozen=True)
class GeneralisedEquations(EigenpairEquations):
    """Equations of the selected pairs of X u = λ B u; parameters (X, B)."""

    aux_type: ClassVar[Any] = GeneralisedAux
    core_dims = (2, 2)
    one_pass = False
    moving = True

    def standard(self) -> EigenpairEquations:
        """The equations of the reduced problem."""
        return EigenpairEquations(self.policy, self.operator, self.largest, self.rtol, self.atol)

    def both(self, params: Params) -> tuple[Operator, Operator]:
        """X and B, of which the Hermitian parts count."""
        X, B = (Dense(p) for p in params if p is not None)
        return X, B

    def filled(self, params: Params) -> Operator:
        """X."""
        return self.both(params)[0]

    def orthonormal(self, aux: GeneralisedAux, U: Tensor, U_bar: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Eigenvectors of the reduced problem, and their cotangents."""
        return aux.L.mH @ U, forth(aux.L, U_bar)

    def with_values(self, params: Params, solution: Vectors, C: Tensor) -> Tensor:
        """T with the eigenvalues on its diagonal, as they move, ``(*, k, k)``."""
        U, values = solution
        return self.inside(params, U, off_diagonal(C)) + torch.diag_embed(values).to(U.dtype)

    def apply(self, params: Params, solution: Vectors, aux: GeneralisedAux, y: Vectors) -> Vectors:  # type: ignore[override]
        """M y."""
        (U, values), (W, mu) = solution, y
        X, B = self.both(params)
        BU, BW = B.matmat(U), B.matmat(W)
        if not in_blocks(W, mu):
            upper = BW * values[..., None, :] - X.matmat(W) + BU * mu[..., None, :]
            return upper, (BU.conj() * W).sum(-2).real
        C = self.blocks(params, solution, aux)
        T = self.inside(params, U, C)
        return BW @ T - X.matmat(W) + BU @ torch.where(C, mu, 0), torch.where(C, BU.mH @ W, 0)

    def residual(self, params: Params, solution: Vectors, aux: GeneralisedAux) -> Vectors:  # type: ignore[override]
        """F."""
        U, values = solution
        X, B = self.both(params)
        BU = B.matmat(U)
        if values.shape[-1] == 1:
            return BU * values[..., None, :] - X.matmat(U), ((U.conj() * BU).sum(-2).real - 1) / 2
        C = self.blocks(params, solution, aux)
        eye = torch.eye(C.shape[-1], dtype=U.dtype, device=U.device)
        T = self.with_values(params, solution, C)
        return BU @ T - X.matmat(U), torch.where(C, U.mH @ BU - eye, 0) / 2

    def solve(self, params: Params, solution: Vectors, aux: GeneralisedAux, rhs: Vectors) -> Vectors:  # type: ignore[override]
        """M⁻¹ rhs, through the reduced problem."""
        U, values = solution
        H, f = rhs
        V = aux.L.mH @ U
        reduced = (forth(aux.L, H), f)
        W, mu = self.standard().solve((aux.reduced,), (V, values), aux.standard(), reduced)
        return towards(aux.L, W), mu

    def vjp(
        self,
        params: Params,
        solution: Vectors,
        aux: GeneralisedAux,  # type: ignore[override]
        y: Vectors,
        needs: tuple[bool, ...],
    ) -> Params:
        """−∂Re⟨y, F⟩/∂(X, B)."""
        (U, values), (W, mu) = solution, y
        X, B = self.both(params)
        by_X = X.vjp(W, U)[0] if needs[0] else None
        if not needs[1]:
            return by_X, None
        if in_blocks(W, mu):
            C = self.blocks(params, solution, aux)
            pulled = W @ self.inside(params, U, C).mH + U @ torch.where(C, mu, 0) / 2
        else:
            pulled = W * values[..., None, :] + U * (mu / 2)[..., None, :]
        (by_B,) = B.vjp(-pulled, U)
        return by_X, by_B

    def jvp(self, params: Params, tangents: Params, solution: Vectors, aux: GeneralisedAux) -> Vectors:  # type: ignore[override]
        """−∂F/∂(X, B) (dX, dB)."""
        U, values = solution
        X, B = self.both(params)
        dXU, dBU = X.jvp(tangents[:1], U), B.jvp(tangents[1:], U)
        if values.shape[-1] == 1:
            return dXU - dBU * values[..., None, :], -(U.conj() * dBU).sum(-2).real / 2
        C = self.blocks(params, solution, aux)
        return dXU - dBU @ self.inside(params, U, C), torch.where(C, -(U.mH @ dBU) / 2, 0)
