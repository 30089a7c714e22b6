"""LU factorisations that return, however many threads torch runs.

With more than one thread, torch 2.13 factorises the items of a batch on the CPU side by side, each by an MKL that
itself starts threads. From about order 150 on, MKL then prints "Parameter 6 was incorrect on entry to SLASWP" and the
call does not return, or returns garbage (pytorch#142815, #141358; #181570 proposes a mend). ``lu_factor``,
``lu_solve``, ``solve``, ``inv`` and ``det`` are affected; Cholesky, QR, triangular solves, eigh and svd are not, and
neither is a single matrix. So the items are handed over one by one wherever the fault can strike, which costs no time
there: one matrix of that size is work enough for a call. Setting the number of threads for the call instead would
change it for every other Python thread of the process as well.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["lu_factor", "lu_solve", "solve"]

SAFE_ORDER = 64  # up to which a batch was never seen to fail


def at_risk(A: Tensor) -> bool:
    """Whether the fault can strike a batch of matrices ``(*, n, n)``."""
    return A.dim() > 2 and A.shape[-1] > SAFE_ORDER and A.is_cpu


def items(x: Tensor, batch: torch.Size, core: int) -> tuple[Tensor, ...]:
    """The items of x, whose batch dimensions are broadcast to ``batch``."""
    shape = x.shape[x.dim() - core :]
    return x.expand(*batch, *shape).reshape(batch.numel(), *shape).unbind()


def lu_factor(A: Tensor) -> tuple[Tensor, Tensor]:
    """The factorisation PA = LU of square matrices, exactly singular ones included.

    Args:
        A: ``(*, n, n)``.

    Returns:
        LU, ``(*, n, n)``, and the pivots, ``(*, n)``, for :func:`lu_solve`.
    """
    if not at_risk(A) or A.numel() == 0:
        LU, pivots, _ = torch.linalg.lu_factor_ex(A)
        return LU, pivots
    found = [torch.linalg.lu_factor_ex(a) for a in items(A, A.shape[:-2], 2)]
    LU = torch.stack([f[0] for f in found]).reshape(A.shape)
    return LU, torch.stack([f[1] for f in found]).reshape(A.shape[:-1])


def lu_solve(LU: Tensor, pivots: Tensor, B: Tensor) -> Tensor:
    """A⁻¹B from the factorisation of A.

    Args:
        LU: ``(*, n, n)``, from :func:`lu_factor`.
        pivots: ``(*, n)``, likewise.
        B: ``(*, n, p)``, of the same batch.

    Returns:
        ``(*, n, p)``.
    """
    if not at_risk(LU) or LU.numel() == 0:
        solution: Tensor = torch.linalg.lu_solve(LU, pivots, B)
        return solution
    batch = LU.shape[:-2]
    parts = zip(items(LU, batch, 2), items(pivots, batch, 1), items(B, batch, 2), strict=True)
    return torch.stack([torch.linalg.lu_solve(*part) for part in parts]).reshape(*batch, *B.shape[-2:])


def solve(A: Tensor, B: Tensor) -> Tensor:
    """A⁻¹B, infinite or NaN where A is exactly singular.

    Args:
        A: ``(*, n, n)``.
        B: ``(*, n, p)``; the batch dimensions broadcast.

    Returns:
        ``(*, n, p)``.
    """
    if not at_risk(A) or A.numel() == 0:
        solution: Tensor = torch.linalg.solve_ex(A, B)[0]
        return solution
    batch = torch.broadcast_shapes(A.shape[:-2], B.shape[:-2])
    parts = zip(items(A, batch, 2), items(B, batch, 2), strict=True)
    return torch.stack([torch.linalg.solve_ex(*part)[0] for part in parts]).reshape(*batch, *B.shape[-2:])
