"""A problem whose rows lie on several ranks as the same problem with few rows, on every rank."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pmaf.checks.symmetry import check_symmetric
from pmaf.checks.tensors import check_broadcast, check_sizes, common_dtype
from pmaf.checks.values import check_tensor
from pmaf.implicit.modes import Implicit
from pmaf.linalg.dtypes import double, working_dtype
from pmaf.linalg.tolerances import relative_tolerance
from pmaf.operators.gram import Gram
from pmaf.sharded.collectives import Groups, copied
from pmaf.sharded.placements import Layout, Leaf
from pmaf.sharded.rows import Condensed, condensed, defect
from pmaf.solution import Status

__all__ = ["Found", "by_rows", "status_of"]


class Found(NamedTuple):
    """A solution on this rank, and the rows of all ranks if a field is divided as they are."""

    solution: Any
    field: str = ""
    rows: int | None = None

    @property
    def status(self) -> Tensor:
        """Whether each item is well."""
        status: Tensor = status_of(self.solution)
        return status if hasattr(self.solution, "status") else torch.zeros_like(status, dtype=torch.int64)


def status_of(solution: Any) -> Any:
    """A field of one number an item."""
    return solution.status if hasattr(solution, "status") else solution.multiplier


class Divided(NamedTuple):
    """A matrix M whose rows lie on several ranks, and what stands for it."""

    M: Tensor
    weights: Tensor | None
    rows: int  # of all ranks
    few: Condensed


def by_rows(
    function: str,
    solve: Callable[..., Any],
    arguments: Mapping[str, Any],
    leaves: Mapping[str, Leaf],
    here: Mapping[str, Tensor],
    layout: Layout,
) -> Found:
    """The solution of a problem whose rows lie on several ranks: the same problem with fewer rows, on every rank."""
    first = next(leaf.value for leaf in leaves.values() if leaf.rows is not None)
    kind, wide = first.dtype, double(next(iter(here.values())).to(working_dtype(first.dtype)))
    groups = layout.groups(layout.rows)
    plain: dict[str, Any] = dict(arguments)
    for name in set(here) & {"X", "metric"}:  # a dense matrix beside a Gram matrix
        if here[name].dtype != wide:
            check_symmetric(function, name, here[name])
            plain[name] = (here[name] + here[name].mH).to(wide) / 2
        else:
            plain[name] = here[name]
    plain.update({name: here[name] for name in set(here) & {"radius", "start", "reference", "u"}})
    divided: dict[str, Divided] = {}
    for name in [key.removesuffix(".F") for key in leaves if key.endswith(".F")]:
        parts = {"F": f"{name}.F"}
        divided[name] = gather(function, leaves, here, parts, f"{name}.weights", groups, wide)
        plain[name] = Gram(divided[name].few.S)
    if "A" in leaves:
        parts = {key: key for key in ("A", "free", "b") if key in leaves}
        divided["A"] = gather(function, leaves, here, parts, "weights", groups, wide)
        n, S = here["A"].shape[-1], divided["A"].few.S
        plain["A"] = S[..., :n]
        if "b" in leaves:
            plain["b"] = S[..., -1]
        if "free" in leaves:
            plain["free"] = S[..., n:-1]
        plain.pop("weights", None)
    if function.removesuffix("_ex") in TOLERANT and kind != wide and plain.get("backward") in (None, Implicit()):
        rtol = relative_tolerance(None, working_dtype(kind), min(first.shape[-2:]))
        plain["backward"] = Implicit(rtol=rtol)  # what counts as repeated is said by the type of the data
    solution = solve(**plain)
    if not hasattr(solution, "status"):
        return Found(solution)
    for part in divided.values():
        silence(part, solution.status == Status.NON_FINITE)
    solution = measured(solution, divided["A" if "A" in divided else next(iter(divided))], groups, kind)
    if not hasattr(solution, "Vh"):
        return Found(in_kind(solution, kind))
    solution = solution._replace(U=left_vectors(divided["A"], solution, groups))
    return Found(in_kind(solution, kind), "U", divided["A"].rows)


TOLERANT = ("less", "ied", "svd")  # the functions that can be told a tolerance


def gather(
    function: str,
    leaves: Mapping[str, Leaf],
    here: Mapping[str, Tensor],
    parts: Mapping[str, str],
    weights: str,
    groups: Groups,
    wide: torch.dtype,
) -> Divided:
    """Beside each other what shares its rows, in double precision, and fewer rows for all of it."""
    given = {name: leaves[key] for name, key in parts.items()}
    w = leaves.get(weights)
    for name, leaf in given.items():
        check_tensor(function, name, leaf.value, leaf.core, "(*, m, n)" if leaf.core == 2 else "(*, m)")
    first = next(iter(given.values()))
    m = first.value.shape[-2]
    names = {**given, **({} if w is None else {"weights": w})}
    check_sizes(
        function,
        **{name: (f"the rows of {first.label}", m, leaf.value.shape[-leaf.core]) for name, leaf in names.items()},
    )
    kind = common_dtype(function, **{name: leaf.value for name, leaf in names.items()})
    batches = {name: leaf.value.shape[: leaf.value.dim() - leaf.core] for name, leaf in names.items()}
    check_broadcast(function, **batches)
    local = [here[key] if leaves[key].core == 2 else here[key][..., None] for key in parts.values()]
    w_here = here[weights].to(wide.to_real()) if w is not None else None
    shapes = [x.shape[:-2] for x in local] + ([] if w_here is None else [w_here.shape[:-1]])
    batch = torch.broadcast_shapes(*shapes)
    local = [x.to(wide).expand(*batch, *x.shape[-2:]) for x in local]
    M = local[0] if len(local) == 1 else torch.cat(local, -1)
    if w_here is not None:
        w_here = w_here.expand(*batch, -1)
    lead = M.shape[-1] - ("b" in parts)
    few = condensed(
        function, M, w_here, lead, m, groups, working_dtype(kind).to_real(), left=function.startswith("svd")
    )
    return Divided(M, w_here, m, few)


def measured(solution: Any, divided: Divided, groups: Groups, kind: torch.dtype) -> Any:
    """The solution, its residual increased by what is different for the rows themselves.

    ‖MᴴM y − λ y‖ ≤ ‖SᴴS y − λ y‖ + ‖(MᴴM − SᴴS) y‖ for whatever vectors the solution consists of.
    """
    M, weights, S = divided.M, divided.weights, divided.few.S
    n = S.shape[-1]
    if hasattr(solution, "u"):  # of M = [A C b]
        u = solution.u.detach()
        z = u[..., :0] if solution.z is None else solution.z.detach()
        y = torch.cat((u, z, -torch.ones_like(u[..., :1])), -1)[..., None]
        n, length = u.shape[-1], torch.linalg.vector_norm(u, dim=-1)
        y = y / torch.where(length > 0, length, 1)[..., None, None]
    elif hasattr(solution, "Vh"):
        y = solution.Vh.detach().mH
    elif hasattr(solution, "eigenvectors"):
        y = solution.eigenvectors.detach()
    else:
        y = S.new_full((*S.shape[:-2], n, 1), n**-0.5)
    if y.shape[-1] == 0:
        return solution
    amount = torch.linalg.vector_norm(defect(M, weights, S, y, groups)[..., :n, :], dim=-2).amax(-1)
    size = S.detach()[..., :n].abs().square().sum(-2).amax(-1)  # of ‖MᴴM‖, from below
    if hasattr(solution, "u"):
        size = size + solution.multiplier.detach().abs()
    amount = amount / torch.where(size > 0, size, 1)
    poor = amount > 30 * relative_tolerance(None, working_dtype(kind), n)
    status = torch.where(poor & (solution.status == Status.CONVERGED), Status.MAX_STEPS, solution.status)
    return solution._replace(residual=solution.residual + amount, status=status)


def silence(divided: Divided, failed: Tensor) -> None:
    """Items without an answer have a gradient of zero, which products with what is not finite would make NaN."""
    if not bool(failed.any()) or failed.shape != divided.M.shape[:-2]:
        return
    for x in (divided.M, divided.weights):
        if x is not None and x.requires_grad:
            mask = failed.reshape(*failed.shape, *[1] * (x.dim() - failed.dim()))
            x.register_hook(lambda g, mask=mask: torch.where(mask, 0, g))


def left_vectors(divided: Divided, solution: Any, groups: Groups) -> Tensor:
    """This rank's rows of U = A V/σ: its value from those of S, which are orthonormal, its derivative from V and σ."""
    S, V = solution.S, solution.Vh.mH
    value = divided.few.Q @ solution.U.detach()
    level = 10 * torch.finfo(S.dtype).eps * divided.few.S.detach().abs().square().sum((-2, -1)).sqrt()
    usable = S.detach() > level[..., None]
    (scaled,) = copied(groups, V * torch.where(usable, 1 / torch.where(usable, S, 1), 0)[..., None, :])
    image = divided.M @ scaled
    U: Tensor = value + (image - image.detach())
    return U


def in_kind(solution: Any, kind: torch.dtype) -> Any:
    """The solution in the types that one machine gives it, and what leaves their range marked."""
    real = working_dtype(kind).to_real()
    values = {name: x for name, x in solution._asdict().items() if x is not None and x.dtype != torch.int64}
    status, fields = solution.status, {}
    for name, x in values.items():
        told = name in ("multiplier", "residual", "gap") or (kind.is_complex and name in ("eigenvalues", "S"))
        own = x.to(real if told else kind)
        if name in ("u", "eigenvalues", "S", "matrix"):
            lost = (own.isinf() & x.isfinite()).flatten(status.dim()).any(-1)
            what = Status.OUT_OF_RANGE if name in ("eigenvalues", "S") else Status.NON_FINITE
            status = torch.where(lost, what, status)
        fields[name] = own
    return solution._replace(**fields, status=status)
