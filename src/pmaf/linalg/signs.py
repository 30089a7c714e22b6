r"""Which of the unit multiples of a vector is meant, decided so that rounding has no say in it.

A vector v is turned so that its inner product with a reference, by default the all-ones vector, is real and
non-negative. Where that product is zero but for rounding, as it always is for eigenvectors of Laplacians and of centred
matrices, its sign is noise. A second, fixed vector then decides in its place. It has to be *generic*: none of the
vectors that structured matrices have may be orthogonal to it. Fractions of i φ are not, since every second difference
of them is an integer, which [1, −1, −1, 1] may see as zero; scrambled integers are.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from pmaf.transforms import anywhere, cheap

__all__ = ["decided_sign", "generic", "of_turned"]

WORD = (1 << 32) - 1


def generic(n: int, like: Tensor, before: int = 0) -> Tensor:
    """A fixed vector with entries between −0.4 and 0.6, ``(n,)``, the same on every device and in every precision.

    The entries are a bit-mixing hash of i, cut to 24 bits, which single precision holds exactly.

    Args:
        n: how many entries.
        like: gives the device and the (real) type.
        before: how many entries come before, elsewhere.

    Returns:
        The vector, real.
    """
    i = torch.arange(before + 1, before + n + 1, dtype=torch.int64, device=like.device)
    i = (i * 0x9E3779B1) & WORD  # 2³²/φ: spreads neighbours
    i = ((i ^ (i >> 15)) * 0x2C1B3C6D) & WORD
    i = ((i ^ (i >> 12)) * 0x297A2D39) & WORD
    return ((i ^ (i >> 15)) >> 8).to(like.real.dtype) * 2.0**-24 - 0.40625


def decided_sign(U: Tensor, reference: Tensor | None, rounding: Tensor | float | Callable[[], Tensor]) -> Tensor:
    """The unit numbers that turn columns so that the reference, or else a generic vector, sees them non-negative.

    Written in differentiable operations: over the complex numbers the phase moves with the vector.

    Args:
        U: unit columns, ``(*, n, k)``.
        reference: columns, ``(*, n, 1)`` or ``(*, n, k)``; the all-ones vector if ``None``.
        rounding: how far the columns may be off, ε‖X‖/gap, ``(*, k)`` or a number; inner products up to that, or up to
            the rounding of a sum of n products, times the length of the reference decide nothing. Or a function that
            tells it, at most ε^¼, which is only asked where an inner product is as small as that.

    Returns:
        1 or −1, or a complex number of modulus one, ``(*, 1, k)``; to be multiplied with U.
    """
    n, eps = U.shape[-2], torch.finfo(U.dtype).eps
    inner = (U if reference is None else reference.conj() * U).sum(-2, keepdim=True)  # (*, 1, k)
    length = n**0.5 if reference is None else torch.linalg.vector_norm(reference, dim=-2, keepdim=True)
    if callable(rounding):
        if cheap(inner) and bool((inner.detach().abs() > eps**0.25 * length).all()):
            return left_alone(unit_of(inner), inner, length)
        rounding = rounding()
    off = torch.as_tensor(rounding, dtype=U.real.dtype, device=U.device).clamp(min=32 * eps)
    known = inner.detach().abs() > (off[..., None, :] if off.dim() else off) * length
    if anywhere(~known):
        second = (generic(n, U)[:, None] * U).sum(-2, keepdim=True)
        inner = torch.where(known, inner, second)
    return left_alone(unit_of(inner), inner, length)


def left_alone(turn: Tensor, inner: Tensor, length: Tensor | float) -> Tensor:
    """One, moving as `turn` does, where the vector is turned already to rounding, so that it keeps its bits."""
    if not turn.is_complex():
        return turn
    still = (inner.detach().imag.abs() <= 8 * torch.finfo(turn.dtype).eps * length) & (inner.detach().real > 0)
    return torch.where(still, 1 + (turn - turn.detach()), turn)


def unit_of(inner: Tensor) -> Tensor:
    """The unit numbers that turn inner products to the non-negative real axis; 1 for zero."""
    if not inner.is_complex():
        return torch.ones_like(inner).copysign(inner.detach())
    return torch.sgn(torch.where(inner.detach().abs() > 0, inner, 1)).conj()


def of_turned(U: Tensor, U_bar: Tensor, inner: Tensor, reference: Tensor | None) -> Tensor:
    r"""The cotangents of complex vectors whose phase does not move, from those of the same vectors turned.

    With s = rᴴu > 0, r what decides the phase, and uᴴdu = 0, the turned vector moves by dw = du − i u Im(rᴴdu)/s; so

    .. math:: h = \bar w - i\,r\,\mathrm{Im}(u^H\bar w)/s, \qquad \mathrm{Re}(h^H du) = \mathrm{Re}(\bar w^H dw).

    Args:
        U: the turned vectors, ``(*, n, k)``.
        U_bar: their cotangents.
        inner: ``(*, 1, k)``, real: where it is negative the generic vector decided, where it is zero nothing.
        reference: columns, ``(*, n, 1)`` or ``(*, n, k)``; the all-ones vector if ``None``.

    Returns:
        H, ``(*, n, k)``, in differentiable operations.
    """
    r = torch.ones((), dtype=U.dtype) if reference is None else reference
    r = torch.where(inner < 0, generic(U.shape[-2], U)[:, None].to(U.dtype), r)
    s = torch.where(inner == 0, 1, (r.conj() * U).sum(-2, keepdim=True).real)
    along = torch.where(inner == 0, 0, (U.conj() * U_bar).sum(-2, keepdim=True).imag / s)
    return U_bar - 1j * r * along
