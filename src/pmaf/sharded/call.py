"""A call with DTensors as a call with plain tensors on each rank, and its answer as DTensors again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from pmaf.operators.function import MatVec
from pmaf.operators.gram import Gram
from pmaf.sharded.collectives import reduce, tied
from pmaf.sharded.dominant import dominant
from pmaf.sharded.placements import Layout, leaves_of, locally, planned
from pmaf.sharded.problems import Found, by_rows, status_of
from pmaf.sharded.products import eigenpairs
from pmaf.sharded.rows import MAX
from pmaf.transforms import no_autocast

__all__ = ["answered"]


def answered(
    function: str, solve: Callable[..., Any], arguments: Mapping[str, Any], agrees: bool
) -> tuple[Any, Tensor]:
    """The solution of a call with DTensors.

    Args:
        function: the public function, for messages.
        solve: what it does with plain tensors.
        arguments: of the call, by name.
        agrees: whether ranks that divide the batch tell each other of failures.

    Returns:
        The solution, made of DTensors; and, where ranks agree, the status of all items if one of them is not well, the
        same on every rank.

    Raises:
        Exception: as the function raises it.
        ValueError: if it raises on another rank, or an argument is divided in a way that does not work.
    """
    X = arguments.get("X")
    if isinstance(X, MatVec) and any(isinstance(t, DTensor) for t in X.tensors):
        solution = of_products(function, arguments)
        return solution, solution.status.to_local()
    leaves = leaves_of(function, arguments)
    layout = planned(function, leaves)
    here, shared = locally(layout, leaves)
    failure: Exception | None = None
    try:
        with no_autocast(next(iter(here.values()))):
            if layout.rows:
                found = by_rows(function, solve, arguments, leaves, here, layout)
            else:
                found = Found(solve(**rebuilt(arguments, here)))
        bad = int(agrees and bool(found.status.any()))  # which waits for the device
    except Exception as error:
        if not agrees:
            raise
        failure, bad = error, REFUSED
    worst = bad
    if agrees:
        device = next(iter(here.values())).device
        worst = int(reduce(torch.tensor(bad, device=device), layout.groups(layout.used), MAX))
    if failure is not None:
        raise failure
    if worst == REFUSED:
        raise ValueError(f"pmaf.{function}: the part of the problem that lies on another rank is refused there")
    solution = spread_out(found, layout, shared)
    status = status_of(solution)
    return solution, status.full_tensor() if agrees and worst else status.to_local().new_zeros(())


def of_products(function: str, arguments: Mapping[str, Any]) -> Any:
    """The solution for a matrix known by its products with vectors that are divided.

    Raises:
        ValueError: if the function, or an argument, is not for this.
    """
    known: dict[str, tuple[Callable[..., Any], set[str]]] = {
        "ied": (eigenpairs, {"X", "k", "largest", "reference", "degenerate"}),
        "dominant_pair": (dominant, {"X", "reference"}),
    }
    name = function.removesuffix("_ex")
    if name not in known:
        raise ValueError(
            f"pmaf.{function}: a pmaf.MatVec made of DTensors is for pmaf.ied and pmaf.dominant_pair; give it "
            "replicated tensors"
        )
    solve, taken = known[name]
    others = sorted(name for name, value in arguments.items() if name not in taken and value is not None)
    if others:
        raise ValueError(
            f"pmaf.{function}: with a pmaf.MatVec made of DTensors {', '.join(others)} cannot be given; leave it out"
        )
    return solve(function, arguments)


REFUSED = 2  # beside 0 and 1, whether an item has a status


def spread_out(found: Found, layout: Layout, shared: list[Tensor]) -> Any:
    """The solution as DTensors, from which a backward pass reaches all that is shared."""
    solution = found.solution
    batch = status_of(solution).dim()
    moving = [name for name in solution._fields if getattr(solution, name) is not None]
    moving = [name for name in moving if getattr(solution, name).requires_grad]
    if moving:
        solution = solution._replace(
            **dict(zip(moving, tied([getattr(solution, name) for name in moving], shared), strict=True))
        )
    fields = {
        name: layout.outwards(value, batch, found.rows if name == found.field else None)
        for name, value in solution._asdict().items()
        if value is not None
    }
    return solution._replace(**fields)


def rebuilt(arguments: Mapping[str, Any], here: Mapping[str, Tensor]) -> dict[str, Any]:
    """The arguments, with other tensors in them."""
    return {
        name: Gram(here[f"{name}.F"], here.get(f"{name}.weights")) if f"{name}.F" in here else here.get(name, value)
        for name, value in arguments.items()
    }
