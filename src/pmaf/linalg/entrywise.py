r"""Batches of small real symmetric matrices as one vector per entry.

Arithmetic between vectors of thousands of numbers runs at the speed of the processor's cache, where a routine that is
called once for each 3×3 matrix spends its time on being called. The batch is worked through in slices that fit there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = [
    "SMALL",
    "Matrix",
    "Vector",
    "chunked",
    "combined",
    "complement_solve",
    "dot",
    "entries",
    "normalised",
    "product",
    "symmetric_outer",
]

SMALL = 4  # order up to which a batched product is slower than a few elementwise operations
Vector = Sequence[Tensor]  # n tensors (b,)
Matrix = Sequence[Sequence[Tensor]]  # n rows of n tensors (b,); entry [i][j] is the same tensor as [j][i]

CHUNK = 32768


def chunked(work: Callable[..., tuple[Tensor, ...]], *tensors: Tensor) -> tuple[Tensor, ...]:
    """Outputs ``(B, …)`` of ``work``, which maps slices ``(b, …)`` of the tensors to outputs ``(…, b)``.

    Each output is put in its place as soon as it is there: large intermediate tensors would cost more than the work,
    because the memory for them is new every time.
    """
    size = tensors[0].shape[0]
    parts = 1 if tensors[0].is_cuda else max(1, -(-size // CHUNK))
    length = max(1, -(-size // parts))
    outputs: tuple[Tensor, ...] = ()
    for first in range(0, max(size, 1), length):
        pieces = work(*(t[first : first + length] for t in tensors))
        if not outputs:
            outputs = tuple(piece.new_empty(size, *piece.shape[:-1]) for piece in pieces)
        for output, piece in zip(outputs, pieces, strict=True):
            output[None, first : first + length] = piece.movedim(-1, 0)
    return outputs


def entries(X: Tensor, exact: bool = False) -> list[list[Tensor]]:
    """Copies of the entries of X, ``(b, n, n)``, or of its symmetric part if X is not exactly symmetric."""
    n, copy = X.shape[-1], torch.contiguous_format
    A: list[list[Tensor]] = [[X[:, i, i].clone(memory_format=copy)] * n for i in range(n)]
    for i in range(n):
        for j in range(i):
            lower = X[:, i, j]
            A[i][j] = A[j][i] = lower.clone(memory_format=copy) if exact else torch.lerp(lower, X[:, j, i], 0.5)
    return A


def dot(x: Vector, y: Vector) -> Tensor:
    """⟨x, y⟩."""
    total = x[0] * y[0]
    for a, b in zip(x[1:], y[1:], strict=True):
        total.addcmul_(a, b)
    return total


def product(A: Matrix, x: Vector) -> list[Tensor]:
    """A x."""
    return [dot(row, x) for row in A]


def combined(x: Vector, factor: Tensor, y: Vector, sign: int = 1) -> list[Tensor]:
    """The vector x ± factor·y."""
    return [torch.addcmul(a, factor, b, value=sign) for a, b in zip(x, y, strict=True)]


def normalised(u: Vector) -> list[Tensor]:
    """The unit vector u / ‖u‖; zero where u is."""
    factor = dot(u, u).clamp_min(torch.finfo(u[0].dtype).tiny).rsqrt()
    return [a * factor for a in u]


def symmetric_outer(w: Vector, u: Vector) -> Tensor:
    """The matrix w uᵀ + u wᵀ, ``(n, n, b)``."""
    n = len(u)
    lower = {(i, j): torch.addcmul(w[i] * u[j], w[j], u[i]) for i in range(n) for j in range(i + 1)}
    return torch.stack([lower[max(i, j), min(i, j)] for i in range(n) for j in range(n)]).view(n, n, -1)


def complement_solve(A: Matrix, value: Tensor, c: Tensor, u: Vector, h: Vector) -> tuple[list[Tensor], Tensor]:
    r"""Solve w = (λI − A)⁺ h for the largest or smallest eigenpair (λ, u) of A and h ⟂ u.

    With c = tr(λI − A) the matrix M = λI − A + c uuᵀ is definite and M w = h. Elimination without pivoting is backward
    stable for definite matrices (Higham, Accuracy and Stability of Numerical Algorithms, chapter 10).

    Args:
        A: the matrix.
        value: λ.
        c: tr(λI − A).
        u: unit eigenvector.
        h: right-hand side, orthogonal to u; overwritten.

    Returns:
        w, and Π (λ − λⱼ)/c over the other eigenvalues, the product of the pivots. It is a few ε at most unless λ is the
        extreme eigenvalue (Sylvester's law of inertia), and a lower bound of every single factor to a power of two;
        where it is tiny, λ is not simple to working precision and w is finite but arbitrary.
    """
    n, eps = len(u), torch.finfo(value.dtype).eps
    over_c = c.reciprocal()
    cu = [c * a for a in u]
    # −M, lower triangle: its sign saves an operation for every entry
    N = [[torch.addcmul(A[i][j], cu[i], u[j], value=-1) for j in range(i + 1)] for i in range(n)]
    w, inverse, separation = list(h), [], torch.ones_like(c)
    for j in range(n):
        ratio = N[j][j].sub_(value).mul_(over_c).clamp_max_(-eps)  # minus the pivot relative to c
        separation.mul_(ratio)
        inverse.append(over_c / ratio)
        for i in range(j + 1, n):
            factor = N[i][j] * inverse[j]
            for k in range(j + 1, i + 1):
                N[i][k].addcmul_(factor, N[k][j], value=-1)
            w[i].addcmul_(factor, w[j], value=-1)
    for j in reversed(range(n)):
        for i in range(j + 1, n):  # N w = −h, so that w changes sign at the end
            w[j].addcmul_(N[i][j], w[i], value=-1)
        w[j].mul_(inverse[j])
    return [a.neg_() for a in w], separation if n % 2 == 0 else separation.neg_()
