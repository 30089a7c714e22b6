"""Record a full run of the experiments: tables into ``benchmarks/results/paper``, a page and a figure into ``docs``.

    pmaf reproduce all --out report
    python tools/record_results.py report

Every number of the page is one of the recorded tables, nothing is typed by hand; without a folder, page and figure are
made anew from the tables that are there.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from pmaf.paper.experiments.timing import DENSE
from pmaf.paper.report.charts import method_style
from pmaf.paper.report.drawing import plain
from pmaf.paper.report.page import markdown_page, read_csvs

ROOT = Path(__file__).parent.parent
TABLES = ROOT / "benchmarks" / "results" / "paper"
PAGE = ROOT / "docs" / "results.md"
FIGURE = ROOT / "docs" / "figures" / "ied.svg"


def main(run: Path | None = None) -> None:
    """Copy the tables of a run, if there is one, and write page and figure from the tables."""
    TABLES.mkdir(parents=True, exist_ok=True)
    for table in sorted(run.glob("*.csv")) if run else []:
        shutil.copy(table, TABLES / table.name)
    PAGE.write_text(page(), "utf-8")
    _draw()


def page() -> str:
    """The page that the recorded tables give."""
    return markdown_page(*read_csvs(TABLES))


def _draw() -> None:
    """Time and gradient error of pmaf and of the paper's methods against the order, as one drawing."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    rows = [row for row in read_csvs(TABLES)[0]["ied_timing"].rows if row["method"] not in DENSE]
    names = [name for name in dict.fromkeys(row["method"] for row in rows) if "gradient" not in name]
    with plt.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "pmaf"}):
        figure, panels = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
        columns = (("total", 1e3, "forward and backward, ms"), ("error", 1, "relative error of the gradient"))
        for axes, (column, scale, label) in zip(panels, columns, strict=True):
            for name in sorted(names):
                own = sorted((row["m"], scale * row[column]) for row in rows if row["method"] == name)
                style = method_style(name)
                axes.loglog(*zip(*own, strict=True), base=10, label=name, **style | {"color": plain(style["color"])})
            orders = sorted({row["m"] for row in rows})
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
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
