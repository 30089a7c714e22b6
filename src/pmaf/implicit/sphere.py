r"""Stationarity on the sphere, and how its solution moves with the data.

For least squares with weights W, free unknowns z and residual ρ = b − A u − C z the solution y = (u, λ, z) satisfies

    F_u = −Aᴴ W ρ + λ u = 0,     F_λ = ½(uᴴu − r²) = 0,     F_z = −Cᴴ W ρ = 0,

and for a quadratic F_u = H u − g + λ u. Differentiating F(y; θ) = 0 gives M dy = −∂F/∂θ dθ with the self-adjoint

        [ Q_uu + λI   u   Q_uz ]
    M = [ uᴴ         −c   0    ]        Q = [A C]ᴴ W [A C],
        [ Q_zu        0   Q_zz ]

where c = 1 and the border is zero on items whose constraint is not active (the interior of the ball; there F_λ = −λ).
Reverse mode is one solve M (w, μ, w_z) = ȳ, then θ̄ = −∂⟨(w, μ, w_z), F⟩/∂θ. With v = A w + C w_z:

    Ā = Wρ wᴴ − Wv uᴴ      C̄ = Wρ w_zᴴ − Wv zᴴ      b̄ = W v      W̄ = Re(v̄ ρ)      r̄ = μ r
    H̄ = −sym(w uᴴ)         ḡ = w

two rank-one terms: no Jacobian is formed, and no n×n×n tensor.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from pmaf.handover import SphereAux
from pmaf.implicit.base import Equations, Params, Vectors
from pmaf.linalg.batched import adjoint_matvec, matvec
from pmaf.linalg.bordered import solve_bordered
from pmaf.linalg.cholesky import solve_bordered_definite
from pmaf.linalg.dtypes import double
from pmaf.linalg.refinement import refined

__all__ = ["LeastSquaresEquations", "QuadraticEquations"]


def outer_sum(left: Tensor, right: Tensor, shape: torch.Size) -> Tensor:
    """Left rightᴴ summed to ``shape``; a matrix shared by the whole batch is summed inside the product.

    Args:
        left: ``(*, m, j)``.
        right: ``(*, n, j)``.
        shape: the shape of the matrix that the gradient is for.

    Returns:
        A tensor of ``shape``.
    """
    batch = torch.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    if batch.numel() > 1 and all(size == 1 for size in shape[:-2]):
        m, n, j = left.shape[-2], right.shape[-2], left.shape[-1]
        columns = left.expand(*batch, m, j).movedim(-2, 0).reshape(m, -1)
        rows = right.expand(*batch, n, j).movedim(-2, 0).reshape(n, -1)
        return (columns @ rows.mH).reshape(shape)
    return (left @ right.mH).sum_to_size(shape)


def two_columns(x: Tensor, y: Tensor) -> Tensor:
    """The matrix with columns x and y."""
    shape = torch.broadcast_shapes(x.shape, y.shape)
    return torch.stack((x.expand(shape), y.expand(shape)), -1)


def solve_shifted(
    Q: Tensor, n: int, u: Tensor, multiplier: Tensor, aux: SphereAux, h: Tensor, f: Tensor
) -> tuple[Tensor, Tensor]:
    """The bordered system where the forward pass left no eigenbasis.

    Args:
        Q: Hermitian, in double precision, ``(*, n + p, n + p)``.
        n: how many unknowns the shift λ acts on.
        u: the border, ``(*, n + p)``.
        multiplier: λ, ``(*,)``.
        aux: what the forward pass left.
        h: upper right-hand side, ``(*, n + p)``.
        f: lower right-hand side, ``(*,)``.

    Returns:
        w, ``(*, n + p)``, and μ, ``(*,)``, in the precision of the right-hand side.
    """
    wide, real = Q.dtype, Q.real.dtype
    shifted = (torch.arange(Q.shape[-1], device=Q.device) < n).to(real) * multiplier.to(real)[..., None]
    K = torch.where(aux.failed[..., None, None], 0, Q) + torch.diag_embed(shifted)
    corner, tolerance = aux.corner.to(real), aux.tolerance.to(real)
    w, mu = solve_bordered_definite(K, u.to(wide), corner, h.to(wide), f.to(real), aux.degenerate, tolerance)
    return w.to(h.dtype), mu.to(f.dtype)


def length_residual(u: Tensor, multiplier: Tensor, radius: Tensor, aux: SphereAux) -> Tensor:
    """F_λ: ½(uᴴu − r²) where the constraint is active, else −λ."""
    return (1 - aux.corner) * ((u.conj() * u).real.sum(-1) - radius.square()) / 2 - aux.corner * multiplier


@dataclass(frozen=True)
class LeastSquaresEquations(Equations):
    """Stationarity of ½‖A u + C z − b‖²_W on the sphere; parameters (A, b, weights, C, radius)."""

    aux_type = SphereAux
    core_dims = (2, 1, 1, 2, 0)
    policy: str
    free: bool

    @property
    def solution_size(self) -> int:  # type: ignore[override]
        """How many tensors make a solution: u, λ and, with a free block, z."""
        return 3 if self.free else 2

    def misfit(self, params: Params, solution: Vectors) -> Tensor:
        """ρ = b − A u − C z."""
        A, b, _, C, _ = params
        assert A is not None
        assert b is not None
        rho = b - matvec(A, solution[0])
        return rho if C is None else rho - matvec(C, solution[2])

    def apply(self, params: Params, solution: Vectors, aux: SphereAux, y: Vectors) -> Vectors:
        """M y."""
        A, _, weights, C, _ = params
        assert A is not None
        u, multiplier = solution[:2]
        w, mu = y[:2]
        active = 1 - aux.corner
        v = matvec(A, w)
        if C is not None:
            v = v + matvec(C, y[2])
        if weights is not None:
            v = weights * v
        upper = adjoint_matvec(A, v) + multiplier[..., None] * w + (active * mu)[..., None] * u
        lower = active * (u.conj() * w).sum(-1).real - aux.corner * mu
        return (upper, lower) if C is None else (upper, lower, adjoint_matvec(C, v))

    def residual(self, params: Params, solution: Vectors, aux: SphereAux) -> Vectors:
        """F."""
        A, _, weights, C, radius = params
        assert A is not None
        assert radius is not None
        u, multiplier = solution[:2]
        rho = self.misfit(params, solution)
        rho = rho if weights is None else weights * rho
        upper = multiplier[..., None] * u - adjoint_matvec(A, rho)
        lower = length_residual(u, multiplier, radius, aux)
        return (upper, lower) if C is None else (upper, lower, -adjoint_matvec(C, rho))

    def solve(self, params: Params, solution: Vectors, aux: SphereAux, rhs: Vectors) -> Vectors:
        """M⁻¹ rhs: free unknowns by elimination, the rest in the eigenbasis; all at once if there is none."""
        A, _, weights, C, _ = params
        if aux.V.shape[-1] == 0:
            return self.solve_directly(params, solution, aux, rhs)
        assert A is not None
        if C is not None:
            WC = C if weights is None else weights[..., None] * C
            gram = torch.where(aux.failed[..., None, None], 0, C.mH @ WC)  # Q_zz
            inverse = torch.linalg.pinv(gram, hermitian=True)  # of least norm where columns of C are dependent
            coupling = WC.mH @ A  # (*, p, n), Q_zu

        def in_basis(rhs: Vectors) -> Vectors:
            h, f = rhs[:2]
            if C is None:
                return solve_bordered(aux.d, aux.V, solution[0], aux.corner, h, f, aux.tolerance)
            eliminated = matvec(inverse, rhs[2])
            h = h - adjoint_matvec(coupling, eliminated)
            w, mu = solve_bordered(aux.d, aux.V, solution[0], aux.corner, h, f, aux.tolerance)
            return w, mu, eliminated - matvec(inverse, matvec(coupling, w))

        return refined(in_basis, self.apply, params, solution, aux, rhs)

    def solve_directly(self, params: Params, solution: Vectors, aux: SphereAux, rhs: Vectors) -> Vectors:
        """M⁻¹ rhs by a factorisation of [A C]ᴴ W [A C] + λ(I ⊕ 0), in double precision."""
        A, _, weights, C, _ = params
        assert A is not None
        n = A.shape[-1]
        if C is None:
            B, u, h = A, solution[0], rhs[0]
        else:
            batch = torch.broadcast_shapes(A.shape[:-2], C.shape[:-2])
            B = torch.cat((A.expand(*batch, -1, -1), C.expand(*batch, -1, -1)), -1)
            u = torch.cat((solution[0], torch.zeros_like(rhs[2])), -1)
            h = torch.cat((rhs[0], rhs[2]), -1)
        B = B.to(double(B))
        Q = B.mH @ (B if weights is None else weights[..., None] * B)
        w, mu = solve_shifted(Q, n, u, solution[1], aux, h, rhs[1])
        return (w, mu) if C is None else (w[..., :n], mu, w[..., n:])

    def vjp(self, params: Params, solution: Vectors, aux: SphereAux, y: Vectors, needs: tuple[bool, ...]) -> Params:
        """−∂⟨y, F⟩/∂θ for each parameter that is asked for."""
        A, b, weights, C, radius = params
        assert A is not None
        assert b is not None
        assert radius is not None
        u, w, mu = solution[0], y[0], y[1]
        keep = ~aux.failed[..., None]
        v = matvec(A, w)
        if C is not None:
            v = v + matvec(C, y[2])
        v = torch.where(keep, v, 0)
        rho = torch.where(keep, self.misfit(params, solution), 0)
        Wv, Wrho = (v, rho) if weights is None else (weights * v, weights * rho)
        left = two_columns(Wrho, -Wv)
        grad_A = outer_sum(left, two_columns(w, u), A.shape) if needs[0] else None
        grad_b = Wv.sum_to_size(b.shape) if needs[1] else None
        grad_W = (v.conj() * rho).real.sum_to_size(weights.shape) if weights is not None and needs[2] else None
        grad_C = None
        if C is not None and needs[3]:
            grad_C = outer_sum(left, two_columns(y[2], solution[2]), C.shape)
        grad_r = (
            torch.where(aux.failed, 0, (1 - aux.corner) * mu * radius).sum_to_size(radius.shape) if needs[4] else None
        )
        return grad_A, grad_b, grad_W, grad_C, grad_r

    def jvp(self, params: Params, tangents: Params, solution: Vectors, aux: SphereAux) -> Vectors:
        """−∂F/∂θ dθ."""
        A, _, weights, C, radius = params
        dA, db, dW, dC, dr = tangents
        assert A is not None
        assert radius is not None
        u = solution[0]
        rho = self.misfit(params, solution)
        Wrho = rho if weights is None else weights * rho
        change = torch.zeros_like(rho)  # of the misfit, negated
        if dA is not None:
            change = change + matvec(dA, u)
        if db is not None:
            change = change - db
        if dC is not None:
            change = change + matvec(dC, solution[2])
        if weights is not None:
            change = weights * change
        if dW is not None:
            change = change - dW * rho
        upper = -adjoint_matvec(A, change)
        if dA is not None:
            upper = upper + adjoint_matvec(dA, Wrho)
        lower = torch.zeros_like(solution[1]) if dr is None else (1 - aux.corner) * radius * dr
        if C is None:
            return upper, lower.expand_as(solution[1])
        third = -adjoint_matvec(C, change)
        if dC is not None:
            third = third + adjoint_matvec(dC, Wrho)
        return upper, lower.expand_as(solution[1]), third


@dataclass(frozen=True)
class QuadraticEquations(Equations):
    """Stationarity of ½uᴴHu − Re gᴴu on the sphere; parameters (H, g, radius)."""

    aux_type = SphereAux
    core_dims = (2, 1, 0)
    policy: str

    def apply(self, params: Params, solution: Vectors, aux: SphereAux, y: Vectors) -> Vectors:
        """M y."""
        H = params[0]
        assert H is not None
        u, multiplier = solution
        w, mu = y
        active = 1 - aux.corner
        curved = (matvec(H, w) + adjoint_matvec(H, w)) / 2
        upper = curved + multiplier[..., None] * w + (active * mu)[..., None] * u
        return upper, active * (u.conj() * w).sum(-1).real - aux.corner * mu

    def residual(self, params: Params, solution: Vectors, aux: SphereAux) -> Vectors:
        """F."""
        H, g, radius = params
        assert H is not None
        assert g is not None
        assert radius is not None
        u, multiplier = solution
        curved = (matvec(H, u) + adjoint_matvec(H, u)) / 2
        return curved + multiplier[..., None] * u - g, length_residual(u, multiplier, radius, aux)

    def solve(self, params: Params, solution: Vectors, aux: SphereAux, rhs: Vectors) -> Vectors:
        """M⁻¹ rhs in the eigenbasis, or by a factorisation in double precision if there is none."""
        H = params[0]
        assert H is not None
        if aux.V.shape[-1] == 0:
            Q = H.to(double(H))
            return solve_shifted((Q + Q.mH) / 2, H.shape[-1], solution[0], solution[1], aux, rhs[0], rhs[1])

        def in_basis(rhs: Vectors) -> Vectors:
            return solve_bordered(aux.d, aux.V, solution[0], aux.corner, rhs[0], rhs[1], aux.tolerance)

        return refined(in_basis, self.apply, params, solution, aux, rhs)

    def vjp(self, params: Params, solution: Vectors, aux: SphereAux, y: Vectors, needs: tuple[bool, ...]) -> Params:
        """−∂⟨y, F⟩/∂θ for each parameter that is asked for."""
        H, g, radius = params
        assert H is not None
        assert g is not None
        assert radius is not None
        u, w, mu = solution[0], y[0], y[1]
        grad_H = None
        if needs[0]:
            half = outer_sum(-w[..., None] / 2, u[..., None], H.shape)
            grad_H = half + half.mH
        grad_g = w.sum_to_size(g.shape) if needs[1] else None
        grad_r = (
            torch.where(aux.failed, 0, (1 - aux.corner) * mu * radius).sum_to_size(radius.shape) if needs[2] else None
        )
        return grad_H, grad_g, grad_r

    def jvp(self, params: Params, tangents: Params, solution: Vectors, aux: SphereAux) -> Vectors:
        """−∂F/∂θ dθ."""
        radius = params[2]
        dH, dg, dr = tangents
        assert radius is not None
        u, multiplier = solution
        upper = torch.zeros_like(u)
        if dg is not None:
            upper = upper + dg
        if dH is not None:
            upper = upper - (matvec(dH, u) + adjoint_matvec(dH, u)) / 2
        lower = torch.zeros_like(multiplier) if dr is None else (1 - aux.corner) * radius * dr
        return upper, lower.expand_as(multiplier)
