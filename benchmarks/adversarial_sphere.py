"""Adversarial problems for the compiled kernels on the sphere: each answer holds by independent measure or is flagged.

Families of small quadratics and least-squares problems: graded, near the hard case, rank-deficient, with tiny
right-hand sides. An answer that was not flagged must be stationary, of the right length and global, with the gap that
it reports, all beside float64 eigenvalues. Prints one line a family and fails if any answer does not hold.

    python benchmarks/adversarial_sphere.py 2000 --seed 0
"""

import argparse
import sys
from collections.abc import Iterator

import torch
from torch import Tensor

from pmaf.kernels.sphere import INACCURATE, INSIDE, NOT_FINITE, sphere_minimum

WIDE = torch.float64
Family = tuple[str, Tensor, Tensor]


def random(*shape: int) -> Tensor:
    """Normal numbers."""
    return torch.randn(*shape, dtype=WIDE)


def powers(*shape: int, most: float = 8.0) -> Tensor:
    """Powers of ten between 10^−most and 10^most."""
    return 10 ** ((2 * torch.rand(*shape, dtype=WIDE) - 1) * most)


def quadratics(B: int, n: int) -> Iterator[Family]:
    """Families of H and g."""
    V = torch.linalg.qr(random(B, n, n))[0]
    yield "graded", (V * (random(B, n).sign() * powers(B, n))[:, None]) @ V.mT, random(B, n) * powers(B, n)
    s, p = random(B, n).sort(-1).values, random(B, n)
    p[:, 0] = 0
    p = p / p.norm(dim=1, keepdim=True).clamp(min=1e-300)
    p = p * (1 - 10.0 ** -torch.randint(0, 18, (B, 1)) * random(B, 1).sign())
    gamma = (s - s[:, :1]) * p
    gamma[:, 0] = torch.where(torch.rand(B) < 0.5, 0, 10 ** (-18 * torch.rand(B, dtype=WIDE)))
    yield "near the hard case", (V * s[:, None]) @ V.mT, (V @ gamma[..., None])[..., 0]
    few = torch.where(torch.rand(B, n) < 0.5, 0, random(B, n))
    yield "rank-deficient", (V * few[:, None]) @ V.mT, random(B, n) * powers(B, 1)


def factors(B: int, m: int, n: int) -> Iterator[Family]:
    """Families of A and b."""
    yield "plain", random(B, m, n), random(B, m) * powers(B, 1, most=3)
    yield "graded columns", random(B, m, n) * powers(B, 1, n), random(B, m)
    yield "graded rows", random(B, m, n) * powers(B, m, 1), random(B, m) * powers(B, m)
    k = max(1, n // 2)
    yield "half the rank", random(B, m, k) @ random(B, k, n), random(B, m)
    A, x = random(B, m, n), random(B, n)
    x = x / x.norm(dim=1, keepdim=True) * (1 - 10 ** (-18 * torch.rand(B, 1, dtype=WIDE)))
    yield "nearly consistent", A, (A @ x[..., None])[..., 0]
    yield "tiny right-hand side", A, 1e-12 * random(B, m)


def main(B: int = 2000, seed: int = 0) -> int:
    """Run all families; the number of answers that do not hold."""
    torch.manual_seed(seed)
    total = wrong = flagged = 0
    shapes = [(0, n) for n in (1, 2, 3, 6, 10)] + [(1, 1), (1, 2), (5, 3), (3, 5), (8, 6), (20, 10)]
    for m, n in shapes:
        for name, wide_matrix, wide_right in factors(B, m, n) if m else quadratics(B, n):
            for dtype in (WIDE, torch.float32):
                eps = torch.finfo(dtype).eps
                matrix, right = wide_matrix.to(dtype), wide_right.to(dtype)
                matrix = matrix if m else (matrix + matrix.mT) / 2
                for ball in (False, True):
                    options = {"quadratic": not m, "ball": ball, "rtol": 10 * eps * n**0.5}
                    found = sphere_minimum(matrix, right, torch.ones(B, dtype=dtype), **options)
                    F, y, u, multiplier = (x.double() for x in (matrix, right, found.u, found.multiplier))
                    if m:
                        sigma = torch.nn.functional.pad(torch.linalg.svdvals(F), (0, max(n - m, 0)))
                        norm, smallest = sigma[:, 0].square(), sigma[:, n - 1].square()
                        misfit = (F @ u[..., None])[..., 0] - y
                        steepest = (F.mT @ misfit[..., None])[..., 0]
                        noise = sigma[:, 0] * y.norm(dim=1)  # what rounding of b leaves in Aᵀb
                    else:
                        spectrum = torch.linalg.eigvalsh(F)
                        norm, smallest = spectrum.abs().amax(-1), spectrum[:, 0]
                        steepest, noise = (F @ u[..., None])[..., 0] - y, torch.zeros_like(norm)
                    size = norm + multiplier.abs()
                    residual = (steepest + multiplier[:, None] * u).norm(dim=1)
                    length = u.norm(dim=1) - 1
                    inside = (found.code & INSIDE) != 0
                    bad = residual > 64 * n**0.5 * eps * (size + noise)
                    bad |= torch.where(inside, length.clamp(min=0), length.abs()) > 8 * eps
                    bad |= -(multiplier + smallest) > 64 * eps * size
                    bad |= (multiplier + smallest - found.gap.double()).abs() > 64 * eps * size
                    ok = (found.code & (NOT_FINITE | INACCURATE)) == 0
                    bad = ok & bad
                    total, wrong, flagged = total + B, wrong + int(bad.sum()), flagged + int((~ok).sum())
                    what = f"{m}×{n}" if m else f"n = {n}"
                    place = "ball" if ball else "sphere"
                    kind = str(dtype).removeprefix("torch.")
                    print(f"{name:22} {what:6} {kind} {place:6}: {int((~ok).sum())} flagged, {int(bad.sum())} wrong")
    print(f"{total} problems: {flagged} flagged, {wrong} wrong")
    return wrong


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("items", type=int, nargs="?", default=2000, help="in each family")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    sys.exit(main(chosen.items, chosen.seed) > 0)
