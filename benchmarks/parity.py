"""What decides how often PGD+RM+BLSOne+DW reaches its hundred steps: the rounding of the objective.

Near the optimum the direction weight 1 − cos(x, d) goes to zero with the square of the distance, so the objective falls
by less than its own last digit, and the iteration ends when two values round to the same number. How ½‖A x − b‖² is
written therefore moves the counts; as an inner product of a misfit computed anew it gives the published ones. One
problem at a time, in the order of operations of the description, in float32:

    python benchmarks/parity.py 12x6 64x32
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch import Tensor

Objective = Callable[[Tensor], Tensor]
OBJECTIVES: dict[str, Objective] = {
    "norm, then square": lambda misfit: 0.5 * torch.linalg.vector_norm(misfit) ** 2,
    "sum of squares": lambda misfit: 0.5 * (misfit**2).sum(),
    "inner product": lambda misfit: 0.5 * (misfit.mT @ misfit)[0, 0],
}


def steps(A: Tensor, b: Tensor, free: Tensor, objective: Objective, linear: bool) -> int:
    """How many steps one problem takes, at most a hundred.

    Args:
        A: ``(m, n)``.
        b: ``(m, 1)``.
        free: A⁺b, ``(n, 1)``.
        objective: of a misfit.
        linear: whether the Armijo test takes the misfit from that at x, or computes it anew.
    """
    outside = bool(torch.linalg.vector_norm(free) >= 1)
    x = free / torch.linalg.vector_norm(free)
    misfit = A @ x - b
    f = objective(misfit)
    for step in range(1, 101):
        gradient = A.mT @ misfit
        xi = gradient - x * (x.mT @ gradient)
        cosine = torch.nn.functional.cosine_similarity(x, -gradient if outside else gradient, dim=0)[0]
        weight, slope, image = 1 - cosine, 0.5 * (xi**2).sum(), A @ xi
        eta = torch.ones(())
        for _ in range(200):
            t = weight * eta
            trial = misfit - t * image if linear else A @ (x - t * xi) - b
            if not bool(objective(trial) > f - t * slope):
                break
            eta = eta * 0.8
        x = x - weight * eta * xi
        x = x / torch.linalg.vector_norm(x)
        misfit = A @ x - b
        before, f = f, objective(misfit)
        if abs(float(f - before)) < 1e-7:
            return step
    return 100


def main() -> None:
    """Print counts inside and outside for every way to write the objective."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", nargs="+")
    parser.add_argument("--problems", type=int, default=1000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for size in options.sizes:
        m, n = map(int, size.split("x"))
        for name, objective in OBJECTIVES.items():
            for linear in (True, False):
                counts = [0, 0]
                for seed in range(options.problems):
                    torch.manual_seed(seed)
                    A, b = torch.randn(m, n), torch.randn(m, 1)
                    free = torch.linalg.pinv(A) @ b
                    if steps(A, b, free, objective, linear) == 100:
                        counts[int(torch.linalg.vector_norm(free) >= 1)] += 1
                print(
                    f"{size}: {name}, {'linear' if linear else 'anew'}: inside {counts[0]}, outside {counts[1]}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
