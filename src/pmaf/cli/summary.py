"""What became of a batch, put together from the records of its cells, for people and for scripts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import NamedTuple

from pmaf import Status
from pmaf.checks.extras import needs
from pmaf.cli.files import Array
from pmaf.cli.parts import Record
from pmaf.cli.plan import Cell, Plan
from pmaf.cli.progress import print_table

__all__ = ["Summary", "measure", "print_summary", "summarise"]

with needs("cli", "pmaf.cli.summary"):
    import numpy as np
    from rich.console import Console


_FAILED = (Status.MAX_STEPS, Status.NON_FINITE, Status.NOT_DEFINITE)


class Summary(NamedTuple):
    """What became of a batch.

    Attributes:
        layer: what was solved, ``"less"``, ``"ied"`` or ``"svd"``.
        items: how many problems the file held.
        counts: how many ended with each status.
        first_failed: index of the first item without an answer, and its status.
        worst_residual: the largest measured residual among the items with an answer.
        smallest_gap: the smallest measured gap among them.
        seconds: time from the first chunk to the finished file.
        kept: how many of the items an earlier run had solved.
        shapes: the arrays written, with their shapes.
    """

    layer: str
    items: int
    counts: dict[Status, int]
    first_failed: tuple[tuple[int, ...], Status] | None
    worst_residual: float
    smallest_gap: float
    seconds: float
    kept: int
    shapes: dict[str, tuple[int, ...]]

    @property
    def failed(self) -> int:
        """How many items have no answer."""
        return sum(self.counts.get(status, 0) for status in _FAILED)

    def to_json(self, output: Path) -> str:
        """The summary for scripts: one JSON object, in which ``null`` stands for numbers that are not finite.

        Args:
            output: where the answers are.

        Returns:
            One line.
        """

        def finite(number: float) -> float | None:
            return number if isfinite(number) else None

        first = self.first_failed
        return json.dumps(
            {
                "output": str(output),
                "layer": self.layer,
                "items": self.items,
                "failed": self.failed,
                "counts": {status.name: count for status, count in self.counts.items()},
                "first_failed": None if first is None else {"item": first[0], "status": first[1].name},
                "worst_residual": finite(self.worst_residual),
                "smallest_gap": finite(self.smallest_gap),
                "seconds": self.seconds,
                "kept": self.kept,
                "shapes": self.shapes,
            }
        )


def measure(at: int, cell: Cell, answer: Mapping[str, Array], seconds: float) -> Record:
    """What became of the items of a cell.

    Args:
        at: the number of the cell.
        cell: its place.
        answer: the arrays ``status``, ``residual`` and ``gap`` of its items.
        seconds: how long it took.

    Returns:
        What is recorded of it.
    """
    status = answer["status"]
    failed = np.isin(status, [int(code) for code in _FAILED])
    first, worst, smallest = None, 0.0, float("inf")
    if failed.any():
        first = cell.start + int(failed.argmax()), int(status[failed.argmax()])
    if not failed.all():
        worst = float(answer["residual"][~failed].max())
        smallest = float(answer["gap"][~failed].min())
    counts = {str(code): count for code, count in Counter(status.tolist()).items()}
    return Record(at, cell.stop - cell.start, counts, first, worst, smallest, seconds)


def summarise(
    layer: str,
    records: Mapping[int, Record],
    plan: Plan,
    shapes: Mapping[str, tuple[int, ...]],
    seconds: float,
    kept: int,
) -> Summary:
    """Put the records of all cells together.

    Args:
        layer: what was solved.
        records: one for each cell, in order.
        plan: how the batch was cut.
        shapes: of the arrays written.
        seconds: time from the first chunk to the finished file.
        kept: how many items an earlier run had solved.

    Returns:
        What became of the batch.
    """
    counts: Counter[int] = Counter()
    first, worst, smallest = None, 0.0, float("inf")
    for record in records.values():
        counts.update({int(code): count for code, count in record.counts.items()})
        worst, smallest = max(worst, record.worst), min(smallest, record.smallest)
        if first is None and record.failed is not None:
            first = plan.index(record.failed[0], plan.batch), Status(record.failed[1])
    known = {Status(code): count for code, count in sorted(counts.items())}
    return Summary(layer, plan.items, known, first, worst, smallest, seconds, kept, dict(shapes))


def print_summary(summary: Summary, output: Path) -> None:
    """Print how many items ended with which status, and on standard error what failed first.

    Args:
        summary: what became of the batch.
        output: where the answers are.
    """
    rows = [(status.name, str(count), status.remedy_for(summary.layer)) for status, count in summary.counts.items()]
    print_table(f"{summary.items} items", ("status", "items", "meaning"), rows)
    shapes = ", ".join(f"{name} {shape}" for name, shape in summary.shapes.items())
    kept = f"; an earlier run had solved {summary.kept} of {summary.items} items" if summary.kept else ""
    print(f"wrote {output}: {shapes} in {summary.seconds:.2f} s{kept}")
    if summary.failed < summary.items:
        print(f"worst relative residual {summary.worst_residual:.1e}, smallest gap {summary.smallest_gap:.1e}")
    if summary.first_failed is not None:
        index, status = summary.first_failed
        where = f"item {', '.join(map(str, index))}" if index else "the only item"
        verb = "has" if summary.failed == 1 else "have"
        items = "item" if summary.items == 1 else "items"
        Console(stderr=True, soft_wrap=True, highlight=False).print(
            f"pmaf: {summary.failed} of {summary.items} {items} {verb} no answer, first {where} with {status.name}: "
            f"{status.remedy_for(summary.layer)}"
        )
