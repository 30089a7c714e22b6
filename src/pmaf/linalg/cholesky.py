r"""Definite systems by Cholesky factorisation, which says on the device, without an exception, whether it succeeded.

LAPACK's eigenvalue and singular value routines report failure to the host, which therefore waits for the device. A
Cholesky factorisation leaves a number beside its result instead, and that number is a certificate: it is zero exactly
when the matrix is positive definite to working precision.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from pmaf.linalg.bordered import safe_inverse
from pmaf.linalg.scaling import divisor

__all__ = ["definite_inverse", "factorise", "solve_bordered_definite", "solve_definite", "substitute"]

ROUNDS = 4


def factorise(M: Tensor) -> tuple[Tensor, Tensor]:
    """L with L Lᴴ = M, ``(*, n, n)``, and a mask of the items that are positive definite."""
    L, info = torch.linalg.cholesky_ex(M)
    return L, (info == 0) & L.diagonal(dim1=-2, dim2=-1).real.isfinite().all(-1)


def substitute(L: Tensor, H: Tensor) -> Tensor:
    """(L Lᴴ)⁻¹ H by forward and back substitution."""
    half = torch.linalg.solve_triangular(L, H, upper=False)
    solved: Tensor = torch.linalg.solve_triangular(L.mH, half, upper=True)
    return solved


def definite_inverse(M: Tensor, singular: Tensor, tolerance: Tensor) -> Callable[[Tensor], Tensor]:
    r"""The map H ↦ M⁻¹ H, and in place of it M⁺ H, the solution of least norm, where M is singular.

    With τ² = tolerance·‖M‖, an eigenvalue d of a singular item is inverted as

        1/d · (1 − (1 − d²/(d + τ)²)ʳ),     r = ROUNDS,

    which is r steps of x ← x + N⁻¹M N⁻¹(h − M x), N = M + τI. It equals 1/d up to (2τ/d)ʳ, and where d is no more than
    the tolerance it is at most r/‖M‖: what is only rounding leaves no trace. For the other items τ = 0 and the same
    steps, with N⁻¹ alone, are iterative refinement.

    Args:
        M: positive semidefinite matrices, ``(*, n, n)``.
        singular: items with eigenvalues that count as zero, ``(*,)``.
        tolerance: eigenvalues up to here count as zero, ``(*,)``.

    Returns:
        A function of right-hand sides ``(*, n, p)``; zero for items that are not semidefinite.
    """
    size = divisor(M.diagonal(dim1=-2, dim2=-1).real.amax(-1))
    tau = torch.where(singular, (tolerance / size).clamp(min=torch.finfo(size.dtype).eps).sqrt(), 0)
    M = M / size[..., None, None]
    eye = torch.eye(M.shape[-1], dtype=M.dtype, device=M.device)
    L, good = factorise(M + tau[..., None, None] * eye)
    L = torch.where(good[..., None, None], L, eye)
    twice = singular[..., None, None]

    def solve(H: Tensor) -> Tensor:
        H = H / size[..., None, None]
        X = torch.zeros_like(H)
        for _ in range(ROUNDS):
            R = substitute(L, H - M @ X)
            X = X + torch.where(twice, substitute(L, M @ R), R)
        return torch.where(good[..., None, None], X, 0)

    return solve


def solve_definite(M: Tensor, H: Tensor, singular: Tensor, tolerance: Tensor) -> Tensor:
    """M⁻¹ H, or M⁺ H, by :func:`definite_inverse`."""
    return definite_inverse(M, singular, tolerance)(H)


def solve_bordered_definite(
    K: Tensor, u: Tensor, corner: Tensor, h: Tensor, f: Tensor, singular: Tensor, tolerance: Tensor
) -> tuple[Tensor, Tensor]:
    r"""The bordered system of :mod:`pmaf.linalg.bordered` without an eigenbasis.

        [ K   u ] [ w ]   [ h ]
        [ uᴴ −c ] [ μ ] = [ f ]

    Adding κ times the second row, times u, to the first one makes M = K + κ u uᴴ of K, which is definite wherever the
    system is regular, also where K is not. With ζ = κf − μ the first row reads M w = h + ζ u, so

        w = M⁻¹h + ζ M⁻¹u,   ζ = (f − uᴴM⁻¹h) / (c + uᴴM⁻¹u).

    Over the complex numbers the constraint is real, Re uᴴw = f, and the system is solved as one of twice the size over
    the reals.

    Args:
        K: positive semidefinite, ``(*, n, n)``.
        u: the border, ``(*, n)``; it is read as zero where ``corner`` is 1.
        corner: c, 0 or 1, real, ``(*,)``.
        h: upper right-hand side, ``(*, n)``.
        f: lower right-hand side, real, ``(*,)``.
        singular: items where M has eigenvalues that count as zero, ``(*,)``.
        tolerance: eigenvalues up to here count as zero, ``(*,)``.

    Returns:
        w, ``(*, n)``, and μ, ``(*,)``.
    """
    if K.is_complex():
        rows = torch.cat((K.real, -K.imag), -1), torch.cat((K.imag, K.real), -1)
        flat = torch.cat((u.real, u.imag), -1), torch.cat((h.real, h.imag), -1)
        w, mu = solve_bordered_definite(torch.cat(rows, -2), flat[0], corner, flat[1], f, singular, tolerance)
        real, imaginary = w.chunk(2, -1)
        return torch.complex(real, imaginary), mu
    u = u * (1 - corner)[..., None]
    length = u.square().sum(-1)
    size = K.diagonal(dim1=-2, dim2=-1).amax(-1)
    kappa = torch.where(size > 0, size, 1) * safe_inverse(length, length > 0)
    M = K + (kappa[..., None] * u)[..., :, None] * u[..., None, :]
    inverse = definite_inverse(M, singular, tolerance)
    x, y = inverse(h[..., None])[..., 0], inverse(u[..., None])[..., 0]
    beta = corner + (u * y).sum(-1)
    zeta = (f - (u * x).sum(-1)) * safe_inverse(beta, beta > 0)
    return x + zeta[..., None] * y, kappa * f - zeta
