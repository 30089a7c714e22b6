r"""Eigenpair equations, and how their solution moves with the matrix.

Each pair satisfies F = (λ u − X u, ½(uᴴu − 1)) = 0, so M (du, dλ) = (dX u, 0) with the self-adjoint bordered matrix

    M = [ λI − X   u ]
        [ uᴴ       0 ]

Reverse mode solves M (w, μ) = (ū, λ̄) and returns X̄ = ∂Re⟨W, X U⟩/∂X = sym(Σ wᵢuᵢᴴ): rank 2k. In an
eigenbasis

    wᵢ = λ̄ᵢ uᵢ + Σ_{j≠i} v_j (v_jᴴ ūᵢ)/(λᵢ − s_j),

where a term whose denominator is below the tolerance belongs to a repeated eigenvalue and is dropped; terms between
two *unwanted* eigenvalues never occur, which is why those may repeat. Over the complex numbers λ and μ are real and the
phase of u is left alone, uᴴdu = 0.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from pmaf.handover import EigenAux, GeneralisedAux
from pmaf.implicit.base import Equations, Params, Solver, Vectors, expand_as, fill, finite, without_failed
from pmaf.implicit.complement.choose import solve_without_basis
from pmaf.implicit.complement.eigenbasis import solve_in_basis
from pmaf.implicit.complement.small import entrywise, outer_small, solve_small
from pmaf.implicit.complement.tridiagonal import gradient_in_tridiagonal, solve_in_tridiagonal
from pmaf.implicit.undetermined import SECOND, Embedded, moves, seen, tangent, undetermined, warn_undetermined
from pmaf.linalg.refinement import is_single
from pmaf.linalg.tolerances import relative_tolerance
from pmaf.operators.base import Operator
from pmaf.operators.dense import Dense
from pmaf.operators.gram import Gram
from pmaf.operators.separation import scale_of, separation_tolerance
from pmaf.transforms import compiling, followed, follows_nothing, mapped_the_older_way, wrapped

__all__ = ["EigenpairEquations", "OperatorEquations", "in_blocks", "off_diagonal"]


def in_tridiagonal(aux: EigenAux, H: Tensor) -> bool:
    """Whether the tridiagonal form is there to solve with; tensors under a transform have no memory for kernels."""
    if aux.factor.shape[-1] == 0 or compiling():
        return aux.factor.shape[-1] > 0
    return not (mapped_the_older_way(H) or wrapped(H) or wrapped(aux.factor))


@dataclass(frozen=True)
class OperatorEquations(Equations):
    """What eigenpairs and invariant subspaces share; parameters are the operator's tensors."""

    aux_type: ClassVar[Any] = EigenAux
    policy: str
    operator: Operator  # only its structure counts
    largest: bool
    rtol: float | None = None
    atol: float = 0.0

    @property
    def core_dims(self) -> tuple[int, ...]:  # type: ignore[override]
        """The number of non-batch dimensions of each parameter."""
        return self.operator.core_dims

    def filled(self, params: Params) -> Operator:
        """The operator made of the parameters, none of which is optional."""
        return self.operator.with_tensors(tuple(p for p in params if p is not None))

    def complement(self, params: Params, U: Tensor, aux: EigenAux, H: Tensor, *, whole_block: bool) -> Tensor:
        """The part of M⁻¹ (H, 0) that the separated eigenvectors make, in the basis if there is one."""
        X = self.filled(params).plain()
        k, size = U.shape[-1], aux.V.shape[-1]
        if in_tridiagonal(aux, H):
            A = X.tensors[0] if isinstance(X, Dense) else X.dense()
            return solve_in_tridiagonal(
                A, aux, U, H, largest=self.largest, whole_block=whole_block, rtol=self.rtol, atol=self.atol
            )
        if size == 0:
            return solve_without_basis(
                X,
                aux.eigenvalues,
                U,
                H,
                aux.degenerate,
                largest=self.largest,
                whole_block=whole_block,
                rtol=self.rtol,
                atol=self.atol,
            )
        block = slice(size - k, size) if self.largest else slice(0, k)
        return solve_in_basis(X, aux, U, H, block=block if whole_block else None, rtol=self.rtol, atol=self.atol)

    def vjp(self, params: Params, solution: Vectors, aux: EigenAux, y: Vectors, needs: tuple[bool, ...]) -> Params:
        """∂Re⟨W, X U⟩/∂θ, kept at zero for items without an answer, whose factor may hold NaN."""
        X = self.filled(params)
        if not torch.is_grad_enabled() and aux.factor.shape[-1] == 0 and entrywise(X, solution[0], y[0]):
            return (outer_small(y[0][..., 0], solution[0][..., 0]),)
        gradients = X.vjp(y[0], solution[0])
        if isinstance(X, Gram):
            return tuple(None if g is None else torch.where(expand_as(aux.failed, g), 0, g) for g in gradients)
        return gradients

    def jvp(self, params: Params, tangents: Params, solution: Vectors, aux: EigenAux) -> Vectors:
        """(dX U, 0)."""
        return self.filled(params).jvp(tangents, solution[0]), torch.zeros_like(solution[1])


@dataclass(frozen=True)
class EigenpairEquations(OperatorEquations):
    """Equations of the selected eigenpairs; solution (U, Λ), bordered vectors (W, μ) or, in blocks, (W, S)."""

    one_pass: ClassVar[bool] = True  # whether a kernel may make the whole gradient
    moving: ClassVar[bool] = False  # whether the constraint depends on the parameters, so that S of a block counts
    # Of one call: forward mode, which reverse mode can follow, saw a block move off its diagonal.
    moved: list[bool] = field(default_factory=list, compare=False, repr=False, kw_only=True)

    def orthonormal(self, aux: EigenAux, U: Tensor, U_bar: Tensor) -> tuple[Tensor, Tensor]:
        """The eigenvectors as orthonormal columns, and their cotangents."""
        return U, U_bar

    def blocks(self, params: Params, solution: Vectors, aux: EigenAux | GeneralisedAux) -> Tensor:
        """C: which pairs of selected eigenvalues count as one, ``(*, k, k)``."""
        values = aux.eigenvalues.detach()
        if aux.spectrum.shape[-1] > 0 or aux.factor.shape[-1] > 0:
            norm = aux.norm[..., None, None]
        else:
            norm = scale_of(self.filled(params), values)[..., None]
        left, right = values[..., :, None], values[..., None, :]
        rtol = relative_tolerance(self.rtol, solution[0].dtype, solution[0].shape[-2])
        return ~((left - right).abs() > separation_tolerance(self.operator, left, right, norm, rtol, self.atol))

    def apply(self, params: Params, solution: Vectors, aux: EigenAux, y: Vectors) -> Vectors:
        """M y."""
        (U, values), (W, mu) = solution, y
        X = self.filled(params)
        if not in_blocks(W, mu):
            upper = W * values[..., None, :] - X.matmat(W) + U * mu[..., None, :]
            return upper, (U.conj() * W).sum(-2).real
        C = self.blocks(params, solution, aux)
        T = self.inside(params, U, C)
        return W @ T - X.matmat(W) + U @ torch.where(C, mu, 0), torch.where(C, U.mH @ W, 0)

    def residual(self, params: Params, solution: Vectors, aux: EigenAux) -> Vectors:
        """F, which is M (U, 0) but for the constant in the constraint."""
        U, values = solution
        if values.shape[-1] == 1:
            upper, squared = self.apply(params, solution, aux, (U, torch.zeros_like(values)))
            return upper, (squared - 1) / 2
        C, XU = self.blocks(params, solution, aux), self.filled(params).matmat(U)
        T = torch.where(off_diagonal(C), U.mH @ XU, torch.diag_embed(values).to(U.dtype))
        eye = torch.eye(C.shape[-1], dtype=U.dtype, device=U.device)
        return U @ T - XU, torch.where(C, U.mH @ U - eye, 0) / 2

    def solve(self, params: Params, solution: Vectors, aux: EigenAux, rhs: Vectors) -> Vectors:
        """M⁻¹ rhs."""
        U = solution[0]
        H, f = rhs
        X = self.filled(params)
        if aux.V.shape[-1] == 0 and aux.factor.shape[-1] == 0 and entrywise(X, U, H):
            w, mu = solve_small(X.tensors[0], aux.eigenvalues[..., 0], U[..., 0], H[..., 0], f[..., 0])
            return w[..., None], mu[..., None]
        # Elsewhere the complement does not see what lies along uᵢ. In single precision the other v_j are not
        # orthogonal to uᵢ by ε‖X‖/gap, and what they see of it would be divided by a small λᵢ − s_j once more.
        clean = isinstance(self.operator, Gram) or is_single(U)
        if not in_blocks(H, f):
            inside = (U.conj() * H).sum(-2)
            H = H - U * inside[..., None, :] if clean else H
            W = self.complement(params, U, aux, H, whole_block=False)
            return W + U * f[..., None, :], inside.real
        C, values = self.blocks(params, solution, aux), aux.eigenvalues
        f, inside = torch.where(C, f, 0), torch.where(C, U.mH @ H, 0)
        H = H - U @ inside if clean else H
        W = self.complement(params, U, aux, H, whole_block=False)
        if U.shape[-1] == U.shape[-2]:
            W = torch.where(C.all(-1, keepdim=True).mT, 0, W)  # of a multiple of the identity nothing is left out
        return W + U @ f, inside - f * values[..., None, :] + values[..., :, None] * f

    def gradient(
        self,
        params: Params,
        solution: Vectors,
        aux: EigenAux,
        cotangents: Params,
        needs: tuple[bool, ...],
        solve: Solver,
    ) -> Params:
        """One pass of a kernel where no further derivative is asked for, else one solve, in blocks, and a product."""
        X, (U, values), plain = params[0], solution, not torch.is_grad_enabled() and follows_nothing()
        if values.shape[-1] > 1 and not compiling():
            U_bar, values_bar = fill(cotangents, solution)
            C = off_diagonal(self.blocks(params, solution, aux)) & ~expand_as(aux.failed, U)
            columns, theirs = self.orthonormal(aux, U, U_bar)
            if (
                self.policy == "drop"
                and seen(C)
                and seen(undetermined(C, columns, values.detach(), theirs, values_bar))
            ):
                warn_undetermined("the loss depends on the basis, or on values and vectors together,")
            elif self.moved and cotangents[1] is not None:
                warn_undetermined(SECOND)
            if self.moving or not plain:
                return self.gradient_in_blocks(params, solution, aux, (U_bar, cotangents[1]), needs, solve)
        elif values.shape[-1] > 1 and self.moving:
            U_bar, values_bar = fill(cotangents, solution)
            cotangents = U_bar, torch.diag_embed(values_bar).to(U.dtype)
        if (
            self.one_pass
            and isinstance(self.operator, Dense)
            and X is not None
            and plain
            and self.policy != "nan"
            and all(in_tridiagonal(aux, aux.factor if c is None else c) for c in cotangents)
        ):
            pair = cotangents[0], cotangents[1]
            return (gradient_in_tridiagonal(X, aux, U, pair, largest=self.largest, rtol=self.rtol, atol=self.atol),)
        return super().gradient(params, solution, aux, cotangents, needs, solve)

    def gradient_in_blocks(
        self,
        params: Params,
        solution: Vectors,
        aux: EigenAux,
        cotangents: Params,
        needs: tuple[bool, ...],
        solve: Solver,
    ) -> Params:
        """With λ̄ = D, M⁻¹ (0, D) = (U D, T D − D T) is a product, not a solve.

        Solved for, it would come as W = U D, and second derivatives with (I − U Uᴴ) dX W: rounding where no
        eigenvector is left out, and then not to be told from a loss that depends on the basis.
        """
        U_bar, values_bar = fill(cotangents[:1], solution[:1])[0], cotangents[1]
        U, values = without_failed(aux, solution)
        C = self.blocks(params, solution, aux)
        params = finite(params)
        T = self.inside(params, U, C)
        W, S = solve(self, params, solution, aux, (U_bar, torch.zeros_like(T)))
        if values_bar is not None:
            quiet = off_diagonal(C) & ~expand_as(aux.failed, C) if self.policy == "drop" else torch.zeros_like(C)
            (values_bar,) = without_failed(aux, (values_bar,))
            D = self.movable(aux, U, Embedded.apply(values_bar, T, quiet))  # type: ignore[no-untyped-call]
            W, S = W + U @ D, S + T @ D - D @ T
        return self.vjp(params, (U, values), aux, (W, S), needs)

    def inside(self, params: Params, U: Tensor, C: Tensor) -> Tensor:
        """T: not Λ, which does not show how the inside of a block moves, ``(*, k, k)``."""
        return torch.where(C, U.mH @ self.filled(params).matmat(U), 0)

    def movable(self, aux: EigenAux, like: Tensor, f: Tensor) -> Tensor:
        """The second part of a bordered vector, whose first part is like this, without values that cannot move."""
        return f

    def correction(
        self, params: Params, constants: Params, solution: Vectors, start: Vectors, aux: EigenAux
    ) -> Vectors:
        """A step of Newton's method in blocks, of which T has Λ on its diagonal."""
        upper, lower = self.residual(params, solution, aux)
        if start[1].shape[-1] > 1 and self.policy == "drop":
            C = self.blocks(params, solution, aux)
            dXU = tangent(self.filled(params).matmat(start[0]))
            if moves(off_diagonal(C), start[0].mH @ dXU, dXU):
                warn_undetermined(f"if {SECOND}, which forward mode over forward mode cannot tell,")
        if start[1].shape[-1] == 1:
            missing = upper.expand_as(start[0]), lower.expand_as(start[1])
            return self.inverse(constants, start, aux, missing)
        missing = upper.expand_as(start[0]), lower.expand(*start[1].shape, lower.shape[-1])
        dU, dT = self.inverse(constants, start, aux, missing)
        return dU, dT.diagonal(dim1=-2, dim2=-1).real

    def change(self, params: Params, tangents: Params, solution: Vectors, aux: EigenAux, solve: Solver) -> Vectors:
        """The Jacobian–vector product of F, and one solve in blocks."""
        dXU, lower = self.jvp(params, tangents, without_failed(aux, solution), aux)
        if solution[1].shape[-1] == 1:
            dU, dvalues = solve(self, params, solution, aux, (dXU, lower))
            return dU, dvalues
        lower = lower if in_blocks(dXU, lower) else torch.diag_embed(lower).to(dXU.dtype)
        dU, _ = solve(self, params, solution, aux, (dXU, lower))
        U, C = without_failed(aux, solution)[0], self.blocks(params, solution, aux)
        dT = torch.where(C, U.mH @ dXU, 0)  # not from the solve, for the reason above
        if self.moving:
            T = self.inside(params, U, C)
            dT = dT + T @ lower - lower @ T
        (dT,), C = without_failed(aux, (self.movable(aux, U, dT),)), off_diagonal(C)
        if self.policy == "drop" and followed(dT) and moves(C, dT, dXU):
            self.moved.append(True)
        return dU, dT.diagonal(dim1=-2, dim2=-1).real.contiguous()

    def fixed(self, y: Vectors) -> int:
        """In blocks M has T from U and X, not from the eigenvalues."""
        return int(in_blocks(*y))


def off_diagonal(C: Tensor) -> Tensor:
    """The same mask without its diagonal."""
    return C & ~torch.eye(C.shape[-1], dtype=torch.bool, device=C.device)


def in_blocks(H: Tensor, f: Tensor) -> bool:
    """Whether the second part of a bordered vector is a matrix for each item, not one number for each pair."""
    return f.dim() == H.dim()
