r"""Riemannian gradient descent for least squares on the sphere."""

from dataclasses import dataclass, field

from torch import Tensor

from pmaf.arguments import set_flags, set_integers, set_reals
from pmaf.solvers.descent import descend
from pmaf.solvers.problem import LeastSquares, SphereAnswer, SphereQuadratic
from pmaf.solvers.steps import ExactStep, Step

__all__ = ["RiemannianGradient"]


EXACT = ExactStep()  # one for all: a traced graph cannot make objects


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
        >>> from pmaf.solvers.problem import LeastSquares
        >>> from pmaf.solvers.steps import TangentDecay
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
