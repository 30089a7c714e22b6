"""Leading eigenpairs of batches of small Hermitian matrices, and the gradients of what they are used for."""

import enum
from typing import NamedTuple

import torch
from torch import Tensor

from pmaf.kernels.calls import TYPES, CompiledFunction, in_memory

__all__ = [
    "EIGENPAIRS",
    "EIGEN_GRADIENT",
    "Code",
    "Eigenpairs",
    "eigen_gradient",
    "eigen_solve",
    "eigenpairs",
    "factor_rows",
]

REAL = {torch.complex64: torch.float32, torch.complex128: torch.float64}
CLOSED = (3, 4)  # sizes of the closed form in single precision, for one pair, which needs no factor; see small.h
EIGENPAIRS = CompiledFunction(
    "eigenpairs",
    "i type, q batch n k, i largest, P X reference, q reference_item reference_columns, d allowed rtol atol, "
    "i threads, P values vectors next norm residual code factor phase",
)
EIGEN_GRADIENT = CompiledFunction(
    "eigen_gradient",
    "i type, q batch n k, i largest, P X factor values vectors next norm code H values_cotangent phase reference, "
    "q reference_item reference_columns, d rtol atol, i threads, P W gradient gradient_code",
)


class Code(enum.IntFlag):
    """What a kernel says of an item; a call returns all codes of its items or-ed together (see ``calls.h``)."""

    NOT_FINITE = 1  # X holds NaN or an infinity: no answer
    ASYMMETRIC = 2  # X is further from Hermitian than allowed
    INACCURATE = 4  # residual or orthonormality was missed: another solver should take the item
    REPEATED = 8  # a needed difference of eigenvalues is within the tolerance
    NEEDS_BASIS = 16  # gradient: the last selected eigenvalue coincides with an unwanted one
    NO_MEMORY = 32  # nothing was computed


class Eigenpairs(NamedTuple):
    """What the kernel finds; real tensors but for vectors and factor."""

    values: Tensor  # (*, k)
    vectors: Tensor  # (*, n, k)
    next: Tensor  # (*,): the eigenvalue after the selected ones, NaN where k = n
    norm: Tensor  # (*,): the largest |eigenvalue|, estimated (within about a tenth)
    residual: Tensor  # (*,): the largest ‖Xu − λu‖ of an item, relative to norm
    code: Tensor  # (*,) int32
    factor: Tensor  # (*, ⌊n/2⌋ + 2, n): Q T Qᴴ, see tridiagonal.h; zeros where the closed form of small.h needs none
    seen: int  # all codes or-ed together


def factor_rows(n: int) -> int:
    """How many rows of n numbers hold a factor: a triangle and n numbers more."""
    return n // 2 + 2


def eigenpairs(
    X: Tensor,
    k: int = 1,
    *,
    largest: bool = True,
    reference: Tensor | None = None,
    allowed: float = 1e-3,
    rtol: float = 0.0,
    atol: float = 0.0,
    threads: int | None = None,
) -> Eigenpairs:
    """The k leading eigenpairs of the Hermitian part of each matrix, with a measured residual.

    Each vector has a non-negative inner product with the reference; where rounding decides its sign, a second, fixed,
    generic vector decides. O(n³) for an item, whose answer does not depend on the others, nor on the threads.

    Args:
        X: ``(*, n, n)``, float32, float64, complex64 or complex128, on the CPU.
        k: how many, 1 ≤ k ≤ n.
        largest: the largest, in descending order, or the smallest, in ascending order.
        reference: ``(n,)``, ``(*, n)`` or ``(*, n, k)``; all ones if ``None``.
        allowed: ‖X − Xᴴ‖ ≤ 2·allowed·‖X‖ (Frobenius) passes for Hermitian.
        rtol: differences of selected values up to rtol·‖X‖ + atol are called repeated.
        atol: see ``rtol``.
        threads: at most so many; ``torch.get_num_threads()`` if ``None``.

    Returns:
        The answer.
    """
    X = in_memory(X)
    dtype, batch, n = X.dtype, X.shape[:-2], X.shape[-1]
    real = REAL.get(dtype, dtype)
    count = batch.numel()
    item, columns = 0, 1
    if reference is not None:
        columns = k if reference.dim() == X.dim() and reference.shape[-2:] == (n, k) and reference.dim() > 1 else 1
        core = 2 if columns == k and reference.dim() == X.dim() else 1
        if reference.dim() > core:
            reference = reference.expand(*batch, *reference.shape[-core:])
            item = n * columns
        reference = in_memory(reference.to(dtype))
    values = torch.empty(*batch, k, dtype=real)
    vectors = torch.empty(*batch, n, k, dtype=dtype)
    following, norm, residual = (torch.empty(batch, dtype=real) for _ in range(3))
    code = torch.empty(batch, dtype=torch.int32)
    closed = dtype == torch.float32 and k == 1 and n in CLOSED and reference is None
    factor = (torch.zeros if closed else torch.empty)(*batch, factor_rows(n), n, dtype=dtype)
    threads = torch.get_num_threads() if threads is None else threads
    answer = values, vectors, following, norm, residual, code, factor
    seen = EIGENPAIRS(
        *(TYPES[dtype], count, n, k, largest, X, reference, item, columns, allowed, rtol, atol, threads, *answer, None),
    )
    return Eigenpairs(*answer, seen)


def eigen_gradient(
    X: Tensor,
    found: Eigenpairs,
    H: Tensor | None,
    values_cotangent: Tensor | None = None,
    *,
    largest: bool = True,
    rtol: float = 0.0,
    atol: float = 0.0,
    threads: int | None = None,
) -> tuple[Tensor, Tensor, int]:
    """herm(Σ wᵢuᵢᴴ) + Σ λ̄ᵢ uᵢuᵢᴴ with wᵢ = (λᵢI − X)⁺ hᵢ, exactly Hermitian; zero for items without an answer.

    Args:
        X: what :func:`eigenpairs` was given.
        found: what it returned.
        H: the cotangent of the vectors, ``(*, n, k)``, or ``None`` for zero; their phases are taken not to move.
        values_cotangent: that of the values, ``(*, k)``, or ``None`` for zero.
        largest: as before.
        rtol: components along vectors whose eigenvalue is within rtol·‖X‖ + atol of λᵢ are left out.
        atol: see ``rtol``.
        threads: as before.

    Returns:
        The gradient ``(*, n, n)``, the codes ``(*,)``, and all codes or-ed together.
    """
    gradient, code = torch.empty_like(X, memory_format=torch.contiguous_format), torch.empty_like(found.code)
    seen = run_gradient(X, found, H, values_cotangent, largest, rtol, atol, threads, None, gradient, code)
    return gradient, code, seen


def eigen_solve(
    X: Tensor,
    found: Eigenpairs,
    H: Tensor,
    *,
    largest: bool = True,
    rtol: float = 0.0,
    atol: float = 0.0,
    threads: int | None = None,
) -> tuple[Tensor, Tensor, int]:
    """wᵢ = (λᵢI − X)⁺ hᵢ; zero for items without an answer.

    Args:
        X: what :func:`eigenpairs` was given.
        found: what it returned.
        H: right-hand sides, ``(*, n, k)``.
        largest: as before.
        rtol: components along vectors whose eigenvalue is within rtol·‖X‖ + atol of λᵢ are left out.
        atol: see ``rtol``.
        threads: as before.

    Returns:
        W ``(*, n, k)``, the codes ``(*,)``, and all codes or-ed together.
    """
    W, code = torch.empty_like(H, memory_format=torch.contiguous_format), torch.empty_like(found.code)
    seen = run_gradient(X, found, H, None, largest, rtol, atol, threads, W, None, code)
    return W, code, seen


def run_gradient(
    X: Tensor,
    found: Eigenpairs,
    H: Tensor | None,
    values_cotangent: Tensor | None,
    largest: bool,
    rtol: float,
    atol: float,
    threads: int | None,
    W: Tensor | None,
    gradient: Tensor | None,
    code: Tensor,
) -> int:
    """One call of the gradient kernel; see ``calls.h``."""
    X = in_memory(X)
    H = None if H is None else in_memory(H)
    values_cotangent = None if values_cotangent is None else in_memory(values_cotangent)
    threads = torch.get_num_threads() if threads is None else threads
    size = found.code.numel(), X.shape[-1], found.values.shape[-1]
    answer = found.factor, found.values, found.vectors, found.next, found.norm, found.code
    return EIGEN_GRADIENT(
        *(TYPES[X.dtype], *size, largest, X, *answer, H, values_cotangent, None, None, 0, 1),
        *(rtol, atol, threads, W, gradient, code),
    )
