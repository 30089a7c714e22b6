r"""Projected gradient descent for least squares on the sphere."""

from dataclasses import dataclass

from torch import Tensor

from pmaf.arguments import set_flags, set_integers, set_reals
from pmaf.solvers.descent import descend
from pmaf.solvers.problem import LeastSquares, SphereAnswer, SphereQuadratic
from pmaf.solvers.steps import ExactStep

__all__ = ["ProjectedGradient"]


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
        >>> from pmaf.solvers.problem import LeastSquares
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
