"""Record a full run of the experiments: tables into ``benchmarks/results/paper``, a page and a figure into ``docs``.

    pmaf reproduce all --out report
    python tools/record_results.py report

Every number of the page is one of the report; nothing is typed by hand.
"""

from __future__ import annotations

import csv
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from pmaf.paper.experiments.timing import DENSE, OURS, PAPER

ROOT = Path(__file__).parent.parent
TABLES = ROOT / "benchmarks" / "results" / "paper"
PAGE = ROOT / "docs" / "results.md"
FIGURE = ROOT / "docs" / "figures" / "ied.svg"
SECTIONS = ("less", "ied", "learning")
INTRODUCTION = """\
# The experiments, recorded

What `pmaf reproduce all` computed, written by `tools/record_results.py`. The tables are in
`benchmarks/results/paper` too. `make run` makes a shorter version of all this on your machine, with the figures.

![Time and gradient error against the order, pmaf and the paper's methods](figures/ied.svg)
"""


def main(run: Path) -> None:
    """Copy the tables of a run, and write page and figure from it."""
    TABLES.mkdir(parents=True, exist_ok=True)
    for table in sorted(run.glob("*.csv")):
        shutil.copy(table, TABLES / table.name)
    sections = [json.loads((run / "sections" / f"{key}.json").read_text("utf-8")) for key in SECTIONS]
    PAGE.write_text("\n".join([INTRODUCTION, *(line for section in sections for line in _section(section))]), "utf-8")
    _draw(TABLES / "ied_timing.csv")


def _section(section: dict[str, Any]) -> list[str]:
    """A section as Markdown: its sentences and tables, without what is quoted or missing."""
    lines = [f"## {section['title']}", ""]
    for block in section["blocks"]:
        if block["kind"] in {"prose", "finding"} and not block["text"].startswith("Case studies"):
            lines += [f"**{block['text']}**" if block["kind"] == "finding" else block["text"], ""]
        elif block["kind"] == "table" and not block["quoted"]:
            lines += [f"### {block['title']}", "", *_table(block), "", block["source"], ""]
    facts = "; ".join(f"{name} {value}" for name, value in section["environment"])
    return [*lines, f"Made by `{section['command']}`: {facts}.", ""]


def _table(block: dict[str, Any]) -> list[str]:
    def line(cells: list[str]) -> str:
        return f"| {' | '.join(cells)} |"

    own = [number for number, name in enumerate(block["header"]) if not name.startswith("quoted")]
    first = block["rows"][0]
    left = [isinstance(first[i]["sort"], str) and bool(first[i]["sort"]) for i in own]
    rows = [
        [f"**{row[i]['text']}**" if row[i]["best"] or row[0]["text"] == block["ours"] else row[i]["text"] for i in own]
        for row in block["rows"]
    ]
    return [
        line([block["header"][i] for i in own]),
        line([":--" if is_left else "--:" for is_left in left]),
        *map(line, rows),
    ]


def _draw(path: Path) -> None:
    """Time and gradient error of pmaf and of the paper's methods against the order, as one drawing."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in PAPER if name not in DENSE]
    with plt.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "pmaf"}):
        figure, panels = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
        columns = (("total", 1e3, "forward and backward, ms"), ("error", 1, "relative error of the gradient"))
        for axes, (column, scale, label) in zip(panels, columns, strict=True):
            for number, name in enumerate([*names, OURS]):
                own = [(int(row["m"]), scale * float(row[column])) for row in rows if row["method"] == name]
                style = (
                    {"color": "black", "linewidth": 3} if name == OURS else {"color": f"C{number}", "linewidth": 1.2}
                )
                axes.loglog(*zip(*own, strict=True), base=10, marker=".", label=name, **style)
            orders = sorted({int(row["m"]) for row in rows})
            axes.set_xticks(orders, [str(m) for m in orders])
            axes.minorticks_off()
            axes.set_xlabel("order m, batches of five, float32")
            axes.set_ylabel(label)
            axes.grid(alpha=0.25)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", frameon=False)
        FIGURE.parent.mkdir(exist_ok=True)
        figure.savefig(FIGURE, format="svg", facecolor="white", metadata={"Date": None})
        plt.close(figure)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
