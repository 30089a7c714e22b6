r"""The projector onto a leading subspace: check → choose a solver → differentiate → answer."""

from __future__ import annotations

from torch import Tensor

from pmaf.checks.symmetry import asymmetry_allowed
from pmaf.forward.eigen import EigenForward
from pmaf.implicit.modes import Implicit
from pmaf.implicit.subspace import SubspaceEquations
from pmaf.layers.doors import Door, Modes, Options, differentiate, raising, reporting
from pmaf.layers.eigen_arguments import nothing_selected, prepare, reads_values
from pmaf.layers.units import units_of
from pmaf.operators.base import Operator
from pmaf.operators.scaled import degree, from_units, in_units
from pmaf.solution import ProjectorSolution
from pmaf.solvers import EIGEN, named, select
from pmaf.solvers.base import EigenSolver
from pmaf.transforms import no_autocast

__all__ = ["principal_projector", "principal_projector_ex"]


def _principal_projector(
    _door: Door,
    X: Tensor | Operator,
    k: int,
    *,
    largest: bool = True,
    solver: EigenSolver | str | None = None,
    degenerate: str = "drop",
) -> ProjectorSolution:
    r"""The orthogonal projector :math:`P = U U^H` onto the span of the k leading eigenvectors.

    Only the gap between the selected eigenvalues and the others counts: the projector, and its derivatives of every
    order, are exact however often eigenvalues repeat inside the selected block.

    Args:
        X: ``(*, n, n)``, a tensor, a sparse tensor, or an operator.
        k: the dimension of the subspace, 0 ≤ k ≤ n.
        largest: of the algebraically largest eigenvalues, else of the smallest.
        solver: an object or a short name; chosen if not given.
        degenerate: as in :func:`ied`.

    Returns:
        P, ``(*, n, n)``.

    Raises:
        TypeError: if an argument has the wrong type or dtype.
        ValueError: if an argument has the wrong shape or value.
        ConvergenceError: if an item could not be solved; the message names the first.
        DegeneracyError: if the subspace is not unique and ``degenerate="raise"``.

    Example:
        >>> import torch, pmaf
        >>> pmaf.principal_projector(torch.diag(torch.tensor([5.0, 5.0, 1.0])), 2)
        tensor([[1., 0., 0.],
                [0., 1., 0.],
                [0., 0., 0.]])
    """
    options = Options(_door, None, solver, None, degenerate, largest=largest)
    wait = reads_values(_door, X)
    operator, k, dtype = prepare(_door.name, X, k, check_values=wait)
    if k == 0:
        U, _, told = nothing_selected(operator)
        return ProjectorSolution((U @ U.mH).to(dtype), *told)
    given = solver is not None
    chosen = named(_door.name, solver, EIGEN) if given else select("ied", operator, k, largest, wait=wait)
    known = options.tolerances
    exponent = None if known.atol else in_units(operator)[1]
    units = units_of(operator, exponent, ((0,), (degree(operator),)))
    shell = operator.structure()
    slack = asymmetry_allowed(dtype)
    forward = EigenForward(shell, k, largest, chosen, None, known.rtol, known.atol, True, slack)
    modes: Modes = {Implicit: lambda: SubspaceEquations(degenerate, shell, largest, known.rtol, known.atol)}
    with no_autocast(operator.tensors[0]):
        found = differentiate(options, "a subspace", modes, forward, operator.tensors, shell.core_dims, units)
        U = found.solution[0]
        P = U @ U.mH
    told = found.report
    gap = from_units(operator, exponent, told.gap)
    return ProjectorSolution(P.to(dtype), *told._replace(gap=gap))


principal_projector = raising("principal_projector", _principal_projector, lambda solution: solution.projector)
principal_projector_ex = reporting(
    "principal_projector_ex",
    _principal_projector,
    """:func:`principal_projector` that reports a status for each item instead of raising.

The arguments are those of :func:`principal_projector`.

Returns:
    A :class:`ProjectorSolution`.

Example:
    >>> import torch, pmaf
    >>> pmaf.principal_projector_ex(torch.diag(torch.tensor([5.0, 5.0, 1.0])), 2).gap
    tensor(4.)
""",
)
