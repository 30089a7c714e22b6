"""Least squares on the sphere as a section of the report: optimality tables and case studies."""

from __future__ import annotations

from collections.abc import Sequence

from pmaf.paper.report.blocks import Block, Cell, Section, cell, figure, note, prose, section, table
from pmaf.paper.experiments.environment import environment
from pmaf.paper.experiments.less import OptimalityResult
from pmaf.paper.report.less_figures import draw_case, optimum
from pmaf.paper.experiments.optimality import CASE_METHODS, CASE_SEEDS, METHODS, Case, Missed, case_studies
from pmaf.paper.report.quoted import LESS_CODE, LESS_SOURCE

__all__ = ["HEADER", "less_section", "table_rows"]

HEADER = (
    "method",
    "failed in",
    "failed out",
    "better",
    "mean diff %",
    "steps",
    "ms",
    "above optimum",
    "excess % of all",
    "excess % of those",
)
_QUOTED = ("quoted failed in", "quoted failed out", "quoted better", "quoted mean diff %")
_LARGEST = (1024, 256)
_PAPERS = tuple(name for name in METHODS if name not in {"SciPy", "Secular"})


def less_section(result: OptimalityResult, command: str, seeds: Sequence[int] = CASE_SEEDS) -> Section:
    """Sentences, a table for each size, and a figure for each case study.

    Args:
        result: what was measured.
        command: the command that measured it.
        seeds: of the case studies.

    Returns:
        The section.
    """
    blocks = [
        prose(
            "Minimise ½‖A u − b‖² over the unit sphere. The paper's methods start from A⁺b/‖A⁺b‖ and walk: "
            "projected gradient (PGD), with a direction weight (DW), with the Riemannian gradient (RM), with "
            "backtracking (BLS, BLSOne) or tangent decay (TWD). pmaf's default, Secular, solves the optimality "
            "conditions instead, and its answer comes with a certificate that it is the global optimum."
        ),
        *(note("finding", text) for text in _findings(result)),
        prose(
            "The protocol is the paper's: random A and b from seeds 0, 1, 2, …, float32, at most 100 steps, stop "
            "when the objective changes by less than 1e-7. Failed: still moving after the last step, with ‖A⁺b‖ < 1 "
            "(in) or > 1 (out). Better: objective smaller than that of SciPy's SLSQP, or equal to six digits. Mean "
            "diff: mean of (f − f_SciPy)/f_SciPy. Steps and ms: means per problem, in batches of up to 100 on one "
            "thread, SLSQP one by one. Secular and SciPy are compared in float64. "
            "Above optimum: problems that end more than 0.1 % above the certified optimum, in float64; excess: by how "
            "much, as a mean over all problems and as one over those alone. Columns in italics are quoted: what "
            f"{LESS_SOURCE} gives."
        ),
    ]
    for m, n in sorted(result.sizes, key=lambda size: size[0] * size[1]):
        blocks.append(_table(result, m, n))
    if _LARGEST not in result.sizes:
        m, n = _LARGEST
        text = f"The paper's largest size, {m}×{n}, was not run. A thousand problems take a quarter of an hour:"
        blocks.append(note("missing", text, f"pmaf reproduce less --size {m}x{n}"))
    blocks += [
        prose(
            "Case studies: eight problems of size 2×2, and the way each method goes. The unit circle is red, level "
            "ellipses of the objective are blue and dashed. The green path leads from the red dot to the star, the "
            "method's answer. The orange ring is the certified optimum from Secular: where the star lies outside, "
            "the method stopped short. Above each panel: the steps taken and √(2f) = ‖A u − b‖ in the end."
        ),
        *_cases(seeds),
    ]
    return section("less", "Least squares on the sphere", blocks, command, environment())


def table_rows(result: OptimalityResult, m: int, n: int) -> list[list[Cell]]:
    """The cells of one size."""
    cells = []
    found = result.sizes[m, n]
    for row in found.rows:
        missed = found.missed[row.method]
        cells.append(
            [
                cell(row.method),
                cell(row.failed_inside, "d"),
                cell(row.failed_outside, "d"),
                cell(row.better, "d"),
                cell(row.mean_diff_percent, ".3g"),
                cell(row.mean_steps, ".1f"),
                cell(row.ms_per_problem, ".3g"),
                cell(missed.problems, "d"),
                cell(missed.mean_percent, ".2g"),
                cell(missed.mean_missed_percent if missed.problems else None, ".2g" if missed.problems else ""),
            ]
        )
    return cells


def _table(result: OptimalityResult, m: int, n: int) -> Block:
    rows, header = table_rows(result, m, n), list(HEADER)
    reference = LESS_CODE.get((m, n))
    count, certified = result.problems[m, n], result.sizes[m, n].certified
    source = f"{count} problems. For {certified} of them pmaf.certify proves the optimum to be global."
    if reference is not None:
        header += _QUOTED
        for row in rows:
            values = reference.get(row[0]["text"])
            row += _cited(values)
        source += " Quoted columns: 1000 problems."
    return table(f"{m}x{n}", f"{m}×{n}: how close each method comes", header, rows, source, ours="Secular")


def _cited(values: tuple[int, int, int, float] | None) -> list[Cell]:
    if values is None:
        return [cell(None, quoted=True)] * 4
    return [cell(value, ".3g" if isinstance(value, float) else "d", quoted=True) for value in values]


def _findings(result: OptimalityResult) -> list[str]:
    """For each size: who ends above the certified optimum, how often, and by how much."""
    sentences = []
    for m, n in sorted(result.sizes, key=lambda size: size[0] * size[1]):
        found, count = result.sizes[m, n], result.problems[m, n]
        failed = {row.method: row.failed_inside + row.failed_outside for row in found.rows}
        paper = {name: found.missed[name] for name in _PAPERS if name in failed}
        if not paper:
            continue
        steady = paper.pop("PGD+RM+TWD", None)
        parts = []
        if steady is not None:
            never = ", which by the paper's count never fails," if not failed["PGD+RM+TWD"] else ""
            parts.append(f"PGD+RM+TWD{never} ends above the certified optimum in {_share(steady, count)}")
        if paper:
            name = min(paper, key=lambda k: (paper[k].problems, paper[k].mean_percent))
            best = f"{'the best of the others, ' if steady is not None else ''}{name},"
            parts.append(f"{best} in {_share(paper[name], count)}")
        if "Secular" in failed:
            parts.append(f"pmaf's default, Secular, in {_share(found.missed['Secular'], count)}")
        sentences.append(f"{m}×{n}: {'; '.join(parts)}.")
    return sentences


def _share(missed: Missed, count: int) -> str:
    if not missed.problems:
        return f"none of {count}"
    of_those, worst, of_all = (
        f"{percent:.0f} %" if percent >= 100 else f"{percent:.2g} %"
        for percent in (missed.mean_missed_percent, missed.worst_percent, missed.mean_percent)
    )
    return f"{missed.problems} of {count} problems (mean of these {of_those}, worst {worst}, mean of all {of_all})"


def _cases(seeds: Sequence[int]) -> list[Block]:
    blocks = []
    cases: dict[int, list[Case]] = {}
    for case in case_studies(seeds, CASE_METHODS):
        cases.setdefault(case.seed, []).append(case)
    for seed, paths in cases.items():
        best, distance = optimum(paths[0])
        panels = []
        for case in paths:
            short = case.distance > distance * (1 + 1e-3) + 1e-6
            reached = f"{case.steps} steps, {case.distance:.4f}{', above the optimum' if short else ''}"
            panels.append((case.method, draw_case(case, best), reached))
        blocks.append(
            figure(
                f"case-{seed}",
                f"Seed {seed}: certified optimum √(2f) = {distance:.4f}",
                panels,
                "",
                "small",
            )
        )
    return blocks
