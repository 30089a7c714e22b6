"""The solvers' short names, and which one is chosen when none is named."""

from types import ModuleType
from typing import Any

from torch import Tensor

from pmaf.checks.values import describe
from pmaf.linalg import multigrid, sparse_factor
from pmaf.operators.base import DENSE_LIMIT, Operator
from pmaf.operators.convert import as_operator
from pmaf.operators.dense import Dense
from pmaf.operators.function import MatVec
from pmaf.operators.sparse import Sparse
from pmaf.solvers import eigen, sphere
from pmaf.solvers.base import Solver
from pmaf.transforms import compiling, on_host

__all__ = ["DENSE_LIMIT", "EIGEN", "SPHERE", "named", "select"]


def table(package: ModuleType) -> dict[str, type[Any]]:
    """The solvers of a package by their short names."""
    classes = [cls for cls in vars(package).values() if isinstance(cls, type) and issubclass(cls, Solver)]
    return {cls.name: cls for cls in classes}


SPHERE, EIGEN = table(sphere), table(eigen)
DECOMPOSED, MANY = 4096, 50  # order up to which more than n/50 pairs are left to a dense decomposition
FEW_STEPS = "a few steps of Lanczos' method often save the decomposition"


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


def select(
    problem: str,
    X: Operator | Tensor | None = None,
    k: int = 1,
    largest: bool = True,
    *,
    wait: bool = True,
    why: bool = False,
) -> Any:
    """The solver that is used when none is named.

    Args:
        problem: "less", "sphere_quadratic" or "ied".
        X: the matrix, for "ied", an operator or a tensor; without it, a large dense matrix is assumed.
        k: how many eigenpairs.
        largest: which end of the spectrum.
        wait: whether the host may wait for the device, which the functions that end in ``_ex`` only do on the CPU,
            where there is nothing to wait for.
        why: whether to say why.

    Returns:
        A solver object; with ``why=True``, the solver and a sentence.

    Raises:
        ValueError: if the problem is unknown.

    Example:
        >>> import torch, pmaf
        >>> pmaf.solvers.select("less")
        Secular(max_steps=60, gram_limit=10000.0)
    """
    chosen: Any
    if problem in ("less", "sphere_quadratic"):
        if wait:
            chosen, reason = sphere.Secular(), "global and certified, and the fastest where the host may wait"
        else:
            chosen, reason = sphere.MoreSorensen(), "global and certified, and the host need not wait for the device"
    elif problem == "ied":
        chosen, reason = of_eigenpairs(as_operator(X) if isinstance(X, Tensor) else X, k, largest, wait)
    else:
        raise ValueError(f"pmaf.solvers.select: problem must be 'less', 'sphere_quadratic' or 'ied', got {problem!r}")
    return (chosen, reason) if why else chosen


def of_eigenpairs(X: Operator | None, k: int, largest: bool, wait: bool) -> tuple[Any, str]:
    """The solver for leading eigenpairs, and why."""
    if isinstance(X, (Sparse, MatVec)) and X.n > DENSE_LIMIT and 4 * k < X.n:
        return of_large(X, k, largest)
    if not wait:
        return eigen.CholeskyInverseIteration(), "the host need not wait for the device"
    if X is None:
        return eigen.LanczosEigh(), FEW_STEPS
    if isinstance(X, (Sparse, MatVec)):
        return eigen.Eigh(), "of this order, or for so many pairs, a dense decomposition is the fastest"
    if not isinstance(X, Dense):
        return eigen.Eigh(), "the smaller side of the factor is decomposed"
    if eigen.Tridiagonal.applies(X) and (X.n <= eigen.Tridiagonal.first or compiling()):
        return eigen.Tridiagonal(), "the compiled kernel is the fastest"
    if eigen.ClosedForm.suits(X.n, k, X.dtype):
        return eigen.ClosedForm(), "formulas are the fastest for matrices this small"
    # A traced graph needs outputs of a fixed shape; whether LanczosEigh leaves an eigenbasis depends on the values.
    if compiling():
        return eigen.Eigh(), "a traced graph needs outputs of a fixed shape"
    return eigen.LanczosEigh(), FEW_STEPS


def of_large(X: Sparse | MatVec, k: int, largest: bool) -> tuple[Any, str]:
    """The solver for a large sparse matrix, or a function."""
    if isinstance(X, MatVec):
        if X.solve is not None and not largest:
            return eigen.Davidson(), "the smallest pairs are found with what nearly inverts the matrix"
        return eigen.BlockLanczos(), "the matrix is known by its products alone"
    if not largest and eigen.ShiftInvert.pays(X):
        return eigen.ShiftInvert(), "the factors stay sparse, and the smallest pairs are far apart in the inverse"
    if X.n <= DECOMPOSED and MANY * k > X.n:
        return eigen.Eigh(), "for so many pairs a dense decomposition costs less than a Krylov space"
    if largest:
        return eigen.BlockLanczos(), "the largest pairs mostly stand apart, and products find them"
    if eigen.Davidson.pays(X):
        return eigen.Davidson(), "the factors would be too full, and multigrid nearly inverts the matrix"
    return eigen.BlockLanczos(), why_products(X)


def why_products(X: Sparse) -> str:
    """Why a sparse matrix whose smallest pairs are wanted is neither factorised nor given to multigrid."""
    if not on_host(X.tensors[0]):
        return "products are all there is off the CPU, where matrices are factorised"
    if not sparse_factor.available():
        return "SciPy (pip install 'pmaf[sparse]') is not there to factorise the matrix"
    if not multigrid.available():
        return "the factors would be too full, and multigrid (pip install 'pmaf[multigrid]') is not there to be tried"
    return "the factors would be too full, and the graph is not one that multigrid is made for"
