r"""Products with a sparse matrix whose pattern is fixed and whose values are a differentiable tensor.

The pattern is turned into compressed rows once. Where nobody follows the operations, a product is one call of the
compressed-row kernel, ten times faster than that of the coordinate format; else it is written with gathers, which every
transform of torch knows:

    (A V)_i = Σ_e [row_e = i] a_e V[column_e],     ∂Re⟨Y, A V⟩/∂a_e = Re⟨Y[row_e], V[column_e]⟩.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cache, cached_property

import torch
from torch import Tensor

from pmaf.linalg.sparse_factor import predicted_work
from pmaf.linalg.vectors import first_vector
from pmaf.operators.base import Operator
from pmaf.operators.factors import Factors
from pmaf.transforms import readable, untracked

__all__ = ["Pattern", "Sparse", "pattern_and_values"]

SINGLY = 4  # columns up to which a block is multiplied one by one; one less where rows are
DENSER = 8  # as long as this


class Pattern:
    """Where the entries of a sparse matrix stand.

    Args:
        rows: row of each entry, ascending, ``(e,)``.
        columns: column of each entry, ``(e,)``.
        shape: rows and columns of the matrix.
    """

    def __init__(self, rows: Tensor, columns: Tensor, shape: tuple[int, int]) -> None:
        self.rows, self.columns, self.shape = rows, columns, shape

    @cached_property
    def compressed(self) -> tuple[Tensor, Tensor]:
        """Where each row starts, and the columns, in the narrowest type of index; it makes products faster."""
        index = torch.int32 if max(*self.shape, len(self.rows)) < 2**31 else torch.int64
        counts = torch.bincount(self.rows, minlength=self.shape[0])
        return torch.nn.functional.pad(counts.cumsum(0), (1, 0)).to(index), self.columns.to(index)

    @cached_property
    def transposed(self) -> tuple[Pattern, Tensor]:
        """The pattern of the transpose, and the order in which its entries take the values."""
        order = torch.argsort(self.columns, stable=True)
        return Pattern(self.columns[order], self.rows[order], self.shape[::-1]), order

    @cached_property
    def factor_work(self) -> tuple[float, float]:
        """About how many entries the factors of a square matrix have, and how many operations they cost."""
        return predicted_work(*self.compressed)

    def sides(self) -> tuple[tuple[int, Tensor], tuple[int, Tensor]]:
        """How many rows there are and which one each entry is in, and the same of columns."""
        return (self.shape[0], self.rows), (self.shape[1], self.columns)

    def matmat(self, values: Tensor, V: Tensor) -> Tensor:
        """A V for values ``(e,)`` and V ``(n, p)``."""
        if not untracked(values, V):
            return V.new_zeros(self.shape[0], V.shape[-1]).index_add(0, self.rows, values[:, None] * V[self.columns])
        matrix = compressed_rows(*self.compressed, values, self.shape)
        denser = len(self.rows) > DENSER * self.shape[0]
        if 0 < V.shape[-1] <= SINGLY - denser:  # a vector at a time is faster for few, and a block in rows for many
            columns = [matrix @ v for v in V.unbind(-1)]
            return columns[0][:, None] if len(columns) == 1 else torch.stack(columns).mT
        product: Tensor = matrix @ V.contiguous()
        return product

    def adjoint(self, values: Tensor, Y: Tensor) -> Tensor:
        """Aᴴ Y for values ``(e,)`` and Y ``(m, p)``."""
        if not untracked(values, Y):
            return self.scattered(values, Y)
        pattern, order = self.transposed
        return pattern.matmat(values[order].conj().resolve_conj(), Y)

    def scattered(self, values: Tensor, Y: Tensor) -> Tensor:
        """Aᴴ Y without the transposed pattern, entry by entry."""
        return Y.new_zeros(self.shape[1], Y.shape[-1]).index_add(0, self.columns, values.conj()[:, None] * Y[self.rows])

    def vjp(self, Y: Tensor, V: Tensor) -> Tensor:
        """The gradient of Re⟨Y, A V⟩ with respect to the values: the entries of Y Vᴴ on the pattern, ``(e,)``."""
        total = torch.zeros((), dtype=Y.dtype, device=Y.device)
        for y, v in zip(Y.unbind(-1), V.conj().unbind(-1), strict=True):  # a gather from one vector is the fastest
            total = total + y[self.rows] * v[self.columns]
        return total


def compressed_rows(starts: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    """The matrix in torch's compressed-row layout, without a copy."""
    take_note_of_beta()
    matrix: Tensor = torch.sparse_csr_tensor(starts, columns, values, shape, check_invariants=False)
    return matrix


@cache
def take_note_of_beta() -> None:
    """Hear, once, torch's only remark that the layout is in beta, which users of products cannot act on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        none = torch.zeros(0, dtype=torch.int64)
        torch.sparse_csr_tensor(torch.zeros(1, dtype=torch.int64), none, none, (0, 0), check_invariants=False)


def pattern_and_values(A: Tensor) -> tuple[Pattern, Tensor]:
    """A torch sparse matrix of any layout as a pattern and its values, through which gradients reach the matrix."""
    shape = (int(A.shape[0]), int(A.shape[1]))
    if A.layout == torch.sparse_coo:
        A = A.coalesce()
        rows, columns = A.indices()
        return Pattern(rows, columns, shape), A.values()
    if A.layout != torch.sparse_csr:
        A = A.to_sparse_csr()
    counts = A.crow_indices().detach().diff()
    rows = torch.repeat_interleave(torch.arange(shape[0], device=A.device), counts)
    return Pattern(rows, A.col_indices().detach().long(), shape), A.values()


class Sparse(Operator):
    """A sparse matrix: a fixed pattern and a tensor of values; of a square one the Hermitian part counts.

    Args:
        pattern: where the entries stand.
        values: the entries, ``(e,)``.
    """

    known: bool | None = None  # whether the Hermitian part is found to be X itself, up to rounding

    def __init__(self, pattern: Pattern, values: Tensor) -> None:
        self.pattern, self.tensors = pattern, (values,)
        self.factors = Factors()  # shared with all that is derived from this by other values

    @property
    def n(self) -> int:
        """The columns of the pattern."""
        return self.pattern.shape[1]

    @property
    def rows(self) -> int:
        """Those of the pattern."""
        return self.pattern.shape[0]

    def matmat(self, V: Tensor) -> Tensor:
        """½(X + Xᴴ) V, which one product is enough for where X v and Xᴴ v agree; X V where all of X counts."""
        (values,) = self.tensors
        product = self.pattern.matmat(values, V)
        if not self.hermitian or self.symmetric(V):
            return product
        return (product + self.pattern.adjoint(values, V)) / 2

    def symmetric(self, *given: Tensor) -> bool:
        """Whether Xv and Xᴴv differ by rounding only; no, where nobody may look or autograd follows."""
        (values,) = self.tensors
        if not (untracked(values, *given) and readable(values)):
            return False
        if self.known is None:
            v = first_vector(self.n, self.dtype, self.device, 0)[:, None]
            there, back = self.pattern.matmat(values, v), self.pattern.scattered(values, v)
            off, eps = (there - back).abs(), torch.finfo(self.dtype).eps
            allowed = 4 * eps * (torch.linalg.vector_norm(there) + torch.linalg.vector_norm(back))
            if bool(torch.linalg.vector_norm(off) > allowed):  # by more than the rounding of long sums?
                terms = torch.bincount(self.pattern.rows, minlength=self.n)[:, None].to(off.dtype)
                off = off - 8 * eps * terms.sqrt() * self.pattern.scattered(values.abs(), v.abs())
            self.known = bool(torch.linalg.vector_norm(off.clamp_min(0)) <= allowed)
        return self.known

    def rmatmat(self, Y: Tensor) -> Tensor:
        """Xᴴ Y."""
        return self.matmat(Y) if self.hermitian else self.pattern.adjoint(self.tensors[0], Y)

    @property
    def size(self) -> float:
        """A bound of ‖X‖, the largest sum of magnitudes in a row or a column."""
        size = self.tensors[0].detach().abs()
        sums = [size.new_zeros(m).index_add_(0, at, size).amax() for m, at in self.pattern.sides() if m]
        return float(max(sums, default=0.0))

    def vjp(self, W: Tensor, U: Tensor) -> tuple[Tensor | None, ...]:
        """The entries of sym(W Uᴴ) on the pattern, or of W Uᴴ where all of X counts."""
        if not self.hermitian:
            return (self.pattern.vjp(W, U),)
        return (self.pattern.vjp(torch.cat((W, U), -1), torch.cat((U, W), -1)) / 2,)

    def jvp(self, tangents: Sequence[Tensor | None], U: Tensor) -> Tensor:
        """The product with the same pattern and other values."""
        return self.changed(tangents).matmat(U)

    def jvp_adjoint(self, tangents: Sequence[Tensor | None], Y: Tensor) -> Tensor:
        """The adjoint product with the same pattern and other values."""
        return self.changed(tangents).rmatmat(Y)

    def changed(self, tangents: Sequence[Tensor | None]) -> Sparse:
        """The same pattern with other values."""
        (change,) = tangents
        return self.with_tensors((torch.zeros_like(self.tensors[0]) if change is None else change,))
