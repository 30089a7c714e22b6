r"""All eigenpairs by LAPACK or cuSOLVER, of which the wanted ones are kept.

A Gram matrix FᴴF is treated by its smaller side, and float32 factors in float64: squaring σ keeps a singular value of
3e-5 beside one of 1 apart there, and the product of two float32 numbers is exact. A float64 factor whose smallest
singular vectors are wanted, or whose leading ones are tiny, goes through the singular value decomposition instead.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from pmaf.linalg.bordered import safe_inverse
from pmaf.linalg.dtypes import double
from pmaf.linalg.refinement import polished
from pmaf.linalg.robust_eigh import hermitian_eigh
from pmaf.linalg.scaling import divisor
from pmaf.linalg.vectors import completed
from pmaf.operators.base import Operator
from pmaf.operators.dense import Dense
from pmaf.operators.gram import Gram
from pmaf.operators.sparse import Sparse
from pmaf.solvers.base import EigenAnswer, Solver

__all__ = ["Eigh", "at_once", "nearest"]

WIDE = 24  # order up to which a decomposition in double costs less than the repair of one in single precision

FEW_ROWS = 100  # order up to which a sparse matrix is decomposed at once


def at_once(X: Operator, k: int) -> bool:
    """Whether a matrix is dense already, or so small that no iteration pays.

    Args:
        X: the matrix.
        k: how many pairs are wanted.

    Returns:
        Whether :class:`Eigh` is the way.
    """
    return isinstance(X, (Dense, Gram)) or (isinstance(X, Sparse) and X.n <= max(FEW_ROWS, 4 * k))


def gram_decomposition(F: Tensor, k: int, largest: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Eigenpairs of FᴴF from the factor.

    Args:
        F: ``(*, r, n)``, in double precision, scaled to order one.
        k: how many are wanted.
        largest: from the top of the spectrum, else from the bottom.

    Returns:
        Spectrum, ascending; basis, either (*, n, n) of FᴴF or (*, r, r) of F Fᴴ; the wanted vectors, ``(*, n, k)``,
        in the order of the spectrum; and a mask of the items that succeeded.
    """
    r, n = F.shape[-2:]
    rows = r < n and largest and k <= r
    s, V, done = hermitian_eigh(F @ F.mH if rows else F.mH @ F)
    s = s.clamp(min=0)
    if not rows:
        return s, V, V[..., n - k :] if largest else V[..., :k], done
    wanted = F.mH @ V[..., r - k :]
    length = torch.linalg.vector_norm(wanted, dim=-2, keepdim=True)
    U = wanted / torch.where(length > 0, length, 1)
    # Columns of tiny σ lose their orthogonality; one QR of the few wanted columns, largest first, restores it.
    return s, V, completed(U.flip(-1)).flip(-1), done


def singular_decomposition(F: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Squared singular values, ascending, a complete basis of right singular vectors, and a mask of usable items."""
    r, n = F.shape[-2:]
    usable = torch.isfinite(F).flatten(-2).all(-1)
    F = torch.where(usable[..., None, None], F, 0)
    if r > n:
        F = torch.linalg.qr(F, mode="r")[1]
    _, sigma, Vh = torch.linalg.svd(F, full_matrices=True)
    s = torch.nn.functional.pad(sigma, (0, n - sigma.shape[-1])).square()
    return s.flip(-1), Vh.mH.flip(-1), usable


@dataclass(frozen=True, kw_only=True)
class Eigh(Solver):
    """All eigenpairs by ``torch.linalg.eigh``, with a rescue in float64 where it does not converge.

    Cost: O(n³) for each item, O(r²n + r³) for the Gram matrix of an ``(r, n)`` factor with r < n.

    Example:
        >>> import torch, pmaf
        >>> pmaf.ied(torch.diag(torch.tensor([1.0, 3.0])), 1, solver=pmaf.solvers.Eigh()).eigenvalues
        tensor([3.])
    """

    needs = "the matrix, O(n³)"
    use = "Gram matrices by their factor, and traced graphs; the default for them"
    leaves_basis = True

    def solve(self, X: Operator, k: int, largest: bool, start: Tensor | None = None) -> EigenAnswer:
        """Find the k largest (smallest) eigenpairs of every item.

        Args:
            X: the operator; anything but a Gram matrix is made dense.
            k: how many pairs.
            largest: algebraically largest, else smallest.
            start: refused, since a direct method has no use for it.

        Returns:
            The pairs and the eigenbasis.

        Raises:
            ValueError: if ``start`` is given.
        """
        self.accept(X, k, start)
        if isinstance(X, Gram):
            return self._solve_gram(X.factor, k, largest)
        A = X.dense()
        n, wide = A.shape[-1], double(A)
        single = A.dtype != wide
        if single and n <= WIDE:
            s, V, done = hermitian_eigh(A.to(wide))
            s, V = s.to(A.real.dtype), V.to(A.dtype)
        else:
            s, V, done = hermitian_eigh(A)
        wanted = slice(n - k, n) if largest else slice(0, k)
        values, vectors = s[..., wanted], V[..., wanted]
        if largest and k > 1:
            values, vectors = values.flip(-1), vectors.flip(-1)
        if single and n > WIDE:
            vectors = polished(A, vectors, partial(newton_steps, s, V))
        return EigenAnswer(
            values, vectors, done, torch.ones_like(done, dtype=torch.int64), nearest(s, k, largest), s, V
        )

    def _solve_gram(self, F: Tensor, k: int, largest: bool) -> EigenAnswer:
        """The same from the factor."""
        scale = divisor(F.detach().abs().amax((-2, -1), keepdim=True))
        small = torch.finfo(F.dtype).eps ** 0.4  # a square that is left with few digits
        G = (F / scale).to(double(F))
        if F.dtype != G.dtype or largest:
            s, V, U, done = gram_decomposition(G, k, largest)
        if F.dtype == G.dtype and (not largest or bool((s[..., -k] <= small * s[..., -1]).any())):
            s, V, done = singular_decomposition(G)
            U = V[..., -k:] if largest else V[..., :k]
        scaled = s * scale[..., 0].to(s.dtype).square()
        values = (scaled[..., -k:].flip(-1) if largest else scaled[..., :k]).to(F.real.dtype)
        vectors = (U.flip(-1) if largest else U).to(F.dtype)
        outside = nearest(scaled, k, largest)
        if largest and k == s.shape[-1] < F.shape[-1]:  # all non-zero ones taken: the next one is zero
            outside = torch.zeros_like(outside)
        return EigenAnswer(
            values,
            vectors,
            done,
            torch.ones_like(done, dtype=torch.int64),
            outside.to(values.dtype),
            scaled.to(values.dtype),
            V.to(F.dtype),
        )


def newton_steps(s: Tensor, V: Tensor, residual: Tensor, theta: Tensor) -> Tensor:
    """Σ_j v_j (v_jᴴr)/(θ − s_j) over the eigenvectors that are separated from u; rows, ``(*, k, n)``."""
    difference = theta.to(s.dtype) - s[..., None, :]  # (*, k, n)
    keep = difference.abs() > torch.finfo(s.dtype).eps ** 0.5 * s.abs().amax(-1)[..., None, None]
    return (safe_inverse(difference, keep) * (residual @ V)) @ V.mH


def nearest(s: Tensor, k: int, largest: bool) -> Tensor:
    """The eigenvalue next to the k selected ones; infinitely far where none is left."""
    n = s.shape[-1]
    if k == n:
        return torch.full_like(s[..., 0], -torch.inf if largest else torch.inf)
    return s[..., n - k - 1] if largest else s[..., k]
