"""The solvers' short names, and which one is chosen when none is named."""

from types import ModuleType
from typing import Any

from pmaf.checks.values import describe
from pmaf.operators.base import Operator
from pmaf.operators.dense import Dense
from pmaf.operators.function import MatVec
from pmaf.operators.sparse import Sparse
from pmaf.solvers import eigen, sphere
from pmaf.solvers.base import Solver
from pmaf.transforms import compiling

__all__ = ["DENSE_LIMIT", "EIGEN", "SPHERE", "named", "select"]


def table(package: ModuleType) -> dict[str, type[Any]]:
    """The solvers of a package by their short names."""
    classes = [cls for cls in vars(package).values() if isinstance(cls, type) and issubclass(cls, Solver)]
    return {cls.name: cls for cls in classes}


SPHERE, EIGEN = table(sphere), table(eigen)
DENSE_LIMIT = 256  # a matrix known by its products is made dense up to this order


def named(function: str, solver: Any, table: dict[str, type[Any]]) -> Any:
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
    if getattr(solver, "problem", None) == ("eigen" if table is SPHERE else "sphere"):
        what = "finds eigenpairs" if table is SPHERE else "minimises on the sphere"
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
        return sphere.Secular() if wait else sphere.MoreSorensen()
    if problem == "ied" and X is None:
        return eigen.LanczosEigh() if wait else eigen.CholeskyInverseIteration()
    if problem != "ied":
        raise ValueError(f"pmaf.solvers.select: problem must be 'less', 'sphere_quadratic' or 'ied', got {problem!r}")
    if isinstance(X, (Sparse, MatVec)):
        if X.n > DENSE_LIMIT and 4 * k < X.n:
            return eigen.BlockLanczos()
        return eigen.Eigh() if wait else eigen.CholeskyInverseIteration()
    if not wait:
        return eigen.CholeskyInverseIteration()
    if not isinstance(X, Dense):
        return eigen.Eigh()
    if eigen.Tridiagonal.applies(X) and (X.n <= eigen.Tridiagonal.first or compiling()):
        return eigen.Tridiagonal()
    if eigen.ClosedForm.suits(X.n, k, X.dtype):
        return eigen.ClosedForm()
    # A traced graph needs outputs of a fixed shape; whether LanczosEigh leaves an eigenbasis depends on the values.
    return eigen.Eigh() if compiling() else eigen.LanczosEigh()
