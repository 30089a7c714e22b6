r"""Single-precision solves of M y = h with one step of refinement from a residual in double precision.

An eigenbasis of Q = AᴴA in single precision is that of a matrix ε‖Q‖ away, which leaves an error of ε‖Q‖/gap in y. The
residual h − M y, taken in double precision from the data themselves, lets a second solve in the same basis remove it.
Matrices of more than 65,536 entries are left alone, where the copy would take longer than the solve.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from pmaf.implicit.refinement import is_single
from pmaf.products import double, widened

__all__ = ["refined"]

Vectors = tuple[Tensor, ...]


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
    if not is_single(rhs[0].dtype) or matrix is None or widened(matrix) == matrix.dtype:
        return y
    applied = apply(wide(params), wide(solution), aux, wide(y))
    rest = solve(tuple((h - Mh).to(h.dtype) for h, Mh in zip(rhs, applied, strict=True)))
    return tuple(v + dv for v, dv in zip(y, rest, strict=True))


def wide(tensors: Any) -> Any:
    """The tensors in double precision."""
    return tuple(None if t is None else t.to(double(t.dtype)) for t in tensors)
