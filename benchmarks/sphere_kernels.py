"""Least squares on the sphere by the compiled kernels, in units of the product AᵀA that any method has to form.

Run ``python benchmarks/sphere_kernels.py``, a minute on one core; with ``PMAF_KERNELS=avx2`` or ``off`` in front of it
for other instruction sets. Problems are Gaussian, float32, radius one. *solver* is the same call with
``solver="secular"``, by the general path; *backward error* is the median error of the gradient of A, relative to that
in double precision. The last row is one small problem, forward and backward, beside ``torch.linalg.lstsq``, which is
not constrained.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor

import pmaf
from harness import Row, alternate, report
from pmaf.kernels import reason

COLUMNS = (
    "case",
    "kernels",
    "product_us",
    "forward_products",
    "recorded_products",
    "backward_over_forward",
    "solver_over_forward",
    "lstsq_over_both",
    "backward_error",
)
SIZES = ((1000, 64, 32), (64, 1024, 256), (100_000, 8, 3))


def problems(batch: int, m: int, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """A, b and a cotangent of u."""
    random = torch.Generator().manual_seed(0)
    return tuple(torch.randn(*shape, generator=random) for shape in ((batch, m, n), (batch, m), (batch, n)))  # type: ignore[return-value]


def gradient_error(A: Tensor, b: Tensor, c: Tensor) -> float:
    """The median over items of the relative error of the gradient of A."""
    found = []
    for kind in (torch.float32, torch.float64):
        leaf = A.to(kind).requires_grad_()
        (gradient,) = torch.autograd.grad((pmaf.less(leaf, b.to(kind)) * c.to(kind)).sum(), leaf)
        found.append(gradient.double())
    error = torch.linalg.matrix_norm(found[0] - found[1]) / torch.linalg.matrix_norm(found[1])
    return float(error.median())


def compare(batch: int, m: int, n: int, rounds: int, seconds: float) -> Row:
    """One size."""
    A, b, c = problems(batch, m, n)
    leaf, right = A.clone().requires_grad_(), b.clone().requires_grad_()
    loss = (pmaf.less(leaf, right) * c).sum()
    tasks = {
        "product": lambda: A.mT @ A,
        "forward": lambda: pmaf.less(A, b),
        "recorded": lambda: pmaf.less(leaf, right),
        "backward": lambda: torch.autograd.grad(loss, (leaf, right), retain_graph=True),
        "solver": lambda: pmaf.less(A, b, solver="secular"),
    }
    times = alternate(tasks, rounds, seconds)
    return {
        "case": f"{batch}x{m}x{n}",
        "kernels": reason().split(" ")[0],
        "product_us": 1e6 * times["product"],
        "forward_products": times["forward"] / times["product"],
        "recorded_products": times["recorded"] / times["product"],
        "backward_over_forward": times["backward"] / times["recorded"],
        "solver_over_forward": times["solver"] / times["forward"],
        "lstsq_over_both": None,
        "backward_error": gradient_error(A[:1000], b[:1000], c[:1000]),
    }


def one_small(rounds: int, seconds: float) -> Row:
    """One 20×3 problem, forward and backward, beside lstsq."""
    A, b, _ = problems(1, 20, 3)
    A.requires_grad_()

    def ours() -> object:
        return torch.autograd.grad(pmaf.less(A, b).sum(), A)

    def theirs() -> object:
        return torch.autograd.grad(torch.linalg.lstsq(A, b[..., None]).solution.sum(), A)

    times = alternate({"ours": ours, "lstsq": theirs}, rounds, seconds)
    row: Row = dict.fromkeys(COLUMNS, None)
    row |= {"case": "1x20x3", "kernels": reason().split(" ")[0], "lstsq_over_both": times["lstsq"] / times["ours"]}
    return row


def main() -> None:
    """Run every case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0, help="most time a task may take in one case")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    rows = [compare(*size, chosen.rounds, chosen.seconds) for size in SIZES]
    rows.append(one_small(chosen.rounds, chosen.seconds))
    name = reason().split(" ")[0] if pmaf.kernels.available() else "off"
    report(f"sphere_{name}", "Least squares on the sphere in units of the product AᵀA, one thread", rows)


if __name__ == "__main__":
    main()
