r"""A short block Lanczos run for every item, an eigendecomposition for the items it does not settle."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pmaf.checks.values import set_integers, set_reals
from pmaf.linalg.dtypes import double
from pmaf.linalg.vectors import perturbed, random_block
from pmaf.operators.base import Operator
from pmaf.solvers.base import EigenAnswer, Solver
from pmaf.solvers.eigen.eigh import Eigh
from pmaf.solvers.eigen.eigvals_inverse_iteration import EigvalsInverseIteration, settled_or_decomposed
from pmaf.solvers.eigen.subspace import NEAR, default_rtol
from pmaf.solvers.eigen.tridiagonal import Tridiagonal
from pmaf.transforms import untracked

__all__ = ["LanczosEigh"]

DIRECT = 96  # order up to which an eigendecomposition is over before a Lanczos run has begun
LARGE, LARGE_FOR_KERNELS = 768, 1280  # orders from which even a slow Lanczos run is cheaper than a decomposition
FEW_STEPS, MANY_STEPS = 12, 72  # steps granted below and above that order
TINY = 12000  # entries in a batch up to which an eigendecomposition is over before inverse iteration has begun
MOST = 12  # pairs beyond which an eigendecomposition is cheaper
ALIGNED = 0.98  # cosine between successive products that tells a leading eigenvalue that stands apart


@dataclass(frozen=True, kw_only=True)
class LanczosEigh(Solver):
    r"""The k leading eigenpairs of dense matrices: block Lanczos with a budget, then :class:`Eigh` for what is left.

    A leading eigenvalue that stands apart, as of matrices with entries of one sign, settles within ten products; an
    eigendecomposition costs as much as hundreds. So X is multiplied three times: where the last two products point the
    same way, or the order is 768 or more (1280 for real X where kernels decompose), the items get a few Lanczos
    steps, and those whose *measured* residual is not small by then are decomposed. If no item settles, the answer is
    that of :class:`Tridiagonal` with its form of X, or without kernels that of :class:`Eigh`, eigenbasis included.

    The start block is random, so it meets every eigenspace of dimension up to k + 1 with probability one, and Ritz
    values reach the ends of the spectrum first; a Krylov space that is exhausted early, or Ritz values that coincide at
    the end of the selection, are left to :class:`Eigh` to judge.

    Same dtype and device as X; one device synchronisation every few steps. Unrolled, it is :class:`Eigh`.

    Args:
        rtol: residual ‖Xu − λu‖ / ‖X‖ of each pair to reach; by default :func:`default_rtol`.
        max_steps: products with a block before an item is given up; by default 12, or 72 for these large orders.

    Raises:
        ValueError: if ``rtol`` or ``max_steps`` is not positive.

    References:
        Kuczyński, Woźniakowski: Estimating the largest eigenvalue by the power and Lanczos algorithms with a random
        start, SIAM J. Matrix Anal. Appl. 13 (1992).

    Example:
        >>> import torch
        >>> from pmaf.operators.dense import Dense
        >>> X = torch.ones(200, 200) + torch.diag(torch.linspace(-1, 1, 200))
        >>> answer = LanczosEigh().solve(Dense(X), 1, largest=True)
        >>> answer.eigenvalues.round(), answer.basis is None
        (tensor([200.]), True)
    """

    use = "large dense matrices; the default for them: a few products, else Tridiagonal, or without kernels another"
    takes_start = True

    rtol: float | None = None
    max_steps: int | None = None

    def __post_init__(self) -> None:
        set_integers(self, "max_steps")
        set_reals(self, "positive", "rtol")

    def solve(self, X: Operator, k: int, largest: bool, start: Tensor | None = None) -> EigenAnswer:
        """Find the k leading pairs of every item.

        Args:
            X: the matrices, ``(*, n, n)``; made dense if they are not.
            k: how many pairs.
            largest: the algebraically largest, else the smallest.
            start: first guesses, ``(*, n, p)`` for any p; used up to k columns.

        Returns:
            The pairs; spectrum and basis only if every item was decomposed.
        """
        n = X.n
        A = X.dense()
        if not untracked(A):  # the basis is written in place, and inverse iteration divides what rounding leaves by δ
            return Eigh().solve(X, k, largest)
        kernels = Tridiagonal.applies(X)
        large = n >= (LARGE_FOR_KERNELS if kernels and not A.is_complex() else LARGE)
        steps = self.max_steps if self.max_steps is not None else MANY_STEPS if large else FEW_STEPS
        steps = min(steps, n // (2 * (k + 1)))  # a longer run would cost more than it can save
        if n <= DIRECT or k > MOST or steps < 6 or A.numel() == 0:
            return direct(X, k, largest)
        flat = A.reshape(-1, n, n)
        rows = random_block(n, k + 1, A.dtype, A.device).mH.repeat(len(flat), 1, 1)  # vᴴ: products with rows are fast
        if not large:
            row = powered(flat, rows[:, :1].abs().to(A.dtype), largest) if k == 1 else None
            if row is None:
                return direct(X, k, largest)
            rows = torch.cat((row, rows[:, 1:]), 1)
        if start is not None:
            given = start[..., :k].expand(*A.shape[:-2], n, -1).reshape(len(flat), n, -1)
            p = given.shape[-1]
            rows = torch.cat((perturbed(given, rows[:, :p].mH).mH, rows[:, p:]), 1)
        rtol = self.rtol or default_rtol(A.dtype)
        theta, U, following, done, taken, norm = lanczos(flat, k, largest, rows, steps, rtol)
        batch = A.shape[:-2]
        found = EigenAnswer(
            theta.reshape(*batch, k),
            U.reshape(*batch, n, k),
            done.reshape(batch),
            taken.reshape(batch),
            following.reshape(batch),
            norm=norm.reshape(batch),
        )
        if not bool(done.any()):
            return direct(X, k, largest)
        return settled_or_decomposed(X, largest, found, Tridiagonal() if kernels else Eigh())


def direct(X: Operator, k: int, largest: bool) -> EigenAnswer:
    """The answer without an iteration: by a kernel, else one vector, sooner found than all unless the batch is tiny."""
    if Tridiagonal.applies(X):
        return Tridiagonal().solve(X, k, largest)
    numbers = X.batch_shape.numel() * X.n**2
    return (EigvalsInverseIteration() if k == 1 and numbers > TINY else Eigh()).solve(X, k, largest)


def powered(A: Tensor, row: Tensor, largest: bool) -> Tensor | None:
    """The third product with a row, ``(b, 1, n)``, if by then the wanted eigenvalue of most items dominates."""
    first = row @ A
    second = (first / torch.linalg.vector_norm(first, dim=-1, keepdim=True)) @ A
    second = second / torch.linalg.vector_norm(second, dim=-1, keepdim=True)
    third = second @ A
    third = third / torch.linalg.vector_norm(third, dim=-1, keepdim=True)
    cosine = (second.conj() * third).sum(-1).real
    apart = (cosine if largest else -cosine) > ALIGNED
    return third if 2 * int(apart.sum()) > apart.numel() else None


def lanczos(A: Tensor, k: int, largest: bool, rows: Tensor, max_steps: int, rtol: float) -> tuple[Tensor, ...]:
    """The recurrence of :class:`pmaf.linalg.krylov.KrylovSpace` for a few rows, in place, without its safeguards.

    That takes a quarter off the forward pass at 5×256×256; an item that would need the safeguards is not settled.

    Returns:
        Ritz values ``(b, k)``, vectors ``(b, n, k)``, the next one, a mask of settled items, steps, and their ‖X‖.
    """
    b, n, _ = A.shape
    p = rows.shape[1]
    eps = torch.finfo(A.dtype).eps
    basis = A.new_zeros(b, p * max_steps, n)
    H = A.new_zeros(b, p * max_steps, p * max_steps)
    theta, U = A.real.new_zeros(b, k), A.new_zeros(b, n, k)
    following, reach = theta.new_zeros(b), theta.new_zeros(b)
    taken = torch.zeros(b, dtype=torch.int64, device=A.device)
    rows, B = orthonormal_rows(rows)
    image = rows @ A
    size = torch.linalg.vector_norm(image, dim=-1).amax(-1)  # (b,), of the order of ‖X‖
    finite = size.isfinite() & (size > torch.finfo(size.dtype).tiny / eps)
    done = torch.zeros_like(finite)
    factor = ((1.0 if largest else -1.0) / torch.where(finite, size, 1))[:, None, None]
    check = 5
    for step in range(1, max_steps + 1):
        m = p * step
        basis[:, m - p : m] = rows
        V = basis[:, :m]
        W = (image if step == 1 else rows @ A) * factor
        C = W @ V.mH
        H[:, m - p : m, :m] = C
        W = W - C @ V
        W = W - (W @ V.mH) @ V
        rows, B = orthonormal_rows(W)
        taken = taken + ~done
        if step < check and step < max_steps:
            continue
        check = step + max(1, step // 6)
        small = H[:, :m, :m].to(double(H))
        # An exhausted Krylov space leaves rows without a direction: the item is left for an eigendecomposition.
        finite = (
            finite & small.isfinite().flatten(-2).all(-1) & (B.diagonal(dim1=-2, dim2=-1).abs() > 1e3 * eps).all(-1)
        )
        values, Q = torch.linalg.eigh(torch.where(finite[:, None, None], small, 0))
        values, Q = values.flip(-1).to(theta.dtype), Q.flip(-1).to(H.dtype)
        norm = values.abs().amax(-1)
        slack = torch.linalg.vector_norm(B.mH @ Q[:, m - p :, : k + 1], dim=-2)
        claim = finite & ~done & (slack[:, :k].amax(-1) <= rtol / 2 * norm)
        claim = claim & (slack[:, k] <= NEAR * (values[:, k - 1] - values[:, k]))  # the next one is known
        if bool(claim.any()):
            found = Q[..., :k].mH @ V  # (b, k, n)
            misfit = (found @ A) * factor - values[:, :k, None] * found
            met = claim & (torch.linalg.vector_norm(misfit, dim=-1).amax(-1) <= rtol * norm)
            met = met & (values[:, k - 1] - values[:, k] > rtol**0.5 * norm)  # a tie is not for Ritz values to call
            original = values / factor[:, :, 0]
            theta = torch.where(met[:, None], original[:, :k], theta)
            following = torch.where(met, original[:, k], following)
            reach = torch.where(met, original.abs().amax(-1), reach)
            U = torch.where(met[:, None, None], found.mH, U)
            done = done | met
        if bool((done | ~finite).all()):
            break
    return theta, U, following, done, taken, reach


def orthonormal_rows(W: Tensor) -> tuple[Tensor, Tensor]:
    """Orthonormal rows Q with W = B Q, row by row; B is lower triangular."""
    b, p, _ = W.shape
    B = W.new_zeros(b, p, p)
    Q = W[:, :0]
    for i in range(p):
        w = W[:, i : i + 1]
        if i > 0:
            B[:, i : i + 1, :i] = w @ Q.mH
            w = w - B[:, i : i + 1, :i] @ Q
            w = w - (w @ Q.mH) @ Q
        length = torch.linalg.vector_norm(w, dim=-1, keepdim=True)
        B[:, i : i + 1, i : i + 1] = length
        w = w / length.clamp_min(torch.finfo(length.dtype).tiny)
        Q = w if i == 0 else torch.cat((Q, w), 1)
    return Q, B
