"""Write the table of transforms into README.md and docs/transforms.md, or check that it is up to date.

The table is data of the test suite, ``tests/transforms.py``, where every cell is a test.

    python tools/transform_table.py
    python tools/transform_table.py --check
"""

from __future__ import annotations

import sys
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from transforms import COLUMNS, ROWS, Column, Row, applies  # noqa: E402

BEGIN, END = "<!-- transforms: written by tools/transform_table.py -->", "<!-- end of transforms -->"

HEADINGS = {
    "`less`": ("less", "less, m < n", "less, all arguments", "less, ball"),
    "`sphere_quadratic`": ("sphere_quadratic",),
    "`ied`": ("ied, k = 1", "ied, k = 3", "ied, smallest"),
    "`ied(Gram(F))`": ("ied(Gram)", "ied(Gram), wide", "ied(Gram), smallest"),
    "`ied(MatVec(…))`": ("ied(MatVec)",),
    "`principal_projector`": ("principal_projector",),
    "`nn.LESS`": ("nn.LESS",),
    "`nn.IED`": ("nn.IED",),
    "`nn.PrincipalPool2d`": ("nn.PrincipalPool2d",),
}


def members(layers: tuple[str, ...]) -> list[Row]:
    """The rows of the test table that one heading stands for."""
    return [row for row in ROWS if row.layer.name in layers and applies(row)]


def cell(column: Column, rows: list[Row]) -> str:
    """One word for a group of rows, or the solvers that refuse."""
    refusing = [row for row in rows if column.refuses(row) is not None]
    if not refusing:
        return "yes"
    if len(refusing) == len(rows):
        return "refused"
    return "yes, but not " + ", ".join(sorted({f"`{row.solver.short}`" for row in refusing if row.solver is not None}))


def table() -> str:
    """The whole table in Markdown."""
    lines = ["| | " + " | ".join(HEADINGS) + " |", "|---" * (len(HEADINGS) + 1) + "|"]
    for group, columns in groupby(COLUMNS, key=lambda column: column.group):
        lines.append(f"| **{group}** |" + " |" * len(HEADINGS))
        for column in columns:
            cells = [cell(column, members(layers)) for layers in HEADINGS.values()]
            lines.append(f"| {column.title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def exceptions(column: Column) -> str:
    """The layers, and the solvers, that refuse where others work."""
    cells = {heading: cell(column, members(layers)) for heading, layers in HEADINGS.items()}
    layers = [heading for heading, text in cells.items() if text == "refused"]
    solvers = [f"{text[len('yes, but not ') :]} ({heading})" for heading, text in cells.items() if "but not" in text]
    return ", ".join(layers + solvers)


def brief() -> str:
    """One line for each group, for the README."""
    lines = [
        "| | works for every layer and solver | works with exceptions, which are refused | refused |",
        "|---|---|---|---|",
    ]
    for group, columns in groupby(COLUMNS, key=lambda column: column.group):
        works, partly, refused = [], [], []
        for column in columns:
            cells = {cell(column, members(layers)) for layers in HEADINGS.values()}
            if cells == {"yes"}:
                works.append(column.title)
            elif cells == {"refused"}:
                refused.append(column.title)
            else:
                partly.append(f"{column.title}, except with {exceptions(column)}")
        lines.append(f"| {group} | {'; '.join(works)} | {'; '.join(partly)} | {'; '.join(refused)} |")
    if not any(line.split("|")[3].strip() for line in lines[2:]):  # a column that says nothing
        lines = ["|".join(parts[:3] + parts[4:]) for parts in (line.split("|") for line in lines)]
    return "\n".join(lines)


def replaced(text: str, block: str) -> str:
    """The text with another block between the markers."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n\n{block}\n\n{END}{rest.split(END)[1]}"


def main(arguments: list[str]) -> int:
    """Write the pages, or with ``--check`` name those that are out of date."""
    stale = []
    for name, block in (("README.md", brief()), ("docs/transforms.md", table())):
        page = ROOT / name
        text = page.read_text(encoding="utf-8")
        if replaced(text, block) != text:
            stale.append(name)
            if "--check" not in arguments:
                page.write_text(replaced(text, block), encoding="utf-8")
    if stale and "--check" in arguments:
        print(f"out of date: {', '.join(stale)}; run python tools/transform_table.py")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
