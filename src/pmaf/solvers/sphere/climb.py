r"""One step to the root t* of the secular equation φ(t) = 1, with a lower bound that every step raises.

The pole at t = 0 is split off, φ² = γ²/t² + P(t), P convex and falling. Lower bounds of t* follow from

- Newton's method on 1/φ, which is concave, from either side of the root: t + (φ − 1) φ²/(−φφ').
- P, which lies above its tangent P − 2B(t' − t), B = −P'/2, so that t* is no less than the root of the equation with
  the tangent in its place, (c + 2B(t' − τ)) t'² = γ², where c = (1 − P)₊ and τ = t + (P − 1)₊/2B. With any R beyond
  that root, γ/√(c + 2B(R − τ)) is before it. Here R = min(γ/√c, τ + (γ²/2B)^⅓).

At the edge of the hard case P(0) is almost one and γ almost zero. There t* is many orders of magnitude above γ, where
the climb begins, while Newton's method gains half of t in each step; the second bound arrives at once. Where several
poles crowd at zero, no bound does. Then a + Γ²/t² with the value and slope of φ² at t, whose root is *beyond* t*, but
close if all the slope is that of the poles, gives the next t, from which Newton's method steps back.
"""

import torch
from torch import Tensor

__all__ = ["climb"]


def climb(t: Tensor, low: Tensor, share: Tensor, rest: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    """The next t, and a better lower bound of the root.

    Args:
        t: where φ was evaluated, ``(*,)``.
        low: a lower bound of the root, ``(*,)``.
        share: γ/t, the part of the pole, ``(*,)``; zero where t is.
        rest: P(t), ``(*,)``.
        slope: B, ``(*,)``.

    Returns:
        Both, ``(*,)``. Where φ(t) < 1 at a lower bound, the case is hard, and they stay.
    """

    def positive(x: Tensor) -> Tensor:
        return torch.where(x > 0, x, 1)

    squared = share.square() + rest
    phi = squared.sqrt()
    fall = share.square() / positive(t) + slope  # −φφ'
    newton = t + (phi - 1) * squared / positive(fall) * (fall > 0)

    c = (1 - rest).clamp(min=0)
    begin = t + (rest - 1).clamp(min=0) / (2 * positive(slope))
    beyond = begin + (share.square() * t / (2 * positive(slope))).pow(1 / 3) * t.pow(1 / 3)
    beyond = torch.where(c > 0, torch.minimum(beyond, share * t / positive(c).sqrt()), beyond)
    room = c + 2 * slope * (beyond - begin).clamp(min=0)
    before = torch.where((phi > 1) & (room > 0) & (slope > 0), share * t / positive(room).sqrt(), 0)
    low = torch.maximum(low, torch.maximum(newton, before))

    poles = fall * t * t  # Γ²/t²
    left = 1 - (squared - poles)
    far = t * (poles / positive(left)).sqrt()
    leap = (phi > 1) & (left > 0) & (low > 1.2 * t) & (far > low)
    return torch.where(leap, far, low), low
