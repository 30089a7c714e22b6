r"""Projected and Riemannian gradient descent on the sphere, which share one iteration of steps in space.

    δ = ∇f(x), or its tangent part;    y = x − w η δ;    x ← y/‖y‖

until f changes by less than ``tol``. None of the methods is global: they find a stationary point near the start.

Reference: Xu, Wang, Liu, Gould, *PMaF: Deep Declarative Layers for Principal Matrix Features*, 2023, arXiv 2306.14759.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pmaf.checks.values import set_flags, set_integers, set_reals
from pmaf.linalg.batched import adjoint_matvec, matvec
from pmaf.solvers.base import LeastSquares, SphereAnswer, SphereQuadratic
from pmaf.solvers.iteration import State, iterate
from pmaf.solvers.sphere.geometry import (
    inner,
    length,
    normalise,
    on_unit_sphere,
    starting_point,
    tangent,
    unconstrained,
)
from pmaf.solvers.sphere.step_sizes import ExactStep, Ray, Step, half_square

__all__ = ["ProjectedGradient", "RiemannianGradient", "descend", "direction_weight"]

EXACT = ExactStep()  # one for all: a traced graph cannot make objects


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
        The last points, and which items stopped by themselves.
    """
    unit, radius = on_unit_sphere(problem, solver)
    A, b, _ = unit
    free = unconstrained(unit) if weighted or start is None else start
    outside = length(free) >= 1 if weighted else None

    def advance(state: State) -> tuple[State, Tensor]:
        x, misfit, idle = state
        gradient = adjoint_matvec(A, misfit)
        direction = tangent(x, gradient) if along_sphere else gradient
        weight = torch.ones_like(unit.radius) if outside is None else direction_weight(x, gradient, outside)
        ray = Ray(unit, x, misfit, gradient, direction, matvec(A, direction), weight.expand(idle.shape), idle)
        eta, arrived = step.choose(ray)
        x = normalise(ray.point(eta), otherwise=x)
        fresh = matvec(A, x) - b
        change = half_square(fresh) - half_square(misfit)
        done = (change.abs() < tol) | arrived | ~torch.isfinite(change)
        return (x, fresh, done), done

    x = starting_point(unit, free if start is None else start)
    state = (x, matvec(A, x) - b, torch.zeros(unit.batch_shape, dtype=torch.bool, device=x.device))
    report = None if observe is None else (lambda state, active: observe(state[0] * radius))
    (x, *_), finished, steps = iterate(advance, state, unit.batch_shape, max_steps, report)
    return SphereAnswer(u=x * radius, finished=finished & torch.isfinite(x).all(-1), steps=steps)


@dataclass(frozen=True, kw_only=True)
class ProjectedGradient:
    r"""Step along −∇f and project back: PGD, the paper's baseline.

    .. math::
        \eta = \frac{\|\nabla f\|^2}{\|A\nabla f\|^2 + 10^{-8}}, \qquad
        x \leftarrow \frac{x - w\,\eta\,\nabla f}{\|x - w\,\eta\,\nabla f\|}

    with w = 1, or with the direction weight 1 − cos(x, d), d = −∇f if ‖A⁺b‖ ≥ r and ∇f otherwise. At a stationary point
    ∇f is normal to the sphere and a step along it undone by the projection, but the exact step is far too long for
    the projection to be harmless: most problems wander until ``max_steps``.

    Local, batched, matrix products only; real and complex. ``tol`` is absolute, in units of the squared radius.

    Args:
        direction_weight: whether to use the direction weight, PGD+DW.
        tol: an item stops when ½‖A u − b‖² changes by less.
        max_steps: the most steps an item may take.

    Raises:
        ValueError: if an argument is out of range.

    References:
        Xu, Wang, Liu, Gould, *PMaF*, 2023, arXiv 2306.14759.

    Example:
        >>> import torch
        >>> from pmaf.solvers.base import LeastSquares
        >>> A, b = torch.eye(2), torch.tensor([3.0, 4.0])
        >>> ProjectedGradient().solve(LeastSquares(A, b, torch.tensor(1.0))).u
        tensor([0.6000, 0.8000])
    """

    direction_weight: bool = False
    tol: float = 1e-7
    max_steps: int = 100

    def __post_init__(self) -> None:
        set_integers(self, "max_steps")
        set_reals(self, "non-negative", "tol")
        set_flags(self, "direction_weight")

    def solve(self, problem: LeastSquares | SphereQuadratic, start: Tensor | None = None) -> SphereAnswer:
        """Improve every item of the batch until it stops.

        Args:
            problem: least squares on a sphere.
            start: first point, ``(*, n)``, of any length; by default A⁺b.

        Returns:
            The last points.
        """
        return self._descend(problem, start, None)

    def iterates(self, problem: LeastSquares, start: Tensor | None = None) -> list[Tensor]:
        """The path of ``solve``: the start and the point after each step, each ``(*, n)``.

        Args:
            problem: least squares on a sphere.
            start: first point.

        Returns:
            As many points as the slowest item takes steps, and one more.
        """
        path: list[Tensor] = []
        self._descend(problem, start, path)
        return path

    def _descend(
        self, problem: LeastSquares | SphereQuadratic, start: Tensor | None, path: list[Tensor] | None
    ) -> SphereAnswer:
        return descend(
            problem,
            start,
            solver="ProjectedGradient",
            along_sphere=False,
            step=ExactStep(),
            weighted=self.direction_weight,
            tol=self.tol,
            max_steps=self.max_steps,
            observe=None if path is None else path.append,
        )


@dataclass(frozen=True, kw_only=True)
class RiemannianGradient:
    r"""Step along the tangent part of −∇f and project back: PGD+RM and its line searches.

    .. math::
        \xi = (I - xx^\top)\nabla f, \qquad
        x \leftarrow \frac{x - w\,\eta\,\xi}{\|x - w\,\eta\,\xi\|}

    with η from ``step``, by default the exact :math:`\eta = \nabla f^\top\xi / (\|A\xi\|^2 + 10^{-8})`, and w = 1, or
    the direction weight 1 − cos(x, d), d = −∇f if ‖A⁺b‖ ≥ r and ∇f otherwise, where ∇f is the Euclidean gradient.

    Local, batched, matrix products only; real and complex. ``tol`` is absolute, in units of the squared radius.

    Args:
        step: chooses η: :class:`ExactStep`, :class:`Backtracking` or :class:`TangentDecay`.
        direction_weight: whether to use the direction weight.
        tol: an item stops when ½‖A u − b‖² changes by less.
        max_steps: the most steps an item may take.

    Raises:
        ValueError: if an argument is out of range.

    References:
        Xu, Wang, Liu, Gould, *PMaF*, 2023, arXiv 2306.14759.
        Absil, Mahony, Sepulchre, *Optimization Algorithms on Matrix Manifolds*, 2008, chapter 4.

    Example:
        >>> import torch
        >>> from pmaf.solvers.base import LeastSquares
        >>> from pmaf.solvers.sphere.step_sizes import TangentDecay
        >>> A, b = torch.eye(2), torch.tensor([3.0, 4.0])
        >>> RiemannianGradient(step=TangentDecay()).solve(LeastSquares(A, b, torch.tensor(1.0))).u
        tensor([0.6000, 0.8000])
    """

    step: Step = field(default_factory=lambda: EXACT)
    direction_weight: bool = False
    tol: float = 1e-7
    max_steps: int = 100

    def __post_init__(self) -> None:
        set_integers(self, "max_steps")
        set_reals(self, "non-negative", "tol")
        set_flags(self, "direction_weight")
        if isinstance(self.step, type) or not hasattr(self.step, "choose"):
            raise TypeError(
                "pmaf.solvers.RiemannianGradient: step must be a rule such as ExactStep(), Backtracking() or "
                f"TangentDecay(), got {self.step!r}"
            )

    def solve(self, problem: LeastSquares | SphereQuadratic, start: Tensor | None = None) -> SphereAnswer:
        """Improve every item of the batch until it stops.

        Args:
            problem: least squares on a sphere.
            start: first point, ``(*, n)``, of any length; by default A⁺b.

        Returns:
            The last points.
        """
        return self._descend(problem, start, None)

    def iterates(self, problem: LeastSquares, start: Tensor | None = None) -> list[Tensor]:
        """The path of ``solve``: the start and the point after each step, each ``(*, n)``.

        Args:
            problem: least squares on a sphere.
            start: first point.

        Returns:
            As many points as the slowest item takes steps, and one more.
        """
        path: list[Tensor] = []
        self._descend(problem, start, path)
        return path

    def _descend(
        self, problem: LeastSquares | SphereQuadratic, start: Tensor | None, path: list[Tensor] | None
    ) -> SphereAnswer:
        return descend(
            problem,
            start,
            solver="RiemannianGradient",
            along_sphere=True,
            step=self.step,
            weighted=self.direction_weight,
            tol=self.tol,
            max_steps=self.max_steps,
            observe=None if path is None else path.append,
        )
