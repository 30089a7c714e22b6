r"""Batches of small real symmetric matrices as one vector per entry.

Arithmetic between vectors of thousands of numbers runs at the speed of the processor's cache, where a routine that is
called once for each 3×3 matrix spends its time on being called. The batch is worked through in slices that fit there.
"""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["Matrix", "Vector", "chunked", "complement_solve", "dot", "entries", "normalised", "product"]

Vector = list[Tensor]  # n tensors (b,)
Matrix = list[list[Tensor]]  # n rows of n tensors (b,); entry [i][j] is the same tensor as [j][i]

CHUNK = 32768


def chunked(work: Callable[..., tuple[Tensor, ...]], *tensors: Tensor) -> tuple[Tensor, ...]:
    """``work`` on slices of tensors with a common first dimension; its outputs are joined again."""
    if tensors[0].shape[0] <= CHUNK or tensors[0].is_cuda:
        return work(*tensors)
    parts = [work(*slices) for slices in zip(*(t.split(CHUNK) for t in tensors), strict=True)]
    return tuple(torch.cat(pieces) for pieces in zip(*parts, strict=True))


def entries(X: Tensor) -> Matrix:
    """The entries of the symmetric part of X, ``(b, n, n)``."""
    n = X.shape[-1]
    A: Matrix = [[X[:, i, i].contiguous()] * n for i in range(n)]
    for i in range(n):
        for j in range(i):
            A[i][j] = A[j][i] = torch.lerp(X[:, i, j], X[:, j, i], 0.5)
    return A


def dot(x: Vector, y: Vector) -> Tensor:
    """⟨x, y⟩."""
    total = x[0] * y[0]
    for a, b in zip(x[1:], y[1:], strict=True):
        total = torch.addcmul(total, a, b)
    return total


def product(A: Matrix, x: Vector) -> Vector:
    """A x."""
    return [dot(row, x) for row in A]


def combined(x: Vector, factor: Tensor, y: Vector, sign: int = 1) -> Vector:
    """The vector x ± factor·y."""
    return [torch.addcmul(a, factor, b, value=sign) for a, b in zip(x, y, strict=True)]


def normalised(u: Vector) -> Vector:
    """The unit vector u / ‖u‖; zero where u is."""
    factor = dot(u, u).clamp_min(torch.finfo(u[0].dtype).tiny).rsqrt()
    return [a * factor for a in u]


def complement_solve(A: Matrix, value: Tensor, c: Tensor, u: Vector, h: Vector) -> tuple[Vector, Tensor]:
    r"""Solve w = (λI − A)⁺ h for the largest or smallest eigenpair (λ, u) of A and h ⟂ u.

    With c = tr(λI − A) the matrix M = λI − A + c uuᵀ is definite and M w = h. Elimination without pivoting is backward
    stable for definite matrices (Higham, Accuracy and Stability of Numerical Algorithms, chapter 10).

    Args:
        A: the matrix.
        value: λ.
        c: tr(λI − A).
        u: unit eigenvector.
        h: right-hand side, orthogonal to u.

    Returns:
        w, and Π (λ − λⱼ)/c over the other eigenvalues, the product of the pivots. It is zero unless λ is the extreme
        eigenvalue (Sylvester's law of inertia), and a lower bound of every single factor; where it is tiny, λ is not
        simple to working precision and w is finite but arbitrary.
    """
    n, eps = len(u), torch.finfo(value.dtype).eps
    over_c = c.reciprocal()
    cu = [c * a for a in u]
    # −M, lower triangle: its sign saves an operation for every entry
    N = [[torch.addcmul(A[i][j], cu[i], u[j], value=-1) for j in range(i + 1)] for i in range(n)]
    for i in range(n):
        N[i][i] = N[i][i] - value
    inverse, w = [], list(h)
    separation = torch.ones_like(c)
    for j in range(n):
        ratio = (N[j][j] * over_c).clamp_max(0)  # minus the pivot relative to c
        separation = separation * ratio
        inverse.append(over_c / ratio.clamp_max(-eps))
        for i in range(j + 1, n):
            factor = N[i][j] * inverse[j]
            for k in range(j + 1, i + 1):
                N[i][k] = torch.addcmul(N[i][k], factor, N[k][j], value=-1)
            w[i] = torch.addcmul(w[i], factor, w[j], value=-1)
    for j in reversed(range(n)):
        for i in range(j + 1, n):  # N w = −h, so that w changes sign at the end
            w[j] = torch.addcmul(w[j], N[i][j], w[i], value=-1)
        w[j] = w[j] * inverse[j]
    return [-a for a in w], separation if n % 2 == 0 else -separation
