r"""Single-precision answers refined once, with a residual in double precision.

**The complement solve**, :func:`residual_in_double`. A solve in single precision is backward stable, which leaves an
error of ε‖X‖/gap in w. The residual

    R = H − (W Λ − X W),   λᵢ = Rayleigh quotient of uᵢ,

taken in double precision, where the products of single-precision numbers are exact, lets a second solve with the same
factors remove that error, so that the gradient is as exact as the eigenvectors it is made of, however crowded the
spectrum. The Rayleigh quotient is right to the square of what rounding did to uᵢ, which a rounded eigenvalue is not. It
costs two products and no factorisation. H must not have a part along uᵢ, because the factors know uᵢ only to ε‖X‖/gap,
and R would still hold all of it.

**A bordered system**, :func:`refined`. An eigenbasis of Q = AᴴA in single precision is that of a matrix ε‖Q‖ away,
which leaves an error of ε‖Q‖/gap in y. The residual h − M y, taken in double precision from the data themselves, lets a
second solve in the same basis remove it. Matrices of more than 65,536 entries are left alone, where the copy would take
longer than the solve.

**Eigenvectors**, :func:`polished`, by one step of Newton's method. With θ = uᴴAu and r = Au − θu the step is du = (θI −
A)⁺ r. It leaves u as exact as its rounding allows, for one product and one solve in a factorisation that the solver has
at hand.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pmaf.linalg.dtypes import double, widened

__all__ = ["is_single", "polished", "refined", "residual_in_double"]

Vectors = tuple[Tensor, ...]


def is_single(x: Tensor) -> bool:
    """Whether there is a wider type to refine x in."""
    return x.dtype != double(x)


def residual_in_double(X: Tensor, U: Tensor, H: Tensor, W: Tensor) -> Tensor:
    """R of the complement solve, rounded to the type of W.

    Args:
        X: Hermitian, ``(*, n, n)``, single precision.
        U: eigenvectors, ``(*, n, k)``.
        H: right-hand sides, ``(*, n, k)``.
        W: approximate solutions, ``(*, n, k)``.

    Returns:
        ``(*, n, k)``.
    """
    wide, k = double(X), U.shape[-1]
    rows = torch.cat((U.expand(W.shape), W), -1).mH.to(wide)  # vectors as rows, (*, 2k, n): products with rows are fast
    image = rows @ X.to(wide)
    u = rows[..., :k, :]
    values = (u.conj() * image[..., :k, :]).real.sum(-1, keepdim=True) / (u.conj() * u).real.sum(-1, keepdim=True)
    return (H.to(wide) - (rows[..., k:, :] * values - image[..., k:, :]).mH).to(W.dtype)


def refined(
    solve: Callable[[Vectors], Vectors],
    apply: Callable[..., Vectors],
    params: tuple[Tensor | None, ...],
    solution: Vectors,
    aux: Any,
    rhs: Vectors,
) -> Vectors:
    """M⁻¹ h.

    Args:
        solve: h ↦ M⁻¹ h, about right.
        apply: (params, solution, aux, y) ↦ M y.
        params: what M is made of, the matrix first.
        solution: where M is taken.
        aux: what the forward pass left.
        rhs: h.

    Returns:
        y, in the precision of h.
    """
    y = solve(rhs)
    matrix = params[0]
    if not is_single(rhs[0]) or matrix is None or widened(matrix) == matrix.dtype:
        return y
    applied = apply(wide(params), wide(solution), aux, wide(y))
    rest = solve(tuple((h - Mh).to(h.dtype) for h, Mh in zip(rhs, applied, strict=True)))
    return tuple(v + dv for v, dv in zip(y, rest, strict=True))


def wide(tensors: Any) -> Any:
    """The tensors in double precision."""
    return tuple(None if t is None else t.to(double(t)) for t in tensors)


def polished(A: Tensor, U: Tensor, solve: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Eigenvectors U + dU of unit length.

    Args:
        A: Hermitian, ``(*, n, n)``.
        U: its approximate eigenvectors, ``(*, n, k)``.
        solve: maps rᴴ, in single precision, and θ, in double, to duᴴ; vectors are rows, ``(*, k, n)``.

    Returns:
        ``(*, n, k)``, in single precision.
    """
    wide = double(A)
    rows = U.mH.to(wide)  # products with rows are fast
    image = rows @ A.to(wide)
    theta = (rows.conj() * image).real.sum(-1, keepdim=True) / (rows.conj() * rows).real.sum(-1, keepdim=True)
    rows = rows + solve((image - rows * theta).to(A.dtype), theta)
    rows = rows / torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    unit: Tensor = rows.mH.to(A.dtype)
    return unit
