r"""Sequential quadratic programming by SciPy: the baseline that the paper compares with."""

from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from pmaf.checks.extras import needs
from pmaf.checks.values import set_integers, set_reals
from pmaf.solvers.base import LeastSquares, SphereAnswer, SphereQuadratic
from pmaf.solvers.sphere.geometry import length, on_unit_sphere, starting_point, unconstrained
from pmaf.transforms import recorded

__all__ = ["SLSQP"]


@dataclass(frozen=True, kw_only=True)
class SLSQP:
    r"""``scipy.optimize.minimize(method="SLSQP")`` on ½‖A u − b‖² with the constraint ‖u‖² = r², item by item.

    The comparison, not a recommendation: a Python loop over the batch on the CPU, in double precision whatever the
    dtype, with exact derivatives; the result is normalised and converted back. Local, though rarely trapped. A complex
    problem is solved over the real and imaginary parts. Needs SciPy. Autograd cannot follow it.

    Args:
        tol: SciPy's ``ftol``, in units of the squared radius.
        max_steps: SciPy's ``maxiter``.

    Raises:
        ValueError: if an argument is out of range.

    References:
        Kraft, *A software package for sequential quadratic programming*, DFVLR-FB 88-28, 1988.

    Example:
        >>> import torch
        >>> from pmaf.solvers.base import LeastSquares
        >>> A, b = torch.eye(2), torch.tensor([3.0, 4.0])
        >>> SLSQP().solve(LeastSquares(A, b, torch.tensor(1.0))).u
        tensor([0.6000, 0.8000])
    """

    tol: float = 1e-6
    max_steps: int = 100

    def __post_init__(self) -> None:
        set_integers(self, "max_steps")
        set_reals(self, "positive", "tol")

    def solve(self, problem: LeastSquares | SphereQuadratic, start: Tensor | None = None) -> SphereAnswer:
        """Solve the items one after the other.

        Args:
            problem: least squares on a sphere.
            start: first point, ``(*, n)``, of any length; by default A⁺b.

        Returns:
            The points found; ``finished`` where SciPy reports success.
        """
        paths = self._paths(problem, start)
        u = gather([path[-1] for path, _ in paths], problem)
        finished = torch.tensor([success for _, success in paths], dtype=torch.bool, device=u.device)
        steps = torch.tensor([len(path) - 1 for path, _ in paths], dtype=torch.int64, device=u.device)
        return SphereAnswer(u, finished.reshape(problem.batch_shape), steps.reshape(problem.batch_shape))

    def iterates(self, problem: LeastSquares, start: Tensor | None = None) -> list[Tensor]:
        """The path of ``solve``, the iterates normalised: the start and the point after each step, each ``(*, n)``.

        Args:
            problem: least squares on a sphere.
            start: first point.

        Returns:
            As many points as the slowest item takes steps, and one more.
        """
        paths = [path for path, _ in self._paths(problem, start)]
        longest = max(map(len, paths), default=1)
        return [gather([path[min(i, len(path) - 1)] for path in paths], problem) for i in range(longest)]

    def _paths(self, problem: LeastSquares | SphereQuadratic, start: Tensor | None) -> list[tuple[list[Tensor], bool]]:
        """The points each item went through, in the units of the problem, and whether it arrived."""
        unit, radius = on_unit_sphere(problem, "SLSQP")
        check_not_unrolled(unit)
        batch = unit.batch_shape
        x = starting_point(unit, unconstrained(unit) if start is None else start)
        A = unit.A.expand(*batch, *unit.A.shape[-2:])
        b = unit.b.expand(*batch, unit.b.shape[-1])
        radius = radius.expand(*batch, 1)
        paths = []
        for item in product(*map(range, batch)):
            points, success = self._minimise(real_form(A[item]), real_form(b[item]), real_form(x[item]))
            paths.append(([radius[item] * restore(point, x) for point in points], success))
        return paths

    def _minimise(self, A: Tensor, b: Tensor, x: Tensor) -> tuple[list[Tensor], bool]:
        """One real problem on the unit sphere: the iterates, normalised, and whether SciPy reports success."""
        with needs("cli", "pmaf: SLSQP"):
            from scipy.optimize import minimize

        if not (torch.isfinite(A).all() and torch.isfinite(b).all()):
            return [x, torch.full_like(x, torch.nan)], False
        F, y = A.numpy(), b.numpy()
        path = [x]
        result = minimize(  # type: ignore[no-untyped-call, unused-ignore]
            lambda u: ((F @ u - y) ** 2).sum() / 2,
            x.numpy(),
            jac=lambda u: F.T @ (F @ u - y),
            constraints={"type": "eq", "fun": lambda u: u @ u - 1, "jac": lambda u: 2 * u},
            method="SLSQP",
            options={"ftol": self.tol, "maxiter": self.max_steps},
            callback=lambda u: path.append(torch.from_numpy(u.copy())),
        )
        path = [*path[: max(len(path) - 1, 1)], torch.from_numpy(result.x)]
        return [point / length(point) for point in path], bool(result.success)


def check_not_unrolled(problem: LeastSquares) -> None:
    """Refuse to be recorded by autograd, which sees nothing of what SciPy does.

    Args:
        problem: least squares on a sphere.

    Raises:
        ValueError: if a gradient is asked for.
    """
    if recorded(*problem):
        raise ValueError("pmaf.solvers.SLSQP: cannot be unrolled, use backward=Implicit() or another solver")


def gather(points: list[Tensor], problem: LeastSquares | SphereQuadratic) -> Tensor:
    """The points of all items as one tensor, ``(*, n)``."""
    shape = (*problem.batch_shape, problem.n)
    return torch.stack(points).reshape(shape) if points else problem[1].new_empty(shape)


def real_form(x: Tensor) -> Tensor:
    """The same vector or matrix over the reals, in float64 on the CPU: [Re; Im], or [[Re, −Im], [Im, Re]]."""
    x = x.detach().cpu()
    if x.is_complex():
        column = torch.cat((x.real, x.imag), 0)
        x = column if x.dim() == 1 else torch.cat((column, torch.cat((-x.imag, x.real), 0)), 1)
    return x.to(torch.float64)


def restore(x: Tensor, like: Tensor) -> Tensor:
    """The vector whose real form is x, in the dtype and on the device of ``like``."""
    if like.is_complex():
        x = torch.complex(*x.chunk(2))
    return x.to(like)
