"""What can be said of a module's configuration, before there are data and when it is printed."""

from __future__ import annotations

from typing import Any

from pmaf.checks.values import check_flags
from pmaf.layers.doors import Door, Options
from pmaf.solvers import named

__all__ = ["check_configuration", "non_default"]


def non_default(**settings: tuple[Any, Any]) -> str:
    """The settings that differ from their defaults, as keyword arguments."""
    return ", ".join(f"{name}={value!r}" for name, (value, default) in settings.items() if value != default)


def check_configuration(
    name: str, solver: Any, table: dict[str, type], degenerate: Any, backward: Any = None, **flags: Any
) -> None:
    """What can be said of a configuration before there are data; the rest is said when there are.

    Args:
        name: of the module, for the message.
        solver: an object or a short name, or ``None``.
        table: the short names.
        degenerate: a policy.
        backward: how to differentiate, or ``None``.
        flags: what must be True or False.
    """
    if solver is not None:
        named(name, solver, table)
    Options(Door(name, raises=True), backward=backward, policy=degenerate)
    check_flags(name, **flags)
