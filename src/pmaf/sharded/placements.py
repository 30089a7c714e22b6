"""Which dimension of an argument is what, and what follows from the way in which it is divided.

Decided from shapes and placements alone, so that every rank decides the same, before anything is sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Placement, Replicate, Shard

from pmaf.checks.values import describe
from pmaf.operators.base import Operator
from pmaf.operators.gram import Gram
from pmaf.sharded.collectives import Groups, copied

__all__ = ["Layout", "Leaf", "leaves_of", "locally", "planned"]


class Leaf(NamedTuple):
    """A tensor among the arguments of a call."""

    label: str
    value: Tensor
    core: int  # its last dimensions, which are not batch dimensions
    rows: int | None = None  # the one of them that may be divided, counted from the end


# Core dimensions of each argument, and which of them are rows that may be divided.
Roles = dict[str, tuple[int, int | None]]
SPHERE: Roles = {
    "A": (2, -2),
    "b": (1, -1),
    "weights": (1, -1),
    "free": (2, -2),
    "radius": (0, None),
    "start": (1, None),
}
EIGEN: Roles = {"X": (2, None), "metric": (2, None), "reference": (1, None), "start": (2, None)}
ROLES: dict[str, Roles] = {
    "less": SPHERE,
    "certify": {**SPHERE, "u": (1, None)},
    "sphere_quadratic": {"H": (2, None), "g": (1, None), "radius": (0, None), "start": (1, None)},
    "certify_quadratic": {"H": (2, None), "g": (1, None), "radius": (0, None), "u": (1, None)},
    "ied": EIGEN,
    "principal_projector": EIGEN,
    "spectral_function": EIGEN,
    "dominant_pair": EIGEN,
    "svd": {**EIGEN, "A": (2, -2)},
}


def leaves_of(function: str, arguments: Mapping[str, Any]) -> dict[str, Leaf]:
    """The tensors among the arguments; those of a Gram matrix are named after it, with a dot.

    Args:
        function: the public function.
        arguments: of the call, by name.

    Returns:
        The tensors, by name.

    Raises:
        ValueError: if an operator that is not for this holds DTensors.
    """
    roles, found = ROLES[function.removesuffix("_ex")], {}
    for name, value in arguments.items():
        if isinstance(value, Gram):
            found[f"{name}.F"] = Leaf("F of pmaf.Gram", value.tensors[0], 2, -2)
            if value.weights is not None:
                found[f"{name}.weights"] = Leaf("weights of pmaf.Gram", value.weights, 1, -1)
        elif isinstance(value, Operator) and any(isinstance(t, DTensor) for t in value.tensors):
            raise ValueError(
                f"pmaf.{function}: {name} is a {type(value).__name__} made of DTensors; what works is pmaf.ied with "
                "pmaf.MatVec, and pmaf.Gram: bring the tensors together with .full_tensor()"
            )
        elif isinstance(value, Tensor) and name in roles:
            core, rows = roles[name]
            found[name] = Leaf(name, value, min(core, value.dim()), rows)
    matrix = next((found[key] for key in ("X.F", "X", "A") if key in found), None)
    if "reference" in found and matrix is not None:
        single = found["reference"]
        k, shape = arguments.get("k", 1), single.value.shape
        if single.value.dim() == matrix.value.dim() and shape[-2:] == (matrix.value.shape[-1], k):
            found["reference"] = single._replace(core=2)  # one for each vector
    return found


class Batch(NamedTuple):
    """A mesh dimension that divides a batch dimension, counted from the last one, of this size."""

    position: int
    size: int


@dataclass(frozen=True)
class Layout:
    """What the dimensions of the mesh divide."""

    mesh: Any
    uses: tuple[Batch | str | None, ...]  # for each dimension of the mesh: a batch dimension, "rows", or nothing

    @property
    def rows(self) -> tuple[int, ...]:
        """The dimensions of the mesh that divide rows."""
        return tuple(j for j, use in enumerate(self.uses) if use == "rows")

    @property
    def used(self) -> tuple[int, ...]:
        """The dimensions of the mesh that divide anything."""
        return tuple(j for j, use in enumerate(self.uses) if use is not None)

    def groups(self, dims: tuple[int, ...]) -> Groups:
        """The process groups of some dimensions of the mesh."""
        return tuple(self.mesh.get_group(j) for j in dims if self.mesh.size(j) > 1)

    def outwards(self, x: Tensor, batch: int, rows: int | None = None) -> DTensor:
        """An answer as a DTensor.

        Args:
            x: this rank's part.
            batch: how many dimensions are batch dimensions.
            rows: how many rows there are on all ranks, if the last dimension but one is divided as they are.

        Returns:
            The DTensor.
        """
        shape, placements = list(x.shape), []
        for use in self.uses:
            where: Placement = Replicate()
            if isinstance(use, Batch):
                where = Shard(batch + use.position)
                shape[batch + use.position] = use.size
            elif use == "rows" and rows is not None:
                where = Shard(x.dim() - 2)
                shape[-2] = rows
            placements.append(where)
        stride, length = [1] * len(shape), 1
        for d in reversed(range(len(shape))):
            stride[d] = length
            length *= max(shape[d], 1)
        whole: Any = {"shape": torch.Size(shape), "stride": tuple(stride)} if shape else {}
        found: DTensor = DTensor.from_local(x, self.mesh, placements, run_check=False, **whole)
        return found.redistribute(self.mesh, placements)  # which knows what to do with a gradient that lies otherwise


def planned(function: str, leaves: Mapping[str, Leaf]) -> Layout:
    """What the dimensions of the mesh divide.

    Args:
        function: the public function, for messages.
        leaves: the tensors among the arguments.

    Returns:
        The layout.

    Raises:
        ValueError: if arguments are divided in a way that the function does not work with.
    """
    spread = {name: leaf for name, leaf in leaves.items() if isinstance(leaf.value, DTensor)}
    mesh = next(iter(spread.values())).value.device_mesh  # type: ignore[attr-defined]
    uses: list[Batch | str | None] = [None] * mesh.ndim
    by = [""] * mesh.ndim
    for leaf in spread.values():
        value: Any = leaf.value
        if value.device_mesh != mesh:
            raise ValueError(
                f"pmaf.{function}: all DTensors must share one mesh, but {leaf.label} is on {value.device_mesh} and "
                f"another argument on {mesh}"
            )
        for j, placement in enumerate(value.placements):
            if isinstance(placement, Replicate):
                continue
            use = use_of(function, leaf, j, placement)
            if uses[j] not in (None, use):
                raise ValueError(
                    f"pmaf.{function}: along mesh dimension {j} {by[j]} is divided by {said(uses[j])} but {leaf.label} "
                    f"by {said(use)}; divide both by the same, or replicate one with .redistribute"
                )
            uses[j], by[j] = use, leaf.label
    return Layout(mesh, tuple(uses))


def said(use: Batch | str | None) -> str:
    """A use in words."""
    return f"batch dimension {use.position} of size {use.size}" if isinstance(use, Batch) else str(use)


def use_of(function: str, leaf: Leaf, j: int, placement: Placement) -> Batch | str:
    """What it means that an argument is divided so along dimension j of the mesh.

    Raises:
        ValueError: if the function does not work with that.
    """
    dims = leaf.value.dim()
    if type(placement) is Shard:
        d = placement.dim % dims
        if d < dims - leaf.core:
            return Batch(d - (dims - leaf.core), leaf.value.shape[d])
        if leaf.rows is not None and d == dims + leaf.rows:
            return "rows"
    works = ["Replicate()"]
    if dims > leaf.core:
        works.append("Shard(d) with d < " + str(dims - leaf.core) + ", its batch")
    if leaf.rows is not None:
        works.append(f"Shard({dims + leaf.rows}), its rows")
    raise ValueError(
        f"pmaf.{function}: {leaf.label}, {describe(leaf.value)}, is placed as {placement} along mesh dimension {j}; "
        f"what works is {', '.join(works)}: bring it there with .redistribute"
    )


def pieces(length: int, parts: int) -> list[int]:
    """The lengths into which torch divides a dimension."""
    most = -(-length // parts)
    return [max(0, min(most, length - most * i)) for i in range(parts)]


def locally(layout: Layout, leaves: Mapping[str, Leaf]) -> tuple[dict[str, Tensor], list[Tensor]]:
    """This rank's part of each tensor; what is replicated is cut to the problems, or rows, that lie here.

    Args:
        layout: what the dimensions of the mesh divide.
        leaves: the tensors among the arguments.

    Returns:
        The parts, and those among them of which gradients are added up over ranks.
    """
    here: dict[str, Any] = {
        name: leaf.value.to_local() if isinstance(leaf.value, DTensor) else leaf.value for name, leaf in leaves.items()
    }
    shared: list[Tensor] = []
    for j, use in enumerate(layout.uses):
        if use is None:
            continue
        whole = [
            name
            for name, leaf in leaves.items()
            if (use != "rows" or leaf.rows is not None)
            and not (isinstance(leaf.value, DTensor) and isinstance(leaf.value.placements[j], Shard))
        ]
        moving = [name for name in whole if here[name].requires_grad]
        if moving and layout.groups((j,)):
            here.update(zip(moving, copied(layout.groups((j,)), *(here[name] for name in moving)), strict=True))
        for name in whole:
            leaf = leaves[name]
            cut = leaf.rows if use == "rows" else use.position - leaf.core  # type: ignore[union-attr]
            assert cut is not None
            if -cut > here[name].dim() or (isinstance(use, Batch) and leaf.value.shape[cut] != use.size):
                continue  # it is shared by the problems of that dimension
            sizes, at = pieces(here[name].shape[cut], layout.mesh.size(j)), layout.mesh.get_local_rank(j)
            here[name] = here[name].narrow(cut, sum(sizes[:at]), sizes[at])
        shared += [here[name] for name in moving]
    return here, shared
