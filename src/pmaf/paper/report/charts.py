"""The figures of the report, each made of an experiment's rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from pmaf.checks.extras import needs
from pmaf.paper.experiments.base import Row, grouped
from pmaf.paper.experiments.scenes import SCENES
from pmaf.paper.experiments.timing import METHODS
from pmaf.paper.report.drawing import INK, MUTED, SERIES, Figure, Panel, line_key, panel, patch_key

with needs("cli", "Drawing figures"):
    import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["CHARTS", "method_style"]

BLUE, ORANGE, GREEN, _, RED, TEAL, OCHRE, GREY = SERIES
_SOLVER = {"eigh": RED, "PI": BLUE, "SI": ORANGE}
_BACKWARD = {
    "": ("-", "s"),
    "+ autograd": ("-", "s"),
    "-unroll": ("-", "o"),
    "-DDN-J": ("--", "v"),
    "-DDN-E": (":", "^"),
    "-IFT-J": ((0, (5, 1, 1, 1, 1, 1)), "D"),
    "-IFT-E": ("-.", "X"),
    ", pmaf gradient": ((0, (8, 2)), "*"),
}
_WIDE = {"width": 3.4, "height": 2.7}


def _look(colour: str, dash: Any, marker: str = "", width: float = 1.6, zorder: int = 2) -> dict[str, Any]:
    return {"color": colour, "linestyle": dash, "marker": marker, "linewidth": width, "zorder": zorder}


_HEAD = {
    "average": _look(GREY, "--", "s"),
    "second": _look(OCHRE, "-.", "D"),
    "eigh": _look(RED, ":", "X"),
    "principal": _look(BLUE, "-", "o"),
    "projector": _look(GREEN, "-", "^"),
    "less": _look(INK, "-", "*"),
}
_WEIGHTS = {
    "all alike": _look(GREY, "--", width=1.9),
    "RANSAC": _look(OCHRE, "-.", width=1.9),
    "learned weights, eigh + autograd": _look(RED, ":", width=1.9),
    "learned weights, pmaf": _look(INK, "-", width=3.0, zorder=1),
}


def _named(axes: Axes, names: Sequence[str]) -> None:
    """Bars and dots lie on lines that have names instead of numbers."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(-0.7, len(names) - 0.3)


def method_style(method: str) -> dict[str, Any]:
    """Colour by what goes forward, line and marker by what goes backward: no two methods look alike."""
    if method == "pmaf":
        return _look(INK, "-", "o", 2.6, 3)
    solver = next(name for name in _SOLVER if method.startswith(name))
    return _look(_SOLVER[solver], *_BACKWARD[method[len(solver) :].strip()])


def _strips(rows: Sequence[Row]) -> Figure:
    """Every step of training of two heads, seed by seed, and in red those that were lost."""
    shown = [run for row in rows if row["head"] in {"eigh", "principal"} for run in row["runs"]]
    look: dict[str, dict[str, Any]] = {"eigh": {"color": MUTED, "alpha": 0.35}}
    look["principal"] = {"color": BLUE, "alpha": 0.9}

    def draw(axes: Axes) -> None:
        for y, run in enumerate(shown):
            axes.barh(y, run["steps"], height=0.72, **look[run["head"]])
            axes.broken_barh([(step, 1.0) for step in run["lost"]], (y - 0.36, 0.72), color=RED, linewidth=0)
            weight = "bold" if run["head"] == "principal" else "normal"
            right = f" {100 * run['accuracy'][-1]:.0f} %"
            axes.text(run["steps"], y, right, va="center", ha="left", fontweight=weight)
        _named(axes, [f"{'pmaf' if run['head'] == 'principal' else 'eigh'}, seed {run['seed']}" for run in shown])
        end = 1.1 * max(run["steps"] for run in shown)
        axes.set_xlim(0, end)
        axes.set_ylim(len(shown) - 0.4, -1.1)
        axes.text(end, -0.55, "test accuracy", ha="right", va="bottom", fontsize=8)
        axes.set_xlabel("step of training")
        axes.grid(visible=False)
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)

    keys = [
        ("step lost to NaN", patch_key(color=RED)),
        ("step taken, eigh + autograd", patch_key(**look["eigh"])),
        ("step taken, pmaf", patch_key(**look["principal"])),
    ]
    return Figure("strips", "", [Panel("", panel(draw, width=5.2, height=2.5))], keys, "whole")


def _optimality(rows: Sequence[Row]) -> list[Figure]:
    panels = [
        Panel(f"{size}, {own[0]['problems']} problems", panel(_above, own[::-1], **_WIDE), "number: above")
        for size, own in grouped(rows, "size").items()
    ]
    keys = [
        ("share ending more than 0.1 % above the certified optimum", patch_key(color=ORANGE)),
        ("share “failed” by the paper’s count", line_key(color=BLUE, marker="D", linestyle="")),
        ("pmaf’s Secular", patch_key(color=INK)),
    ]
    return [Figure("optimality", "Who ends above the certified optimum", panels, keys, "medium")]


def _above(axes: Axes, rows: Sequence[Row]) -> None:
    for y, row in enumerate(rows):
        ours = row["method"] == "Secular"
        above = 100 * row["above"] / row["problems"]
        failed = 100 * (row["failed_inside"] + row["failed_outside"]) / row["problems"]
        axes.barh(y, above, height=0.7, color=INK if ours else ORANGE)
        axes.plot([failed], [y], color=INK if ours else BLUE, marker="D", markersize=4.5, linestyle="")
        axes.text(max(above, failed) + 5, y, f"{row['above']}", va="center", fontsize=8)
    _named(axes, [row["method"] for row in rows])
    axes.set_xlim(-3, 122)
    axes.set_xticks([0, 50, 100], ["0", "50", "100 %"])
    axes.grid(axis="y", visible=False)


def _cases(rows: Sequence[Row]) -> list[Figure]:
    keys = [
        ("unit circle", line_key(color=TEAL, linewidth=1.2)),
        ("level ellipse of the objective", line_key(color=GREY, linewidth=0.9, linestyle="--")),
        ("path", line_key(color=BLUE, marker=".", markevery=None)),
        ("start", line_key(color=BLUE, marker="o", linestyle="", markersize=6)),
        ("answer", line_key(color=INK, marker="*", linestyle="", markersize=9)),
        ("certified optimum", line_key(color=RED, marker="o", linestyle="", markersize=9, markerfacecolor="none")),
    ]
    figures = []
    for seed, own in grouped(rows, "seed").items():
        panels = []
        for row in own:
            short = row["distance"] > row["optimum"] * (1 + 1e-3) + 1e-6
            said = f"{row['steps']} steps, {row['distance']:.4f}{', above' if short else ''}"
            panels.append(Panel(row["method"], panel(_plane, row, width=1.9, height=1.9), said))
        title = f"Seed {seed}: ‖A u − b‖ = {own[0]['optimum']:.4f} at the certified optimum"
        figures.append(Figure(f"case-{seed}", title, panels, keys, "small"))
    return figures


def _plane(axes: Axes, row: Row) -> None:
    line, angle = np.linspace(-1.5, 1.5, 81), np.linspace(0, 2 * np.pi, 121)
    points = np.stack(np.meshgrid(line, line), -1)
    levels = np.linalg.norm(points @ np.array(row["A"]).T - row["b"], axis=-1)
    steps = np.linspace(levels.min(), levels.max(), 8)[1:-1]
    axes.contour(line, line, levels, levels=steps, colors=GREY, linestyles="dashed", linewidths=0.7)
    axes.plot(np.cos(angle), np.sin(angle), color=TEAL, linewidth=1.2)
    path = np.array(row["iterates"])
    if len(path) > 1:
        axes.plot(*path.T, color=BLUE, linewidth=1.1, marker=".", markersize=3)
        axes.plot(*path[0], marker="o", markersize=5, color=BLUE)
    axes.plot(*row["best"], marker="o", markersize=12, markerfacecolor="none", color=RED, markeredgewidth=2)
    axes.plot(*path[-1], marker="*", markersize=9, color=INK)
    axes.axis((-1.5, 1.5, -1.5, 1.5))
    axes.set_aspect("equal")
    axes.set_axis_off()


def _speed(rows: Sequence[Row]) -> list[Figure]:
    keys = [
        ("pmaf ahead, median", line_key(color=BLUE, marker="o", linestyle="", markersize=7)),
        ("eigh + autograd ahead", line_key(color=RED, marker="o", linestyle="", markersize=7)),
        ("quartiles of the turns", line_key(color=GREY, linewidth=4, alpha=0.5)),
    ]
    title = "Forward and backward beside torch.linalg.eigh and its autograd"
    return [Figure("speed", title, [Panel("", panel(_ratios, rows[::-1], width=4.8, height=3.4))], keys, "whole")]


def _ratios(axes: Axes, rows: Sequence[Row]) -> None:
    for y, row in enumerate(rows):
        colour = BLUE if row["ratio"] >= 1 else RED
        axes.plot([row["low"], row["high"]], [y, y], color=colour, linewidth=4, alpha=0.4, solid_capstyle="butt")
        axes.plot([row["ratio"]], [y], color=colour, marker="o", markersize=7)
        axes.text(row["high"] * 1.07, y, f"{row['ratio']:.2g}×", va="center", fontsize=8)
    axes.axvline(1, color=INK, linewidth=1.2)
    axes.set_xscale("log")
    low, high = min(row["low"] for row in rows), max(row["high"] for row in rows)
    ticks = [t for t in (0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 16, 32) if low / 1.5 <= t <= high * 1.5]
    axes.set_xticks(ticks, [f"{t:g}×" for t in ticks])
    axes.minorticks_off()
    axes.set_xlim(min(0.8, low / 1.3), max(1.3, high * 1.6))
    _named(axes, [row["shape"] for row in rows])
    axes.set_xlabel("times as fast as eigh + autograd")


def _lines(axes: Axes, rows: Sequence[Row], key: str, label: str, scale: float = 1.0) -> None:
    """A quantity of every method against the order; zeros have no place on the logarithmic scale."""
    some = [(row["method"], row["m"], scale * row[key]) for row in rows if row[key] > 0]
    for name in dict.fromkeys(row["method"] for row in rows):
        axes.plot(*np.array(sorted(point for method, *point in some if method == name)).T, **method_style(name))
    orders, values = sorted({row["m"] for row in rows}), [value for _, _, value in some]
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel("order m")
    axes.set_ylabel(label)
    if values:
        axes.set_ylim(10 ** math.floor(math.log10(min(values))), 10 ** math.ceil(math.log10(max(values))))
    axes.set_xticks(orders, [str(m) for m in orders])
    axes.minorticks_off()


def _timing(rows: Sequence[Row]) -> list[Figure]:
    figures = []
    keys = [(name, line_key(**method_style(name))) for name in METHODS if name in grouped(rows, "method")]
    for device, own in grouped(rows, "device").items():
        panels = [
            Panel("Forward and backward", panel(_lines, own, "total", "ms", 1e3, **_WIDE)),
            Panel("Gradient error", panel(_lines, own, "error", "relative", **_WIDE)),
            Panel("Backward alone", panel(_lines, own, "backward", "ms", 1e3, **_WIDE)),
            Panel("Peak memory, backward", panel(_lines, own, "backward_mb", "MB", **_WIDE)),
        ]
        title = f"Time, gradient error and memory against the order, on the {device.upper()}"
        figures.append(Figure(f"timing-{device}", title, panels, keys, "medium"))
    return figures


def _precision(rows: Sequence[Row]) -> list[Figure]:
    panels = [
        Panel(f"{distribution}: {label}", panel(_lines, own, key, "mean gap", width=3.3, height=2.4))
        for key, label in (("eigen_gap", "‖λu − Xu‖/λ"), ("fixed_point_gap", "‖u − Xu/‖Xu‖‖"))
        for distribution, own in grouped(rows, "distribution").items()
    ]
    keys = [(name, line_key(**method_style(name))) for name in grouped(rows, "method")]
    return [Figure("precision", "How exactly each method solves, against the order", panels, keys, "medium")]


def _digits(rows: Sequence[Row]) -> list[Figure]:
    panels = [
        Panel("Test accuracy", panel(_curves, rows, "accuracy", "test accuracy %", 100.0)),
        Panel("Training loss of the steps that counted", panel(_curves, rows, "loss", "cross entropy", 1.0)),
    ]
    keys = [(row["label"], line_key(**_HEAD[row["head"]])) for row in rows]
    return [_strips(rows), Figure("curves", "How fast each head learns", panels, keys, "large")]


def _curves(axes: Axes, rows: Sequence[Row], key: str, label: str, scale: float) -> None:
    """Means over the seeds, and bands from the lowest to the highest; an epoch without a number has no place in it."""
    for row in rows:
        style, nan = _HEAD[row["head"]], float("nan")
        points = [
            [scale * v for v in epoch if v is not None] for epoch in zip(*(r[key] for r in row["runs"]), strict=True)
        ]
        epochs = range(1, len(points) + 1)
        axes.plot(epochs, [sum(p) / len(p) if p else nan for p in points], **style)
        low, high = [min(p, default=nan) for p in points], [max(p, default=nan) for p in points]
        axes.fill_between(epochs, low, high, color=style["color"], alpha=0.14, linewidth=0)
    axes.set_xlabel("epoch")
    axes.set_ylabel(label)
    axes.locator_params(axis="x", integer=True)


def _weights(rows: Sequence[Row]) -> list[Figure]:
    panels = [Panel(SCENES[scene].title, panel(_shares, own)) for scene, own in grouped(rows, "scene").items()]
    keys = [(name, line_key(**_WEIGHTS[name])) for name in grouped(rows, "method")]
    return [Figure("weights", "How often the answer is how good", panels, keys, "large")]


def _shares(axes: Axes, rows: Sequence[Row]) -> None:
    for row in rows:
        count = len(row["errors"])
        axes.plot(sorted(row["errors"]), [100 * (i + 1) / count for i in range(count)], **_WEIGHTS[row["method"]])
    good, scene = rows[0]["good"], SCENES[rows[0]["scene"]]
    axes.axvline(good, color=MUTED, linewidth=1)
    axes.axis((0, 4 * good, 0, 100))
    axes.set_xlabel(f"error at most, {scene.unit}")
    axes.set_ylabel("share of the test set, %")


CHARTS: dict[str, Callable[[Sequence[Row]], list[Figure]]] = {
    "less": _optimality,
    "less_cases": _cases,
    "ied_speed": _speed,
    "ied_timing": _timing,
    "ied_precision": _precision,
    "learning": _digits,
    "learning_weights": _weights,
}
"""The figures of an experiment."""
