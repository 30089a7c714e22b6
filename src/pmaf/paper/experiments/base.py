"""What an experiment is: which tasks there are, how one of them is done, and what the columns of its table mean."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

__all__ = ["Column", "Experiment", "Found", "Options", "Report", "Row", "Task", "grouped"]

Row: TypeAlias = dict[str, Any]
"""What was measured of one method on one problem; JSON can hold it. Entries without a column are for charts."""

Report: TypeAlias = Callable[[int, int, str], None]
"""What a long computation tells: so many of so many are done, and what is being worked on."""


class Options(NamedTuple):
    """What the command line asks for; sizes, problems and methods are those of the optimality experiment."""

    quick: bool = False
    sizes: Sequence[tuple[int, int]] = ()
    problems: int | None = None
    methods: Sequence[str] = ()

    def __str__(self) -> str:
        """The options as they are typed."""
        words = ["--quick"] if self.quick else []
        words += [f"--size {m}x{n}" for m, n in self.sizes]
        words += [] if self.problems is None else [f"--problems {self.problems}"]
        words += [f"--methods {','.join(self.methods)}"] if self.methods else []
        return " ".join(words)


class Task(NamedTuple):
    """A piece that is done, and kept on disk, as a whole."""

    name: str  # also of the file that keeps it
    settings: dict[str, Any]  # what `compute` is called with; the result depends on this and on the code alone
    cost: float = 1.0  # how long it takes, roughly, in seconds: what the progress bar counts


class Column(NamedTuple):
    """A column of a table."""

    key: str  # the rows' entry, and the column's name in the CSV file
    title: str = ""  # what stands above it; a column without is in the CSV file only
    form: str = ""  # how a number is formatted; text if empty
    scale: float = 1.0  # what numbers are multiplied with before they are shown
    best: Literal["", "least", "most"] = ""  # which entry stands out among those that belong together
    cited: bool = False  # somebody else's numbers, not computed here


@dataclass(frozen=True)
class Experiment:
    """A declared experiment: from its plan to its table."""

    key: str  # name of its CSV file and of its place on the page
    section: str  # what the command line calls the experiments it belongs to
    title: str  # what stands above its table
    plan: Callable[[Options], Sequence[Task]]
    compute: Callable[..., list[Row]]  # a task's settings → rows
    columns: tuple[Column, ...]
    gather: Callable[[list[Row]], list[Row]] = list  # the rows of all tasks → the rows of the table
    group: str = ""  # the entry within which the best is looked for
    ours: tuple[str, ...] = ("pmaf",)  # entries of the first column whose rows stand out
    timed: bool = True  # times are measured: on one thread, and valid for this processor alone

    @property
    def keys(self) -> list[str]:
        """The columns of its CSV file."""
        return [column.key for column in self.columns]

    @property
    def parted(self) -> bool:
        """Whether each group has a table of its own, because it has no column."""
        return bool(self.group) and not any(c.key == self.group and c.title for c in self.columns)


@dataclass
class Found:
    """What came out of an experiment."""

    key: str  # of the experiment
    command: str  # what was typed
    rows: list[Row]  # of its table
    made: list[dict[str, Any]]  # for each part when, on what and under which load it was computed, and if replayed
    missing: list[str] = field(default_factory=list)  # sentences about what could not be run


def grouped(rows: Iterable[Row], *keys: str) -> dict[Any, list[Row]]:
    """The rows by the value of an entry, or by the values of several, in the order in which these appear."""
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        values = tuple(row[key] for key in keys)
        groups.setdefault(values if len(keys) > 1 else values[0], []).append(row)
    return groups
