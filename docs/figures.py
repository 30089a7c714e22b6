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
    for name, draw in {"why": why, "growth": growth}.items():
        for ground in GROUNDS:
            with ink(ground):
                figure, caption = draw(*GROUNDS[ground][1:])
                figure.savefig(folder / f"{name}-{ground}.svg", transparent=True, metadata={"Date": None})
                plt.close(figure)
        (folder / f"{name}.md").write_text(caption + "\n", encoding="utf-8")


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


def why(ours: str, theirs: str) -> tuple[plt.Figure, str]:
    """What the layers do that nothing else does: three panels, each with its counts."""
    heads = {row["head"]: row for row in read("paper/learning.csv")}
    sizes = {(row["size"], row["method"]): row for row in read("paper/less.csv")}
    kernels = {row["case"]: row for row in read("kernels_avx512.csv") if (row["dtype"], row["spectrum"]) == KIND}
    figure, (lost, above, speed) = plt.subplots(1, 3, figsize=(11, 2.9), layout="constrained", width_ratios=(1, 1, 1.25))

    steps = int(heads["eigh"]["steps"])
    lost.set_title("training steps lost to NaN", fontsize=11)
    for y, head in enumerate(("principal", "eigh")):
        share = 100 * int(heads[head]["lost_steps"]) / steps
        lost.barh(y, share, color=ours if head == "principal" else theirs)
        lost.text(share + 2, y, f"{share:.0f} %", va="center", fontweight="bold")
    lost.set_yticks([0, 1], ["pmaf", "eigh +\nautograd"])
    lost.set(xlim=(0, 100), xticks=[0, 50, 100], xticklabels=["0", "50", "100 %"])

    above.set_title("ends above the certified optimum", fontsize=11)
    methods = {"Secular": "pmaf", "PGD+RM+BLSOne": "paper, fewest\nsuch", "PGD+RM+TWD": "paper,\nsteadiest"}
    for y, method in enumerate(methods):
        row = sizes["9×9", method]
        above.barh(y, float(row["above"]), color=ours if y == 0 else theirs)
        above.text(float(row["above"]) + 6, y, row["above"], va="center", fontweight="bold")
    above.set_yticks(range(3), methods.values())
    above.set(xlim=(0, 330), xlabel="of 1,000 problems, 9×9")

    speed.set_title("times as fast as eigh + autograd", fontsize=11)
    for y, case in enumerate(CASES[::-1]):
        ratio = float(kernels[case]["speedup"])
        speed.plot([1, ratio], [y, y], color=ours, linewidth=2)
        speed.plot(ratio, y, "o", color=ours)
        speed.text(ratio * 1.12, y, f"{ratio:.1f}", va="center", fontsize=9)
    speed.axvline(1, color=theirs, linewidth=1.5)
    speed.set_yticks(range(len(CASES)), [shape(case) for case in CASES[::-1]], fontsize=9)
    speed.set(xscale="log", xlim=(0.9, 50), xticks=[1, 2, 5, 10, 20])
    speed.set_xticklabels(["1", "2", "5", "10", "20"])
    speed.minorticks_off()

    conditions = {row["experiment"]: row for row in read("paper/environment.csv")}
    learned, solved = conditions["learning"], conditions["less"]
    return figure, (
        f"Left: handwritten digits through a network whose pooling is the principal direction of its features, "
        f"{int(steps):,} steps over {heads['eigh']['seeds']} seeds ({said(learned)}). Middle: least squares on the sphere, "
        f"random problems, 0.1 % and more above, beside two of the paper's methods ({said(solved)}). Right: the leading "
        f"eigenpair of Gaussian matrices in float32, forward and backward ({machine(kernels[CASES[0]])}). "
        "All of it is recorded, with what is not as good: [results](results.md)."
    )


KIND = ("float32", "gaussian")


def shape(case: str) -> str:
    """As one writes it."""
    batch, n, _ = case.split("x")
    return f"{int(batch):,} of {n}×{n}"


def said(row: dict[str, str]) -> str:
    """Where and when an experiment ran."""
    return f"{row['processor']}, {row['threads']} thread, {row['last'].split()[0]}"


def growth(ours: str, theirs: str) -> tuple[plt.Figure, str]:
    """Forward and backward against the order, and against the number of matrices."""
    rows = read("growth.csv")
    figure, panels = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    for axes, grows, label in zip(panels, ("order", "batch"), ("order n of one matrix", "number of matrices, 16×16"), strict=True):
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
    return figure, (
        f"Gaussian symmetric matrices, float32, in turn in one process; `python benchmarks/growth.py` measures it ({machine(rows[0])})."
    )
