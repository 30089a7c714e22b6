"""The two doors of every function: the plain one raises, the one that ends in ``_ex`` reports, and both share one path.

What a call asks for beside its data travels as one frozen object, checked once, at the door.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from torch import Tensor

from pmaf.checks.values import CONSTRAINTS, POLICIES, check_choice, check_flags, describe
from pmaf.handover import ForwardResult
from pmaf.implicit.autograd import apply_layer
from pmaf.implicit.base import Derivative
from pmaf.implicit.explicit import unroll
from pmaf.implicit.in_units import InUnits
from pmaf.implicit.modes import Backward, Implicit, Unrolled
from pmaf.layers.verdict import judge
from pmaf.sharded import spread
from pmaf.transforms import may_wait

__all__ = ["Door", "Modes", "Options", "across_ranks", "differentiate", "raising", "reporting"]

P = ParamSpec("P")
Solution = TypeVar("Solution", bound=Any)
Answer = TypeVar("Answer", bound=Any)
Modes = Mapping[type, Callable[[], Derivative]]


@dataclass(frozen=True)
class Door:
    """Which function was called."""

    name: str  # as the user wrote it, for messages
    raises: bool  # on numerical failures, for which it may wait for the device

    def may_wait(self, x: Tensor) -> bool:
        """Whether the call may wait for the values of x: on the host there is no need to, elsewhere plain ones do."""
        return may_wait(x, self.raises)


def reporting(
    name: str,
    path: Callable[Concatenate[Door, P], Solution],
    doc: str,
    short: Callable[..., Solution | None] | None = None,
) -> Callable[P, Solution]:
    """The function that reports a status for each item.

    Args:
        name: its name.
        path: what both doors share.
        doc: its docstring.
        short: a short way, which answers the everyday call and leaves all others alone.

    Returns:
        The function.
    """
    door = Door(name, raises=False)
    signature, positional = public_signature(path)

    def function(*args: P.args, **kwargs: P.kwargs) -> Solution:
        if len(args) > len(positional):
            refuse_position(name, positional, len(args))
        if spread(args, kwargs):
            return over_ranks(door, path, signature, args, kwargs)[0]  # type: ignore[no-any-return]
        if short is not None and (found := short(*args, **kwargs)) is not None:
            return found
        return path(door, *args, **kwargs)

    named(function, name, path, doc, signature)
    return function


def raising(
    name: str,
    path: Callable[Concatenate[Door, P], Solution],
    answer: Callable[[Solution], Answer],
    short: Callable[..., Answer | None] | None = None,
) -> Callable[P, Answer]:
    """The function that returns the answer alone, and raises where there is none.

    Args:
        name: its name.
        path: what both doors share; its docstring is the function's.
        answer: what is returned of a solution.
        short: a short way, which answers the everyday call and leaves all others alone.

    Returns:
        The function.
    """
    door = Door(name, raises=True)
    signature, positional = public_signature(path)

    def function(*args: P.args, **kwargs: P.kwargs) -> Answer:
        if len(args) > len(positional):
            refuse_position(name, positional, len(args))
        if spread(args, kwargs):
            solution, status = over_ranks(door, path, signature, args, kwargs)
        else:
            if short is not None and (quick := short(*args, **kwargs)) is not None:
                return quick
            solution = path(door, *args, **kwargs)
            status = solution.status
        found = answer(solution)
        first = found[0] if isinstance(found, tuple) else found
        judge(name, status, kwargs.get("degenerate", "drop"), first.requires_grad)  # type: ignore[arg-type]
        return found

    named(function, name, path, path.__doc__ or "", signature)
    return function


def across_ranks(function: Callable[P, Answer]) -> Callable[P, Answer]:
    """A function that has no doors, for DTensors as well."""
    signature = inspect.signature(function)

    @wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> Answer:
        if spread(args, kwargs):
            door = Door(function.__name__, raises=True)
            return over_ranks(door, lambda _door, **given: function(**given), signature, args, kwargs)[0]  # type: ignore
        return function(*args, **kwargs)

    return wrapped


def over_ranks(
    door: Door, path: Callable[..., Any], signature: inspect.Signature, args: Any, kwargs: Any
) -> tuple[Any, Tensor]:
    """The solution of a call with DTensors, and the status that all ranks judge by; see :mod:`pmaf.sharded`."""
    from pmaf.sharded.call import answered  # whoever has a DTensor has loaded what this needs

    return answered(door.name, partial(path, door), signature.bind(*args, **kwargs).arguments, door.raises)


def public_signature(path: Callable[..., Any]) -> tuple[inspect.Signature, list[str]]:
    """The signature without the door, and the arguments that may be given by position."""
    signature = inspect.signature(path)
    given = list(signature.parameters.values())[1:]
    positional = [p.name for p in given if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    return signature.replace(parameters=given), positional


def named(function: Any, name: str, path: Any, doc: str, signature: inspect.Signature) -> None:
    """Give a function its public name, and the types, the signature and the docstring that go with it."""
    function.__name__ = function.__qualname__ = name
    function.__module__, function.__doc__, function.__signature__ = path.__module__, doc, signature
    function.__annotations__ = {k: v for k, v in path.__annotations__.items() if k != "_door"}
    path.__qualname__ = f"pmaf.{name.removesuffix('_ex')}"  # which Python names where an argument is missing or unknown


def refuse_position(name: str, positional: list[str], given: int) -> None:
    """Say which arguments go by position.

    Raises:
        TypeError: always.
    """
    raise TypeError(
        f"pmaf.{name}: takes {', '.join(positional)} by position, got {given} arguments; give the others by name"
    )


@dataclass(frozen=True)
class Options:
    """What a call asks for beside its data."""

    door: Door
    start: Tensor | None = None
    solver: Any = None
    backward: Backward | None = None
    policy: str = "drop"  # for gradients of answers that are not unique; ``degenerate=`` to the user
    constraint: str = "sphere"
    largest: bool = True

    def __post_init__(self) -> None:
        check_choice(self.name, "degenerate", self.policy, POLICIES)
        check_choice(self.name, "constraint", self.constraint, CONSTRAINTS)
        check_flags(self.name, largest=self.largest)
        if self.backward is not None and not isinstance(self.backward, Backward):
            raise TypeError(
                f"pmaf.{self.name}: backward must be a mode such as pmaf.Implicit(), got {describe(self.backward)}"
            )

    @property
    def name(self) -> str:
        """The public function."""
        return self.door.name

    @property
    def mode(self) -> Backward:
        """How to differentiate."""
        return Implicit() if self.backward is None else self.backward

    @property
    def tolerances(self) -> Implicit:
        """What counts as repeated or as zero, whatever the mode."""
        return self.mode if isinstance(self.mode, Implicit) else Implicit()


def differentiate(
    options: Options,
    what: str,
    known: Modes,
    forward: Callable[..., ForwardResult],
    params: tuple[Tensor | None, ...],
    core_dims: tuple[int, ...],
    units: InUnits | None = None,
) -> ForwardResult:
    """Solve, and differentiate in the mode that was asked for.

    Args:
        options: of the call.
        what: the problem, for messages.
        known: the modes that apply, and what makes their derivative.
        forward: maps the parameters to a result.
        params: the parameters, tensors or ``None``.
        core_dims: the number of non-batch dimensions of each parameter.
        units: what to solve in, where these are not the units of the data. The solution comes in those of the data,
            what is left for derivatives and the report in these.

    Returns:
        The result, with derivatives attached to the solution.

    Raises:
        ValueError: if the mode does not apply.
    """
    mode = options.mode
    if units is not None:
        forward, params = units.forward(forward), (*params, *units.exponents)
        known = {kind: units.derivative(make) for kind, make in known.items()}
        core_dims = (*core_dims, *(0 for _ in units.exponents)) if core_dims else ()
        found = differentiate(options, what, known, forward, params, core_dims)
        return found._replace(solution=found.solution[len(found.solution) // 2 :])
    if isinstance(mode, Unrolled):
        return unroll(options.name, options.policy, forward, params, core_dims)
    if type(mode) not in known:
        raise ValueError(
            f"pmaf.{options.name}: backward={mode} does not apply to {what}; use Implicit(), DenseJacobian() or "
            "Unrolled()"
        )
    if not isinstance(mode, Implicit) and any(p is not None and p.is_complex() for p in params):
        raise ValueError(f"pmaf.{options.name}: backward={mode} is for real dtypes, got a complex one")
    return apply_layer(known[type(mode)](), forward, params)
