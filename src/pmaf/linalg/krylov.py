"""Orthonormal blocks of a Krylov space, and the eigenpairs that a space holds (Rayleigh–Ritz)."""

import torch
from torch import Tensor

from pmaf.linalg.batched import combined, inner_products
from pmaf.linalg.dtypes import LONG, double

__all__ = ["Basis", "extended", "grow", "join", "next_block", "orthonormal", "rayleigh_ritz"]


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
