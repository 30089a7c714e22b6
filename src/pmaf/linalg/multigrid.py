"""Algebraic multigrid as an approximate inverse of a sparse matrix that is too wide to be factorised."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["Multigrid", "available"]


@cache
def available() -> bool:
    """Whether PyAMG is installed."""
    try:
        import pyamg  # noqa: F401
    except ImportError:
        return False
    return True


class Multigrid:
    """A symmetric cycle of smoothed aggregation for ±A − σI, which is taken to be positive definite.

    Args:
        M: ±A − σI, a SciPy matrix in compressed columns.
        sign: 1 or −1.
        shift: σ.
    """

    def __init__(self, M: Any, sign: float, shift: float) -> None:
        import pyamg

        self.sign, self.shift, self.n = sign, shift, M.shape[0]
        rows = M.T.conj().tocsr()  # Hermitian: the same matrix by rows
        rows.sort_indices()
        state = np.random.get_state()  # noqa: NPY002  PyAMG draws from it, and others should not notice
        np.random.seed(0)  # noqa: NPY002
        try:
            build: Any = pyamg.smoothed_aggregation_solver
            levels = build(rows, symmetry="hermitian", max_coarse=100)
        finally:
            np.random.set_state(state)  # noqa: NPY002
        self.cycle = levels.aspreconditioner(cycle="V")

    def solve(self, V: Tensor) -> Tensor:
        """About (±A − σI)⁻¹ V for a block V, ``(n, p)``."""
        columns = V.detach().resolve_conj().mT.contiguous().numpy()
        return torch.from_numpy(np.stack([self.cycle.matvec(column) for column in columns])).mT
