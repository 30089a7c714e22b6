"""The short way of everyday problems on the sphere, real or complex: dense data on the CPU, from door to kernel.

It applies where nothing but reverse mode can be watching. Items that the kernel has something to say of (not finite,
not unique, not accurate enough) are solved again by the general path, they alone, so that the others keep their answer
to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from numbers import Real
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pmaf.checks.symmetry import check_symmetric
from pmaf.checks.values import CONSTRAINTS, POLICIES
from pmaf.handover import SphereAux
from pmaf.implicit.autograd import align, run_solve
from pmaf.implicit.sphere import LeastSquaresEquations, QuadraticEquations
from pmaf.kernels import available
from pmaf.kernels.calls import TYPES
from pmaf.kernels.sphere import INSIDE, MOST_COMPLEX, NOT_FINITE, SINGULAR, SphereFound, sphere_minimum
from pmaf.kernels.sphere_gradient import sphere_gradient
from pmaf.layers.direct import PLAIN, tolerance
from pmaf.solution import LESSSolution
from pmaf.transforms import follows_nothing, mapped_the_older_way, open_to_kernels, recorded

__all__ = ["direct_less", "direct_quadratic"]

OTHERS = ("free", "start", "solver", "backward")

LEAST_SQUARES, QUADRATIC = LeastSquaresEquations("drop", False), QuadraticEquations("drop")
FIRST = 512  # real unknowns up to which the kernel is asked
FINE = INSIDE | SINGULAR  # codes of items that are well
RECIPROCAL = 2.0**900
Again = Callable[[Any, Any, Any, Any], LESSSolution]


class DirectSphere(torch.autograd.Function):
    """A minimiser and its multiplier that are already there, as a function of A or H, b or g, weights and radius."""

    @staticmethod
    def forward(ctx: Any, quadratic: bool, found: SphereFound, *params: Tensor | None) -> Any:
        """Hand the solution over, and keep what the kernel left."""
        ctx.quadratic = quadratic
        ctx.save_for_backward(*params, found.u, found.multiplier, found.norm, found.code, found.factor)
        ctx.set_materialize_grads(False)
        return found.u, found.multiplier

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        """The kernel where no further derivative is asked for, else the equations."""
        *params, u, multiplier, norm, code, factor = ctx.saved_tensors
        needs, given = ctx.needs_input_grad[2:], [c for c in cotangents if c is not None]
        if not torch.is_grad_enabled() and follows_nothing() and not any(map(mapped_the_older_way, given)):
            grads = by_kernel(ctx.quadratic, params, (u, factor, code), cotangents, needs)
        else:
            grads = by_equations(ctx.quadratic, params, (u, multiplier), norm, code, cotangents, needs)
        return None, None, *grads


Grads = tuple[Tensor | None, ...]


def by_kernel(
    quadratic: bool,
    params: Sequence[Tensor | None],
    point: tuple[Tensor, Tensor, Tensor],
    cotangents: Sequence[Tensor | None],
    needs: tuple[bool, bool, bool, bool],
) -> Grads:
    """The gradients of A or H, b or g, weights and radius in one pass."""
    A, b, weights, radius = params
    vector, multiplier = cotangents
    assert A is not None
    assert b is not None
    assert radius is not None
    data = A, b, radius, weights, *point
    found = sphere_gradient(*data, quadratic=quadratic, vector=vector, multiplier=multiplier, needs=needs)
    grads = (found.matrix, found.right, found.weights, found.radius)
    return tuple(
        x if x is None or p is None or x.shape == p.shape else x.sum_to_size(p.shape)
        for x, p in zip(grads, params, strict=True)
    )


def by_equations(
    quadratic: bool,
    params: Sequence[Tensor | None],
    solution: tuple[Tensor, Tensor],
    norm: Tensor,
    code: Tensor,
    cotangents: Sequence[Tensor | None],
    needs: tuple[bool, bool, bool, bool],
) -> Grads:
    """The same in differentiable operations."""
    u, multiplier = solution
    elsewhere, empty = (code & ~FINE).ne(0), multiplier.detach()[..., None][..., :0]
    corner = (code & INSIDE).ne(0).to(multiplier.dtype)
    level = tolerance(u.dtype, u.shape[-1]) * norm
    aux = SphereAux(elsewhere, elsewhere, corner, level, empty, empty[..., None][..., :0])
    A, b, weights, radius = params
    if quadratic:
        theta = align((A, b, radius), QUADRATIC.core_dims)
        own = (needs[0], needs[1], needs[3])
        H, g, r = QUADRATIC.gradient(theta, (u, multiplier), aux, tuple(cotangents), own, run_solve)
        found: Grads = (H, g, None, r)
    else:
        theta = align((A, b, weights, None, radius), LEAST_SQUARES.core_dims)
        own_ = (needs[0], needs[1], needs[2], False, needs[3])
        grads = LEAST_SQUARES.gradient(theta, (u, multiplier), aux, tuple(cotangents), own_, run_solve)
        found = (*grads[:3], grads[4])
    return tuple(
        None if x is None or p is None or not need else x.reshape(p.shape)
        for x, p, need in zip(found, params, needs, strict=True)
    )


CORE = (2, 1, 1, 0)  # non-batch dimensions of A, b, weights and radius


def items(x: Tensor, core: int) -> Tensor:
    """One batch dimension in front."""
    return x.reshape(-1, *x.shape[x.dim() - core :])


@lru_cache(maxsize=64)
def number(value: float, dtype: torch.dtype, _inference: bool) -> Tensor:
    """A number as a tensor, which nobody writes to; one of inference mode is for that mode alone."""
    return torch.full((), value, dtype=dtype, device="cpu")


class Problem(NamedTuple):
    """What the short way takes: A or H, b or g, weights and radius, and their batch."""

    params: tuple[Tensor, Tensor, Tensor | None, Tensor]
    batch: torch.Size


def short_problem(A: object, b: object, radius: object, weights: object) -> Problem | None:
    """The problem; ``None`` where the general path has to look."""
    if not (type(A) in PLAIN and type(b) in PLAIN and isinstance(A, Tensor) and isinstance(b, Tensor)):
        return None
    if not (A.layout == b.layout == torch.strided and open_to_kernels(A) and open_to_kernels(b) and available()):
        return None
    if A.dtype not in TYPES or b.dtype != A.dtype or A.dim() < 2 or b.dim() < 1 or A.shape[-2] != b.shape[-1]:
        return None
    real = A.dtype.to_real()
    info = torch.finfo(real)
    if isinstance(radius, bool):
        return None
    if isinstance(radius, Real) and info.tiny <= float(radius) <= info.max:
        r = number(float(radius), real, torch.is_inference_mode_enabled())
    elif type(radius) in PLAIN and isinstance(radius, Tensor) and radius.dtype == real and open_to_kernels(radius):
        r = radius
        if not bool((((r > 0) & (r < torch.inf)) | r.isnan()).all()):
            return None
    else:
        return None
    if weights is not None and not (
        type(weights) in PLAIN
        and isinstance(weights, Tensor)
        and weights.dtype == real
        and weights.dim() > 0
        and weights.shape[-1] == b.shape[-1]
        and open_to_kernels(weights)
        and not bool((weights < 0).any())
    ):
        return None
    w = weights if isinstance(weights, Tensor) else None
    shapes = [A.shape[:-2], b.shape[:-1], r.shape, *([] if w is None else [w.shape[:-1]])]
    whole = all(shape == shapes[0] for shape in shapes)
    batch = shapes[0] if whole else max(shapes, key=lambda shape: (shape.numel(), len(shape)))
    if not 1 <= A.shape[-1] <= (MOST_COMPLEX if A.is_complex() else FIRST) or A.shape[-2] == 0 or batch.numel() == 0:
        return None
    if not whole and not all(shape == batch or (shape.numel() == 1 and len(shape) <= len(batch)) for shape in shapes):
        return None  # a batch that is shared in part
    return Problem((A, b, w, r), batch)


class Answer(NamedTuple):
    """A minimiser and its multiplier with derivatives attached; the whole solution where items were solved again."""

    u: Tensor
    multiplier: Tensor
    found: SphereFound
    whole: LESSSolution | None

    def solution(self) -> LESSSolution:
        """The whole solution."""
        if self.whole is not None:
            return self.whole
        status, steps = torch.zeros_like(self.found.code, dtype=torch.int64), self.found.steps.to(torch.int64)
        return LESSSolution(self.u, self.multiplier, status, steps, self.found.residual, self.found.gap)


def answered(quadratic: bool, problem: Problem, ball: bool, again: Again) -> Answer:
    """The solution with derivatives attached."""
    params, batch = problem
    A, b, weights, radius = params
    keep, rtol = recorded(*params), tolerance(A.dtype, A.shape[-1])
    found = sphere_minimum(
        *(A, b, radius, weights), quadratic=quadratic, ball=ball, rtol=rtol, keep_factor=keep, batch=batch
    )
    if keep and radius.dtype == torch.float64:
        found = with_gradient(found)
    if keep:
        u, multiplier = DirectSphere.apply(quadratic, found, *params)  # type: ignore[no-untyped-call]
    else:
        u, multiplier = found.u, found.multiplier
    answer = Answer(u, multiplier, found, None)
    if not found.seen & ~FINE:
        return answer
    at = (found.code & ~FINE).reshape(-1).nonzero()[:, 0]
    some = [p if p is None or shared(p, c) else items(p, c)[at] for p, c in zip(params, CORE, strict=True)]
    better, solution = again(*some), answer.solution()

    def put(old: Tensor, new: Tensor) -> Tensor:
        core = old.shape[len(batch) :]
        flat = new.reshape(-1, *core).expand(len(at), *core).to(old.dtype)
        return old.reshape(-1, *core).index_copy(0, at, flat).reshape(old.shape)

    return answer._replace(whole=LESSSolution(*map(put, solution[:-1], better[:-1])))


def with_gradient(found: SphereFound) -> SphereFound:
    """The answers, those marked whose gradient would divide by a ‖Q‖ that has no reciprocal in double precision."""
    least, most = found.norm.aminmax()
    if float(least) > 1 / RECIPROCAL and float(most) < RECIPROCAL:
        return found
    fine = (found.norm > 1 / RECIPROCAL) & (found.norm < RECIPROCAL)
    code = torch.where(fine, found.code, found.code | NOT_FINITE).to(found.code.dtype)
    return found._replace(code=code, seen=found.seen | NOT_FINITE)


def shared(x: Tensor, core: int) -> bool:
    """Whether all items share this."""
    return x.dim() == core


def direct_less(
    again: Again,
    A: object = None,
    b: object = None,
    *,
    radius: object = 1.0,
    weights: object = None,
    constraint: object = "sphere",
    degenerate: object = "drop",
    **others: object,
) -> Answer | None:
    """Least squares on the sphere or in the ball; ``None`` where the general path has to look.

    Args:
        again: the general path, for A, b, weights and radius of some items.
        A: as in :func:`pmaf.less`.
        b: likewise.
        radius: likewise.
        weights: likewise.
        constraint: likewise.
        degenerate: likewise.
        others: other arguments; all of them have to be as they are by default.

    Returns:
        The solution, with derivatives attached.
    """
    if constraint not in CONSTRAINTS or degenerate not in POLICIES:
        return None
    if others and not all(value is None and name in OTHERS for name, value in others.items()):
        return None
    problem = short_problem(A, b, radius, weights)
    return None if problem is None else answered(False, problem, constraint == "ball", again)


def direct_quadratic(H: object, g: object, radius: object, ball: bool, again: Again) -> Answer | None:
    """A quadratic on the sphere or in the ball; ``None`` where the general path has to look.

    Args:
        H: as in :func:`pmaf.sphere_quadratic`.
        g: likewise.
        radius: likewise.
        ball: whether the inside counts as well.
        again: the general path, for H, g, ``None`` and radius of some items.

    Returns:
        The solution, with derivatives attached.
    """
    problem = short_problem(H, g, radius, None)
    if problem is None or problem.params[0].shape[-1] != problem.params[0].shape[-2]:
        return None
    try:
        check_symmetric("sphere_quadratic", "H", problem.params[0])
    except ValueError:
        return None  # the general path says it in the name of the door
    return answered(True, problem, ball, again)
