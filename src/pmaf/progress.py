"""What the command line shows: bars while it works, tables when it is done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pmaf.extras import needs

with needs("cli", "the command line"):
    from rich import box
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.table import Table

if TYPE_CHECKING:
    from pmaf.batches import Summary

__all__ = ["Report", "items_bar", "print_summary", "print_table"]


class Report(Protocol):
    """What a long computation calls to say how far it is."""

    def __call__(self, done: int, total: int, note: str = "", /) -> None:
        """So many of so many are done; the note says what is being worked on."""


@contextmanager
def items_bar(what: str) -> Iterator[Report]:
    """A progress bar with the time left, on standard error, gone when the block ends.

    Args:
        what: what is being done, as shown before the bar.

    Yields:
        A function to call with the items done and the items in all.
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    left = (TextColumn("left"), TimeRemainingColumn())
    with Progress(*columns, *left, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=None)

        def report(done: int, total: int, note: str = "", /) -> None:
            progress.update(task, completed=done, total=total, description=f"{what} {note}".rstrip())

        yield report


def print_summary(summary: Summary, output: Path) -> None:
    """Print how many items ended with which status, and on standard error what failed first.

    Args:
        summary: what became of the batch.
        output: where the answers are.
    """
    rows = [(status.name, str(count), status.remedy) for status, count in summary.counts.items()]
    print_table(f"{summary.items} items", ("status", "items", "meaning"), rows)
    shapes = ", ".join(f"{name} {shape}" for name, shape in summary.shapes.items())
    print(f"wrote {output}: {shapes} in {summary.seconds:.2f} s")
    if summary.failed < summary.items:
        print(f"worst relative residual {summary.worst_residual:.1e}, smallest gap {summary.smallest_gap:.1e}")
    if summary.first_failed is not None:
        index, status = summary.first_failed
        where = f"item {', '.join(map(str, index))}" if index else "the only item"
        verb = "item has" if summary.failed == 1 else "items have"
        Console(stderr=True, soft_wrap=True, highlight=False).print(
            f"pmaf: {summary.failed} of {summary.items} {verb} no answer, first {where} with {status.name}: "
            f"{status.remedy}"
        )


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
