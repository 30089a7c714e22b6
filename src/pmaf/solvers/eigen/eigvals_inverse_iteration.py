r"""One eigenpair of a dense matrix: all eigenvalues first, then the one vector by inverse iteration.

Eigenvalues alone cost about half of a full eigendecomposition. With the wanted one known to a few units of rounding,
δ away from it, the steps

    (X − σI) y = v,   v⁺ = y/‖y‖,   σ = λ ± δ

shrink what v has of any other eigenvector by |σ − λ|/|σ − λⱼ|: one LU factorisation and two or three solves find the
vector. Each step measures itself, since (X − σI)v⁺ = v/‖y‖ gives the Rayleigh quotient θ = σ + ⟨v⁺, v⟩/‖y‖, which is
more accurate than the eigenvalue it started from, and the residual ‖Xv⁺ − θv⁺‖ = ‖v − ⟨v⁺, v⟩v⁺‖/‖y‖. In single
precision one more solve, with a residual in double precision, takes away what rounding did to the vector.
"""

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.linalg import LinAlgError  # type: ignore[attr-defined]

from pmaf.linalg.dtypes import double
from pmaf.linalg.lu import lu_factor, lu_solve
from pmaf.linalg.refinement import polished
from pmaf.operators.base import Operator
from pmaf.operators.dense import Dense
from pmaf.operators.gram import Gram
from pmaf.solvers.base import EigenAnswer, EigenSolver, Solver
from pmaf.solvers.eigen.eigh import Eigh, nearest
from pmaf.solvers.eigen.subspace import default_rtol
from pmaf.transforms import untracked

__all__ = ["EigvalsInverseIteration", "settled_or_decomposed"]

OFFSET = 8  # δ in units of ε√n‖X‖: about the error of the eigenvalues
SOLVES, MOST_SOLVES = 3, 8
GOLDEN = 0.6180339887498949  # its multiples modulo 1 are spread evenly, and no eigenvector looks like them


@dataclass(frozen=True, kw_only=True)
class EigvalsInverseIteration(Solver):
    r"""The largest or smallest eigenpair of a dense matrix, from its eigenvalues and a few steps of inverse iteration.

    All eigenvalues are known on the way, so the answer is the global one and the gap to the next is exact. Items on
    which inverse iteration does not settle, for instance because the eigenvalue is repeated, go to :class:`Eigh`, and
    so do factors, which should not be squared.

    Cost: O(n³) for each item, at best a quarter less than :class:`Eigh`, and a sixth with the gradient. Leaves no
    eigenbasis: gradients take one Cholesky factorisation. Same dtype and device as X; synchronises the device.
    Unrolled, it is :class:`Eigh`: autograd would divide rounding errors by σ − λ.

    References:
        Wilkinson, The Algebraic Eigenvalue Problem, section 5.54; Ipsen, Computing an eigenvector with inverse
        iteration, SIAM Review 39 (1997).

    Example:
        >>> import torch
        >>> from pmaf.operators.dense import Dense
        >>> X = torch.diag(torch.tensor([2.0, -3.0, 1.0]))
        >>> EigvalsInverseIteration().solve(Dense(X), 1, largest=False).eigenvalues
        tensor([-3.])
    """

    needs = "the matrix, O(n³)"
    use = "one pair of a dense matrix: eigenvalues alone, then its vector; a quarter sooner than Eigh at best"
    largest_k = 1

    def solve(self, X: Operator, k: int, largest: bool, start: Tensor | None = None) -> EigenAnswer:
        """Find the leading pair of every item.

        Args:
            X: the matrices, ``(*, n, n)``; anything but a Gram matrix is made dense.
            k: must be 1.
            largest: the algebraically largest, else the smallest.
            start: refused, since a direct method has no use for it.

        Returns:
            The pair and the eigenvalue next to it.

        Raises:
            ValueError: if ``start`` is given, or for k > 1.
        """
        self.accept(X, k, start)
        if isinstance(X, Gram) or not untracked(*X.tensors):
            return Eigh().solve(X, k, largest)
        A = X.dense()
        if A.numel() == 0 or not math.isfinite(torch.linalg.vector_norm(A)):
            return Eigh().solve(X, k, largest)
        try:
            s = torch.linalg.eigvalsh(A)
        except LinAlgError:
            return Eigh().solve(X, k, largest)
        norm = torch.maximum(-s[..., 0], s[..., -1])
        value, v, done = inverse_iteration(A, s, norm[..., None], largest)
        steps = torch.ones_like(done, dtype=torch.int64)
        found = EigenAnswer(value, v, done, steps, nearest(s, 1, largest), norm=norm)
        return settled_or_decomposed(X, largest, found)


def inverse_iteration(A: Tensor, s: Tensor, norm: Tensor, largest: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The vector that belongs to an end of the spectrum.

    Args:
        A: Hermitian matrices, ``(*, n, n)``.
        s: their eigenvalues, ascending, ``(*, n)``.
        norm: the largest of them in magnitude, ``(*, 1)``.
        largest: which end.

    Returns:
        Rayleigh quotients, ``(*, 1)``; vectors, ``(*, n, 1)``; and a mask of items that settled, ``(*,)``.
    """
    n, eps = A.shape[-1], torch.finfo(A.dtype).eps
    delta = (OFFSET * n**0.5 * eps) * norm
    shift = s[..., -1:] + delta if largest else s[..., :1] - delta
    shifted = A.clone()
    shifted.diagonal(dim1=-2, dim2=-1).sub_(shift)
    LU, pivots = lu_factor(shifted)
    v = torch.arange(1, n + 1, dtype=s.dtype, device=A.device).mul_(GOLDEN).frac_().sub_(0.4).to(A.dtype)
    v = v[:, None].expand(*A.shape[:-1], 1)
    for solve in range(1, MOST_SOLVES + 1):
        before = v
        y = lu_solve(LU, pivots, before)
        length = torch.linalg.vector_norm(y, dim=-2, keepdim=True)
        v = y / length
        if solve < SOLVES:
            continue
        cosine = (v.conj() * before).sum(-2, keepdim=True)
        residual = (torch.linalg.vector_norm(before - cosine * v, dim=-2, keepdim=True) / length)[..., 0]
        if bool((residual <= 2 * eps * norm).all()):
            break
    theta = shift + (cosine / length)[..., 0].real
    if A.dtype != double(A):
        v = polished(A, v, partial(newton_step, LU, pivots, v))
    return theta, v, (residual <= default_rtol(A.dtype) * norm)[..., 0]  # NaN counts as not settled


def newton_step(LU: Tensor, pivots: Tensor, v: Tensor, residual: Tensor, theta: Tensor) -> Tensor:
    """(σI − X)⁻¹r without its part along v, a row, ``(*, 1, n)``: σ stands in for θ, which is next to it."""
    step = -lu_solve(LU, pivots, residual.mH)
    return (step - v * (v.conj() * step).sum(-2, keepdim=True)).mH


def settled_or_decomposed(
    X: Operator, largest: bool, found: EigenAnswer, decomposition: EigenSolver | None = None
) -> EigenAnswer:
    """The answer, with the items that did not settle replaced by their eigendecomposition.

    Args:
        X: the operator, to be made dense where it has to be.
        largest: which end of the spectrum.
        found: what an iteration found, without spectrum and basis.
        decomposition: the solver for what did not settle; by default :class:`Eigh`.

    Returns:
        The answer; with what the decomposition leaves of the rest, as spectrum and basis, if no item settled.
    """
    done, k = found.finished, found.eigenvalues.shape[-1]
    if bool(done.all()):
        return found
    A = X.dense()
    if not bool(done.any()):
        return (decomposition or Eigh()).solve(Dense(A), k, largest)
    batch, n = done.shape, A.shape[-1]
    at = (~done).reshape(-1).nonzero()[:, 0]
    rescued = (decomposition or Eigh()).solve(Dense(A.reshape(-1, n, n)[at]), k, largest)

    def put(old: Tensor, new: Tensor) -> Tensor:
        core = new.shape[1:]
        return old.reshape(batch.numel(), *core).index_copy(0, at, new).reshape(*batch, *core)

    known = found.next is not None and rescued.next is not None
    # What an iteration that went astray says of ‖X‖ means nothing.
    norm = rescued.norm if rescued.spectrum is None else rescued.spectrum.abs().amax(-1)
    return found._replace(
        eigenvalues=put(found.eigenvalues, rescued.eigenvalues),
        eigenvectors=put(found.eigenvectors, rescued.eigenvectors),
        finished=put(done, rescued.finished & rescued.eigenvalues.isfinite().all(-1)),
        next=put(found.next, rescued.next) if known else None,  # type: ignore[arg-type]
        norm=None if found.norm is None or norm is None else put(found.norm, norm),
    )
