"""Square roots of covariance matrices: pmaf, eigh with autograd, and Newton–Schulz, by time and error of both passes.

Run ``python benchmarks/spectral_function.py`` (about two minutes on one core), or with ``--quick`` for one size.
Matrices are float32; errors are measured against Denman and Beavers' iteration with autograd in float64, which shares
nothing with any of the methods. The loss of the backward pass is a fixed linear function of the root.

Spectra: *covariance*, of 2n Gaussian rows; *ill*, condition 10⁴, as of features that are correlated; *repeated*, the
identity but for three directions, as after shrinkage or whitening; *identity*, where training often begins.

Newton–Schulz is that of iSQRT-COV (Li, Xie, Wang, Gao, 2018): five steps after division by the trace, which their
network learns to live with, and twelve.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

import pmaf
from harness import Row, alternate, report

Root = Callable[[Tensor], Tensor]
SIZES = ((64, 64), (64, 16), (1000, 8), (8, 256), (1, 64))
SPECTRA = ("covariance", "ill", "repeated", "identity")


def matrices(spectrum: str, batch: int, n: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Symmetric positive definite matrices with this spectrum."""
    generator = torch.Generator().manual_seed(n)
    if spectrum == "covariance":
        F = torch.randn(batch, 2 * n, n, generator=generator, dtype=dtype)
        return F.mT @ F / (2 * n)
    values = torch.ones(n, dtype=dtype)
    if spectrum == "ill":
        values = torch.logspace(0, -4, n, dtype=dtype)
    elif spectrum == "repeated":
        values[:3] = torch.tensor([9.0, 4.0, 3.0])
    Q = torch.linalg.qr(torch.randn(batch, n, n, generator=generator, dtype=dtype))[0]
    X = (Q * values) @ Q.mT
    return (X + X.mT) / 2


def ours(fn: str) -> Root:
    """The library."""
    return lambda X: pmaf.spectral_function(X, fn)


def eigh(fn: str) -> Root:
    """What people write; its gradient divides by differences of eigenvalues."""

    def root(X: Tensor) -> Tensor:
        s, U = torch.linalg.eigh(X)
        f = s.clamp(min=0).sqrt() if fn == "sqrt" else s.rsqrt()
        return (U * f[..., None, :]) @ U.mT

    return root


def newton_schulz(fn: str, steps: int) -> Root:
    """Products alone, unrolled."""

    def root(X: Tensor) -> Tensor:
        trace = X.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
        eye = torch.eye(X.shape[-1], dtype=X.dtype)
        Y, Z = X / trace, eye.expand_as(X)
        for _ in range(steps):
            T = (3 * eye - Z @ Y) / 2
            Y, Z = Y @ T, T @ Z
        return Y * trace.sqrt() if fn == "sqrt" else Z / trace.sqrt()

    return root


def denman_beavers(fn: str) -> Root:
    """The reference, by inverses."""

    def root(X: Tensor) -> Tensor:
        Y, Z = X, torch.eye(X.shape[-1], dtype=X.dtype).expand_as(X)
        for _ in range(20):
            Y, Z = (Y + torch.linalg.inv(Z)) / 2, (Z + torch.linalg.inv(Y)) / 2
        return Y if fn == "sqrt" else Z

    return root


def both(root: Root, X: Tensor, W: Tensor) -> tuple[Tensor, Tensor]:
    """The root, and the gradient of the loss."""
    X = X.detach().requires_grad_()
    Y = root((X + X.mT) / 2)
    return Y.detach(), torch.autograd.grad((W * Y).sum(), X)[0]


def error(found: Tensor, truth: Tensor) -> float:
    """The largest relative error of an item, in the Frobenius norm; NaN if any entry is."""
    difference = torch.linalg.matrix_norm(found.double() - truth) / torch.linalg.matrix_norm(truth)
    return float(difference.max()) if bool(difference.isfinite().all()) else float("nan")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="only 64 matrices of order 64")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    rows: list[Row] = []
    for batch, n in SIZES[:1] if arguments.quick else SIZES:
        for fn in ("sqrt", "inverse_sqrt"):
            for spectrum in SPECTRA:
                X = matrices(spectrum, batch, n)
                W = torch.randn(batch, n, n, generator=torch.Generator().manual_seed(1), dtype=X.dtype)
                W = (W + W.mT) / 2
                some = slice(0, min(batch, 8))  # the reference is slow
                truth = both(denman_beavers(fn), X[some], W[some])
                methods = {
                    "pmaf": ours(fn),
                    "eigh, autograd": eigh(fn),
                    "Newton–Schulz, 5": newton_schulz(fn, 5),
                    "Newton–Schulz, 12": newton_schulz(fn, 12),
                }
                x, w = X.float(), W.float()
                tasks = {name: partial(both, method, x, w) for name, method in methods.items()}
                times = alternate(tasks, arguments.rounds)
                for name, method in methods.items():
                    value, gradient = both(method, x[some], w[some])
                    rows.append(
                        {
                            "function": fn,
                            "spectrum": spectrum,
                            "size": f"{batch}×{n}×{n}",
                            "method": name,
                            "ms": 1e3 * times[name],
                            "times_eigh": times[name] / times["eigh, autograd"],
                            "error": error(value, truth[0]),
                            "gradient_error": error(gradient, truth[1]),
                        }
                    )
    report("spectral_function", "Roots of covariance matrices, forward and backward, float32", rows)


if __name__ == "__main__":
    main()
