"""Rows and columns made into the cells of a table: on the page, in the terminal and in Markdown alike."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from typing import Any, NamedTuple

from pmaf.paper.experiments.base import Column, Experiment, Row, grouped

__all__ = ["Cell", "Table", "make_table", "markdown", "tables"]


class Cell(NamedTuple):
    """A cell: the text to show, what to sort by, and whether it stands out."""

    text: str
    sort: Any
    best: bool = False


class Table(NamedTuple):
    """A table to show: its columns' names, its cells, and which rows are the library's own."""

    title: str
    columns: tuple[Column, ...]
    rows: list[list[Cell]]
    ours: list[bool]

    @property
    def header(self) -> list[str]:
        """Names of the columns."""
        return [column.title for column in self.columns]

    @property
    def texts(self) -> list[list[str]]:
        """The cells' texts."""
        return [[cell.text for cell in row] for row in self.rows]


def tables(experiment: Experiment, rows: Sequence[Row], columns: Sequence[Column] = ()) -> list[Table]:
    """The tables of an experiment: one, or where the group has no column of its own, one for each group."""
    columns = columns or experiment.columns
    groups = grouped(rows, experiment.group) if experiment.parted else {"": list(rows)} if rows else {}
    named = {key: f"{key}: {experiment.title[0].lower()}{experiment.title[1:]}" for key in groups if key != ""}
    return [
        make_table(named.get(key, experiment.title), columns, own, group=experiment.group, ours=experiment.ours)
        for key, own in groups.items()
    ]


def make_table(
    title: str, columns: Sequence[Column], rows: Sequence[Row], *, group: str = "", ours: Sequence[str] = ()
) -> Table:
    """Format rows."""
    shown = tuple(c for c in columns if c.title and not (c.cited and all(row.get(c.key) is None for row in rows)))

    def cell(row: Row, column: Column) -> Cell:
        value = row.get(column.key)
        if value is None:
            return Cell("–", "")
        text = number(value * column.scale if column.scale != 1 else value, column.form) if column.form else str(value)
        if not column.best:
            return Cell(text, value)
        rivals = {r[column.key] for r in rows if r.get(group) == row.get(group) and r.get(column.key) is not None}
        best = (min if column.best == "least" else max)(rivals)
        return Cell(text, value, value == best and len(rivals) > 1)

    cells = [[cell(row, column) for column in shown] for row in rows]
    return Table(title, shown, cells, [row[0].text in ours for row in cells])


def number(value: float, form: str) -> str:
    """A number with a proper minus, and written out where it is large."""
    text = format(value, form)
    return (format(value, ".0f") if "e+" in text else text).replace("-", "−")


def markdown(table: Table) -> str:
    """The table as Markdown, without what is cited; the best, and the library's own rows, are bold."""
    own = [not column.cited for column in table.columns]

    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(compress(cells, own))} |"

    rows = [
        [f"**{cell.text}**" if cell.best or ours else cell.text for cell in row]
        for row, ours in zip(table.rows, table.ours, strict=True)
    ]
    aligned = ["--:" if column.form else ":--" for column in table.columns]
    return "\n".join(map(line, [table.header, aligned, *rows]))
