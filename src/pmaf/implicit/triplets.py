r"""Singular triplet equations, and how their solution moves with the matrix.

A triplet is an eigenpair of J = [0 A; Aᴴ 0], with z = (u; v)/√2 and the eigenvalue σ, so its equations are those of
:mod:`pmaf.implicit.eigen`, and Ā = w₁vᴴ + u w₂ᴴ of rank 2k. The eigenvectors of J are (uⱼ; ±vⱼ)/√2 for ±σⱼ and, where
m > n, (uⱼ; 0) for zero, so that with α = Uᴴa, β = Vᴴb the solution of (σᵢI − J) w = (a; b) outside zᵢ is

    w₁ = U (p + q) + (a − U α)/σᵢ,   w₂ = V (p − q),   p = ½(α + β)/(σᵢ − σⱼ),   q = ½(α − β)/(σᵢ + σⱼ):

differences and sums of a wanted singular value and another, and σᵢ itself for the left vectors of a tall matrix. A
difference or sum within the tolerance counts as zero and is left out. Where only the Gram matrix was looked at, the
same is, with h = σᵢb + Aᴴa,

    w₂ = (σᵢ²I − AᴴA)⁺ h,   w₁ = (a + A w₂)/σᵢ,

and each triplet's own pair (uᵢ; −vᵢ) apart. At σᵢ = 0 the singular value alone has a subgradient, of which the one of
least norm is zero.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from pmaf.handover import EigenAux, TripletAux
from pmaf.implicit.base import Params, Vectors
from pmaf.implicit.eigen import EigenpairEquations, in_blocks
from pmaf.linalg.batched import narrow_adjoint, narrow_product
from pmaf.linalg.bordered import safe_inverse
from pmaf.linalg.tolerances import relative_tolerance
from pmaf.operators.dense import Dense

__all__ = ["TripletEquations"]


@dataclass(frozen=True)
class TripletEquations(EigenpairEquations):
    """Equations of the selected triplets; solution (Z, S)."""

    aux_type: ClassVar[Any] = TripletAux
    core_dims = (2,)
    one_pass = False

    def tolerance(self, aux: TripletAux, like: Tensor) -> Tensor:
        """Up to where differences count as zero, ``(*, 1, 1)``."""
        rtol = relative_tolerance(self.rtol, like.dtype, like.shape[-2])
        return (rtol * aux.norm + self.atol)[..., None, None]

    def blocks(self, params: Params, solution: Vectors, aux: TripletAux) -> Tensor:  # type: ignore[override]
        """C: which pairs of selected singular values count as one, ``(*, k, k)``."""
        values = aux.eigenvalues.detach()
        return ~((values[..., :, None] - values[..., None, :]).abs() > self.tolerance(aux, solution[0]))

    def movable(self, aux: TripletAux, like: Tensor, f: Tensor) -> Tensor:  # type: ignore[override]
        """All but how a singular value moves away from zero."""
        kept = aux.eigenvalues > self.tolerance(aux, like)[..., 0]
        kept = kept[..., None, :] & kept[..., :, None] if in_blocks(like, f) else kept
        return torch.where(kept, f, 0)

    def solve(self, params: Params, solution: Vectors, aux: TripletAux, rhs: Vectors) -> Vectors:  # type: ignore[override]
        """M⁻¹ rhs, which leaves out how a singular value moves away from zero."""
        H, f = rhs
        W, mu = super().solve(params, solution, aux, (H, self.movable(aux, H, f)))  # type: ignore[arg-type]
        return W, self.movable(aux, H, mu)

    def complement(  # type: ignore[override]
        self, params: Params, U: Tensor, aux: TripletAux, H: Tensor, *, whole_block: bool
    ) -> Tensor:
        """The part of M⁻¹ (H, 0) that the separated eigenvectors of J make."""
        (A,) = (p for p in params if p is not None)
        m, n = A.shape[-2:]
        a, b = H[..., :m, :], H[..., m:, :]
        if m >= n:
            upper, lower = self.outside(A, aux, (U[..., :m, :], U[..., m:, :]), a, b)
        else:
            lower, upper = self.outside(A.mH, aux, (U[..., m:, :], U[..., :m, :]), b, a)
        return torch.cat((upper, lower), -2)

    def outside(self, T: Tensor, aux: TripletAux, own: tuple[Tensor, Tensor], a: Tensor, b: Tensor) -> Vectors:
        """The same for a matrix that is not wide: the parts w₁ and w₂."""
        values, tolerance = aux.eigenvalues[..., None, :], self.tolerance(aux, torch.cat((a, b), -2))
        if aux.gram.shape[-1] > 0:
            return self.from_gram(T, aux, own, a, b)
        s = aux.spectrum[..., :, None]
        alpha, beta = aux.left.mH @ a, aux.right.mH @ b
        p = (alpha + beta) * (0.5 * safe_inverse(values - s, (values - s).abs() > tolerance))
        q = (alpha - beta) * (0.5 * safe_inverse(values + s, values + s > tolerance))
        upper, lower = aux.left @ (p + q), aux.right @ (p - q)
        if a.shape[-2] > b.shape[-2]:
            upper = upper + (a - aux.left @ alpha) * safe_inverse(values, values > tolerance)
        return upper, lower

    def from_gram(self, T: Tensor, aux: TripletAux, own: tuple[Tensor, Tensor], a: Tensor, b: Tensor) -> Vectors:
        """The same from what eigenpairs of the Gram matrix have left; singular values are far from zero there."""
        u, v = (x * 2**0.5 for x in own)
        values = aux.eigenvalues[..., None, :]
        alpha, beta = ((x.conj() * y).sum(-2, keepdim=True) for x, y in ((u, a), (v, b)))
        a, b = a - u * alpha, b - v * beta
        wide = aux.gram.dtype
        nowhere = aux.squares[..., 0] * torch.nan
        left = EigenAux(
            aux.failed,
            aux.degenerate,
            aux.squares,
            aux.all_squares,
            aux.V,
            nowhere,
            aux.squares.amax(-1),
            aux.factor,
        )
        standard = EigenpairEquations(self.policy, Dense(aux.gram[..., :0, :0]).structure(), self.largest, 0.0, 0.0)
        # v is rounded to the type of A; what is left of the exact vector would be divided by next to nothing.
        exact, h = aux.vectors, (b * values + narrow_adjoint(T, a)).to(wide)
        h = h - exact * (exact.conj() * h).sum(-2, keepdim=True)
        wanted = standard.complement((aux.gram,), exact, left, h, whole_block=False)
        lower = (wanted - exact * (exact.conj() * wanted).sum(-2, keepdim=True)).to(b.dtype)
        upper = (a + narrow_product(T, lower)) / torch.where(values > 0, values, 1)
        own_part = (alpha - beta) / torch.where(values > 0, 4 * values, 1)
        return upper + u * own_part, lower - v * own_part
