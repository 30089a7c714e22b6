"""What a section of the report is made of. Blocks are plain dictionaries, so that JSON keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypedDict

__all__ = ["Block", "Cell", "Key", "Panel", "Section", "cell", "figure", "note", "prose", "section", "table"]


class Cell(TypedDict):
    """A cell of a table: the text to show, what to sort by, and whether it is the best of its column."""

    text: str
    sort: float | str
    best: bool
    quoted: bool


class Key(TypedDict):
    """An entry of a legend: what it is called, the CSS variable of its colour, and whether its line is dashed."""

    label: str
    colour: str
    dashed: bool


class Panel(TypedDict):
    """A drawing with its heading and a line below the heading."""

    title: str
    note: str
    svg: str


class Block(TypedDict, total=False):
    """A piece of a section; which fields it has depends on its kind."""

    kind: Literal["prose", "finding", "missing", "table", "figure"]
    text: str
    title: str
    command: str
    header: list[str]
    rows: list[list[Cell]]
    source: str
    quoted: bool
    ours: str
    panels: list[Panel]
    legend: list[Key]
    size: Literal["small", "medium", "large"]
    name: str


class Section(TypedDict):
    """One experiment of the report."""

    key: str
    title: str
    blocks: list[Block]
    command: str
    environment: list[tuple[str, str]]


def section(
    key: str, title: str, blocks: Sequence[Block], command: str, environment: Sequence[tuple[str, str]]
) -> Section:
    """A section, with the command that makes it anew and the machine it was made on."""
    return {"key": key, "title": title, "blocks": list(blocks), "command": command, "environment": list(environment)}


def prose(text: str) -> Block:
    """A paragraph."""
    return {"kind": "prose", "text": text}


def note(kind: Literal["finding", "missing"], text: str, command: str = "") -> Block:
    """A sentence set apart: what came out, or what could not be done and the command that would do it."""
    return {"kind": kind, "text": text, "command": command}


def cell(
    value: float | str | None, form: str = "", *, best: bool = False, quoted: bool = False, after: str = ""
) -> Cell:
    """A cell; a number is shown in the given format, sorted by its value, and ``None`` is a dash.

    Args:
        value: what to show and to sort by.
        form: how to format it.
        best: whether it stands out.
        quoted: whether it is somebody else's.
        after: text behind it, such as a deviation, which does not count for sorting.

    Returns:
        The cell.
    """
    if value is None:
        return {"text": "–", "sort": "", "best": False, "quoted": quoted}
    text = format(value, form) if form else str(value)
    return {
        "text": (text.replace("-", "−") if isinstance(value, float | int) else text) + after,
        "sort": value,
        "best": best,
        "quoted": quoted,
    }


def table(
    name: str,
    title: str,
    header: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    source: str,
    *,
    quoted: bool = False,
    ours: str = "",
) -> Block:
    """A sortable table.

    Args:
        name: what links call it.
        title: what stands above it.
        header: names of the columns.
        rows: the cells.
        source: how the numbers were obtained.
        quoted: whether they are somebody else's.
        ours: rows whose first cell says this stand out.

    Returns:
        The block.
    """
    return {
        "kind": "table",
        "name": name,
        "title": title,
        "header": list(header),
        "rows": [list(row) for row in rows],
        "source": source,
        "quoted": quoted,
        "ours": ours,
    }


def figure(
    name: str,
    title: str,
    panels: Sequence[tuple[str, str] | tuple[str, str, str]],
    source: str,
    size: Literal["small", "medium", "large"] = "medium",
    legend: Sequence[Key] = (),
) -> Block:
    """A figure of panels that wrap on narrow pages.

    Args:
        name: what its files are called.
        title: the caption.
        panels: heading and drawing of each panel, and a line below the heading.
        source: how it was obtained.
        size: how wide a panel may at least become.
        legend: what the series are, as :func:`figures.legend` gives it.

    Returns:
        The block.
    """
    drawn: list[Panel] = [{"title": p[0], "svg": p[1], "note": p[2] if len(p) > 2 else ""} for p in panels]
    return {
        "kind": "figure",
        "name": name,
        "title": title,
        "panels": drawn,
        "source": source,
        "size": size,
        "legend": list(legend),
    }
