"""The pictures of the documentation, drawn from the recorded results, in dark ink and in light, with their captions."""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt

RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"
Rows = list[dict[str, str]]
GROUNDS = {"light": ("#1c2024", "#2563a8", "#b3261e"), "dark": ("#cfd0d0", "#6ea8e8", "#ef7d74")}  # ink, ours, theirs
CASES = ("1x16x1", "5x32x1", "64x16x1", "64x64x1", "1000x16x1", "16x128x1", "5x512x1", "100000x3x1")


def read(name: str) -> Rows:
    """A recorded table."""
    with (RESULTS / name).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write(folder: Path) -> None:
    """Draw everything."""
    folder.mkdir(exist_ok=True)
    for name, draw in {"lost": lost, "above": above, "speed": speed, "growth": growth}.items():
        for ground, (_, ours, theirs) in GROUNDS.items():
            with ink(ground):
                figure = draw(ours, theirs)
                figure.savefig(folder / f"{name}-{ground}.svg", transparent=True, metadata={"Date": None})
                plt.close(figure)
    (folder / "why.md").write_text(said_of_why() + "\n", encoding="utf-8")
    (folder / "growth.md").write_text(said_of_growth() + "\n", encoding="utf-8")


@contextmanager
def ink(ground: str) -> Iterator[None]:
    """Text and axes in the ink of a ground."""
    names = ("axes.labelcolor", "axes.titlecolor", "text.color", "xtick.color", "ytick.color", "axes.edgecolor")
    settings: dict[Any, Any] = dict.fromkeys(names, GROUNDS[ground][0])
    settings |= {"axes.spines.top": False, "axes.spines.right": False, "font.size": 10, "svg.hashsalt": "pmaf"}
    with mpl.rc_context(settings):
        yield


def machine(row: dict[str, str]) -> str:
    """Processor, threads, torch and date, out of the line of versions."""
    parts = row["versions"].split(", ")
    torch = next(part for part in parts if part.startswith("torch")).removesuffix("+cpu")
    processor = parts[next(i for i, part in enumerate(parts) if part.startswith("Python")) + 1]
    return f"{processor.replace('(R)', '')}, {parts[-3]}, {torch}, {parts[-1]}"


def heads() -> dict[str, dict[str, str]]:
    """Training through each head."""
    return {row["head"]: row for row in read("paper/learning.csv")}


def lost(ours: str, theirs: str) -> plt.Figure:
    """Steps of training that a gradient of NaN has spoilt."""
    figure, axes = plt.subplots(figsize=(3.6, 2.9), layout="constrained")
    axes.set_title("training steps lost to NaN", fontsize=11)
    for y, (head, colour) in enumerate((("principal", ours), ("eigh", theirs))):
        share = 100 * int(heads()[head]["lost_steps"]) / int(heads()[head]["steps"])
        axes.barh(y, share, color=colour)
        axes.text(share + 2, y, f"{share:.0f} %", va="center", fontweight="bold")
    axes.set_yticks([0, 1], ["pmaf", "eigh +\nautograd"])
    axes.set(xlim=(0, 100), xticks=[0, 50, 100], xticklabels=["0", "50", "100 %"])
    return figure


def above(ours: str, theirs: str) -> plt.Figure:
    """Problems that end above their certified optimum."""
    rows = {row["method"]: row for row in read("paper/less.csv") if row["size"] == "9×9"}
    figure, axes = plt.subplots(figsize=(3.6, 2.9), layout="constrained")
    axes.set_title("above the certified optimum", fontsize=11)
    methods = {"Secular": "pmaf", "PGD+RM+BLSOne": "paper, best\nby this count", "PGD+RM+TWD": "paper,\nsteadiest"}
    for y, method in enumerate(methods):
        count = rows[method]["above"]
        axes.barh(y, float(count), color=theirs if y else ours)
        axes.text(float(count) + 6, y, count, va="center", fontweight="bold")
    axes.set_yticks(range(3), methods.values())
    axes.set(xlim=(0, 330), xlabel=f"of {int(rows['Secular']['problems']):,} problems, 9×9")
    return figure


def ratios() -> dict[str, dict[str, str]]:
    """What the kernels gain, by case."""
    kind = ("float32", "gaussian")
    return {row["case"]: row for row in read("kernels_avx512.csv") if (row["dtype"], row["spectrum"]) == kind}


def speed(ours: str, theirs: str) -> plt.Figure:
    """Forward and backward beside eigh."""
    figure, axes = plt.subplots(figsize=(3.7, 2.9), layout="constrained")
    axes.set_title("times as fast as eigh + autograd", fontsize=11)
    for y, case in enumerate(CASES[::-1]):
        ratio = float(ratios()[case]["speedup"])
        axes.plot([1, ratio], [y, y], color=ours, linewidth=2)
        axes.plot(ratio, y, "o", color=ours)
        axes.text(ratio * 1.12, y, f"{ratio:.1f}", va="center", fontsize=9)
    axes.axvline(1, color=theirs, linewidth=1.5)
    axes.set_yticks(range(len(CASES)), [shape(case) for case in CASES[::-1]], fontsize=9)
    axes.set(xscale="log", xlim=(0.9, 50))
    axes.set_xticks([1, 2, 5, 10, 20], ["1", "2", "5", "10", "20"])
    axes.minorticks_off()
    return figure


def said_of_why() -> str:
    """The conditions of the three panels, and once what is common to them."""
    conditions = {row["experiment"]: row for row in read("paper/environment.csv")}
    row = heads()["eigh"]
    panels = {
        "Handwritten digits through a network whose pooling is the principal direction of its features, "
        f"{int(row['steps']):,} steps over {row['seeds']} seeds": said(conditions["learning"]),
        "Least squares on the sphere, random problems, 0.1 % and more above, beside two of the paper's methods": said(
            conditions["less"]
        ),
        "The leading eigenpair of Gaussian matrices in float32, forward and backward": machine(ratios()[CASES[0]]),
    }
    alike = len(set(panels.values())) == 1
    told = [text if alike else f"{text} ({where})" for text, where in panels.items()]
    common = f"{panels.popitem()[1]}. " if alike else ""
    return f"{'. '.join(told)}. {common}All of it is recorded, with what is not as good: [results](results.md)."


def shape(case: str) -> str:
    """As one writes it."""
    batch, n, _ = case.split("x")
    return f"{int(batch):,} of {n}×{n}"


def said(row: dict[str, str]) -> str:
    """Where and when an experiment ran."""
    processor, torch = row["processor"].replace("(R)", ""), row["torch"].removesuffix("+cpu")
    return f"{processor}, {row['threads']} thread, torch {torch}, {row['last'].split()[0]}"


def growth(ours: str, theirs: str) -> plt.Figure:
    """Forward and backward against the order, and against the number of matrices."""
    rows = read("growth.csv")
    figure, panels = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    for axes, grows, label in zip(
        panels, ("order", "batch"), ("order n of one matrix", "number of matrices, 16×16"), strict=True
    ):
        for k, dash in ((1, "-"), (4, "--")):
            for method, colour in (("pmaf", ours), ("eigh", theirs)):
                own = [row for row in rows if (row["grows"], row["method"], row["k"]) == (grows, method, str(k))]
                points = sorted((int(row["n" if grows == "order" else "batch"]), float(row["ms"])) for row in own)
                if points:
                    name = f"pmaf, k = {k}" if method == "pmaf" else "eigh + autograd"
                    axes.loglog(*zip(*points, strict=True), dash, marker="o", markersize=4, color=colour, label=name)
        axes.set(xlabel=label, ylabel="forward and backward, ms")
        axes.grid(alpha=0.25)
    panels[0].legend(frameon=False)
    return figure


def said_of_growth() -> str:
    """The conditions of the curves."""
    return (
        "Gaussian symmetric matrices, float32, in turn in one process; `python benchmarks/growth.py` measures it "
        f"({machine(read('growth.csv')[0])})."
    )
