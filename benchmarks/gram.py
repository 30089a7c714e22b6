"""``ied`` of a Gram matrix from its factor, beside the matrix formed first and beside a singular value decomposition.

One thread, float32, tasks in alternation: 50,000 factors of 16×3, the largest pair, forward; 2,000 factors of 100×9,
the smallest vector, as of eight-point problems, forward and backward.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch import Tensor

import harness
import pmaf

ROUNDS = 15


def factors(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers, the same in every run."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def with_gradient(solve: Callable[[Tensor], Tensor], F: Tensor, H: Tensor) -> Tensor:
    """Vectors of F, and the gradient of their inner product with H."""
    leaf = F.detach().requires_grad_()
    (gradient,) = torch.autograd.grad((solve(leaf) * H).sum(), leaf)
    return gradient


def row(case: str, ours: str, theirs: str, tasks: dict[str, Callable[[], object]], least: float) -> harness.Row:
    """One line of the table: times and their ratio, beside the least that is asked for."""
    times = harness.alternate(tasks, ROUNDS)
    return {
        "case": case,
        "pmaf": ours,
        "other": theirs,
        "pmaf_ms": times[ours] * 1e3,
        "other_ms": times[theirs] * 1e3,
        "ratio": times[theirs] / times[ours],
        "at_least": least,
    }


def main() -> None:
    """Measure both cases and write the table."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    torch.set_num_threads(1)
    small, problems, H = factors(50_000, 16, 3), factors(2_000, 100, 9), factors(2_000, 9, 1, seed=1)
    formed = {"ied(Gram(F))": lambda: pmaf.ied(pmaf.Gram(small)), "ied(F.mT @ F)": lambda: pmaf.ied(small.mT @ small)}

    def ours(F: Tensor) -> Tensor:
        return pmaf.ied(pmaf.Gram(F), largest=False).eigenvectors

    def theirs(F: Tensor) -> Tensor:
        return torch.linalg.svd(F, full_matrices=False).Vh[..., -1:, :].mT

    decomposed = {
        "ied(Gram(F), largest=False)": lambda: with_gradient(ours, problems, H),
        "torch.linalg.svd": lambda: with_gradient(theirs, problems, H),
    }
    rows = [
        row("50,000 of 16×3, forward", *formed, formed, 0.5),
        row("2,000 of 100×9, forward and backward", *decomposed, decomposed, 5.0),
    ]
    harness.report("gram", "ied of a Gram matrix from its factor", rows)


if __name__ == "__main__":
    main()
