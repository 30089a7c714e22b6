"""The figures of the report, each made of an experiment's rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from pmaf.paper.experiments.base import Row, grouped
from pmaf.paper.report.drawing import INK, MUTED, SERIES, Figure, Panel, line_key, panel, patch_key

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["CHARTS", "method_style", "strips"]

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
_HEAD = {
    "average": (GREY, "--", "s"),
    "second": (OCHRE, "-.", "D"),
    "eigh": (RED, ":", "X"),
    "principal": (BLUE, "-", "o"),
    "projector": (GREEN, "-", "^"),
    "less": (INK, "-", "*"),
}


def _look(colour: str, dash: Any, marker: str, **more: Any) -> dict[str, Any]:
    return {"color": colour, "linestyle": dash, "marker": marker, "linewidth": 1.6, "zorder": 2} | more


def method_style(method: str) -> dict[str, Any]:
    """Colour by what goes forward, line and marker by what goes backward: no two methods look alike."""
    if method == "pmaf":
        return _look(INK, "-", "o", linewidth=2.6, zorder=3)
    solver = next(name for name in _SOLVER if method.startswith(name))
    return _look(_SOLVER[solver], *_BACKWARD[method[len(solver) :].strip()])


def strips(rows: Sequence[Row]) -> Figure:
    """Every step of training of two heads, seed by seed, and in red those that were lost."""
    shown = [run for row in rows if row["head"] in {"eigh", "principal"} for run in row["runs"]]

    def draw(axes: Axes) -> None:
        names = []
        for y, run in enumerate(shown):
            ours = run["head"] == "principal"
            axes.barh(y, run["steps"], height=0.72, color=BLUE if ours else MUTED, alpha=0.9 if ours else 0.35)
            axes.broken_barh([(step, 1.0) for step in run["lost"]], (y - 0.36, 0.72), color=RED, linewidth=0)
            right = f" {100 * run['accuracy'][-1]:.0f} %"
            axes.text(run["steps"], y, right, va="center", ha="left", fontweight="bold" if ours else "normal")
            names.append(f"{'pmaf' if ours else 'eigh'}, seed {run['seed']}")
        axes.set_yticks(range(len(shown)), names)
        axes.set_xlim(0, 1.1 * max(run["steps"] for run in shown))
        axes.set_ylim(len(shown) - 0.4, -1.1)
        axes.text(1.1 * shown[0]["steps"], -0.55, "test accuracy", ha="right", va="bottom", fontsize=8)
        axes.set_xlabel("step of training")
        axes.grid(visible=False)
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)

    keys = [
        ("step lost to NaN", patch_key(color=RED)),
        ("step taken, eigh + autograd", patch_key(color=MUTED, alpha=0.35)),
        ("step taken, pmaf", patch_key(color=BLUE, alpha=0.9)),
    ]
    return Figure("strips", "", [Panel("", panel(draw, width=5.2, height=2.5))], keys, "whole")


def _optimality(rows: Sequence[Row]) -> list[Figure]:
    def of(own: Sequence[Row]) -> Callable[[Axes], None]:
        def draw(axes: Axes) -> None:
            for y, row in enumerate(own):
                ours = row["method"] == "Secular"
                above = 100 * row["above"] / row["problems"]
                failed = 100 * (row["failed_inside"] + row["failed_outside"]) / row["problems"]
                axes.barh(y, above, height=0.7, color=INK if ours else ORANGE)
                axes.plot([failed], [y], color=INK if ours else BLUE, marker="D", markersize=4.5, linestyle="")
                axes.text(max(above, failed) + 5, y, f"{row['above']}", va="center", fontsize=8)
            axes.set_yticks(range(len(own)), [row["method"] for row in own])
            axes.set_xlim(-3, 122)
            axes.set_xticks([0, 50, 100], ["0", "50", "100 %"])
            axes.grid(axis="y", visible=False)

        return draw

    panels = [
        Panel(f"{size}, {own[0]['problems']} problems", panel(of(own[::-1]), width=3.4, height=2.7), "number: above")
        for size, own in grouped(rows, "size").items()
    ]
    keys = [
        ("share ending more than 0.1 % above the certified optimum", patch_key(color=ORANGE)),
        ("share “failed” by the paper’s count", line_key(color=BLUE, marker="D", linestyle="")),
        ("pmaf’s Secular", patch_key(color=INK)),
    ]
    return [Figure("optimality", "Who ends above the certified optimum", panels, keys, "medium")]


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
            panels.append(Panel(row["method"], panel(_plane(row), width=1.9, height=1.9, square=True), said))
        title = f"Seed {seed}: ‖A u − b‖ = {own[0]['optimum']:.4f} at the certified optimum"
        figures.append(Figure(f"case-{seed}", title, panels, keys, "small"))
    return figures


def _plane(row: Row) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        import numpy as np

        reach, A, b = 1.5, np.array(row["A"]), np.array(row["b"])
        line = np.linspace(-reach, reach, 81)
        points = np.stack(np.meshgrid(line, line), -1)
        levels = np.linalg.norm(points @ A.T - b, axis=-1)
        steps = np.linspace(levels.min(), levels.max(), 8)[1:-1]
        axes.contour(line, line, levels, levels=steps, colors=GREY, linestyles="dashed", linewidths=0.7)
        angle = np.linspace(0, 2 * np.pi, 121)
        axes.plot(np.cos(angle), np.sin(angle), color=TEAL, linewidth=1.2)
        path = np.array(row["iterates"])
        if len(path) > 1:
            axes.plot(path[:, 0], path[:, 1], color=BLUE, linewidth=1.1, marker=".", markersize=3)
            axes.plot(*path[0], marker="o", markersize=5, color=BLUE)
        axes.plot(*row["best"], marker="o", markersize=12, markerfacecolor="none", color=RED, markeredgewidth=2)
        axes.plot(*path[-1], marker="*", markersize=9, color=INK)
        axes.set_xlim(-reach, reach)
        axes.set_ylim(-reach, reach)
        axes.set_axis_off()

    return draw


def _speed(rows: Sequence[Row]) -> list[Figure]:
    own = list(rows)[::-1]

    def draw(axes: Axes) -> None:
        for y, row in enumerate(own):
            colour = BLUE if row["ratio"] >= 1 else RED
            axes.plot([row["low"], row["high"]], [y, y], color=colour, linewidth=4, alpha=0.4, solid_capstyle="butt")
            axes.plot([row["ratio"]], [y], color=colour, marker="o", markersize=7)
            axes.text(row["high"] * 1.07, y, f"{row['ratio']:.2g}×", va="center", fontsize=8)
        axes.axvline(1, color=INK, linewidth=1.2)
        axes.set_xscale("log")
        low, high = min(row["low"] for row in own), max(row["high"] for row in own)
        ticks = [t for t in (0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 16, 32) if low / 1.5 <= t <= high * 1.5]
        axes.set_xticks(ticks, [f"{t:g}×" for t in ticks])
        axes.minorticks_off()
        axes.set_xlim(min(0.8, low / 1.3), max(1.3, high * 1.6))
        axes.set_yticks(range(len(own)), [row["shape"] for row in own])
        axes.set_xlabel("times as fast as eigh + autograd")
        axes.set_ylim(-0.7, len(own) - 0.3)

    keys = [
        ("pmaf ahead, median", line_key(color=BLUE, marker="o", linestyle="", markersize=7)),
        ("eigh + autograd ahead", line_key(color=RED, marker="o", linestyle="", markersize=7)),
        ("quartiles of the turns", line_key(color=GREY, linewidth=4, alpha=0.5)),
    ]
    title = "Forward and backward beside torch.linalg.eigh and its autograd"
    return [Figure("speed", title, [Panel("", panel(draw, width=4.8, height=3.4))], keys, "whole")]


def _lines(rows: Sequence[Row], key: str, scale: float, label: str) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        for name, own in grouped(rows, "method").items():
            points = sorted((row["m"], scale * row[key]) for row in own if row[key] > 0)
            axes.plot([p[0] for p in points], [p[1] for p in points], **method_style(name))
        orders = sorted({row["m"] for row in rows})
        values = [scale * row[key] for row in rows if row[key] > 0]
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xlabel("order m")
        axes.set_ylabel(label)
        if values:
            axes.set_ylim(10 ** math.floor(math.log10(min(values))), 10 ** math.ceil(math.log10(max(values))))
        axes.set_xticks(orders, [str(m) for m in orders])
        axes.minorticks_off()

    return draw


def _methods(rows: Sequence[Row], order: Sequence[str]) -> list[tuple[str, str]]:
    present = {row["method"] for row in rows}
    return [(name, line_key(**method_style(name))) for name in order if name in present]


def _timing(rows: Sequence[Row]) -> list[Figure]:
    from pmaf.paper.experiments.timing import METHODS

    figures = []
    for device, own in grouped(rows, "device").items():
        panels = [
            Panel(title, panel(_lines(own, key, scale, label), width=3.4, height=2.7))
            for title, key, scale, label in (
                ("Forward and backward", "total", 1e3, "ms"),
                ("Gradient error", "error", 1.0, "relative"),
                ("Backward alone", "backward", 1e3, "ms"),
                ("Peak memory, backward", "backward_mb", 1.0, "MB"),
            )
        ]
        title = f"Time, gradient error and memory against the order, on the {device.upper()}"
        figures.append(Figure(f"timing-{device}", title, panels, _methods(own, list(METHODS)), "medium"))
    return figures


def _precision(rows: Sequence[Row]) -> list[Figure]:
    panels = [
        Panel(f"{distribution}: {label}", panel(_lines(own, key, 1.0, "mean gap"), width=3.3, height=2.4))
        for key, label in (("eigen_gap", "‖λu − Xu‖/λ"), ("fixed_point_gap", "‖u − Xu/‖Xu‖‖"))
        for distribution, own in grouped(rows, "distribution").items()
    ]
    title = "How exactly each method solves, against the order"
    return [Figure("precision", title, panels, _methods(rows, ("eigh", "PI", "SI", "pmaf")), "medium")]


def _digits(rows: Sequence[Row]) -> list[Figure]:
    def of(key: str, label: str, scale: float) -> Callable[[Axes], None]:
        def draw(axes: Axes) -> None:
            for row in rows:
                style, nan = _look(*_HEAD[row["head"]]), float("nan")
                curves = [[nan if v is None else scale * v for v in run[key]] for run in row["runs"]]
                points = [[v for v in epoch if v == v] for epoch in zip(*curves, strict=True)]
                epochs = range(1, len(points) + 1)
                axes.plot(epochs, [sum(p) / len(p) if p else nan for p in points], **style)
                low, high = [min(p, default=nan) for p in points], [max(p, default=nan) for p in points]
                axes.fill_between(epochs, low, high, color=style["color"], alpha=0.14, linewidth=0)
            axes.set_xlabel("epoch")
            axes.set_ylabel(label)
            axes.locator_params(axis="x", integer=True)

        return draw

    panels = [
        Panel("Test accuracy", panel(of("accuracy", "test accuracy %", 100.0))),
        Panel("Training loss of the steps that counted", panel(of("loss", "cross entropy", 1.0))),
    ]
    keys = [(row["label"], line_key(**_look(*_HEAD[row["head"]]))) for row in rows]
    return [Figure("curves", "How fast each head learns", panels, keys, "large")]


def _weights(rows: Sequence[Row]) -> list[Figure]:
    from pmaf.paper.experiments.scenes import SCENES

    def look(method: str) -> dict[str, Any]:
        dashes = {"all alike": "--", "RANSAC": "-.", "learned weights, eigh + autograd": ":"}
        colours = {"--": GREY, "-.": OCHRE, ":": RED, "-": INK}
        dash = dashes.get(method, "-")
        return _look(colours[dash], dash, "", linewidth=3.0 if dash == "-" else 1.9, zorder=1 if dash == "-" else 2)

    def of(scene: str, own: Sequence[Row]) -> Callable[[Axes], None]:
        def draw(axes: Axes) -> None:
            for row in own:
                errors, count = sorted(row["errors"]), len(row["errors"])
                axes.plot(errors, [100 * (i + 1) / count for i in range(count)], **look(row["method"]))
            axes.axvline(own[0]["good"], color=MUTED, linewidth=1)
            axes.set_xlim(0, 4 * own[0]["good"])
            axes.set_ylim(0, 100)
            axes.set_xlabel(f"error at most, {SCENES[scene].unit}")
            axes.set_ylabel("share of the test set, %")

        return draw

    panels = [Panel(SCENES[scene].title, panel(of(scene, own))) for scene, own in grouped(rows, "scene").items()]
    keys = [(name, line_key(**look(name))) for name in grouped(rows, "method")]
    return [Figure("weights", "How often the answer is how good", panels, keys, "large")]


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
