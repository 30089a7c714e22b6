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
    "`ied(Gram(F))`": ("ied(Gram)", "ied(Gram), wide", "ied(Gram), smallest", "ied(Gram), weights"),
    "`ied(MatVec(…))`": ("ied(MatVec)",),
    "`ied(metric=B)`": ("ied(metric)",),
    "`ied(near=σ)`": ("ied(near)",),
    "`principal_projector`": ("principal_projector",),
    "`spectral_function`": ("spectral_function", "spectral_function, k = 2", "spectral_function, callable"),
    "`svd`": ("svd", "svd, wide"),
    "`svd(MatVec(…))`": ("svd(MatVec)",),
    "`dominant_pair`": ("dominant_pair",),
    "`nn.LESS`": ("nn.LESS",),
    "`nn.IED`": ("nn.IED",),
    "`nn.SVD`": ("nn.SVD",),
    "`nn.SpectralFunction`": ("nn.SpectralFunction",),
    "`nn.PrincipalPool2d`": ("nn.PrincipalPool2d", "nn.PrincipalPool2d, projector"),
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


def refusals(column: Column) -> str:
    """Where the transform is refused: everywhere, or with which layers and solvers."""
    cells = {heading: cell(column, members(layers)) for heading, layers in HEADINGS.items()}
    where = [heading for heading, text in cells.items() if text == "refused"]
    if len(where) == len(cells):
        return column.title
    where += [f"{text[len('yes, but not ') :]} in {heading}" for heading, text in cells.items() if "but not" in text]
    return f"{column.title} with {', '.join(where)}; it works elsewhere"


def brief() -> str:
    """One line for each group, for the README."""
    lines = []
    for group, columns in groupby(COLUMNS, key=lambda column: column.group):
        works, refused = [], []
        for column in columns:
            everywhere = all(cell(column, members(layers)) == "yes" for layers in HEADINGS.values())
            (works if everywhere else refused).append(column.title if everywhere else refusals(column))
        lines.append((group, "; ".join(works), "; ".join(refused)))
    titles = ("", "works for every layer and solver", "refused with a clear error")
    shown = 3 if any(refused for *_, refused in lines) else 2
    rows = [titles[:shown], ("---",) * shown, *(line[:shown] for line in lines)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


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
