"""The solvers' short names, and which one is chosen when none is named."""

from typing import Any

from pmaf.checks.values import describe
from pmaf.operators.base import Operator
from pmaf.operators.dense import Dense
from pmaf.operators.function import MatVec
from pmaf.operators.sparse import Sparse
from pmaf.solvers.eigen.block_lanczos import BlockLanczos
from pmaf.solvers.eigen.cholesky_inverse_iteration import CholeskyInverseIteration
from pmaf.solvers.eigen.closed_form import ClosedForm
from pmaf.solvers.eigen.eigh import Eigh
from pmaf.solvers.eigen.eigvals_inverse_iteration import EigvalsInverseIteration
from pmaf.solvers.eigen.lanczos_eigh import LanczosEigh
from pmaf.solvers.eigen.power_iteration import PowerIteration
from pmaf.solvers.eigen.simultaneous_iteration import SimultaneousIteration
from pmaf.solvers.sphere.gradient_descent import ProjectedGradient, RiemannianGradient
from pmaf.solvers.sphere.krylov_trust_region import KrylovTrustRegion
from pmaf.solvers.sphere.more_sorensen import MoreSorensen
from pmaf.solvers.sphere.secular import Secular
from pmaf.solvers.sphere.slsqp import SLSQP
from pmaf.transforms import compiling

__all__ = ["DENSE_LIMIT", "EIGEN", "SPHERE", "named", "select"]

# A solver's short name is the name of its module, but for the two in gradient_descent.
SPHERE: dict[str, type] = {
    "secular": Secular,
    "more_sorensen": MoreSorensen,
    "projected_gradient": ProjectedGradient,
    "riemannian_gradient": RiemannianGradient,
    "krylov_trust_region": KrylovTrustRegion,
    "slsqp": SLSQP,
}
EIGEN: dict[str, type] = {
    "eigh": Eigh,
    "lanczos_eigh": LanczosEigh,
    "cholesky_inverse_iteration": CholeskyInverseIteration,
    "eigvals_inverse_iteration": EigvalsInverseIteration,
    "closed_form": ClosedForm,
    "power_iteration": PowerIteration,
    "simultaneous_iteration": SimultaneousIteration,
    "block_lanczos": BlockLanczos,
}

DENSE_LIMIT = 256  # a matrix known by its products is made dense up to this order


def named(function: str, solver: Any, table: dict[str, type]) -> Any:
    """A solver object from an object or a short name.

    Args:
        function: the public function, for the message.
        solver: an object with ``solve``, or a short name.
        table: the names that function knows.

    Returns:
        The solver.

    Raises:
        ValueError: if the name is unknown.
        TypeError: if the object cannot solve, or solves other problems.
    """
    if isinstance(solver, str):
        if solver not in table:
            raise ValueError(f"pmaf.{function}: unknown solver {solver!r}; known are {', '.join(sorted(table))}")
        return table[solver]()
    others = EIGEN if table is SPHERE else SPHERE
    if isinstance(solver, tuple(others.values())):
        what = "finds eigenpairs" if others is EIGEN else "minimises on the sphere"
        raise TypeError(
            f"pmaf.{function}: solver {solver!r} {what}, which is another problem; known are {', '.join(sorted(table))}"
        )
    if isinstance(solver, type) or not callable(getattr(solver, "solve", None)):
        raise TypeError(
            f"pmaf.{function}: solver must be a short name ({', '.join(sorted(table))}) or an object with a method "
            f"solve, got {describe(solver)}"
        )
    return solver


def select(problem: str, X: Operator | None = None, k: int = 1, largest: bool = True, *, wait: bool = True) -> Any:
    """The solver that is used when none is named.

    Args:
        problem: "less", "sphere_quadratic" or "ied".
        X: the operator, for "ied"; without it, a large dense matrix is assumed.
        k: how many eigenpairs.
        largest: which end of the spectrum.
        wait: whether the host may wait for the device, which the functions that end in ``_ex`` only do on the CPU,
            where there is nothing to wait for.

    Returns:
        A solver object.

    Raises:
        ValueError: if the problem is unknown.

    Example:
        >>> import torch, pmaf
        >>> pmaf.solvers.select("less")
        Secular(max_steps=60, gram_limit=10000.0)
    """
    if problem in ("less", "sphere_quadratic"):
        return Secular() if wait else MoreSorensen()
    if problem == "ied" and X is None:
        return LanczosEigh() if wait else CholeskyInverseIteration()
    if problem != "ied":
        raise ValueError(f"pmaf.solvers.select: problem must be 'less', 'sphere_quadratic' or 'ied', got {problem!r}")
    if isinstance(X, (Sparse, MatVec)):
        if X.n > DENSE_LIMIT and 4 * k < X.n:
            return BlockLanczos()
        return Eigh() if wait else CholeskyInverseIteration()
    if not wait:
        return CholeskyInverseIteration()
    if not isinstance(X, Dense):
        return Eigh()
    if X.n <= 4 and k == 1 and not X.dtype.is_complex:
        return ClosedForm()
    # A traced graph needs outputs of a fixed shape; whether LanczosEigh leaves an eigenbasis depends on the values.
    return Eigh() if compiling() else LanczosEigh()
