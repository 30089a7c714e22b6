r"""What the subspace eigen solvers share: a start, products of known scale, orthonormal blocks, Rayleigh–Ritz.

Nothing here writes in place, so every solver built on it can be unrolled by autograd.
"""

import torch
from torch import Tensor

from pmaf.linalg.batched import combined, inner_products
from pmaf.linalg.krylov import KrylovSpace, orthonormal, rayleigh_ritz
from pmaf.linalg.lanczos import VectorLanczos
from pmaf.linalg.vectors import perturbed, random_block
from pmaf.operators.base import Operator
from pmaf.operators.scaled import ScaledOperator
from pmaf.transforms import on_host, untracked

__all__ = [
    "default_rtol",
    "dominating_shift",
    "following",
    "identity_block",
    "orthonormal_pairs",
    "spectral_range",
    "starting_block",
]

NEAR = 0.1  # of its distance: how well the eigenvalue next to the selected ones is known where it is told


def default_rtol(dtype: torch.dtype) -> float:
    """The residual, relative to ‖X‖, at which a solver stops by default: 1e-6 in float32, 4e-14 in float64.

    Double precision keeps some distance from rounding, which hundreds of restarts may accumulate.
    """
    eps = torch.finfo(dtype).eps
    return 8 * eps if eps > 1e-10 else 200 * eps


def starting_block(X: Operator, p: int, start: Tensor | None) -> Tensor:
    """An orthonormal block, ``(*, n, p)``: the columns of ``start`` first, perturbed, then random ones.

    The last of several columns is random in any case, so that no start, however unlucky, is blind to a pair.
    """
    V = random_block(X.n, p, X.dtype, X.device)
    if start is not None:
        given = start[..., : max(1, p - 1)]
        given = perturbed(given, V[:, : given.shape[-1]])
        rest = V[:, given.shape[-1] :].expand(*given.shape[:-1], p - given.shape[-1])
        V = torch.cat((given, rest), -1)
    return orthonormal(V)[0].expand(*X.batch_shape, X.n, p)


def identity_block(X: Operator) -> Tensor:
    """The identity, ``(*, n, n)``: the start where a block spans the whole space, so that Rayleigh–Ritz is exact."""
    return torch.eye(X.n, dtype=X.dtype, device=X.device).expand(*X.batch_shape, X.n, X.n)


def orthonormal_pairs(operator: ScaledOperator, V: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The best pairs that the span of V holds, from a fresh product.

    Args:
        operator: multiplies.
        V: nearly orthonormal, ``(*, n, k)``.

    Returns:
        Ritz values, descending, ``(*, k)``; Ritz vectors, ``(*, n, k)``; their misfits XU − UΘ, ``(*, n, k)``.
    """
    V = orthonormal(V)[0]
    Y = operator(V)
    theta, Q = rayleigh_ritz(inner_products(V, Y))
    U = combined(V, Q)
    return theta, U, combined(Y, Q) - U * theta[..., None, :]


def spectral_range(operator: ScaledOperator, steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """Extreme eigenvalues as a short Lanczos run from a random vector sees them.

    Returns:
        An estimate from below of the smallest, the second largest Ritz value and the largest one, each ``(*,)``. The
        last two are lower bounds of the eigenvalues they stand for (Cauchy interlacing).
    """
    X = operator.X
    noise = random_block(X.n, 1, X.dtype, X.device, seed=2)
    first = (noise / torch.linalg.vector_norm(noise)).expand(*X.batch_shape, X.n, 1)
    steps = min(steps, X.n)
    plain = not X.batch_shape and on_host(first) and untracked(*X.tensors)
    space = (
        VectorLanczos(operator.__call__, first, noise, steps) if plain else KrylovSpace(operator.__call__, first, noise)
    )
    for _ in range(steps):
        space.extend()
    theta, Q = rayleigh_ritz(space.H)
    return theta[..., -1] - space.slack(Q[..., -1:])[..., 0], theta[..., min(1, steps - 1)], theta[..., 0]


def dominating_shift(low: Tensor, high: Tensor, norm: Tensor) -> Tensor:
    """σ such that eigenvalues above ``high`` are farther from −σ than those between ``low`` and ``high``.

    The middle would converge fastest but leaves a tie if the wanted eigenvalue repeats; the last term keeps X + σI from
    vanishing if X is a multiple of the identity, or zero.
    """
    return -(0.6 * low + 0.4 * high) + torch.where(norm > 0, 0.01 * norm, 1)


def following(theta: Tensor, residual: Tensor, k: int, n: int, tolerance: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest value left out, and whether it is known: told from a pair that has converged, never from any other.

    A Ritz value is a bound of the eigenvalue from below. It may lie anywhere short of it while its residual is large,
    so that an eigenvalue that repeats would look like a simple one. It counts as known once an eigenvalue lies within a
    tenth of its distance from the selected ones, or within the tolerance. What remains of the distance once both have
    moved towards each other by their residuals is all that is told where they are not small beside it.

    Args:
        theta: Ritz values, descending, ``(*, m)``.
        residual: of the first k + 1 pairs, ``(*, k + 1)``, or of fewer, if there are no more.
        k: how many are selected.
        n: the order of the matrix.
        tolerance: residuals up to here are those of eigenpairs, ``(*,)``.

    Returns:
        The value, infinitely far where no eigenvalue is left and NaN where it is not known, and a mask, both ``(*,)``.
    """
    first = theta[..., 0]
    if k == n:
        return torch.full_like(first, -torch.inf), torch.ones_like(first, dtype=torch.bool)
    if theta.shape[-1] <= k:
        return torch.full_like(first, torch.nan), torch.zeros_like(first, dtype=torch.bool)
    distance = theta[..., k - 1] - theta[..., k]
    known = residual[..., k] <= torch.maximum(tolerance, NEAR * distance)
    moved = residual[..., k - 1] + residual[..., k]
    value = torch.where(
        moved <= NEAR * distance, theta[..., k], torch.minimum(theta[..., k] + moved, theta[..., k - 1])
    )
    return torch.where(known, value, torch.nan), known
