r"""Leading eigenpairs by a compiled kernel: Householder's tridiagonal form, Sturm counts, twisted factorisations."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pmaf.kernels import available, reason
from pmaf.kernels.eigenpairs import Code, eigenpairs
from pmaf.operators.base import Operator
from pmaf.operators.dense import Dense
from pmaf.solvers.base import EigenAnswer, Solver
from pmaf.solvers.eigen.eigh import Eigh
from pmaf.transforms import may_wait, untracked

__all__ = ["Tridiagonal"]

KERNELS = available()  # found out once, since a tracer could not look


@dataclass(frozen=True, kw_only=True)
class Tridiagonal(Solver):
    r"""The k largest or smallest eigenpairs of dense matrices on the CPU, many matrices side by side in SIMD lanes.

    .. math:: X = Q\,T\,Q^H, \qquad T \text{ real and tridiagonal}

    1. Householder reflections bring X to the form T, :math:`\tfrac43 n^3` operations;
    2. Sturm counts isolate the wanted eigenvalues of T *and the next one*, so that the answer is the global one and the
       gap is known, however often eigenvalues repeat;
    3. a twisted factorisation of T − λI gives each vector in O(n), reorthogonalised where values crowd;
    4. the reflections carry it back, and one step of refinement lowers the residual, measured on X itself (in double
       precision for single).

    The form is kept: the backward pass solves with T − λI in O(n) between two products with Q. An item's answer is
    the same, bit for bit, whatever stands beside it and however many threads run. Items that miss their residual or
    orthonormality, which has not been seen, go to :class:`Eigh`.

    Cost: O(n³ + n²k) for each item, a fifth to a twentieth of the time of :class:`Eigh` in batches. float32, float64,
    complex64, complex128. Needs the compiled kernels, see :func:`pmaf.show_config`. Autograd cannot follow it:
    unrolled, it is :class:`Eigh`.

    References:
        Parlett: The Symmetric Eigenvalue Problem (1998), chapters 3 and 7. Dhillon, Parlett: Orthogonal eigenvectors
        and relative gaps, SIAM J. Matrix Anal. Appl. 25 (2004).

    Example:
        >>> import torch, pmaf
        >>> X = torch.diag(torch.tensor([2.0, -3.0, 1.0]))
        >>> solver = pmaf.solvers.Tridiagonal() if pmaf.kernels.available() else None
        >>> pmaf.ied(X, 2, solver=solver).eigenvalues
        tensor([2., 1.])
    """

    use = "batches of small matrices on the CPU; the default for them"
    leaves_factor = True
    first = 256  # order from which on a look at the spectrum, which may stand apart, comes before it
    unrolls = False
    waits = False

    @classmethod
    def applies(cls, X: Operator) -> bool:
        """Whether the kernels are there for an operator."""
        return KERNELS and isinstance(X, Dense) and may_wait(X.tensors[0], raises=False)

    def solve(self, X: Operator, k: int, largest: bool, start: Tensor | None = None) -> EigenAnswer:
        """Find the k largest (smallest) eigenpairs of every item.

        Args:
            X: the operator; anything but a dense matrix is made dense. What counts is its Hermitian part.
            k: how many pairs.
            largest: algebraically largest, else smallest.
            start: refused, since a direct method has no use for it.

        Returns:
            The pairs, the next eigenvalue, and the tridiagonal form.

        Raises:
            ValueError: if ``start`` is given, there are no kernels, or X is not on the CPU.
        """
        self.accept(X, k, start)
        A = X.tensors[0] if isinstance(X, Dense) else X.dense()
        if not untracked(A):
            return Eigh().solve(X, k, largest)
        if not KERNELS or not may_wait(A, raises=False):
            why = f"there are none ({reason()})" if not KERNELS else f"X is on {A.device}"
            raise ValueError(
                f"pmaf.solvers.Tridiagonal: needs compiled kernels and a matrix on the CPU, but {why}; use Eigh()"
            )
        found = eigenpairs(A, k, largest=largest, allowed=math.inf)
        done = torch.ones_like(found.code, dtype=torch.bool)
        values = found.values
        if k > 1:  # of values that coincide to rounding the order is left open
            values = (values.cummin(-1) if largest else values.cummax(-1)).values
        answer = EigenAnswer(
            values,
            found.vectors,
            done,
            done.to(torch.int64),
            next=torch.full_like(found.norm, -torch.inf if largest else torch.inf) if k == X.n else found.next,
            norm=found.norm,
            residual=found.residual,
            factor=found.factor,
        )
        return rescued(A, largest, answer, found.code) if found.seen & Code.INACCURATE else answer


def rescued(A: Tensor, largest: bool, answer: EigenAnswer, code: Tensor) -> EigenAnswer:
    """The answer, with the items that missed their residual or orthonormality replaced by their decomposition."""
    n, k = A.shape[-1], answer.eigenvalues.shape[-1]
    at = (code & Code.INACCURATE).ne(0).reshape(-1).nonzero()[:, 0]
    items = Dense(A.reshape(-1, n, n)[at])
    better = Eigh().solve(items, k, largest)
    values, U, spectrum = better.eigenvalues, better.eigenvectors, better.spectrum
    assert spectrum is not None
    norm = spectrum.abs().amax(-1)
    misfit = (items.matmat(U) - U * values[..., None, :]) / norm[:, None, None]

    def put(old: Tensor, new: Tensor) -> Tensor:
        flat = old.reshape(-1, *new.shape[1:])
        return flat.index_copy(0, at, new.to(old.dtype)).reshape(old.shape)

    assert answer.norm is not None
    assert answer.residual is not None
    return answer._replace(
        eigenvalues=put(answer.eigenvalues, values),
        eigenvectors=put(answer.eigenvectors, U),
        finished=put(answer.finished, better.finished),
        next=None if answer.next is None or better.next is None else put(answer.next, better.next),
        norm=put(answer.norm, norm),
        residual=put(answer.residual, torch.linalg.vector_norm(misfit, dim=-2).amax(-1)),
    )
