"""How an answer is found: solvers, their short names, and which one is chosen when none is named."""

from typing import Any

from pmaf.operators import describe
from pmaf.solvers.eigh import Eigh
from pmaf.solvers.secular import Secular

__all__ = ["Eigh", "Secular", "named", "select"]

# A solver's short name is the name of its module.
SPHERE: dict[str, type] = {"secular": Secular}
EIGEN: dict[str, type] = {"eigh": Eigh}


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
        TypeError: if the object cannot solve.
    """
    if isinstance(solver, str):
        if solver not in table:
            raise ValueError(f"pmaf.{function}: unknown solver {solver!r}; known are {', '.join(sorted(table))}")
        return table[solver]()
    if isinstance(solver, type) or not callable(getattr(solver, "solve", None)):
        raise TypeError(
            f"pmaf.{function}: solver must be a short name ({', '.join(sorted(table))}) or an object with a method "
            f"solve, got {describe(solver)}"
        )
    return solver


def select(problem: str) -> Any:
    """The solver that is used when none is named.

    Args:
        problem: "less", "sphere_quadratic" or "ied".

    Returns:
        A solver object.

    Raises:
        ValueError: if the problem is unknown.
    """
    if problem in ("less", "sphere_quadratic"):
        return Secular()
    if problem == "ied":
        return Eigh()
    raise ValueError(f"pmaf.solvers.select: problem must be 'less', 'sphere_quadratic' or 'ied', got {problem!r}")
