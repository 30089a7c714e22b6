r"""The complement solve of leading eigenpairs when the forward pass left no eigenbasis.

The right-hand side splits into a part inside the span of the selected vectors, with coefficients 1/(λᵢ − λⱼ), and a
part outside, where λᵢI − X is definite: elimination entry by entry for n ≤ 4, conjugate gradients where X is known by
its products or its selected eigenvalues stand far apart, else a Cholesky factorisation for each pair. Columns that do
not get there, because a selected eigenvalue coincides with one left out or nearly so, are solved from an eigenbasis
when X can be made dense, which tells the components without a meaning apart and drops them. Where values cannot be
looked at, or not without waiting for a device, factorisations that need no such rescue take the place of all this.
"""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pmaf.errors import GradientWarning
from pmaf.implicit.complement.direct import complement_by_factorisation, solve_deflated
from pmaf.implicit.complement.factorised import solve_factorised
from pmaf.implicit.complement.small import entrywise, solve_small
from pmaf.linalg.bordered import safe_inverse
from pmaf.linalg.projected_cg import Columns, complement_cg
from pmaf.linalg.sparse_factor import SparseFactor
from pmaf.linalg.tolerances import relative_tolerance
from pmaf.operators.base import DENSE_LIMIT, Operator
from pmaf.operators.dense import Dense
from pmaf.operators.function import MatVec
from pmaf.operators.gram import Gram
from pmaf.operators.separation import scale_of, separation_tolerance
from pmaf.operators.sparse import Sparse
from pmaf.transforms import cheap, compiling, one_node, wrapped

__all__ = ["solve_without_basis"]

TINY = 64  # order up to which a Cholesky factorisation is over before conjugate gradients have begun
LARGE = 512  # order from which some steps of conjugate gradients are worth a try in any case
FEW = 12  # pairs up to which as many factorisations cost less than an eigendecomposition
USELESS = 0.1  # a relative residual from which on a column says nothing about the gradient


def solve_without_basis(
    X: Operator,
    values: Tensor,
    U: Tensor,
    H: Tensor,
    degenerate: Tensor,
    *,
    largest: bool,
    whole_block: bool,
    rtol: float | None,
    atol: float,
) -> Tensor:
    """Columns wᵢ = Σ_j v_j (v_jᴴhᵢ)/(λᵢ − s_j) over the eigenvectors that are separated from λᵢ.

    Args:
        X: the operator.
        values: the selected eigenvalues, ``(*, k)``.
        U: the selected eigenvectors, ``(*, n, k)``.
        H: right-hand sides, ``(*, n, k)``.
        degenerate: items whose answer is not unique, ``(*,)``.
        largest: which end of the spectrum was selected.
        whole_block: leave out all selected eigenvectors, not only those that coincide.
        rtol: relative tolerance of what coincides, or ``None`` for the default.
        atol: absolute tolerance.

    Returns:
        W, ``(*, n, k)``.
    """
    if compiling() and isinstance(X, (Dense, Gram)):
        (M,), gram = X.tensors, isinstance(X, Gram)
        traced: Tensor = torch.ops.pmaf.complement(M, values, U, H, degenerate, gram, largest, whole_block, rtol, atol)
        return traced
    rtol = relative_tolerance(rtol, U.dtype, X.n)
    if entrywise(X, U, H):
        return solve_small(X.tensors[0], values[..., 0], U[..., 0], H[..., 0])[0][..., None]
    look = cheap(H) and not wrapped(H)  # the derivative of a direct solve
    if not look and (isinstance(X, (Dense, Gram)) or X.n <= DENSE_LIMIT):
        sound = values.isfinite().all(-1, keepdim=True)
        finite, basis = torch.where(sound, values, 0), torch.where(sound[..., None], U, 0)
        W = complement_by_factorisation(X, finite, basis, H, degenerate, largest=largest, rtol=rtol, atol=atol)
    else:
        factor = X.factors.get(X.tensors[0], -1.0 if largest else 1.0) if isinstance(X, Sparse) and look else None
        if isinstance(X, Sparse) and isinstance(factor, SparseFactor):
            W, converged = solve_factorised(factor, values, U, H, X.size, rtol * X.size + atol)
        else:
            W, converged = solve_outside(X, values, U, H, degenerate, largest=largest)
        if not bool(converged.all()):
            W = rescue(X, values, U, H, W, converged, rtol, atol)
    if whole_block or values.shape[-1] == 1:
        return W
    difference = values[..., None, :] - values[..., :, None]
    norm = scale_of(X, values)[..., None]
    keep = difference.abs() > separation_tolerance(X, values[..., None, :], values[..., :, None], norm, rtol, atol)
    return W + U @ (safe_inverse(difference, keep) * (U.mH @ H))


def solve_outside(
    X: Operator, values: Tensor, U: Tensor, H: Tensor, degenerate: Tensor, *, largest: bool
) -> tuple[Tensor, Tensor]:
    """The part outside span(U), and a mask of the columns that were found."""
    few = isinstance(X, Dense) and values.shape[-1] <= FEW
    apart = few and X.n > TINY and stands_apart(X.tensors[0], values, largest)
    if not few or apart or X.n > LARGE:
        sound = values.isfinite().all(-1, keepdim=True)  # items without an answer: keep them out of the iteration
        finite, basis = torch.where(sound, values, 0), torch.where(sound[..., None], U, 0)
        budget = X.n // 32 if few and not apart else None
        nearly = nearly_inverse(X, largest)
        W, done = complement_cg(X.matmat, finite, basis, H, largest=largest, max_steps=budget, precondition=nearly)
        done = done | ~sound
        if not few or bool(done.all()):
            return W, done
    W, definite = solve_deflated(X.dense(), values, U, H, largest=largest)
    return W, definite & ~degenerate[..., None]


def nearly_inverse(X: Operator, largest: bool) -> Callable[[Tensor, Columns], Tensor] | None:
    """A preconditioner for rows: what the user gave with a function, or the forward pass left of a sparse matrix."""
    if isinstance(X, MatVec):
        inverse = None if largest else X.nearly_inverse()
    elif isinstance(X, Sparse):
        found = X.factors.get(X.tensors[0], -1.0 if largest else 1.0)
        inverse = None if found is None else found.solve
    else:
        inverse = None
    if inverse is None:
        return None
    known = inverse

    def precondition(R: Tensor, _: Columns) -> Tensor:
        return known(R.mT).to(R.dtype).mT

    return precondition


def stands_apart(X: Tensor, values: Tensor, largest: bool) -> bool:
    """Whether the selected eigenvalues are so large that conjugate gradients are over after about ten products.

    The others are at most s in magnitude, s² = ‖X‖²_F − Σλᵢ², so the condition number is at most (λ₁ + s)/(λₖ − s).
    """
    norm = torch.linalg.vector_norm(X, dim=(-2, -1))[..., None]
    share = (values if largest else -values) / norm
    rest = (1 - share.square().sum(-1)).clamp_min(0).sqrt()
    return bool((rest < 0.8 * share[..., -1]).all())


def rescue(
    X: Operator, values: Tensor, U: Tensor, H: Tensor, W: Tensor, converged: Tensor, rtol: float, atol: float
) -> Tensor:
    """Columns that did not converge, from a dense eigenbasis where there can be one."""
    if not isinstance(X, (Dense, Gram)):
        return as_far_as_it_goes(X, values, U, H, W, converged)
    M = X.dense()
    usable = M.isfinite().flatten(-2).all(-1)
    s, V = torch.linalg.eigh(torch.where(usable[..., None, None], M, 0))
    outside = H - U @ (U.mH @ H)
    difference = values[..., None, :] - s[..., :, None]
    norm = s.abs().amax(-1)[..., None, None]
    keep = difference.abs() > separation_tolerance(X, values[..., None, :], s[..., :, None], norm, rtol, atol)
    exact = V @ (safe_inverse(difference, keep) * (V.mH @ outside))
    exact = exact - U @ (U.mH @ exact)
    return torch.where(converged[..., None, :], W, exact)


def as_far_as_it_goes(X: Operator, values: Tensor, U: Tensor, H: Tensor, W: Tensor, converged: Tensor) -> Tensor:
    """Columns as conjugate gradients left them, with a warning that tells how good the worst of them is.

    Eigenpairs that are only known to a tolerance, or a small gap, keep the iteration from full precision; what it
    reached is still the gradient to that accuracy.
    """
    goal = H - U @ (U.mH @ H)
    image = W * values[..., None, :] - X.matmat(W)
    misfit = torch.linalg.vector_norm(goal - (image - U @ (U.mH @ image)), dim=-2)
    size = torch.linalg.vector_norm(goal, dim=-2)
    # Of a cotangent along its own vector only the error of that vector is left outside, which nobody needs solved.
    relative = torch.where(converged, 0, misfit / torch.where(size > 0, size, 1))
    worst = float(relative.amax())
    if not worst <= torch.finfo(H.dtype).eps ** 0.5:
        warnings.warn(
            f"pmaf: conjugate gradients for the gradient of eigenvectors stopped at a residual of {worst:.1e}; "
            "ask the solver for more accurate eigenpairs, or select more or fewer of them if the gap is small "
            f"(columns at or above {USELESS} are left out)",
            GradientWarning,
            stacklevel=2,
        )
    return torch.where((relative < USELESS)[..., None, :], W, 0)


@one_node("pmaf::complement")
def complement(
    X: Tensor,
    values: Tensor,
    U: Tensor,
    H: Tensor,
    degenerate: Tensor,
    gram: bool,
    largest: bool,
    whole_block: bool,
    rtol: float | None,
    atol: float,
) -> Tensor:
    """:func:`solve_without_basis` as one node of a graph."""
    operator = Gram(X) if gram else Dense(X)
    return solve_without_basis(
        operator, values, U, H, degenerate, largest=largest, whole_block=whole_block, rtol=rtol, atol=atol
    ).clone(memory_format=torch.contiguous_format)


@complement.register_fake
def _(X: Tensor, values: Tensor, U: Tensor, H: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(H, memory_format=torch.contiguous_format)
