"""Leading eigenpairs of X = FᵀF from the factor F, without forming X, and their gradients."""

from typing import NamedTuple

import torch
from torch import Tensor

from pmaf.kernels.calls import TYPES, CompiledFunction, in_memory, stride

__all__ = [
    "MOST_COLUMNS",
    "GramFound",
    "gram_eigenpairs",
    "gram_gradient",
    "gram_image",
    "gram_outer",
    "gram_product",
    "triplet_gradient",
]

MOST_COLUMNS = 256  # as in gram.h; up to about 32 the kernel wins
GRAM = CompiledFunction(
    "gram",
    "i type, q batch m n k, i largest threads, P F weights reference, "
    "q F_stride weights_stride reference_stride reference_columns, P values vectors next norm residual code factor",
)
GRAM_GRADIENT = CompiledFunction(
    "gram_gradient",
    "i type, q batch m n k, i threads, P F weights, q F_stride weights_stride, "
    "P factor code vectors vectors_cotangent values_cotangent, d rtol, P W F_gradient weights_gradient",
)
GRAM_PRODUCT = CompiledFunction("gram_product", "i type, q batch m n, i threads, P F X")
GRAM_IMAGE = CompiledFunction("gram_image", "i type, q batch m n k, i threads, P F V image")
TRIPLET_GRADIENT = CompiledFunction("triplet_gradient", "i type, q batch m n k, i threads, P F U H w P Q F_gradient")
GRAM_OUTER = CompiledFunction("gram_outer", "i type, q batch m n k, i threads, P F U W code F_gradient")


class GramFound(NamedTuple):
    """What the kernel finds; eigenvalues are the squares of the singular values."""

    singular_values: Tensor  # (B, k)
    vectors: Tensor  # (B, n, k)
    next: Tensor  # (B,) the singular value after the selected ones, NaN where k = n
    norm: Tensor  # (B,) the largest singular value
    residual: Tensor  # (B,) the largest ‖Fᵀ(F u) − σ²u‖, measured on F, relative to norm²
    code: Tensor  # (B,) int32: 1 not finite, 4 inaccurate
    factor: Tensor | None  # (B, n² + n + 1), float64, for the gradient
    seen: int  # all codes or-ed together


def gram_eigenpairs(
    F: Tensor,
    k: int = 1,
    weights: Tensor | None = None,
    *,
    largest: bool = True,
    reference: Tensor | None = None,
    keep_factor: bool = True,
) -> GramFound:
    """The k leading eigenpairs of Fᵀ diag(w) F.

    O(mn² + n³) for an item, in double precision; the n³ is that of Jacobi's method, about 20 n³.

    Args:
        F: ``(B, m, n)``, float32 or float64, on the CPU, n ≤ 256.
        k: how many, 1 ≤ k ≤ n.
        weights: ``(B or 1, m)``, non-negative, or ``None``.
        largest: the largest, in descending order, or the smallest, in ascending order.
        reference: what decides signs, ``(B or 1, n, 1 or k)``; all ones if ``None``.
        keep_factor: whether to leave what the gradient needs.

    Returns:
        The answer.
    """
    F = in_memory(F)
    weights = None if weights is None else in_memory(weights)
    reference = None if reference is None else in_memory(reference.to(F.dtype))
    B, m, n = F.shape
    real = F.dtype
    values, vectors = torch.empty(B, k, dtype=real), torch.empty(B, n, k, dtype=real)
    following, norm, residual = (torch.empty(B, dtype=real) for _ in range(3))
    code = torch.empty(B, dtype=torch.int32)
    factor = torch.empty(B, n * n + n + 1, dtype=torch.float64) if keep_factor else None
    columns = 1 if reference is None else reference.shape[-1]
    answer = values, vectors, following, norm, residual, code, factor
    seen = GRAM(
        *(TYPES[real], B, m, n, k, largest, torch.get_num_threads(), F, weights, reference),
        *(stride(F), stride(weights), stride(reference), columns, *answer),
    )
    return GramFound(*answer, seen)


def gram_gradient(
    F: Tensor,
    found: GramFound,
    vectors: Tensor | None,
    values: Tensor | None = None,
    weights: Tensor | None = None,
    *,
    rtol: float = 0.0,
    needs: tuple[bool, bool] = (True, False),
    solution: bool = False,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """F̄ = diag(w)((FU)Wᵀ + (FW)Uᵀ) and w̄, with wᵢ = (λᵢI − X)⁺hᵢ + λ̄ᵢuᵢ; zero for items without an answer.

    Args:
        F: what :func:`gram_eigenpairs` was given.
        found: what it returned.
        vectors: the cotangent h of the vectors, ``(B, n, k)``, or ``None`` for zero.
        values: that of the eigenvalues σ², ``(B, k)``, or ``None`` for zero.
        weights: as before.
        rtol: components along vectors whose singular value is within rtol·‖F‖ are left out.
        needs: whether the gradients of F and of the weights are wanted.
        solution: whether the part (λᵢI − X)⁺hᵢ is wanted, ``(B, n, k)``.

    Returns:
        F̄, w̄ and that part; ``None`` where it was not asked for.
    """
    assert found.factor is not None
    F = in_memory(F)
    weights, vectors, values = (None if x is None else in_memory(x) for x in (weights, vectors, values))
    B, m, n = F.shape
    k = found.vectors.shape[-1]
    F_gradient = F.new_empty(B, m, n) if needs[0] else None
    weights_gradient = F.new_empty(B, m) if needs[1] else None
    W = F.new_empty(B, n, k) if solution else None
    GRAM_GRADIENT(
        *(TYPES[F.dtype], B, m, n, k, torch.get_num_threads(), F, weights, stride(F), stride(weights)),
        *(found.factor, found.code, in_memory(found.vectors), vectors, values, rtol, W, F_gradient, weights_gradient),
    )
    return F_gradient, weights_gradient, W


def gram_product(F: Tensor) -> Tensor:
    """FᴴF in double precision, an item with the same bits whatever its neighbours.

    Args:
        F: ``(B, m, n)``, on the CPU; n ≤ 128 if it is complex.

    Returns:
        ``(B, n, n)``, float64 or complex128.
    """
    F = in_memory(F)
    B, m, n = F.shape
    X = torch.empty(B, n, n, dtype=torch.complex128 if F.is_complex() else torch.float64)
    GRAM_PRODUCT(TYPES[F.dtype], B, m, n, torch.get_num_threads(), F, X)
    return X


def gram_image(F: Tensor, V: Tensor) -> Tensor:
    """F V, each entry rounded once, in one pass over F; for a few columns.

    Args:
        F: ``(B, m, n)``, float32 or float64, on the CPU.
        V: ``(B, n, k)``, float64.

    Returns:
        ``(B, m, k)``, like F.
    """
    F, V = in_memory(F), in_memory(V)
    (B, m, n), k = F.shape, V.shape[-1]
    image = torch.empty(B, m, k, dtype=F.dtype)
    GRAM_IMAGE(TYPES[F.dtype], B, m, n, k, torch.get_num_threads(), F, V, image)
    return image


def gram_outer(F: Tensor, U: Tensor, W: Tensor, code: Tensor) -> Tensor:
    """(FU)Wᴴ + (FW)Uᴴ, zero for items with a code.

    Args:
        F: ``(B, m, n)``, on the CPU; n ≤ 128 if it is complex.
        U: ``(B, n, k)``, in double precision.
        W: likewise.
        code: ``(B,)``, int32.

    Returns:
        ``(B, m, n)``, like F.
    """
    F, U, W = in_memory(F), in_memory(U), in_memory(W)
    (B, m, n), k = F.shape, U.shape[-1]
    gradient = torch.empty_like(F)
    GRAM_OUTER(TYPES[F.dtype], B, m, n, k, torch.get_num_threads(), F, U, W, code, gradient)
    return gradient


def triplet_gradient(F: Tensor, U: Tensor, H: Tensor | None, w: Tensor, P: Tensor, Q: Tensor) -> Tensor:
    """U Pᵀ + (H + F w) Qᵀ, each entry rounded once, in one pass over F; for a few columns.

    Args:
        F: ``(B, m, n)``, float32 or float64, on the CPU.
        U: ``(B, m, k)``, like F.
        H: likewise, or ``None`` for zero.
        w: ``(B, n, k)``, float64.
        P: likewise.
        Q: likewise.

    Returns:
        ``(B, m, n)``, like F.
    """
    F, U, w, P, Q = (in_memory(x) for x in (F, U, w, P, Q))
    H = None if H is None else in_memory(H)
    (B, m, n), k = F.shape, U.shape[-1]
    gradient = torch.empty_like(F)
    TRIPLET_GRADIENT(TYPES[F.dtype], B, m, n, k, torch.get_num_threads(), F, U, H, w, P, Q, gradient)
    return gradient
