"""Implicit eigen decomposition as a section of the report: precision, time, memory, and the published figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch

from pmaf.paper.experiments import precision as exactness
from pmaf.paper.experiments import timing as speed
from pmaf.paper.report.blocks import Block, Cell, Section, cell, figure, note, prose, section, table
from pmaf.paper.experiments.environment import environment
from pmaf.paper.report.figures import legend, line_style, panel
from pmaf.paper.experiments.ied import IEDResult
from pmaf.paper.experiments.inverse import SHIFT
from pmaf.paper.experiments.matrices import BATCH
from pmaf.paper.report.quoted import MEMORY_GPU, PAPER, SECONDS_CPU, SECONDS_GPU, SIZES_GPU
from pmaf.paper.experiments.timing import Timing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["HEADER", "ied_section", "table_rows"]

HEADER = (
    "method",
    "m",
    "forward ms",
    "backward ms",
    "both ms",
    "× pmaf",
    "gradient error",
    "worst error",
    "forward MB",
    "backward MB",
)
_BESIDE = ("quoted GPU forward ms", "quoted GPU backward ms")
_AHEAD = (
    "m",
    "pmaf ms",
    "fastest of the paper’s ms",
    "which",
    "× pmaf",
    "pmaf error",
    "most exact of the paper’s error",
    "which",
    "× pmaf",
)


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
            "the steps (unroll), the declarative network formula (DDN-J with the whole Jacobian, DDN-E by the letter, "
            f"which inverts λI − X, singular by definition, here with {SHIFT:g} I added), the fixed point of power "
            "iteration likewise (IFT-J, IFT-E). “pmaf gradient” is the paper's forward pass with this library's "
            "bordered system behind it; AutoDiff is plain torch, everything else runs in this library."
        ),
    ]
    for device in sorted({row.device for row in result.timing}):
        rows = [row for row in result.timing if row.device == device]
        blocks += [note("finding", _finding(rows, device)), _ahead(rows, device)]
        blocks += [_speed(result, rows, device), _table(rows, device, s.runs)]
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
    blocks += [note("missing", f"{text}. Then:", command) for text in result.missing]
    blocks += [_quoted_times(), _quoted_memory()]
    return section("ied", "Implicit eigen decomposition", blocks, command, environment())


def table_rows(rows: Sequence[Timing]) -> list[list[Cell]]:
    """The cells; the best of each order stand out."""
    cells = []
    for row in sorted(rows, key=lambda r: (-r.m, r.total)):
        same = [r for r in rows if r.m == row.m]
        ours = next((r.total for r in same if r.method == speed.OURS), None)
        least = {name: min(getattr(r, name) for r in same) for name in row._fields[3:]}
        cells.append(
            [
                cell(row.method),
                cell(row.m, "d"),
                *(
                    cell(1e3 * getattr(row, name), ".3g", best=getattr(row, name) == least[name])
                    for name in ("forward", "backward", "total")
                ),
                cell(ours and row.total / ours, ".2f" if ours else ""),
                *(
                    cell(getattr(row, name), form, best=getattr(row, name) == least[name])
                    for name, form in (
                        ("error", ".1e"),
                        ("worst", ".1e"),
                        ("forward_mb", ".3g"),
                        ("backward_mb", ".3g"),
                    )
                ),
            ]
        )
    return cells


def _table(rows: Sequence[Timing], device: str, runs: int) -> Block:
    memory = (
        "torch.profiler saw allocated at once by torch, which does not see the work space of LAPACK"
        if device == "cpu"
        else "the CUDA allocator held at once"
    )
    return table(
        f"timing-{device}",
        f"Time, memory and gradient error on the {device.upper()}",
        (*HEADER, *_BESIDE),
        [[*cells, *_published(str(cells[0]["sort"]), int(cells[1]["sort"]))] for cells in table_rows(rows)],
        f"Five Gaussian matrices of order m, loss ⟨c, u⟩ with a random c; fastest of {runs} runs after one that is "
        "dropped, each with matrices of its own, all methods in turn on the same ones, in one process, on one thread. "
        "× pmaf: both times, over those of pmaf. Gradient error: Frobenius norm of the difference from the float64 "
        "sum over all eigenvectors, relative, median over the runs; worst: of all runs. Memory: the most that "
        f"{memory}, the input not counted. Best of each order marked. In italics, quoted and not computed here: "
        f"{PAPER}, GeForce RTX 3090.",
        ours=speed.OURS,
    )


def _published(method: str, m: int) -> list[Cell]:
    """What the paper reports for the same method and order on its GPU."""
    if method not in SECONDS_GPU or m not in SIZES_GPU:
        return [cell(None, quoted=True)] * 2
    at = SIZES_GPU.index(m)
    return [cell(1e3 * way[at], ".4g", quoted=True) for way in SECONDS_GPU[method]]


class _Duel(NamedTuple):
    """pmaf and the best of the paper's methods at one order."""

    m: int
    ours: Timing
    fastest: Timing
    exactest: Timing

    @property
    def faster(self) -> bool:
        return self.ours.total < self.fastest.total

    @property
    def more_exact(self) -> bool:
        return self.ours.error < self.exactest.error


def _duels(rows: Sequence[Timing]) -> list[_Duel]:
    duels = []
    for m in sorted({row.m for row in rows}):
        ours = [row for row in rows if row.m == m and row.method == speed.OURS]
        paper = [row for row in rows if row.m == m and row.method in speed.PAPER]
        if ours and paper:
            best = min(paper, key=lambda r: r.total), min(paper, key=lambda r: r.error)
            duels.append(_Duel(m, ours[0], *best))
    return duels


def _ahead(rows: Sequence[Timing], device: str) -> Block:
    cells = [
        [
            cell(d.m, "d"),
            cell(1e3 * d.ours.total, ".3g", best=d.faster),
            cell(1e3 * d.fastest.total, ".3g", best=not d.faster),
            cell(d.fastest.method),
            cell(d.fastest.total / d.ours.total, ".2f"),
            cell(d.ours.error, ".1e", best=d.more_exact),
            cell(d.exactest.error, ".1e", best=not d.more_exact),
            cell(d.exactest.method),
            cell(d.exactest.error / d.ours.error, ".2f"),
        ]
        for d in _duels(rows)
    ]
    return table(
        f"ahead-{device}",
        f"Who is ahead on the {device.upper()}: pmaf's default against the best of the paper's methods",
        _AHEAD,
        cells,
        "Forward and backward together, and the gradient error, from the full table below. × pmaf: the other's over "
        "pmaf's, above one where pmaf is ahead. The better one is marked.",
    )


def _finding(rows: Sequence[Timing], device: str) -> str:
    duels = _duels(rows)
    if not duels:
        return f"On the {device.upper()} nothing can be compared: pmaf's default or the paper's methods were not run."
    since = None
    for duel in reversed(duels):
        if not (duel.faster and duel.more_exact):
            break
        since = duel.m
    where = f"from m = {since} on" if since else f"at none of m = {', '.join(str(d.m) for d in duels)}"
    text = (
        f"On the {device.upper()}, pmaf's default is ahead of every method of the paper in both time and gradient "
        f"error {where}."
    )
    for duel in duels:
        if since is not None and duel.m >= since:
            break
        better = []
        if not duel.faster:
            ms = 1e3 * duel.fastest.total, 1e3 * duel.ours.total
            better.append(f"{duel.fastest.method} is faster ({ms[0]:.2g} against {ms[1]:.2g} ms)")
        if not duel.more_exact:
            better.append(
                f"{duel.exactest.method} is more exact ({duel.exactest.error:.1e} against {duel.ours.error:.1e})"
            )
        if better:
            text += f" At m = {duel.m}, {' and '.join(better)}."
    last = duels[-1]
    auto = [row for row in rows if row.m == last.m and row.method == "AutoDiff-unroll"]
    if auto:
        text += (
            f" At m = {last.m} it takes {1e3 * last.ours.total:.3g} ms where torch.linalg.eigh and its autograd take "
            f"{1e3 * auto[0].total:.3g} ms, {auto[0].total / last.ours.total:.3g} times as long."
        )
    return text


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
        f"The numbers of the table below; {result.settings.runs} runs.",
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
        f"{_seeds(result)}, five matrices each: entries drawn, absolute value, X + Xᵀ; solved in "
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


def _seeds(result: IEDResult) -> str:
    """How many seeds, and at which orders fewer."""
    by_order = {row.m: row.matrices // BATCH for row in result.precision}
    most = max(by_order.values())
    fewer = ", ".join(f"{count} at m = {m}" for m, count in sorted(by_order.items()) if count < most)
    return f"{most} seeds ({fewer})" if fewer else f"{most} seeds"


def _quoted_times() -> Block:
    header = ["ms", *(f"{m} {way}" for m in SIZES_GPU for way in ("fwd", "bwd")), "CPU 256 fwd", "bwd"]
    rows = []
    for name, (forward, backward) in SECONDS_GPU.items():
        pairs = [seconds for pair in zip(forward, backward, strict=True) for seconds in pair]
        on_cpu = SECONDS_CPU.get(name)
        row = [cell(1e3 * v, ".4g", quoted=True) for v in (*pairs, *(on_cpu or ()))]
        rows.append([cell(name), *row, *([] if on_cpu else [cell(None, quoted=True)] * 2)])
    source = (
        f"Milliseconds forward and backward by order m. Not computed here. Quoted from {PAPER}: GeForce RTX 3090, "
        "batch 5; its CPU is not named."
    )
    return table("quoted-times", "Published times, GPU and CPU", header, rows, source, quoted=True)


def _quoted_memory() -> Block:
    rows = [[cell(k), cell(f, ".1f", quoted=True), cell(b, ".1f", quoted=True)] for k, (f, b) in MEMORY_GPU.items()]
    source = f"Not computed here. Quoted from {PAPER}: RTX 3090, batch 5; the input itself takes 20 MB."
    header = ("method", "forward MB", "backward MB")
    return table("quoted-memory", "Published peak memory at m = 1024, GPU", header, rows, source, quoted=True)
