"""Orthonormal blocks of a Krylov space, and the eigenpairs that a space holds (Rayleigh–Ritz)."""

from collections.abc import Callable

import torch
from torch import Tensor

from pmaf.linalg.batched import combined, inner_products
from pmaf.linalg.dtypes import LONG, double

__all__ = ["KrylovSpace", "orthonormal", "rayleigh_ritz"]


def rayleigh_ritz(H: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, descending, and eigenvectors of a small projected matrix, found in double precision."""
    wide = H.to(double(H))
    wide = torch.where(wide.isfinite().all(-1, keepdim=True).all(-2, keepdim=True), wide, 0)  # LAPACK raises on NaN
    theta, Q = torch.linalg.eigh((wide + wide.mH) / 2)
    return theta.flip(-1).to(H.real.dtype), Q.flip(-1).to(H.dtype)


def orthonormal(W: Tensor) -> tuple[Tensor, Tensor]:
    """W = Q R with orthonormal columns Q: by Householder, and by Gram–Schmidt, twice, where columns are long.

    A reflector is only as good as the norm it is made from, which LAPACK sums in one go, and not pairwise as ``sum``;
    its error is a multiple of the first unit vectors, which does not go away again.
    """
    if W.shape[-2] <= LONG:
        Q, R = torch.linalg.qr(W)
        return Q, R
    tiny = torch.finfo(W.dtype).tiny
    Q, rows = W[..., :0], []
    for j, w in enumerate(W.split(1, -1)):
        along = w[..., :0, :]
        if j:
            first = inner_products(Q, w)
            w = w - combined(Q, first)
            second = inner_products(Q, w)
            w, along = w - combined(Q, second), first + second
        peak = w.abs().amax((-2, -1), keepdim=True).clamp_min(tiny)
        length = peak * (w / peak).abs().square().sum(-2, keepdim=True).clamp_min(tiny).sqrt()
        rest = W.new_zeros(*W.shape[:-2], W.shape[-1] - j - 1, 1)
        rows.append(torch.cat((along, length.to(W.dtype), rest), -2))
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
    D = inner_products(V, Q)
    spent = B.diagonal(dim1=-2, dim2=-1).abs() <= cutoff[..., None]  # (*, p)
    rough = D.abs().amax(-2) > torch.finfo(Q.dtype).eps ** 0.5  # then Q − V D is not orthonormal up to |D|² ≤ ε
    if (spent | rough).any():
        Q = torch.where(spent[..., None, :], noise[:, : Q.shape[-1]], Q)
        Q = orthonormal(Q - combined(V, inner_products(V, Q)))[0]
        Q = orthonormal(Q - combined(V, inner_products(V, Q)))[0]
        return Q, B
    return Q - combined(V, D), B


def extended(V: Tensor, H: Tensor, W: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""One step of the block Lanczos recurrence, :math:`XV = VH + QB\,(\text{last rows of } I)`.

    Args:
        V: orthonormal basis so far, ``(*, n, m)``.
        H: VᴴXV without the columns of the newest block.
        W: X times the newest block, the last columns of V, ``(*, n, p)``.
        noise: columns to take where the space is exhausted, ``(n, p)`` or more.

    Returns:
        H, ``(*, m, m)``; the next block Q, as far as there is room for one; and the coupling B, ``(*, p, p)``.
    """
    C = inner_products(V, W)  # (*, m, p)
    (n, m), p = V.shape[-2:], W.shape[-1]
    if m == n:
        return grow(H, C), W[..., :0], torch.zeros_like(C[..., -p:, :])
    Q, B = next_block(V, W - combined(V, C), noise, 10 * torch.finfo(V.dtype).eps * C.abs().amax((-2, -1)))
    return grow(H, C), Q[..., : n - m], B


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
        like: of the batch, the length and the type of the columns, ``(*, n, p)``.
        limit: how many there may be; ``None`` for one piece of memory after the other.
    """

    def __init__(self, like: Tensor, limit: int | None) -> None:
        self.memory = None if limit is None else like.new_empty(*like.shape[:-2], limit, like.shape[-2])
        self.columns = like[..., :0]

    def append(self, block: Tensor) -> None:
        """Add columns."""
        old = self.columns.shape[-1]
        if self.memory is None:
            self.columns = join(self.columns, block)
        else:
            self.memory[..., old : old + block.shape[-1], :] = block.mT
            self.columns = self.memory[..., : old + block.shape[-1], :].mT


class KrylovSpace:
    """A block Krylov space of a Hermitian X: X V = V H + ahead · coupling · (last p rows of the identity).

    Kept orthonormal in full; an exhausted space goes on with random directions, until it is the whole space.

    Args:
        product: maps a block to X times it.
        block: the first columns, orthonormal, ``(*, n, p)``.
        noise: directions to go on with, ``(n, p)``.
        limit: how many columns there may be; ``None`` if that is not known, or autograd follows.
    """

    def __init__(
        self, product: Callable[[Tensor], Tensor], block: Tensor, noise: Tensor, limit: int | None = None
    ) -> None:
        self.product, self.noise, self.basis = product, noise, Basis(block, limit)
        self.ahead = block  # the next block
        self.H = block[..., :0, :0]  # the projected matrix VᴴXV
        self.coupling = block[..., :0, :]
        self.steps = 0

    @property
    def V(self) -> Tensor:
        """The orthonormal basis, ``(*, n, m)``."""
        return self.basis.columns

    def extend(self) -> None:
        """Take the next block in, at the cost of one product."""
        self.basis.append(self.ahead)
        noise = self.noise.roll(self.steps, 0)
        self.H, self.ahead, self.coupling = extended(self.V, self.H, self.product(self.ahead), noise)
        self.steps += 1

    def restart(self, theta: Tensor, Q: Tensor) -> None:
        """Keep the Ritz pairs of values θ, ``(*, l)``, and vectors V Q alone, and the next block (thick restart)."""
        columns = combined(self.V, Q)
        self.basis.columns = columns[..., :0]
        self.basis.append(columns)
        self.H = torch.diag_embed(theta).to(self.H.dtype)

    def slack(self, Q: Tensor) -> Tensor:
        """The residuals of Ritz vectors V Q, as the recurrence knows them, ``(*, l)``."""
        tail = self.coupling @ Q[..., -self.coupling.shape[-1] :, :]
        size: Tensor = torch.linalg.vector_norm(tail, dim=-2)
        return size
