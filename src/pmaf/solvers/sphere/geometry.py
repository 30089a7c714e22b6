r"""The sphere as the iterative solvers see it: lengths, tangents, and where to start.

Over the complex numbers the sphere in :math:`\mathbb C^n` is the real sphere in :math:`\mathbb R^{2n}`, so the inner
product is :math:`\mathrm{Re}\,x^H y` throughout.
"""

import torch
from torch import Tensor

from pmaf.linalg.batched import matvec
from pmaf.solvers.base import LeastSquares

__all__ = ["inner", "length", "normalise", "on_unit_sphere", "starting_point", "tangent", "unconstrained"]


def inner(x: Tensor, y: Tensor) -> Tensor:
    """Re xᴴy over the last dimension."""
    product = (x.conj() * y).sum(-1)
    return product.real if product.is_complex() else product


def length(x: Tensor) -> Tensor:
    """‖x‖ over the last dimension."""
    size: Tensor = torch.linalg.vector_norm(x, dim=-1)
    return size


def normalise(x: Tensor, otherwise: Tensor) -> Tensor:
    """The point of the unit sphere nearest to x, x/‖x‖; ``otherwise`` where x is zero and every point is nearest."""
    size = length(x)[..., None]
    return torch.where(size == 0, otherwise, x / torch.where(size == 0, 1, size))


def tangent(x: Tensor, v: Tensor) -> Tensor:
    """The part of v that is tangent to the unit sphere at x, (I − xxᵀ)v."""
    return v - inner(x, v)[..., None] * x


def on_unit_sphere(problem: object, solver: str) -> tuple[LeastSquares, Tensor]:
    """The same least-squares problem in units of the radius: v = u/r minimises ½‖A v − b/r‖² on the unit sphere.

    Args:
        problem: what the solver was given.
        solver: the solver's name, for the message.

    Returns:
        The problem with radius one, and what to multiply its solution by, ``(*, 1)``.

    Raises:
        ValueError: if the problem is not a :class:`LeastSquares`.
    """
    if not isinstance(problem, LeastSquares):
        raise ValueError(
            f"pmaf.solvers.{solver}: solves least squares on the sphere, got a {type(problem).__name__}; "
            "use Secular() or KrylovTrustRegion() for it"
        )
    A, b, radius = problem
    return LeastSquares(A, b / radius[..., None], torch.ones_like(radius)), radius[..., None]


def unconstrained(problem: LeastSquares) -> Tensor:
    """A⁺b, ``(*, n)``: the shortest of the unconstrained minimisers; zero for items that are not finite."""
    A, b, _ = problem
    usable = torch.isfinite(A).flatten(-2).all(-1)
    A = torch.where(usable[..., None, None], A, 0)  # one bad item makes the decomposition refuse the whole batch
    return matvec(torch.linalg.pinv(A), b)


def starting_point(problem: LeastSquares, towards: Tensor) -> Tensor:
    """The point of the unit sphere nearest to ``towards``; where that is zero, the all-ones vector normalised.

    Args:
        problem: least squares on the unit sphere.
        towards: ``(*, n)``.

    Returns:
        ``(*, n)`` with the batch shape and the dtype of the problem.
    """
    x = towards.to(problem.A)
    return normalise(x, torch.full_like(x, problem.n**-0.5)).expand(*problem.batch_shape, problem.n)
