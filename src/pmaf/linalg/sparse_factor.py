r"""Triangular factors of sparse Hermitian matrices, and what their pivots prove.

With pivots taken from the diagonal in an order that keeps the factors sparse,

    S (A − σI) Sᵀ = L U = L D Lᴴ,

so by Sylvester's law D has as many negative entries as A has eigenvalues below σ. In floating-point arithmetic this
is the inertia of A − σI + E with ‖E‖ of about ε ‖|L||D||Lᴴ|‖, which is known once the factors are: where no eigenvalue
is that near to σ, the count is that of A.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["SparseFactor", "SparseMatrix", "available", "depth", "predicted_work"]

NARROW = 100  # how far from the diagonal entries may stand in a matrix whose factors are cheap as it is
ROUNDINGS = 10  # units of rounding that an entry of L D Lᴴ may be off, relative to |L||D||Lᴴ|


@cache
def available() -> bool:
    """Whether SciPy is installed, which brings SuperLU."""
    try:
        import scipy.sparse.linalg  # noqa: F401
    except ImportError:
        return False
    return True


class SparseMatrix:
    """A Hermitian matrix for SciPy, in double precision.

    Args:
        starts: where each row starts, ``(n + 1,)``.
        columns: of the entries, ``(e,)``.
        values: of the entries, ``(e,)``.
        symmetric: whether the matrix is Hermitian to rounding; else its Hermitian part is taken.
    """

    def __init__(self, starts: Tensor, columns: Tensor, values: Tensor, *, symmetric: bool) -> None:
        self.n = len(starts) - 1
        self.order: Any = None  # in which rows and columns are taken, once it is known
        self.arrange(by_columns(starts, columns, values, symmetric))

    def arrange(self, A: Any) -> None:
        """Take A, which has an entry on all of its diagonal from now on, for shifts."""
        import scipy.sparse as sp

        columns = np.repeat(np.arange(self.n), np.diff(A.indptr))
        self.diagonal = np.flatnonzero(A.indices == columns)
        if len(self.diagonal) < self.n:
            ends = np.arange(self.n)
            where = np.concatenate((A.indices, ends)), np.concatenate((columns, ends))
            A = sp.coo_array((np.concatenate((A.data, np.zeros(self.n, A.dtype))), where), A.shape).tocsc()
            self.diagonal = np.flatnonzero(A.indices == np.repeat(ends, np.diff(A.indptr)))
        self.A = A

    def lower_bound(self, sign: float) -> float:
        """Gershgorin's bound of the smallest eigenvalue of ±A from below."""
        if not self.n:
            return 0.0
        diagonal = self.A.data[self.diagonal].real
        radius = np.add.reduceat(np.abs(self.A.data), self.A.indptr[:-1]) - np.abs(diagonal)
        return float(np.min(sign * diagonal - radius))

    def shifted(self, sign: float, shift: float) -> Any:
        """±A − shift·I in compressed columns, rows and columns in the order that is in use."""
        import scipy.sparse as sp

        data = sign * self.A.data
        data[self.diagonal] -= shift
        return sp.csc_array((data, self.A.indices, self.A.indptr), shape=self.A.shape)

    def factor(self, sign: float, shift: float) -> SparseFactor | None:
        """The factors of ±A − shift·I; none where a pivot vanishes. The first ones find the order for all.

        Raises:
            MemoryError: if they do not fit into memory.
        """
        from scipy.sparse.linalg import splu

        M = self.shifted(sign, shift)
        ordering = "MMD_AT_PLUS_A" if self.order is None else "NATURAL"
        try:
            lu = splu(M, permc_spec=ordering, diag_pivot_thresh=0.0, options={"SymmetricMode": True})
        except RuntimeError:  # exactly singular
            return None
        except MemoryError:
            raise MemoryError(
                f"pmaf: the factors of a sparse matrix of order {self.n} do not fit into memory; solver='davidson' "
                "(pip install 'pmaf[multigrid]') and solver='block_lanczos' need none"
            ) from None
        found = SparseFactor(lu, sign, shift, self.order)
        if self.order is None and found.from_diagonal:
            self.order = np.argsort(lu.perm_c)
            self.arrange(self.permuted(self.A))
        return found

    def permuted(self, A: Any) -> Any:
        """A with its rows and columns in order."""
        A = A[self.order][:, self.order]
        A.sort_indices()
        return A


def by_columns(starts: Tensor, columns: Tensor, values: Tensor, symmetric: bool) -> Any:
    """A Hermitian matrix for SciPy in compressed columns, in double precision; the Hermitian part of another."""
    import scipy.sparse as sp

    n = len(starts) - 1
    wide = values.detach().to(torch.complex128 if values.is_complex() else torch.float64)
    # Rows of A are the columns of Aᵀ, and Aᵀ is the conjugate of a Hermitian A.
    A = sp.csc_array((wide.conj().resolve_conj().numpy(), columns.int().numpy(), starts.int().numpy()), shape=(n, n))
    if not symmetric:
        A = sp.csc_array((A + A.conj().T) / 2)
    if not A.has_canonical_format:
        A = A.copy()  # of what may be the caller's memory
        A.sum_duplicates()
    return A


class SparsePencil(SparseMatrix):
    """Two Hermitian matrices A and B, for factors of ±A − σB.

    Args:
        of_A: starts, columns and values, as for a :class:`SparseMatrix`.
        of_B: the same.
        symmetric: of each, whether it is Hermitian to rounding.
    """

    def __init__(
        self,
        of_A: tuple[Tensor, Tensor, Tensor],
        of_B: tuple[Tensor, Tensor, Tensor],
        symmetric: tuple[bool, bool],
    ) -> None:
        self.B = by_columns(*of_B, symmetric[1])
        self.lightest = float(np.min(self.B.diagonal().real, initial=np.inf))
        self.n, self.order = len(of_A[0]) - 1, None
        self.arrange(by_columns(*of_A, symmetric[0]))

    def arrange(self, A: Any) -> None:
        """Take A and B in the order that is in use."""
        self.A = A
        if self.order is not None:
            self.B = self.permuted(self.B)

    def shifted(self, sign: float, shift: float) -> Any:
        """±A − shift·B in compressed columns."""
        M = (sign * self.A - shift * self.B).tocsc()
        M.sort_indices()
        return M


class SparseFactor:
    """The factors of ±A − σI.

    Args:
        lu: of SciPy.
        sign: 1 or −1.
        shift: σ.
        order: in which rows and columns were taken before; as they are if not given.
    """

    def __init__(self, lu: Any, sign: float, shift: float, order: Any = None) -> None:
        self.lu, self.sign, self.shift, self.order = lu, sign, shift, order
        self.from_diagonal = bool(np.array_equal(lu.perm_r, lu.perm_c))
        self.margin = float("inf")  # how near to σ an eigenvalue would have to be for the count to be wrong
        self.negative = -1  # eigenvalues of ±A below σ; unknown if negative

    def count(self) -> int:
        """How many eigenvalues of ±A lie below σ; −1 where the pivots do not tell."""
        if self.negative < 0 and self.from_diagonal:
            U = self.lu.U
            d = U.diagonal()
            if np.all(d.real > 0) and np.all(np.isfinite(d)):
                self.negative, self.margin = 0, 0.0  # Cholesky's method: as stable as can be
            elif np.all(np.isfinite(d)) and np.all(d != 0):
                size = np.abs(U.data)
                across = np.bincount(U.indices, size, len(d)) / np.abs(d)
                bulk = np.add.reduceat(size * across[U.indices], U.indptr[:-1])  # |L||D||Lᴴ| 1
                self.margin = ROUNDINGS * float(np.finfo(np.float64).eps) * float(np.max(bulk, initial=0.0))
                self.negative = int(np.count_nonzero(d.real < 0))
        return self.negative

    def solve(self, V: Tensor) -> Tensor:
        """(±A − σI)⁻¹ V for a block V, ``(n, p)``."""
        right = V.detach().resolve_conj().numpy()
        if self.order is not None:
            right = right[self.order]
        column = np.ascontiguousarray(right[:, 0]) if right.shape[1] == 1 else np.asfortranarray(right)
        solved = self.lu.solve(column)
        if self.order is not None:
            there, solved = solved, np.empty_like(solved)
            solved[self.order] = there
        solution = torch.from_numpy(solved)
        return solution[:, None] if solution.dim() == 1 else solution


def predicted_work(starts: Tensor, columns: Tensor) -> tuple[float, float]:
    """About how many entries the factors have and how many operations they cost, from how wide the graph is.

    The levels of a breadth-first search from a far end are separators. The widest one, of w nodes, becomes a dense
    block of w² entries and w³ operations, which dominates except where w is small. Where no entry is farther than a
    small w from the diagonal, that is how wide the graph is, and nothing needs to be searched.

    Args:
        starts: where each row starts, ``(n + 1,)``.
        columns: of the entries, ``(e,)``.

    Returns:
        Entries and operations.
    """
    n = len(starts) - 1
    average = len(columns) / max(n, 1)
    rows = np.repeat(np.arange(n), np.diff(starts.numpy()))
    width = float(np.max(np.abs(rows - columns.numpy()), initial=0))  # as the entries stand
    if width > NARROW:
        width = float(levels(starts, columns).max())
    entries = n * (average + 4 * np.log2(max(width, 2))) + 6 * width**2
    return float(entries), float(8 * width**3 + 4 * entries * np.log2(max(width, 2)))


def depth(starts: Tensor, columns: Tensor) -> int:
    """How many levels a breadth-first search has from a far end: about the steps it takes to cross the graph."""
    return len(levels(starts, columns))


def levels(starts: Tensor, columns: Tensor) -> Any:
    """How many nodes there are in each level of a breadth-first search from a far end of the largest component."""
    import scipy.sparse as sp
    from scipy.sparse.csgraph import breadth_first_order, connected_components

    n = len(starts) - 1
    graph = sp.csr_array((np.ones(len(columns)), columns.int().numpy(), starts.int().numpy()), shape=(n, n))
    parts, label = connected_components(graph, directed=False)
    sizes = np.bincount(label, minlength=parts)
    first = int(np.argmax(label == np.argmax(sizes)))
    order, before = breadth_first_order(graph, first, directed=False)
    order, before = breadth_first_order(graph, int(order[-1]), directed=False)
    root = order[0]
    before = np.where(before < 0, np.arange(n), before)
    level = (before != np.arange(n)).astype(np.int64)
    while np.any(before[order] != root):  # pointers to ancestors, twice as far each time
        level, before = level + level[before], before[before]
    return np.bincount(level[order])
