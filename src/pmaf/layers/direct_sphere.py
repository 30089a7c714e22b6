"""The short way of everyday problems on the sphere: real dense data on the CPU, from the door to the kernel.

It applies where nothing but reverse mode can be watching. Items that the kernel has something to say of (not finite,
not unique, not accurate enough) are solved again by the general path, they alone, so that the others keep their answer
to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pmaf.checks.symmetry import check_symmetric
from pmaf.handover import SphereAux
from pmaf.implicit.autograd import align, run_solve
from pmaf.implicit.sphere import LeastSquaresEquations, QuadraticEquations
from pmaf.kernels import available
from pmaf.kernels.sphere import INSIDE, SINGULAR, SphereFound, sphere_minimum
from pmaf.kernels.sphere_gradient import sphere_gradient
from pmaf.layers.direct import PLAIN, tolerance
from pmaf.solution import LESSSolution
from pmaf.transforms import follows_nothing, mapped_the_older_way, open_to_kernels, recorded

__all__ = ["direct_less", "direct_quadratic"]

LEAST_SQUARES, QUADRATIC = LeastSquaresEquations("drop", False), QuadraticEquations("drop")
REAL = (torch.float32, torch.float64)
FIRST = 512  # unknowns up to which the kernel is asked
FINE = INSIDE | SINGULAR  # codes of items that are well
Again = Callable[[Any, Any, Any, Any], LESSSolution]


class DirectSphere(torch.autograd.Function):
    """A minimiser and its multiplier that are already there, as a function of A or H, b or g, weights and radius."""

    @staticmethod
    def forward(ctx: Any, quadratic: bool, found: SphereFound, batch: torch.Size, *params: Tensor | None) -> Any:
        """Hand the solution over, and keep what the kernel left."""
        ctx.quadratic, ctx.batch = quadratic, batch
        u, multiplier = found.u.reshape(*batch, -1), found.multiplier.reshape(batch)
        ctx.save_for_backward(*params, u, multiplier, found.norm, found.code, found.factor)
        ctx.set_materialize_grads(False)
        return u, multiplier

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        """The kernel where no further derivative is asked for, else the equations."""
        *params, u, multiplier, norm, code, factor = ctx.saved_tensors
        needs, given = ctx.needs_input_grad[3:], [c for c in cotangents if c is not None]
        if not torch.is_grad_enabled() and follows_nothing() and not any(map(mapped_the_older_way, given)):
            point = u.reshape(-1, u.shape[-1]), factor, code
            grads = by_kernel(ctx.quadratic, params, point, cotangents, needs, ctx.batch)
        else:
            grads = by_equations(ctx.quadratic, params, (u, multiplier), norm, code, cotangents, needs)
        return None, None, None, *grads


Grads = tuple[Tensor | None, ...]


def by_kernel(
    quadratic: bool,
    params: Sequence[Tensor | None],
    point: tuple[Tensor, Tensor, Tensor],
    cotangents: Sequence[Tensor | None],
    needs: tuple[bool, bool, bool, bool],
    batch: torch.Size,
) -> Grads:
    """The gradients of A or H, b or g, weights and radius in one pass."""
    A, b, weights, radius = (None if p is None else items(p, c) for p, c in zip(params, CORE, strict=True))
    assert A is not None
    assert b is not None
    assert radius is not None
    u, factor, code = point
    vector = None if cotangents[0] is None else cotangents[0].reshape(u.shape)
    multiplier = None if cotangents[1] is None else cotangents[1].reshape(-1)
    data = A, b, radius, weights, u, factor, code
    found = sphere_gradient(*data, quadratic=quadratic, vector=vector, multiplier=multiplier, needs=needs)
    grads = (found.matrix, found.right, found.weights, found.radius)
    return tuple(summed(x, p, batch) for x, p in zip(grads, params, strict=True))


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
    batch = multiplier.shape
    elsewhere, empty = (code & ~FINE).ne(0).reshape(batch), multiplier.detach()[..., None][..., :0]
    corner = (code & INSIDE).ne(0).reshape(batch).to(u.dtype)
    level = tolerance(u.dtype, u.shape[-1]) * norm.reshape(batch)
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
    """One batch dimension in front, which is 1 where all items share."""
    return x.reshape(-1, *x.shape[x.dim() - core :])


def summed(gradient: Tensor | None, param: Tensor | None, batch: torch.Size) -> Tensor | None:
    """The gradient of one item each, summed to the shape of what they share."""
    if gradient is None or param is None:
        return None
    return gradient.reshape(batch + gradient.shape[1:]).sum_to_size(param.shape)


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
    if A.dtype not in REAL or b.dtype != A.dtype or A.dim() < 2 or b.dim() < 1 or A.shape[-2] != b.shape[-1]:
        return None
    info = torch.finfo(A.dtype)
    if isinstance(radius, bool):
        return None
    if isinstance(radius, Real) and info.tiny <= float(radius) <= info.max:
        r = torch.full((), float(radius), dtype=A.dtype)
    elif type(radius) in PLAIN and isinstance(radius, Tensor) and radius.dtype == A.dtype and open_to_kernels(radius):
        r = radius
        if not bool((((r > 0) & (r < torch.inf)) | r.isnan()).all()):
            return None
    else:
        return None
    if weights is not None and not (
        type(weights) in PLAIN
        and isinstance(weights, Tensor)
        and weights.dtype == A.dtype
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
    if not 1 <= A.shape[-1] <= FIRST or A.shape[-2] == 0 or batch.numel() == 0:
        return None
    if not whole and not all(shape == batch or (shape.numel() == 1 and len(shape) <= len(batch)) for shape in shapes):
        return None  # a batch that is shared in part
    return Problem((A, b, w, r), batch)


def answered(quadratic: bool, problem: Problem, ball: bool, again: Again) -> LESSSolution:
    """The solution with derivatives attached."""
    params, batch = problem
    A, b, weights, radius = (None if p is None else items(p.detach(), c) for p, c in zip(params, CORE, strict=True))
    assert A is not None
    assert b is not None
    assert radius is not None
    keep, rtol = recorded(*params), tolerance(A.dtype, A.shape[-1])
    found = sphere_minimum(A, b, radius, weights, quadratic=quadratic, ball=ball, rtol=rtol, keep_factor=keep)
    if keep:
        u, multiplier = DirectSphere.apply(quadratic, found, batch, *params)  # type: ignore[no-untyped-call]
    else:
        u, multiplier = found.u.reshape(batch + found.u.shape[-1:]), found.multiplier.reshape(batch)
    status, steps = torch.zeros(batch, dtype=torch.int64), found.steps.to(torch.int64).reshape(batch)
    answer = LESSSolution(u, multiplier, status, steps, found.residual.reshape(batch), found.gap.reshape(batch))
    if not found.seen & ~FINE:
        return answer
    at = (found.code & ~FINE).nonzero()[:, 0]
    some = [None if p is None else p if shared(p, c) else items(p, c)[at] for p, c in zip(params, CORE, strict=True)]
    better = again(*some)

    def put(old: Tensor, new: Tensor) -> Tensor:
        core = old.shape[len(batch) :]
        flat = new.reshape(-1, *core).expand(len(at), *core).to(old.dtype)
        return old.reshape(-1, *core).index_copy(0, at, flat).reshape(old.shape)

    return LESSSolution(*map(put, answer[:-1], better[:-1]))


def shared(x: Tensor, core: int) -> bool:
    """Whether all items share this."""
    return x.dim() == core


def direct_less(A: object, b: object, radius: object, weights: object, ball: bool, again: Again) -> LESSSolution | None:
    """Least squares on the sphere or in the ball; ``None`` where the general path has to look.

    Args:
        A: as in :func:`pmaf.less`.
        b: likewise.
        radius: likewise.
        weights: likewise.
        ball: whether the inside counts as well.
        again: the general path, for A, b, weights and radius of some items.

    Returns:
        The solution, with derivatives attached.
    """
    problem = short_problem(A, b, radius, weights)
    return None if problem is None else answered(False, problem, ball, again)


def direct_quadratic(H: object, g: object, radius: object, ball: bool, again: Again) -> LESSSolution | None:
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
