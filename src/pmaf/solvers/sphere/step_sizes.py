r"""How far to go along a descent direction on the sphere.

From x the iterate moves to :math:`y(\eta) = x - w\,\eta\,\delta` and is then normalised; w is the direction weight, one
unless the solver asks for it. δ is the gradient, or its tangent part.

Reference: Xu, Wang, Liu, Gould, *PMaF: Deep Declarative Layers for Principal Matrix Features*, 2023, arXiv 2306.14759.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from pmaf.checks.values import check_choice, set_reals
from pmaf.linalg.batched import adjoint_matvec, matvec
from pmaf.solvers.base import LeastSquares
from pmaf.solvers.iteration import State, iterate
from pmaf.solvers.sphere.geometry import inner, length, normalise, tangent

__all__ = ["Backtracking", "ExactStep", "Ray", "Step", "TangentDecay", "half_square"]

# Of the order of one step at the smallest step size that float32 can tell from none; reached only by noise.
_MAX_REDUCTIONS = 200


class Ray(NamedTuple):
    """Where an iterate can go: x − w η δ for η > 0."""

    problem: LeastSquares  # on the unit sphere
    x: Tensor  # (*, n)
    misfit: Tensor  # (*, m) A x − b
    gradient: Tensor  # (*, n) Euclidean, ∇f(x) = Aᴴ(A x − b)
    direction: Tensor  # (*, n) δ
    image: Tensor  # (*, m) A δ
    weight: Tensor  # (*,) w
    idle: Tensor  # (*,) bool: items that need no step any more

    def point(self, eta: Tensor) -> Tensor:
        """The point x − w η δ, not normalised."""
        return self.x - (self.weight * eta)[..., None] * self.direction


class Step(Protocol):
    """Any object that can choose a step."""

    def choose(self, ray: Ray) -> tuple[Tensor, Tensor]:
        """The step size η, ``(*,)``, and a mask of the items that are to stop after this step."""


def half_square(misfit: Tensor) -> Tensor:
    """½‖misfit‖², the norm first and then its square.

    In float32 the iteration usually stops because two objectives round to the same number, so rounding decides the
    number of steps. A squared norm has half of the resolution of a sum of squares; with the latter the methods take up
    to 10 % more steps at 64×32.
    """
    return length(misfit).square() / 2


def exact_step(ray: Ray) -> Tensor:
    """The minimiser of the objective along −δ: η = Re(∇fᴴδ)/(‖A δ‖² + 1e-8)."""
    return inner(ray.gradient, ray.direction) / (inner(ray.image, ray.image) + 1e-8)


@dataclass(frozen=True, kw_only=True)
class ExactStep:
    r"""The minimiser along the ray, :math:`\eta = \nabla f^\top\delta / (\|A\delta\|^2 + 10^{-8})`.

    Exact before normalisation only: the normalised point may well be worse than x.

    Example:
        >>> from pmaf.solvers.sphere.step_sizes import ExactStep
        >>> ExactStep()
        ExactStep()
    """

    def choose(self, ray: Ray) -> tuple[Tensor, Tensor]:
        """The exact step; no item is told to stop.

        Args:
            ray: where the iterate can go.

        Returns:
            η, ``(*,)``, and a mask that is nowhere true.
        """
        return exact_step(ray), torch.zeros_like(ray.idle)


@dataclass(frozen=True, kw_only=True)
class Backtracking:
    r"""Shrink η by β while :math:`f(x - w\eta\delta) > f(x) - \alpha\,w\,\eta\,\|\delta\|^2`, the Armijo condition.

    The left side is taken at the point *before* it is normalised: it measures descent in space, not on the sphere.
    Along δ the objective is a parabola with the slope :math:`-\nabla f^\top\delta = -\|\delta\|^2`, tangent part or
    not, so with α = ½ the condition holds up to the exact step and not beyond it. From η = 1 the search ends between β
    and 1 times the exact step, or at 1 where that is shorter; from the exact step the condition is an equality,
    rounding decides it, and a direction weight above 1 breaks it.

    Args:
        initial: the first η: ``"exact"``, or a number.
        alpha: the fraction of the predicted decrease that is asked for.
        beta: the factor of a reduction.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> from pmaf.solvers.sphere.step_sizes import Backtracking
        >>> Backtracking(initial=1.0)
        Backtracking(initial=1.0, alpha=0.5, beta=0.8)
    """

    initial: float | Literal["exact"] = "exact"
    alpha: float = 0.5
    beta: float = 0.8

    def __post_init__(self) -> None:
        if isinstance(self.initial, str):
            check_choice("solvers.Backtracking", "initial, unless a number,", self.initial, ("exact",))
        else:
            set_reals(self, "positive and finite", "initial")
        set_reals(self, "between 0 and 1", "alpha", "beta")

    def choose(self, ray: Ray) -> tuple[Tensor, Tensor]:
        """The first step that meets the Armijo condition; no item is told to stop.

        Args:
            ray: where the iterate can go.

        Returns:
            η, ``(*,)``, and a mask that is nowhere true.
        """
        eta = exact_step(ray) if self.initial == "exact" else torch.full_like(ray.weight, self.initial)
        f = half_square(ray.misfit)
        slope = self.alpha * inner(ray.direction, ray.direction)

        def too_long(eta: Tensor) -> Tensor:
            t = ray.weight * eta
            return (half_square(ray.misfit - t[..., None] * ray.image) > f - t * slope) & ~ray.idle

        return shrink(eta, self.beta, too_long), torch.zeros_like(ray.idle)


@dataclass(frozen=True, kw_only=True)
class TangentDecay:
    r"""Shrink the exact η by β while the tangent gradient turns round, :math:`\xi(x)^\top\xi(x^+) < -10^{-5}`.

    :math:`\xi(x) = (I - xx^\top)\nabla f(x)`, and :math:`x^+` is the *normalised* point. A negative product says that
    the step has passed a minimum on the sphere. An item stops once :math:`|\xi(x)^\top\xi(x^+)| \le 10^{-5}`, or by the
    solver's own rule. Both bounds are absolute, as in the paper.

    Args:
        beta: the factor of a reduction.

    Raises:
        ValueError: if ``beta`` is not between 0 and 1.

    Example:
        >>> from pmaf.solvers.sphere.step_sizes import TangentDecay
        >>> TangentDecay()
        TangentDecay(beta=0.9)
    """

    beta: float = 0.9

    def __post_init__(self) -> None:
        set_reals(self, "between 0 and 1", "beta")

    def choose(self, ray: Ray) -> tuple[Tensor, Tensor]:
        """The first step that does not pass a minimum on the sphere.

        Args:
            ray: where the iterate can go.

        Returns:
            η, ``(*,)``, and the mask of items that have arrived.
        """
        here = tangent(ray.x, ray.gradient)

        def turn(eta: Tensor) -> Tensor:
            y = normalise(ray.point(eta), otherwise=ray.x)
            gradient = adjoint_matvec(ray.problem.A, matvec(ray.problem.A, y) - ray.problem.b)
            return inner(here, tangent(y, gradient))

        eta = shrink(exact_step(ray), self.beta, lambda eta: (turn(eta) < -1e-5) & ~ray.idle)
        return eta, turn(eta).abs() <= 1e-5


def shrink(eta: Tensor, beta: float, too_long: "TooLong") -> Tensor:
    """η times the first power of β at which it is no longer ``too_long``, for each item."""

    def reduce(state: State) -> tuple[State, Tensor]:
        (eta,) = state
        long = too_long(eta)
        return (torch.where(long, beta * eta, eta),), ~long

    (eta,), _, _ = iterate(reduce, (eta,), eta.shape, _MAX_REDUCTIONS)
    return eta


class TooLong(Protocol):
    """A test of step sizes."""

    def __call__(self, eta: Tensor) -> Tensor:
        """A mask, ``(*,)``."""
