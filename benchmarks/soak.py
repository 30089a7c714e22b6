"""Many steps forward and backward, to see whether memory grows.

    python benchmarks/soak.py --steps 100000

Every layer in turn, on fresh data; the resident memory after a tenth of the steps, when caches are filled, is compared
with that at the end. The exit status is 1 if it has grown by more than ``--megabytes``.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import os
import sys
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor

import pmaf

LAYERS: dict[str, Callable[[Tensor], Tensor]] = {
    "ied 3×3": lambda A: pmaf.ied_ex((A + A.mT)[..., :3, :3], 1).eigenvectors,
    "ied 8×8": lambda A: pmaf.ied_ex(A + A.mT, 2).eigenvectors,
    "ied Gram": lambda A: pmaf.ied_ex(pmaf.Gram(A), 2, largest=False).eigenvectors,
    "ied block_lanczos": lambda A: pmaf.ied_ex(A + A.mT, 2, solver="block_lanczos").eigenvectors,
    "ied metric": lambda A: pmaf.ied_ex(A + A.mT, 2, metric=A @ A.mT + torch.eye(8)).eigenvectors,
    "ied sparse": lambda A: pmaf.ied_ex((A[0] + A[0].mT).to_sparse(), 2).eigenvectors,
    "svd": lambda A: pmaf.svd_ex(A[..., :5], 2).U,
    "principal_projector": lambda A: pmaf.principal_projector_ex(A + A.mT, 2).projector,
    "spectral_function": lambda A: pmaf.spectral_function_ex(A + A.mT, "exp").matrix,
    "dominant_pair": lambda A: pmaf.dominant_pair_ex(A.exp()).eigenvector,
    "less": lambda A: pmaf.less_ex(A[..., :3], A[..., 3]).u,
    "less in the ball": lambda A: pmaf.less_ex(A[..., :3], A[..., 3], weights=A[..., 4].exp(), constraint="ball").u,
    "sphere_quadratic": lambda A: pmaf.sphere_quadratic_ex(A + A.mT, A[..., 0]).u,
}


def resident() -> float:
    """Megabytes of memory in use."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> int:
    """Run, and print how memory developed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--megabytes", type=float, default=20.0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    filled = 0.0
    for step, name in zip(range(options.steps), itertools.cycle(LAYERS), strict=False):
        A = torch.randn(3, 8, 8, requires_grad=True)
        LAYERS[name](A).square().mul(torch.rand(())).sum().backward()
        if step == options.steps // 10 or (step + 1) % max(options.steps // 10, 1) == 0:
            gc.collect()
            filled = filled or resident()
            print(f"step {step + 1}: {resident():.1f} MB", flush=True)
    grown = resident() - filled
    print(f"grown by {grown:.1f} MB")
    return int(grown > options.megabytes)


if __name__ == "__main__":
    sys.exit(main())
