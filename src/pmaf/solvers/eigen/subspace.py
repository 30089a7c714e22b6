r"""What the subspace eigen solvers share: a start, products of known scale, orthonormal blocks, Rayleigh–Ritz.

Nothing here writes in place, so every solver built on it can be unrolled by autograd.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from pmaf.operators import Operator
from pmaf.products import LONG, combined, double, inner_products

__all__ = [
    "Basis",
    "ScaledOperator",
    "default_rtol",
    "dominating_shift",
    "following",
    "grow",
    "identity_block",
    "join",
    "next_block",
    "orthonormal",
    "orthonormal_pairs",
    "random_block",
    "rayleigh_ritz",
    "scaled",
    "spectral_range",
    "starting_block",
]


SEED = 2306_14759  # far from the small seeds of experiments: data drawn with the start's own seed may be blind to it


def default_rtol(dtype: torch.dtype) -> float:
    """The residual, relative to ‖X‖, at which a solver stops by default: 1e-6 in float32, 4e-14 in float64.

    Double precision keeps some distance from rounding, which hundreds of restarts may accumulate.
    """
    eps = torch.finfo(dtype).eps
    return 8 * eps if eps > 1e-10 else 200 * eps


def random_block(n: int, p: int, dtype: torch.dtype, device: torch.device, seed: int = 0) -> Tensor:
    """A reproducible Gaussian block, ``(n, p)``, that leaves the global random state alone."""
    generator = torch.Generator().manual_seed(SEED + seed)
    return torch.randn(n, p, dtype=double(dtype), generator=generator).to(device=device, dtype=dtype)


def starting_block(X: Operator, p: int, start: Tensor | None) -> Tensor:
    """An orthonormal block, ``(*, n, p)``: the columns of ``start`` first, then random ones.

    Columns of a given start are shaken by √eps: a start that happens to be an unwanted eigenvector must not stay one.
    """
    V = random_block(X.n, p, X.dtype, X.device)
    if start is not None:
        given = start[..., :p].to(V)
        given = given / given.abs().amax((-2, -1), keepdim=True).clamp_min(torch.finfo(V.dtype).tiny)
        given = torch.where(given.isfinite(), given, 0)  # a bad start costs steps, not the answer
        given = given + torch.finfo(V.dtype).eps ** 0.5 * V[:, : given.shape[-1]]
        rest = V[:, given.shape[-1] :].expand(*given.shape[:-1], p - given.shape[-1])
        V = torch.cat((given, rest), -1)
    return orthonormal(V)[0].expand(*X.batch_shape, X.n, p)


def identity_block(X: Operator) -> Tensor:
    """The identity, ``(*, n, n)``: the start where a block spans the whole space, so that Rayleigh–Ritz is exact."""
    return torch.eye(X.n, dtype=X.dtype, device=X.device).expand(*X.batch_shape, X.n, X.n)


class ScaledOperator(NamedTuple):
    """±X divided by its size, so that the wanted eigenvalues are the largest and squares neither over- nor underflow.

    Items whose products are not finite count as zero matrices and are not ``sound``.
    """

    X: Operator
    sign: float
    scale: Tensor  # (*,) real, of the order of ‖X‖
    sound: Tensor  # (*,) bool

    def __call__(self, V: Tensor) -> Tensor:
        """±X V / scale, ``(*, n, p)``."""
        product = torch.where(self.sound[..., None, None], self.X.matmat(V), 0)
        return product * (self.sign / self.scale)[..., None, None]

    def original(self, theta: Tensor) -> Tensor:
        """Eigenvalues of X from those of the scaled operator; NaN where X is not sound."""
        return torch.where(self.sound[..., None], theta * (self.sign * self.scale)[..., None], torch.nan)


def scaled(X: Operator, largest: bool, V: Tensor) -> ScaledOperator:
    """The scaled operator, its scale taken from the product with an orthonormal block V."""
    with torch.no_grad():  # the scale is a choice of units: it has no part in the gradient
        product = X.matmat(V)  # (*, n, p)
        peak = product.abs().amax((-2, -1))  # (*,)
        sound = peak.isfinite()
        peak = torch.where(sound & (peak > torch.finfo(peak.dtype).tiny), peak, 1)
        length = torch.linalg.vector_norm(
            torch.where(sound[..., None, None], product, 0) / peak[..., None, None], dim=-2
        )
        scale = peak * torch.where(length.amax(-1) > 0, length.amax(-1), 1)
        sound = sound & scale.isfinite()
        return ScaledOperator(X, 1.0 if largest else -1.0, torch.where(sound, scale, 1), sound)


def rayleigh_ritz(H: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, descending, and eigenvectors of a small projected matrix, found in double precision."""
    wide = H.to(double(H.dtype))
    wide = torch.where(wide.isfinite().all(-1, keepdim=True).all(-2, keepdim=True), wide, 0)  # LAPACK raises on NaN
    theta, Q = torch.linalg.eigh((wide + wide.mH) / 2)
    return theta.flip(-1).to(H.real.dtype), Q.flip(-1).to(H.dtype)


def orthonormal(W: Tensor) -> tuple[Tensor, Tensor]:
    """W = Q R with orthonormal columns Q: by Householder, and by Gram–Schmidt, twice, where columns are long.

    A reflector is only as good as the norm it is made from, which LAPACK sums in one go, see :func:`inner_products`;
    its error is a multiple of the first unit vectors, which does not go away again.
    """
    if W.shape[-2] <= LONG:
        Q, R = torch.linalg.qr(W)
        return Q, R
    tiny = torch.finfo(W.dtype).tiny
    Q, rows = W[..., :0], []
    for j, w in enumerate(W.split(1, -1)):
        first = inner_products(Q, w)
        w = w - combined(Q, first)
        second = inner_products(Q, w)
        w = w - combined(Q, second)
        peak = w.abs().amax((-2, -1), keepdim=True).clamp_min(tiny)
        length = peak * inner_products(w / peak, w / peak).real.clamp_min(tiny).sqrt()
        rest = W.new_zeros(*W.shape[:-2], W.shape[-1] - j - 1, 1)
        rows.append(torch.cat((first + second, length.to(W.dtype), rest), -2))
        Q = join(Q, w / length.to(W.dtype))
    return Q, torch.cat(rows, -1)


def next_block(V: Tensor, W: Tensor, noise: Tensor, cutoff: Tensor) -> tuple[Tensor, Tensor]:
    r"""An orthonormal basis of what W, already projected once, adds to V; random directions where it adds nothing.

    Orthogonality to V is restored by a second projection ("twice is enough", Giraud et al., Numer. Math. 2005).

    Args:
        V: orthonormal basis so far, ``(*, n, m)``.
        W: the new block less its part in V, ``(*, n, p)``.
        noise: columns to take where W is exhausted, ``(n, p)`` or more.
        cutoff: size below which a column of W counts as exhausted, ``(*,)``.

    Returns:
        Q, ``(*, n, p)``, and the coupling B, ``(*, p, p)``, with W ≈ Q B.
    """
    Q, B = orthonormal(W)
    spent = B.diagonal(dim1=-2, dim2=-1).abs() <= cutoff[..., None]  # (*, p)
    if spent.any():
        Q = torch.where(spent[..., None, :], noise[:, : Q.shape[-1]], Q)
        Q = orthonormal(Q - combined(V, inner_products(V, Q)))[0]
    return orthonormal(Q - combined(V, inner_products(V, Q)))[0], B


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


def grow(H: Tensor, C: Tensor) -> Tensor:
    """The projected matrix with the columns C = VᴴXV_new, ``(*, m, p)``, and their mirror image added."""
    old = H.shape[-1]
    right = torch.cat((C[..., :old, :].mH, C[..., old:, :]), -1)  # (*, p, m)
    return torch.cat((torch.cat((H, C[..., :old, :]), -1), right), -2)


def join(V: Tensor, Q: Tensor) -> Tensor:
    """The columns of V and Q beside each other; each column contiguous, which products with a batch like best."""
    return torch.cat((V.mT, Q.mT), -2).mT


class Basis:
    """Columns that become more, in one piece of memory unless autograd has to remember every state.

    Args:
        block: the first columns, ``(*, n, p)``.
        limit: how many there may be.
        tracked: whether autograd follows.
    """

    def __init__(self, block: Tensor, limit: int, tracked: bool) -> None:
        self.memory = None if tracked else block.new_empty(*block.shape[:-2], limit, block.shape[-2])
        self.restart(block)

    def restart(self, block: Tensor) -> None:
        """Begin anew with these columns."""
        self.columns = block[..., :0]
        self.append(block)

    def append(self, block: Tensor) -> None:
        """Add columns."""
        old = self.columns.shape[-1]
        if self.memory is None:
            self.columns = join(self.columns, block)
        else:
            self.memory[..., old : old + block.shape[-1], :] = block.mT
            self.columns = self.memory[..., : old + block.shape[-1], :].mT


def spectral_range(operator: ScaledOperator, steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """Extreme eigenvalues as a short Lanczos run from a random vector sees them.

    Returns:
        An estimate from below of the smallest, the second largest Ritz value and the largest one, each ``(*,)``. The
        last two are lower bounds of the eigenvalues they stand for (Cauchy interlacing).
    """
    X = operator.X
    steps, eps = min(steps, X.n), torch.finfo(X.dtype).eps
    noise = random_block(X.n, 1, X.dtype, X.device, seed=2)
    V = (noise / torch.linalg.vector_norm(noise)).expand(*X.batch_shape, X.n, 1)
    H = V[..., :0, :0]
    for j in range(steps):
        W = operator(V[..., -1:])
        C = V.mH @ W  # (*, j + 1, 1)
        H = grow(H, C)
        if j + 1 < X.n:
            q, B = next_block(V, W - V @ C, noise.roll(j + 1, 0), 10 * eps * C.abs().amax((-2, -1)))
            V = join(V, q)
        else:
            B = torch.zeros_like(C[..., :1, :])  # the whole space: nothing is left
    theta, Q = rayleigh_ritz(H)
    slack = B[..., 0, 0].abs() * Q[..., -1, -1].abs()  # residual of the smallest Ritz pair
    return theta[..., -1] - slack, theta[..., min(1, steps - 1)], theta[..., 0]


def dominating_shift(low: Tensor, high: Tensor, norm: Tensor) -> Tensor:
    """σ such that eigenvalues above ``high`` are farther from −σ than those between ``low`` and ``high``.

    The middle would converge fastest but leaves a tie if the wanted eigenvalue repeats; the last term keeps X + σI from
    vanishing if X is a multiple of the identity, or zero.
    """
    return -(0.6 * low + 0.4 * high) + torch.where(norm > 0, 0.01 * norm, 1)


def following(theta: Tensor, k: int, n: int) -> Tensor | None:
    """The Ritz value after the k selected ones: infinitely far where no eigenvalue is left, ``None`` where unknown."""
    if theta.shape[-1] > k:
        return theta[..., k]
    return torch.full_like(theta[..., 0], -torch.inf) if k == n else None
