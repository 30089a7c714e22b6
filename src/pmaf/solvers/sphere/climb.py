r"""One step up to the root of the secular equation φ(t) = 1, never beyond it.

The pole at t = 0 is split off, φ² = γ²/t² + P(t), P convex and falling. Two lower bounds of the root t* follow from
values at t ≤ t*, and the larger is taken:

- Newton's method on 1/φ, which is concave: t + (φ − 1) φ²/(−φφ'). Good wherever φ is one pole or P leads.
- P lies above its tangent P − 2B(t' − t), B = −P'/2, so t* is no less than the root of the equation with the tangent in
  its place, (c + 2B(t' − τ)) t'² = γ², where c = (1 − P)₊ and τ = t + (P − 1)₊/2B. With any R beyond that root,
  γ/√(c + 2B(R − τ)) is before it. Here R = min(γ/√c, τ + (γ²/2B)^⅓).

At the edge of the hard case P(0) is almost one and γ almost zero. There t* is many orders of magnitude above γ, where
the climb begins, while Newton's method gains half of t in each step; the second bound arrives at once.
"""

import torch
from torch import Tensor

__all__ = ["climb"]


def climb(t: Tensor, share: Tensor, rest: Tensor, slope: Tensor) -> Tensor:
    """A better lower bound of the root.

    Args:
        t: a lower bound, ``(*,)``.
        share: γ/t, the part of the pole, ``(*,)``; zero where t is.
        rest: P(t), ``(*,)``.
        slope: B, ``(*,)``.

    Returns:
        At least t where φ(t) ≥ 1, ``(*,)``; where φ(t) < 1, what Newton's method gives.
    """

    def positive(x: Tensor) -> Tensor:
        return torch.where(x > 0, x, 1)

    squared = share.square() + rest
    phi = squared.sqrt()
    fall = share.square() / positive(t) + slope
    newton = t + (phi - 1) * squared / positive(fall) * (fall > 0)

    gamma, c = share * t, (1 - rest).clamp(min=0)
    begin = t + (rest - 1).clamp(min=0) / (2 * positive(slope))
    beyond = begin + (share.square() * t / (2 * positive(slope))).pow(1 / 3) * t.pow(1 / 3)
    beyond = torch.where(c > 0, torch.minimum(beyond, gamma / positive(c).sqrt()), beyond)
    room = c + 2 * slope * (beyond - begin).clamp(min=0)
    before = torch.where((room > 0) & (slope > 0), gamma / positive(room).sqrt(), 0)
    return torch.where(phi > 1, torch.maximum(newton, before), newton)
