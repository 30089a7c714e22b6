"""What the command line shows: bars while it works, tables when it is done."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from pmaf.checks.extras import needs

__all__ = ["Report", "items_bar", "print_table"]

with needs("cli", "the command line"):
    from rich import box
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
    )
    from rich.table import Table
    from rich.text import Text


class Report(Protocol):
    """What a long computation calls to say how far it is."""

    def __call__(self, done: int, total: int, note: str = "", /) -> None:
        """So many of so many are done; the note says what is being worked on."""


class _Pace:
    """How long the rest will take, judged by the work done in this run: what an earlier run left takes no time."""

    def __init__(self) -> None:
        self.start = self.last = time.monotonic()
        self.done = self.kept = self.total = 0

    def update(self, done: int, total: int) -> None:
        """So many of so many are done now."""
        now = time.monotonic()
        if not done:  # only now does the work begin
            self.start = self.last = now
        if now - self.last < _KEPT * max(0, done - self.done) / max(1, total):
            self.kept += done - self.done
        self.done, self.total, self.last = done, total, now

    def left(self) -> float | None:
        """Seconds left, counting down between two updates; none before anything is done."""
        fresh = self.done - self.kept
        if fresh <= 0:
            return None
        each = (self.last - self.start) / fresh
        return max(0.0, each * (self.total - self.done) - (time.monotonic() - self.last))

    def rate(self) -> str:
        """Items done in a second of this run."""
        fresh = self.done - self.kept
        return f"{fresh / max(1e-9, self.last - self.start):,.0f}/s" if fresh > 0 else "-/s"


_KEPT = 1.0  # seconds: work that would be done in less, all of it, was read from disk
_SILENCE = 30.0  # seconds between two lines where there is no terminal to draw a bar on


@contextmanager
def items_bar(what: str, *, share: bool = False, rate: bool = False) -> Iterator[Report]:
    """A progress bar with the time left, on standard error, gone when the block ends.

    Where standard error is not a terminal, such as a log file, a line every half minute says the same.

    Args:
        what: what is being done, as shown before the bar.
        share: show the share that is done, where the items are of unlike size and counted by their cost.
        rate: show how many items are done in a second.

    Yields:
        A function to call with the items done and the items in all.
    """
    console = Console(stderr=True)
    pace = _Pace()

    class Left(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{speed()}left {_clock(pace.left())}", style="progress.remaining")

    def speed() -> str:
        return f"{pace.rate()}, " if rate else ""

    counted = TaskProgressColumn() if share else MofNCompleteColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), counted, TimeElapsedColumn(), Left())
    spoken = time.monotonic()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=None)

        def report(done: int, total: int, note: str = "", /) -> None:
            nonlocal spoken
            pace.update(done, total)
            doing = f"{what} {note}".rstrip()
            progress.update(task, completed=done, total=total, description=doing)
            if not console.is_terminal and time.monotonic() - spoken > _SILENCE:
                spoken = time.monotonic()
                print(
                    f"{doing}: {100 * done / max(1, total):.0f} %, {speed()}{_clock(pace.left())} left", file=sys.stderr
                )

        yield report


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return "-:--:--"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table to standard output; numbers are set flush right.

    Args:
        title: what stands above it.
        header: names of the columns.
        rows: the cells, as text.
    """
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column, name in enumerate(header):
        cells = [row[column] for row in rows]
        numeric = bool(cells) and all(cell[:1].isdigit() or cell[:1] in "-−±.–" for cell in cells)
        table.add_column(name, justify="right" if numeric else "left", no_wrap=column == 0, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = Console()
    if not console.is_terminal:
        console.width = max(140, console.width)  # nobody's window: no reason to fold
    console.print(table)
