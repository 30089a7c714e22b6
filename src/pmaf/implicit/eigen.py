r"""Eigenpair equations, and how their solution moves with the matrix.

Each pair satisfies F = (λ u − X u, ½(uᴴu − 1)) = 0, so M (du, dλ) = (dX u, 0) with the self-adjoint bordered matrix

    M = [ λI − X   u ]
        [ uᴴ       0 ]

The pullback of (ū, λ̄) solves M (w, μ) = (ū, λ̄) and returns X̄ = ∂Re⟨W, X U⟩/∂X = sym(Σ wᵢuᵢᴴ): rank 2k. In an
eigenbasis

    wᵢ = λ̄ᵢ uᵢ + Σ_{j≠i} v_j (v_jᴴ ūᵢ)/(λᵢ − s_j),

where a term whose denominator is below the tolerance belongs to a repeated eigenvalue and is dropped; terms between
two *unwanted* eigenvalues never occur, which is why those may repeat. Over the complex numbers λ and μ are real and the
phase of u is left alone, uᴴdu = 0.

The invariant subspace as a whole satisfies F = (U T − X U, ½(UᴴU − I)) = 0 with T = UᴴXU. Its sums run over the
unwanted eigenvectors only, so it is differentiable however degenerate the selected block is, and any function of U that
does not see the choice of basis, such as the projector U Uᴴ, inherits exact derivatives of every order: U moves by
parallel transport, UᴴdU = 0, and T takes up what happens inside the block.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from pmaf.implicit.complement.choose import solve_without_basis
from pmaf.implicit.complement.eigenbasis import EigenAux, solve_in_basis
from pmaf.implicit.complement.small import entrywise, outer_small, solve_small
from pmaf.linalg.refinement import is_single
from pmaf.operators.base import Operator
from pmaf.operators.dense import Gram

__all__ = ["EigenpairEquations", "SubspaceEquations"]

Params = tuple[Tensor | None, ...]
Vectors = tuple[Tensor, ...]


@dataclass(frozen=True)
class OperatorEquations:
    """What eigenpairs and invariant subspaces share; parameters are the operator's tensors."""

    operator: Operator  # only its structure counts
    largest: bool
    rtol: float | None
    atol: float

    @property
    def solution_size(self) -> int:
        """U and its eigenvalues, or T."""
        return 2

    def core_dims(self) -> tuple[int, ...]:
        """The number of non-batch dimensions of each parameter."""
        return self.operator.core_dims

    def transposed(self) -> "OperatorEquations":
        """These equations: M is self-adjoint."""
        return self

    def filled(self, params: Params) -> Operator:
        """The operator made of the parameters, none of which is optional."""
        return self.operator.with_tensors(tuple(p for p in params if p is not None))

    def complement(self, params: Params, U: Tensor, aux: EigenAux, H: Tensor, *, whole_block: bool) -> Tensor:
        """The part of M⁻¹ (H, 0) that the separated eigenvectors make, in the basis if there is one."""
        X = self.filled(params)
        k, size = U.shape[-1], aux.V.shape[-1]
        if size == 0:
            return solve_without_basis(
                X,
                aux.eigenvalues,
                U,
                H,
                aux.doubtful,
                largest=self.largest,
                whole_block=whole_block,
                rtol=self.rtol,
                atol=self.atol,
            )
        block = slice(size - k, size) if self.largest else slice(0, k)
        return solve_in_basis(X, aux, U, H, block=block if whole_block else None, rtol=self.rtol, atol=self.atol)

    def pullback(self, params: Params, solution: Vectors, aux: EigenAux, y: Vectors, needs: tuple[bool, ...]) -> Params:
        """∂Re⟨W, X U⟩/∂θ, kept at zero for items without an answer, whose factor may hold NaN."""
        X = self.filled(params)
        if not torch.is_grad_enabled() and entrywise(X, solution[0], y[0]):
            return (outer_small(y[0][..., 0], solution[0][..., 0]),)
        gradients = X.pullback(y[0], solution[0])
        if isinstance(X, Gram):
            return tuple(None if g is None else torch.where(aux.bad[..., None, None], 0, g) for g in gradients)
        return gradients

    def pushforward(self, params: Params, tangents: Params, solution: Vectors, aux: EigenAux) -> Vectors:
        """(dX U, 0)."""
        return self.filled(params).pushforward(tangents, solution[0]), torch.zeros_like(solution[1])


@dataclass(frozen=True)
class EigenpairEquations(OperatorEquations):
    """Equations of the selected eigenpairs one by one; solution (U, Λ)."""

    def apply(self, params: Params, solution: Vectors, aux: EigenAux, y: Vectors) -> Vectors:
        """M y."""
        U, values = solution
        W, mu = y
        upper = W * values[..., None, :] - self.filled(params).hermitian_matmat(W) + U * mu[..., None, :]
        return upper, (U.conj() * W).sum(-2).real

    def residual(self, params: Params, solution: Vectors, aux: EigenAux) -> Vectors:
        """F, which is M (U, 0) but for the constant in the constraint."""
        upper, squared = self.apply(params, solution, aux, (solution[0], torch.zeros_like(solution[1])))
        return upper, (squared - 1) / 2

    def solve(self, params: Params, solution: Vectors, aux: EigenAux, rhs: Vectors) -> Vectors:
        """M⁻¹ rhs."""
        U = solution[0]
        H, f = rhs
        X = self.filled(params)
        if aux.V.shape[-1] == 0 and entrywise(X, U, H):
            w, mu = solve_small(X.tensors[0], aux.eigenvalues[..., 0], U[..., 0], H[..., 0], f[..., 0])
            return w[..., None], mu[..., None]
        inside = (U.conj() * H).sum(-2)
        if isinstance(self.operator, Gram) or is_single(U.dtype):
            # Elsewhere the complement does not see what lies along uᵢ. In single precision the other v_j are not
            # orthogonal to uᵢ by ε‖X‖/gap, and what they see of it would be divided by a small λᵢ − s_j once more.
            H = H - U * inside[..., None, :]
        W = self.complement(params, U, aux, H, whole_block=False)
        return W + U * f[..., None, :], inside.real


@dataclass(frozen=True)
class SubspaceEquations(OperatorEquations):
    """Equations of the invariant subspace as a whole; solution (U, T)."""

    def apply(self, params: Params, solution: Vectors, aux: EigenAux, y: Vectors) -> Vectors:
        """M y."""
        U, T = solution
        W, S = y
        return W @ T - self.filled(params).hermitian_matmat(W) + U @ S, U.mH @ W

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
