"""Implicit eigen decomposition as a section of the report: precision, time, memory, and the published figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from pmaf.paper import precision as exactness
from pmaf.paper import timing as speed
from pmaf.paper.blocks import Block, Cell, Section, cell, figure, note, prose, section, table
from pmaf.paper.environment import environment
from pmaf.paper.figures import legend, line_style, panel
from pmaf.paper.ied import IEDResult
from pmaf.paper.quoted import MEMORY_GPU, PAPER, SECONDS_CPU, SECONDS_GPU, SIZES_GPU
from pmaf.paper.timing import Timing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["HEADER", "ied_section", "table_rows"]

HEADER = ("method", "m", "forward ms", "backward ms", "both ms", "gradient error", "forward MB", "backward MB")


def ied_section(result: IEDResult, command: str) -> Section:
    """Sentences, figures and tables.

    Args:
        result: what was measured.
        command: the command that measured it.

    Returns:
        The section.
    """
    s = result.settings
    blocks = [
        prose(
            "The leading eigenpair of symmetric matrices with non-negative entries, in batches of five, float32. "
            "Forward: torch.linalg.eigh (AutoDiff), power iteration (PI), simultaneous iteration (SI, here with "
            "five columns; the paper iterates all m), each at most 100 steps, and pmaf's default. Backward: through "
            "the steps (unroll), the declarative network formula with the whole Jacobian (DDN-J) or exploiting its "
            "structure (DDN-E, here pmaf's bordered system), the fixed point of power iteration likewise (IFT-J, "
            "IFT-E)."
        ),
    ]
    for device in sorted({row.device for row in result.timing}):
        rows = [row for row in result.timing if row.device == device]
        blocks += [*(note("finding", text) for text in _findings(rows, device)), _speed(result, rows, device)]
        blocks.append(_table(rows, device, s.runs))
    if not torch.cuda.is_available():
        blocks.append(
            note("missing", "No GPU is seen by torch here, so nothing was timed on one. Where there is one:", command)
        )
    skipped = [m for m in s.orders if m > s.dense_orders]
    if skipped:
        text = (
            f"{' and '.join(speed.DENSE)} form a Jacobian of m³ entries a matrix and were left out at m = "
            f"{', '.join(map(str, skipped))}."
        )
        blocks.append(note("missing", text))
    blocks += _precision(result)
    blocks += [note("missing", text) for text in result.missing]
    blocks += [_quoted_times(), _quoted_memory()]
    return section("ied", "Implicit eigen decomposition", blocks, command, environment())


def table_rows(rows: Sequence[Timing]) -> list[list[Cell]]:
    """The cells; the best of each order stand out."""
    cells = []
    for row in sorted(rows, key=lambda r: (-r.m, r.forward + r.backward)):
        same = [r for r in rows if r.m == row.m]
        cells.append(
            [
                cell(row.method),
                cell(row.m, "d"),
                cell(1e3 * row.forward, ".3g", best=row.forward == min(r.forward for r in same)),
                cell(1e3 * row.backward, ".3g", best=row.backward == min(r.backward for r in same)),
                cell(
                    1e3 * (row.forward + row.backward),
                    ".3g",
                    best=row.forward + row.backward == min(r.forward + r.backward for r in same),
                ),
                cell(row.error, ".1e", best=row.error == min(r.error for r in same)),
                cell(row.forward_mb, ".3g", best=row.forward_mb == min(r.forward_mb for r in same)),
                cell(row.backward_mb, ".3g", best=row.backward_mb == min(r.backward_mb for r in same)),
            ]
        )
    return cells


def _table(rows: Sequence[Timing], device: str, runs: int) -> Block:
    memory = "torch.profiler saw allocated at once" if device == "cpu" else "the CUDA allocator held at once"
    return table(
        f"timing-{device}",
        f"Time, memory and gradient error on the {device.upper()}",
        HEADER,
        table_rows(rows),
        f"Five Gaussian matrices of order m, loss ⟨c, u⟩ with a fixed random c; fastest of {runs} runs after one "
        "that is dropped, one thread. Gradient error: Frobenius norm of the difference from the float64 sum over "
        f"all eigenvectors, relative. Memory: the most that {memory}, the input not counted. Best of each order "
        "marked.",
    )


def _findings(rows: Sequence[Timing], device: str) -> list[str]:
    sentences = []
    for m in sorted({row.m for row in rows}, reverse=True)[:2]:
        same = {row.method: row for row in rows if row.m == m}
        total = {name: row.forward + row.backward for name, row in same.items()}
        fastest, exactest = min(total, key=lambda k: total[k]), min(same, key=lambda k: same[k].error)
        text = (
            f"m = {m} on the {device.upper()}: fastest forward and backward together is {fastest} with "
            f"{1e3 * total[fastest]:.3g} ms; smallest gradient error has {exactest} with {same[exactest].error:.1e}."
        )
        if "pmaf" in same:
            ours = same["pmaf"]
            text += f" pmaf's default takes {1e3 * total['pmaf']:.3g} ms with error {ours.error:.1e}"
            if "AutoDiff-unroll" in same:
                text += (
                    f", {total['AutoDiff-unroll'] / total['pmaf']:.2g} times as fast as torch.linalg.eigh's autograd"
                )
            text += "."
        sentences.append(text)
    return sentences


def _lines(curves: dict[str, list[tuple[int, float]]], label: str, names: Sequence[str]) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        for number, name in enumerate(names):
            points = [p for p in curves.get(name, []) if p[1] > 0]
            axes.plot(
                [p[0] for p in points],
                [p[1] for p in points],
                marker="o",
                **line_style(number, name),
            )
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xlabel("m")
        axes.set_ylabel(label)
        orders = sorted({p[0] for points in curves.values() for p in points})
        values = [p[1] for points in curves.values() for p in points if p[1] > 0]
        if values:
            axes.set_ylim(10 ** math.floor(math.log10(min(values))), 10 ** math.ceil(math.log10(max(values))))
        axes.set_xticks(orders, [str(m) for m in orders])
        axes.minorticks_off()

    return draw


def _speed(result: IEDResult, rows: Sequence[Timing], device: str) -> Block:
    names = list(speed.METHODS)

    def curves(of: Callable[[Timing], float]) -> dict[str, list[tuple[int, float]]]:
        return {name: [(row.m, of(row)) for row in rows if row.method == name] for name in names}

    return figure(
        f"speed-{device}",
        f"Time and gradient error on the {device.upper()} against the order m",
        [
            ("Forward", panel(_lines(curves(lambda r: 1e3 * r.forward), "ms", names))),
            ("Backward", panel(_lines(curves(lambda r: 1e3 * r.backward), "ms", names))),
            ("Gradient error", panel(_lines(curves(lambda r: r.error), "relative", names))),
            ("Peak memory, backward", panel(_lines(curves(lambda r: r.backward_mb), "MB", names))),
        ],
        f"The numbers of the table below; fastest of {result.settings.runs} runs.",
        "large",
        legend=legend(names),
    )


def _precision(result: IEDResult) -> list[Block]:
    names = list(exactness.METHODS)
    panels = []
    for distribution in dict.fromkeys(row.distribution for row in result.precision):
        for field, label in (("eigen_gap", "‖λu − Xu‖/λ"), ("fixed_point_gap", "‖u − Xu/‖Xu‖‖")):
            curves: dict[str, list[tuple[int, float]]] = {}
            for row in result.precision:
                if row.distribution == distribution:
                    curves.setdefault(row.method, []).append((row.m, getattr(row, field)))
            panels.append((f"{distribution}: {label}", panel(_lines(curves, "mean gap", names))))
    if not panels:
        return []
    largest = max(row.m for row in result.precision)
    failed = sum(row.failed for row in result.precision if row.method == "pmaf")
    solved = sum(row.matrices for row in result.precision if row.method == "pmaf")
    rows = [
        [
            cell(r.distribution),
            cell(r.method),
            cell(r.eigen_gap, ".2e"),
            cell(r.fixed_point_gap, ".2e"),
            cell(r.failed, "d"),
            cell(r.matrices, "d"),
        ]
        for r in result.precision
        if r.m == largest
    ]
    how = (
        f"{result.settings.seeds} seeds, five matrices each: entries drawn, absolute value, X + Xᵀ; solved in "
        "float32, gaps measured in float64. Features: the last feature maps of EfficientNet-lite0 for crops of "
        "scikit-image's photographs, shaped as m×m; the paper takes a ResNet-50."
    )
    return [
        figure(
            "precision",
            "How exactly each method solves, against the order m",
            panels,
            how,
            "large",
            legend=legend(names),
        ),
        table(
            "precision",
            f"Gaps at m = {largest}",
            ("entries", "method", "eigen gap", "fixed-point gap", "failed", "of"),
            rows,
            "The same runs. Failed: no convergence to the solver's own tolerance; of pmaf, over all orders, "
            f"{failed} of {solved}.",
        ),
    ]


def _quoted_times() -> Block:
    header = ["method", *(f"m={m} {way} ms" for m in SIZES_GPU for way in ("fwd", "bwd")), "CPU m=256 fwd ms", "bwd ms"]
    rows = []
    for name, (forward, backward) in SECONDS_GPU.items():
        pairs = [seconds for pair in zip(forward, backward, strict=True) for seconds in pair]
        on_cpu = SECONDS_CPU.get(name)
        row = [cell(1e3 * v, ".4g", quoted=True) for v in (*pairs, *(on_cpu or ()))]
        rows.append([cell(name), *row, *([] if on_cpu else [cell(None, quoted=True)] * 2)])
    source = f"Not computed here. Quoted from {PAPER}: GeForce RTX 3090, batch 5; its CPU is not named."
    return table("quoted-times", "Published times, GPU and CPU", header, rows, source, quoted=True)


def _quoted_memory() -> Block:
    rows = [[cell(k), cell(f, ".1f", quoted=True), cell(b, ".1f", quoted=True)] for k, (f, b) in MEMORY_GPU.items()]
    source = f"Not computed here. Quoted from {PAPER}: RTX 3090, batch 5; the input itself takes 20 MB."
    header = ("method", "forward MB", "backward MB")
    return table("quoted-memory", "Published peak memory at m = 1024, GPU", header, rows, source, quoted=True)
