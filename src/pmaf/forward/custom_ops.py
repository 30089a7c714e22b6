"""Forward passes as opaque operators, so that ``torch.compile`` and ``torch.export`` see one node.

Solvers branch on values, which a tracer cannot follow. While tracing, a forward pass goes through one of the operators
below instead; its configuration travels as text, so that an exported program can be loaded in another process. Autograd
is not registered on the operators: that stays with :mod:`pmaf.implicit`.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from typing import Any

import torch
from torch import Tensor

from pmaf import solvers
from pmaf.handover import EigenAux, ForwardResult, SphereAux
from pmaf.linalg.robust_eigh import hermitian_eigh
from pmaf.operators.base import Operator
from pmaf.operators.dense import Dense
from pmaf.operators.gram import Gram
from pmaf.solvers.eigen.nearest import Nearest
from pmaf.transforms import one_node

__all__ = [
    "decode",
    "eigen_outputs",
    "encode",
    "fresh",
    "register",
    "run_eigenpairs",
    "run_eigh",
    "run_least_squares",
    "run_quadratic",
    "with_start",
]


KNOWN: dict[str, type] = {"Dense": Dense, "Gram": Gram, "Nearest": Nearest} | {
    cls.__name__: cls for cls in vars(solvers).values() if isinstance(cls, type)
}


def register(*classes: type) -> None:
    """Make dataclasses known by name, so that they can be decoded."""
    for cls in classes:
        KNOWN[cls.__name__] = cls


def encode(value: Any) -> str:
    """A configuration as JSON text, written out by steps that a tracer can follow.

    Args:
        value: a number, text, ``None``, an operator's shell, or a registered dataclass of such.

    Returns:
        The text.

    Raises:
        TypeError: if an object's class is not registered.
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, str):
        return f'"{value}"'
    name = type(value).__name__
    if KNOWN.get(name) is not type(value):
        raise TypeError(
            f"pmaf: {name} cannot be traced by torch.compile or torch.export; use a solver of pmaf.solvers and a dense "
            "matrix, pmaf.Gram or, of order up to 256, pmaf.MatVec there, or call it outside the compiled region"
        )
    parts = [f'"class": "{name}"']
    if isinstance(value, Operator):
        parts += [f'"hermitian": {encode(value.hermitian)}']
    else:
        names = type(value).__dataclass_fields__  # type: ignore[attr-defined]
        parts += [f'"{name}": {encode(None if name == "start" else getattr(value, name))}' for name in names]
    return "{" + ", ".join(parts) + "}"


def decode(data: Any) -> Any:
    """The inverse of :func:`encode`."""
    if not isinstance(data, dict):
        return data
    cls = KNOWN[data["class"]]
    if issubclass(cls, Operator):
        shell = cls.__new__(cls)
        shell.tensors, shell.hermitian = (), data["hermitian"]
        return shell
    return cls(**{name: decode(value) for name, value in data.items() if name != "class"})


@functools.lru_cache(maxsize=256)
def forward_from(settings: str) -> Any:
    """The forward pass that a text describes."""
    return decode(json.loads(settings))


def with_start(settings: str, start: Tensor | None) -> Any:
    """The forward pass that a text describes, with the start it was given."""
    forward = forward_from(settings)
    return forward if start is None else dataclasses.replace(forward, start=start)


@one_node("pmaf::least_squares_on_sphere")
def least_squares_on_sphere(
    A: Tensor,
    b: Tensor,
    weights: Tensor | None,
    free: Tensor | None,
    radius: Tensor,
    start: Tensor | None,
    settings: str,
) -> list[Tensor]:
    """The forward pass of least squares on the sphere."""
    return fresh(with_start(settings, start).run(A, b, weights, free, radius).flat())


@least_squares_on_sphere.register_fake
def _(
    A: Tensor,
    b: Tensor,
    weights: Tensor | None,
    free: Tensor | None,
    radius: Tensor,
    start: Tensor | None,
    settings: str,
) -> list[Tensor]:
    shapes = [A.shape[:-2], b.shape[:-1], radius.shape]
    matrix = [A.shape[:-2]]  # what the eigenbasis depends on
    for given, core in ((weights, 1), (free, 2)):
        if given is not None:
            shapes.append(given.shape[: given.dim() - core])
            matrix.append(given.shape[: given.dim() - core])
    z = () if free is None else (free.shape[-1],)
    basis = forward_from(settings).basis_size(A)
    return sphere_outputs(A, torch.broadcast_shapes(*shapes), torch.broadcast_shapes(*matrix), z, basis)


@one_node("pmaf::quadratic_on_sphere")
def quadratic_on_sphere(H: Tensor, g: Tensor, radius: Tensor, start: Tensor | None, settings: str) -> list[Tensor]:
    """The forward pass of a quadratic on the sphere."""
    return fresh(with_start(settings, start).run(H, g, radius).flat())


@quadratic_on_sphere.register_fake
def _(H: Tensor, g: Tensor, radius: Tensor, start: Tensor | None, settings: str) -> list[Tensor]:
    batch = torch.broadcast_shapes(H.shape[:-2], g.shape[:-1], radius.shape)
    return sphere_outputs(H, batch, H.shape[:-2], (), forward_from(settings).basis_size(H))


@one_node("pmaf::eigenpairs")
def eigenpairs(X: Tensor, start: Tensor | None, settings: str) -> list[Tensor]:
    """The forward pass of leading eigenpairs of a dense or Gram matrix given by its one tensor."""
    forward = with_start(settings, start)
    found = forward.run(X)
    if found.aux.V.shape[-1] != forward.basis_size(X):  # whether there is one depends on the values: do without
        aux = found.aux._replace(spectrum=found.aux.spectrum[..., :0], V=found.aux.V[..., :0, :0])
        found = found._replace(aux=aux)
    if found.aux.factor.shape[-2:] != forward.factor_size(X):
        found = found._replace(aux=found.aux._replace(factor=found.aux.factor[..., :0, :0]))
    return fresh(found.flat())


@eigenpairs.register_fake
def _(X: Tensor, start: Tensor | None, settings: str) -> list[Tensor]:
    return eigen_outputs(X, settings)


def eigen_outputs(X: Tensor, settings: str) -> list[Tensor]:
    """Empty outputs of a forward pass of eigenpairs, for tracing."""
    forward = forward_from(settings)
    batch, n, k = X.shape[:-2], X.shape[-1], forward.k
    real = X.new_empty(0).real.dtype
    size, factor = forward.basis_size(X), forward.factor_size(X)
    spectrum = size
    second = X.new_empty(*batch, k, k) if forward.subspace else X.new_empty(*batch, k, dtype=real)
    return [
        X.new_empty(*batch, n, k),
        second,
        X.new_empty(batch, dtype=torch.bool),
        X.new_empty(batch, dtype=torch.bool),
        X.new_empty(*batch, k, dtype=real),
        X.new_empty(*batch, spectrum, dtype=real),
        X.new_empty(*batch, size, size),
        X.new_empty(batch, dtype=real),
        X.new_empty(batch, dtype=real),
        X.new_empty(*batch, *factor),
        X.new_empty(batch, dtype=torch.int64),
        X.new_empty(batch, dtype=torch.int64),
        X.new_empty(batch, dtype=real),
        X.new_empty(batch, dtype=real),
    ]


@one_node("pmaf::hermitian_eigh")
def all_eigenpairs(X: Tensor) -> list[Tensor]:
    """All eigenpairs of Hermitian matrices, and which items have them."""
    return fresh(hermitian_eigh(X))


@all_eigenpairs.register_fake
def _(X: Tensor) -> list[Tensor]:
    batch, n = X.shape[:-2], X.shape[-1]
    real = X.new_empty(0).real.dtype
    return [X.new_empty(*batch, n, dtype=real), X.new_empty(*batch, n, n), X.new_empty(batch, dtype=torch.bool)]


def sphere_outputs(like: Tensor, batch: Any, matrix: Any, z: tuple[Any, ...], basis: Any) -> list[Tensor]:
    """Empty outputs of a forward pass on the sphere, for tracing."""
    n = like.shape[-1]
    real = like.new_empty(0).real.dtype

    def of(*shape: Any, dtype: torch.dtype = real) -> Tensor:
        return like.new_empty(shape, dtype=dtype)

    return [
        of(*batch, n, dtype=like.dtype),
        of(*batch),
        *([of(*batch, *z, dtype=like.dtype)] if z else []),
        of(*batch, dtype=torch.bool),
        of(*batch, dtype=torch.bool),
        of(*batch),
        of(*batch),
        of(*batch, basis),
        of(*matrix, basis, basis, dtype=like.dtype),
        of(*batch, dtype=torch.int64),
        of(*batch, dtype=torch.int64),
        of(*batch),
        of(*batch),
    ]


def fresh(outputs: tuple[Tensor, ...]) -> list[Tensor]:
    """Contiguous outputs, none of which shares memory with another."""
    return [x.resolve_conj().resolve_neg().clone(memory_format=torch.contiguous_format) for x in outputs]


def run_least_squares(forward: Any, *params: Tensor | None) -> ForwardResult:
    """Run a forward pass of least squares as one node of a graph."""
    outputs = torch.ops.pmaf.least_squares_on_sphere(*params, forward.start, encode(forward))
    return ForwardResult.of(tuple(outputs), 2 if params[3] is None else 3, SphereAux)


def run_quadratic(forward: Any, *params: Tensor) -> ForwardResult:
    """Run a forward pass of a quadratic as one node of a graph."""
    outputs = torch.ops.pmaf.quadratic_on_sphere(*params, forward.start, encode(forward))
    return ForwardResult.of(tuple(outputs), 2, SphereAux)


def run_eigenpairs(forward: Any, *tensors: Tensor) -> ForwardResult:
    """Run a forward pass of eigenpairs as one node of a graph."""
    settings = encode(forward)  # refuses an operator that is not made of one tensor
    return ForwardResult.of(tuple(torch.ops.pmaf.eigenpairs(tensors[0], forward.start, settings)), 2, EigenAux)


def run_eigh(X: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """All eigenvalues and eigenvectors of Hermitian matrices, and which items have them, as one node of a graph."""
    values, vectors, done = torch.ops.pmaf.hermitian_eigh(X)
    return values, vectors, done
