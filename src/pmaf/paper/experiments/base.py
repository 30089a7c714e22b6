"""What an experiment is: which tasks there are, how one of them is done, and what the columns of its table mean."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

__all__ = ["Column", "Experiment", "Found", "Options", "Row", "Task", "grouped"]

Row: TypeAlias = dict[str, Any]
"""What was measured of one method on one problem; JSON can hold it. Entries without a column are for charts."""


class Options(NamedTuple):
    """What the command line asks for; sizes, problems and methods are those of the optimality experiment."""

    quick: bool = False
    sizes: Sequence[str] = ()
    problems: int | None = None
    methods: Sequence[str] = ()

    def __str__(self) -> str:
        """The options as they are typed."""
        words = ["--quick"] if self.quick else []
        words += [f"--size {size}" for size in self.sizes]
        words += [] if self.problems is None else [f"--problems {self.problems}"]
        words += [f"--methods {','.join(self.methods)}"] if self.methods else []
        return " ".join(words)


class Task(NamedTuple):
    """A piece that is done, and kept on disk, as a whole.

    Attributes:
        name: also of the file that keeps it.
        settings: what ``compute`` is called with; the result depends on this and on the code alone.
        cost: how long it takes, roughly, in seconds; what the progress bar counts.
    """

    name: str
    settings: dict[str, Any]
    cost: float = 1.0


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        key: of the rows' entry, and the column's name in the CSV file.
        title: what stands above it; a column without is in the CSV file only.
        form: how a number is formatted; text if empty.
        scale: what numbers are multiplied with before they are shown.
        best: which entry stands out, the least or the most of those that belong together.
        cited: somebody else's numbers, not computed here.
    """

    key: str
    title: str = ""
    form: str = ""
    scale: float = 1.0
    best: Literal["", "least", "most"] = ""
    cited: bool = False


@dataclass(frozen=True)
class Experiment:
    """A declared experiment: from its plan to its table.

    Attributes:
        key: name of its CSV file and of its place on the page.
        section: what the command line calls the experiments it belongs to.
        title: what stands above its table.
        plan: options → tasks.
        compute: a task's settings → rows.
        columns: of its table.
        gather: the rows of all tasks → the rows of the table.
        group: the entry within which the best is looked for.
        ours: the entry of the first column whose rows stand out.
        timed: whether times are measured: on one thread, and valid for this processor alone.
    """

    key: str
    section: str
    title: str
    plan: Callable[[Options], Sequence[Task]]
    compute: Callable[..., list[Row]]
    columns: tuple[Column, ...]
    gather: Callable[[list[Row]], list[Row]] = list
    group: str = ""
    ours: tuple[str, ...] = ("pmaf",)
    timed: bool = True

    @property
    def parted(self) -> bool:
        """Whether each group has a table of its own, because it has no column."""
        return bool(self.group) and not any(c.key == self.group and c.title for c in self.columns)


@dataclass
class Found:
    """What came out of an experiment.

    Attributes:
        key: of the experiment.
        command: what was typed.
        rows: of its table.
        made: for each part when, on what and under which load it was computed, and whether that was in an earlier run.
        missing: sentences about what could not be run.
    """

    key: str
    command: str
    rows: list[Row]
    made: list[dict[str, Any]]
    missing: list[str] = field(default_factory=list)


def grouped(rows: Iterable[Row], *keys: str) -> dict[Any, list[Row]]:
    """The rows by the value of an entry, or by the values of several, in the order in which these appear."""
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        values = tuple(row[key] for key in keys)
        groups.setdefault(values if len(keys) > 1 else values[0], []).append(row)
    return groups
