r"""Descent on the sphere by steps in space: the iteration that the projected and the Riemannian gradient share.

    δ = ∇f(x), or its tangent part;    y = x − w η δ;    x ← y/‖y‖

until f changes by less than ``tol``. Below the rounding of f no change says anything: it may stay at some units in the
last place for ever, or become zero by chance. An item that is still there after its last step has arrived as well.

None of the methods is global: they find a stationary point near the start.

Reference: Xu, Wang, Liu, Gould, *PMaF: Deep Declarative Layers for Principal Matrix Features*, 2023, arXiv 2306.14759.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from pmaf.products import adjoint_matvec, matvec
from pmaf.solvers.iteration import State, iterate
from pmaf.solvers.problem import SphereAnswer
from pmaf.solvers.sphere import (
    inner,
    length,
    normalise,
    on_unit_sphere,
    starting_point,
    tangent,
    unconstrained,
)
from pmaf.solvers.steps import Ray, Step, half_square

__all__ = ["descend", "direction_weight"]


def direction_weight(x: Tensor, gradient: Tensor, outside: Tensor) -> Tensor:
    """1 − cos(x, d), with d = −∇f where the unconstrained minimiser lies outside the sphere and d = ∇f where inside.

    Args:
        x: ``(*, n)``.
        gradient: the Euclidean gradient, also where the step goes along its tangent part, ``(*, n)``.
        outside: whether ‖A⁺b‖ ≥ r, ``(*,)``.

    Returns:
        The weight, between 0 and 2, ``(*,)``.
    """
    cosine = inner(x, gradient) / (length(x) * length(gradient)).clamp(min=1e-8)
    return 1 - torch.where(outside, -cosine, cosine)


def descend(
    problem: object,
    start: Tensor | None,
    *,
    solver: str,
    along_sphere: bool,
    step: Step,
    weighted: bool,
    tol: float,
    max_steps: int,
    observe: Callable[[Tensor], None] | None = None,
) -> SphereAnswer:
    """Run the iteration above on every item of a batch.

    Args:
        problem: a :class:`LeastSquares`.
        start: first point, ``(*, n)``; normalised. By default A⁺b.
        solver: the solver's name, for messages.
        along_sphere: whether δ is the tangent part of the gradient.
        step: chooses η.
        weighted: whether w is the direction weight, else one.
        tol: an item stops when its objective, in units of the radius, changes by less.
        max_steps: the most steps an item may take.
        observe: called with x in the units of the problem, ``(*, n)``, before the first step and after each one.

    Returns:
        The last points, and which items stopped by themselves or can no longer be told from those that did.
    """
    unit, radius = on_unit_sphere(problem, solver)
    A, b, _ = unit
    free = unconstrained(unit) if weighted or start is None else start
    outside = length(free) >= 1 if weighted else None

    def advance(state: State) -> tuple[State, Tensor]:
        x, misfit, idle, _ = state
        gradient = adjoint_matvec(A, misfit)
        direction = tangent(x, gradient) if along_sphere else gradient
        weight = torch.ones_like(unit.radius) if outside is None else direction_weight(x, gradient, outside)
        ray = Ray(unit, x, misfit, gradient, direction, matvec(A, direction), weight.expand(idle.shape), idle)
        eta, arrived = step.choose(ray)
        x = normalise(ray.point(eta), otherwise=x)
        fresh = matvec(A, x) - b
        change = half_square(fresh) - half_square(misfit)
        done = (change.abs() < tol) | arrived | ~torch.isfinite(change)
        return (x, fresh, done, change.abs() <= rounding(fresh, b)), done

    x = starting_point(unit, free if start is None else start)
    idle = torch.zeros(unit.batch_shape, dtype=torch.bool, device=x.device)
    state = (x, matvec(A, x) - b, idle, idle)
    report = None if observe is None else (lambda state, active: observe(state[0] * radius))
    (x, _, _, level), finished, steps = iterate(advance, state, unit.batch_shape, max_steps, report)
    return SphereAnswer(u=x * radius, finished=(finished | level) & torch.isfinite(x).all(-1), steps=steps)


def rounding(misfit: Tensor, b: Tensor) -> Tensor:
    """How far apart two objectives ½‖misfit‖² may be that differ by rounding alone.

    Args:
        misfit: A x − b, ``(*, m)``, of which A x and b are known to two units in the last place.
        b: ``(*, m)``.

    Returns:
        2 ‖misfit‖ δ + δ², with δ the error of the misfit, ``(*,)``.
    """
    size = length(misfit)
    error = 2 * torch.finfo(misfit.dtype).eps * (size + length(b))
    return error * (2 * size + error)
