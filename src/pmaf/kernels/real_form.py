"""Complex problems on the sphere as real ones of twice the size.

The sphere in ℂⁿ is the real sphere in ℝ²ⁿ: with M ↦ [[Re M, −Im M], [Im M, Re M]], x ↦ (Re x, Im x) a complex problem
is a real one with the same minimiser, multiplier and gap. A gradient G of the real matrix is G₁₁ + G₂₂ + i(G₂₁ − G₁₂).
"""

import torch
from torch import Tensor

__all__ = ["complex_matrix", "complex_vector", "real_problem", "real_vector"]

Real = tuple[Tensor, Tensor, Tensor, Tensor | None]


def real_problem(M: Tensor, x: Tensor, radius: Tensor, weights: Tensor | None) -> Real:
    """The real form of a matrix, a vector, a radius and weights."""
    return real_matrix(M), real_vector(x), radius, None if weights is None else torch.cat((weights, weights), -1)


def real_matrix(M: Tensor) -> Tensor:
    """[[Re M, −Im M], [Im M, Re M]], ``(*, 2m, 2n)``."""
    return torch.cat((torch.cat((M.real, -M.imag), -1), torch.cat((M.imag, M.real), -1)), -2)


def real_vector(x: Tensor) -> Tensor:
    """(Re x, Im x), ``(*, 2n)``."""
    return torch.cat((x.real, x.imag), -1)


def complex_vector(x: Tensor) -> Tensor:
    """The complex vector of a real form."""
    return torch.complex(*x.chunk(2, -1))


def complex_matrix(G: Tensor) -> Tensor:
    """The gradient of a complex matrix from that of its real form."""
    upper, lower = G.chunk(2, -2)
    (a, b), (c, d) = upper.chunk(2, -1), lower.chunk(2, -1)
    return torch.complex(a + d, c - b)
