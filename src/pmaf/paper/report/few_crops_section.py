"""Textures from few crops, as a part of the section on learning."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pmaf.paper.report.blocks import Block, Cell, cell, figure, note, prose, table
from pmaf.paper.experiments.few_crops import FewCropsResult, FewCropsRow
from pmaf.paper.report.figures import SERIES, legend, line_style, panel
from pmaf.paper.experiments.heads import HEADS
from pmaf.paper.experiments.surfaces import PICTURES, SIDE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["few_crops_blocks", "few_crops_header", "few_crops_rows"]


def few_crops_blocks(result: FewCropsResult) -> list[Block]:
    """Sentences, table and curves.

    Args:
        result: what was measured.

    Returns:
        The blocks.
    """
    s = result.settings
    how = (
        f"Crops of {SIDE} by {SIDE} pixels that do not overlap, those of a picture's left half to train, each with its "
        "mirror image, those of its right half to test; grey, brought to one mean and contrast, enlarged to 224 by "
        f"224. {s.steps} steps of {s.batch} crops drawn at random, Adam with learning rate {s.learning_rate}, "
        f"{_seeds(s.seeds)}, each with another choice of crops."
    )
    tested = ", ".join(f"{count} of {pictures}" for pictures, count in result.tested.items())
    return [
        prose(
            "And on features that somebody else has trained? EfficientNet-lite0, frozen, turns a crop of a photograph "
            f"into 49 places by 1280 channels. A 1×1 convolution leaves {s.channels} channels, normalised and "
            "rectified, then come the pooling head and a linear layer; these three are trained. The classes are the "
            "textures brick, grass and gravel that scikit-image ships, or these and six surfaces more: moon, stars, "
            "retina, stained tissue, fur, coins. LESS pooling is left out: its learned picture of the places means "
            "nothing where any place looks like any other."
        ),
        note("finding", _finding(result)),
        table(
            "textures",
            "Surfaces from few crops: five heads on frozen features",
            few_crops_header(result),
            few_crops_rows(result),
            f"{how} Numbers: test accuracy in percent{', ± standard deviation over the seeds' if s.seeds > 1 else ''}, "
            f"by crops of each class to train with; tested on all right halves ({tested}). Lost steps: over all "
            "columns, skipped because a gradient was not finite. ms: of a training step on one thread, mean over the "
            "steps, of the fastest run. Second-order pooling: upper triangle of the root of the covariance, by five "
            "Newton–Schulz steps.",
        ),
        _curves(result),
    ]


def _seeds(count: int) -> str:
    return f"{count} seed{'s' if count > 1 else ''}"


def few_crops_header(result: FewCropsResult) -> list[str]:
    """Names of the columns."""
    s = result.settings
    columns = [f"{p}, {count} crops" for p in s.pictures for count in s.counts]
    return ["head", *columns, "lost steps", "of", "ms / step", "pooled numbers"]


def few_crops_rows(result: FewCropsResult) -> list[list[Cell]]:
    """The table's cells, a row for each head."""
    s = result.settings
    rows = []
    for name in s.heads:
        own = [row for row in result.rows if row.head == name]
        cells = [cell(HEADS[name].label)]
        for row in own:
            best = row.accuracy_mean == max(r.accuracy_mean for r in _rivals(result, row))
            spread = "" if row.accuracy_std is None else f" ± {100 * row.accuracy_std:.1f}"
            cells.append(cell(100 * row.accuracy_mean, ".1f", best=best, after=spread))
        lost, steps = sum(row.lost_steps for row in own), sum(row.steps for row in own)
        fastest = min(row.ms_per_step for row in own)
        cells += [cell(lost, "d"), cell(steps, "d"), cell(fastest, ".2g"), cell(HEADS[name].size(s.channels), "d")]
        rows.append(cells)
    return rows


def _rivals(result: FewCropsResult, row: FewCropsRow) -> list[FewCropsRow]:
    return [r for r in result.rows if (r.pictures, r.crops) == (row.pictures, row.crops)]


def _finding(result: FewCropsResult) -> str:
    cases = len(result.settings.pictures) * len(result.settings.counts)
    wins = dict.fromkeys(result.settings.heads, 0)
    for row in result.rows:
        wins[row.head] += row.accuracy_mean == max(r.accuracy_mean for r in _rivals(result, row))
    best = max(wins, key=lambda name: wins[name])
    text = f"{HEADS[best].label.capitalize()} is best, or level with the best, in {wins[best]} of {cases} columns."
    if {"principal", "second"} <= wins.keys():
        of = {name: [row for row in result.rows if row.head == name] for name in ("principal", "second")}
        ahead = sum(p.accuracy_mean > q.accuracy_mean for p, q in zip(of["principal"], of["second"], strict=True))
        sizes = [HEADS[name].size(result.settings.channels) for name in ("principal", "second")]
        text += (
            f" pmaf's principal vector, {sizes[0]} numbers, is ahead of second-order pooling, {sizes[1]} numbers, in "
            f"{ahead}."
        )
    lost = {name: sum(row.lost_steps for row in result.rows if row.head == name) for name in wins}
    steps = {name: sum(row.steps for row in result.rows if row.head == name) for name in wins}
    for name in wins:
        if lost[name]:
            share = 100 * lost[name] / steps[name]
            text += f" With {HEADS[name].label}, {share:.0f} % of the steps had a non-finite gradient and were lost."
    return text


def _curves(result: FewCropsResult) -> Block:
    s = result.settings

    def of(pictures: str) -> Callable[[Axes], None]:
        def draw(axes: Axes) -> None:
            for number, name in enumerate(s.heads):
                own = [row for row in result.rows if (row.pictures, row.head) == (pictures, name)]
                x = [row.crops for row in own]
                label = HEADS[name].label
                axes.plot(x, [100 * row.accuracy_mean for row in own], marker="o", **line_style(number, label))
                if s.seeds > 1:
                    low, high = [100 * row.accuracy_min for row in own], [100 * row.accuracy_max for row in own]
                    axes.fill_between(x, low, high, color=SERIES[number], alpha=0.15, linewidth=0)
            axes.set_xscale("log", base=2)
            axes.set_xticks(s.counts, [str(count) for count in s.counts])
            axes.minorticks_off()
            axes.set_xlabel("crops of each class to train with")
            axes.set_ylabel("test accuracy %")

        return draw

    band = " Bands run from the lowest seed to the highest." if s.seeds > 1 else ""
    return figure(
        "textures",
        "How many crops each head needs",
        [(f"{len(PICTURES[pictures])} {pictures}", panel(of(pictures))) for pictures in s.pictures],
        f"The numbers of the table above, {_seeds(s.seeds)}.{band}",
        legend=legend([HEADS[name].label for name in s.heads]),
    )
