r"""Generalised eigenpair equations of sparse matrices, solved with the factors that the forward pass left.

With A = ±X, μ = ±λ, M = A − σB and δᵢ = μᵢ − σ, outside of the selected vectors, P = I − U UᴴB,

    (A − μᵢB) yᵢ = Pᴴhᵢ    ⟺    (I − δᵢ C) yᵢ = P M⁻¹Pᴴhᵢ,     C = P M⁻¹B P,

and C is self-adjoint in the inner product of B: all columns lie in one block Krylov space of it. With V of that space,
orthonormal in B, C V = V G + Q K (last rows of I) and P M⁻¹Pᴴhᵢ = V rᵢ, the solution is V (I − δᵢG)⁻¹rᵢ up to a
residual δᵢ Q K zᵢ(last), which costs nothing to know. No value left out is as near to σ as a selected one, so |δᵢ|
times the eigenvalues of G is less than one.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from pmaf.errors import GradientWarning
from pmaf.handover import PencilAux
from pmaf.implicit.base import Params, Vectors
from pmaf.implicit.eigen import in_blocks
from pmaf.implicit.generalised import GeneralisedEquations
from pmaf.linalg.bordered import safe_inverse
from pmaf.linalg.metric_krylov import MetricSpace, orthonormal_in
from pmaf.linalg.sparse_factor import SparseFactor, SparsePencil
from pmaf.linalg.tolerances import relative_tolerance
from pmaf.operators.base import Operator
from pmaf.operators.factors import Factors
from pmaf.operators.sparse import Sparse

__all__ = ["PencilEquations"]

STEPS = 60  # the most solves with a block
ALLOWED = 1e-13  # of the solution: the residual that is left


@dataclass(frozen=True)
class PencilEquations(GeneralisedEquations):
    """Equations of the selected pairs of X u = λ B u; parameters, the values of X and of B."""

    aux_type: ClassVar[Any] = PencilAux
    core_dims = ()  # type: ignore[assignment]
    metric: Sparse = field(kw_only=True)  # structure only
    left: Factors = field(kw_only=True)

    def both(self, params: Params) -> tuple[Operator, Operator]:
        """X and B."""
        x, b = (p for p in params if p is not None)
        return self.operator.with_tensors((x,)), self.metric.with_tensors((b,))

    def orthonormal(self, aux: PencilAux, U: Tensor, U_bar: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """The eigenvectors and their cotangents as they are: what is asked of them are their products."""
        return U, U_bar

    def blocks(self, params: Params, solution: Vectors, aux: PencilAux) -> Tensor:  # type: ignore[override]
        """C: which pairs of selected eigenvalues count as one, ``(k, k)``."""
        values = aux.eigenvalues.detach()
        rtol = relative_tolerance(self.rtol, solution[0].dtype, solution[0].shape[-2])
        return ~((values[:, None] - values).abs() > rtol * aux.norm + self.atol)

    def solve(self, params: Params, solution: Vectors, aux: PencilAux, rhs: Vectors) -> Vectors:  # type: ignore[override]
        """M⁻¹ rhs."""
        U, values = solution
        H, f = rhs
        B = self.both(params)[1]
        inside = U.mH @ H
        C = self.blocks(params, solution, aux)
        difference = values - values[:, None]  # λᵢ − λⱼ in column i
        W = self.outside(params, U, values, aux, H - B.matmat(U) @ inside)
        W = W + U @ (safe_inverse(difference, ~C) * inside)
        if not in_blocks(H, f):
            return W + U * f, inside.diagonal().real
        f, within = torch.where(C, f, 0), torch.where(C, inside, 0)
        return W + U @ f, within - f * values + values[:, None] * f

    def factor(self, params: Params, aux: PencilAux) -> SparseFactor | None:
        """Of ±X − σB, from the forward pass or made again."""
        x, b = (p.detach() for p in params if p is not None)
        sign = -1.0 if self.largest else 1.0
        known = self.left.get(torch.cat((x, b)), sign)
        if isinstance(known, SparseFactor):
            return known
        X, B = self.operator.with_tensors((x,)), self.metric.with_tensors((b,))
        assert isinstance(X, Sparse)
        pencil = SparsePencil((*X.pattern.compressed, x), (*B.pattern.compressed, b), (X.symmetric(), B.symmetric()))
        return pencil.factor(sign, float(aux.shift))

    def outside(self, params: Params, U: Tensor, values: Tensor, aux: PencilAux, H: Tensor) -> Tensor:
        """W with (λᵢB − X) wᵢ = hᵢ and UᴴBW = 0, for right-hand sides orthogonal to U."""
        wide = torch.complex128 if U.is_complex() else torch.float64
        factor = self.factor(params, aux)
        if factor is None:
            return torch.zeros_like(H)
        B = self.metric.with_tensors((params[1].detach().to(wide),))  # type: ignore[union-attr]
        basis = orthonormal_in(B.matmat, U.detach().to(wide))[0]
        image = B.matmat(basis)

        def project(V: Tensor) -> Tensor:
            return V - basis @ (image.mH @ V)

        def product(V: Tensor) -> Tensor:
            return project(factor.solve(B.matmat(V)))

        right = H.detach().to(wide)
        right = right - image @ (basis.mH @ right)
        whole = torch.linalg.vector_norm(right, dim=0)
        at = (whole > 0).nonzero()[:, 0]
        W = torch.zeros_like(right)
        if len(at) == 0:
            return W.to(H.dtype)
        delta = factor.sign * values.detach().double()[at] - factor.shift
        begin = project(factor.solve(right[:, at] / whole[at]))
        block, start = orthonormal_in(B.matmat, begin)
        space = MetricSpace(product, B.matmat, block)
        misfit = torch.full_like(delta, torch.inf)
        for _ in range(STEPS):
            space.extend()
            t, S = torch.linalg.eigh((space.H + space.H.mH) / 2)
            r = torch.nn.functional.pad(start, (0, 0, 0, len(t) - len(start)))
            rest = 1 - delta * t[:, None]
            z = S @ (safe_inverse(rest, rest.abs() > 1e-14) * (S.mH @ r))
            p = space.ahead.shape[-1]
            tail = space.coupling @ z[len(t) - space.coupling.shape[-1] :] if p else z[:0]
            misfit = delta.abs() * torch.linalg.vector_norm(tail, dim=0) / torch.linalg.vector_norm(z, dim=0)
            if p == 0 or bool((misfit <= ALLOWED).all()):
                break
        if float(misfit.max()) > 1e-8:
            warnings.warn(
                f"pmaf: the solve for the gradient of eigenvectors stopped at a residual of {float(misfit.max()):.1e}; "
                "select more or fewer of them if the gap is small",
                GradientWarning,
                stacklevel=2,
            )
        W[:, at] = project(space.V @ z) * whole[at]
        return (-factor.sign * W).to(H.dtype)
