r"""The invariant subspace of leading eigenpairs as a whole, and how it moves with the matrix.

It satisfies F = (U T − X U, ½(UᴴU − I)) = 0 with T = UᴴXU. Its sums run over the
unwanted eigenvectors only, so it is differentiable however degenerate the selected block is, and any function of U that
does not see the choice of basis, such as the projector U Uᴴ, inherits exact derivatives of every order: U moves by
parallel transport, UᴴdU = 0, and T takes up what happens inside the block.
"""

from dataclasses import dataclass

import torch

from pmaf.handover import EigenAux
from pmaf.implicit.base import Params, Vectors
from pmaf.implicit.eigen import OperatorEquations

__all__ = ["SubspaceEquations"]


@dataclass(frozen=True)
class SubspaceEquations(OperatorEquations):
    """Equations of the invariant subspace as a whole; solution (U, T)."""

    def apply(self, params: Params, solution: Vectors, aux: EigenAux, y: Vectors) -> Vectors:
        """M y."""
        U, T = solution
        W, S = y
        return W @ T - self.filled(params).matmat(W) + U @ S, U.mH @ W

    def residual(self, params: Params, solution: Vectors, aux: EigenAux) -> Vectors:
        """F, which is M (U, 0) but for the constant in the constraint."""
        upper, gram = self.apply(params, solution, aux, (solution[0], torch.zeros_like(solution[1])))
        return upper, (gram - torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)) / 2

    def solve(self, params: Params, solution: Vectors, aux: EigenAux, rhs: Vectors) -> Vectors:
        """M⁻¹ rhs, with T diagonal in the basis that the forward pass chose."""
        U = solution[0]
        H, f = rhs
        inside = U.mH @ H
        W = self.complement(params, U, aux, H - U @ inside, whole_block=True)
        values = aux.eigenvalues
        return W + U @ f, inside - f * values[..., None, :] + values[..., :, None] * f
