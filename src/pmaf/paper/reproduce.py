"""Run experiments by name and write each into the report as soon as it is done."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from pmaf.errors import MissingExtraError
from pmaf.paper.report.blocks import Cell
from pmaf.progress import items_bar, print_table

__all__ = ["EXPERIMENTS", "reproduce"]

Runner = Callable[..., Path]


def _learning(out: Path, quick: bool, command: str) -> Path:
    from pmaf.paper.experiments.few_crops import FewCropsResult, FewCropsSettings, run_few_crops
    from pmaf.paper.experiments.learning import LearningSettings, run_learning
    from pmaf.paper.report.few_crops_section import few_crops_header, few_crops_rows
    from pmaf.paper.report.learning_section import HEADER, learning_section, table_rows
    from pmaf.paper.report.page import write_section

    settings = LearningSettings.quick() if quick else LearningSettings()
    with items_bar("learning digits") as report:
        result = run_learning(out, settings, report=report)
    print_table("MNIST digits: five heads, one network", HEADER, _texts(table_rows(result)))
    few: FewCropsResult | str
    try:
        with items_bar("learning textures") as report:
            few = run_few_crops(out, FewCropsSettings.quick() if quick else FewCropsSettings(), report=report)
        print_table("Surfaces from few crops, accuracy in %", few_crops_header(few), _texts(few_crops_rows(few)))
    except MissingExtraError as error:
        few = str(error)
    return write_section(out, learning_section(result, few, command))


def _texts(rows: Sequence[Sequence[Cell]]) -> list[list[str]]:
    return [[cell["text"] for cell in row] for row in rows]


def _less(
    out: Path,
    quick: bool,
    command: str,
    sizes: Sequence[str] = (),
    problems: int | None = None,
    methods: Sequence[str] = (),
) -> Path:
    from pmaf.paper.experiments.less import LESSSettings, parse_sizes, run_less
    from pmaf.paper.report.less_section import HEADER, less_section, table_rows
    from pmaf.paper.report.page import write_section

    settings = LESSSettings.quick() if quick else LESSSettings()
    if sizes or problems is not None:
        asked = sizes or [f"{m}x{n}" for m, n, _ in settings.sizes]
        settings = settings._replace(sizes=parse_sizes(asked, 1000 if problems is None else problems))
    if methods:
        settings = settings._replace(methods=tuple(methods))
    with items_bar("less", share=True) as report:
        result = run_less(out, settings, report)
    for m, n, count in settings.sizes:
        print_table(f"{m}×{n}, {count} problems", HEADER, _texts(table_rows(result, m, n)))
    return write_section(out, less_section(result, command))


def _ied(out: Path, quick: bool, command: str) -> Path:
    from pmaf.paper.experiments.ied import IEDSettings, run_ied
    from pmaf.paper.report.ied_section import HEADER, ied_section, table_rows
    from pmaf.paper.report.page import write_section

    with items_bar("ied", share=True) as report:
        result = run_ied(out, IEDSettings.quick() if quick else IEDSettings(), report)
    for device in sorted({row.device for row in result.timing}):
        rows = table_rows([row for row in result.timing if row.device == device])
        print_table(f"Leading eigenpair on the {device.upper()}", HEADER, _texts(rows))
    return write_section(out, ied_section(result, command))


EXPERIMENTS: dict[str, Runner] = {"less": _less, "ied": _ied, "learning": _learning}


def reproduce(names: Sequence[str], *, out: Path, quick: bool = False, **options: Any) -> Path:
    """Run experiments one after the other, on one thread so that their times can be compared.

    Args:
        names: which ones, of ``EXPERIMENTS``.
        out: folder for the report and the files beside it.
        quick: smaller versions that take minutes.
        options: further settings of a single experiment.

    Returns:
        Where the report is.

    Raises:
        MissingExtraError: if the only experiment asked for needs a package that is not installed; among several, its
            place in the report says so instead.
    """
    page = out / "index.html"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for name in names:
            command = f"pmaf reproduce {name}{' --quick' if quick else ''}{_as_options(options)}"
            try:
                page = EXPERIMENTS[name](out, quick, command, **options)
            except MissingExtraError as error:
                if len(names) == 1:
                    raise
                page = _write_missing(out, name, command, str(error))
    finally:
        torch.set_num_threads(threads)
    return page


def _write_missing(out: Path, name: str, command: str, why: str) -> Path:
    """Say in the place of an experiment why it could not be run."""
    from pmaf.paper.experiments.environment import environment
    from pmaf.paper.report.blocks import note, section
    from pmaf.paper.report.page import SECTIONS, write_section

    blocks = [note("missing", f"This part could not be run. {why}. Then:", command)]
    return write_section(out, section(name, SECTIONS[name]["title"], blocks, command, environment()))


def _as_options(options: Mapping[str, Any]) -> str:
    """The options as they were typed."""
    text = "".join(f" --size {size}" for size in options.get("sizes") or ())
    if options.get("problems") is not None:
        text += f" --problems {options['problems']}"
    if options.get("methods"):
        text += f" --methods {','.join(options['methods'])}"
    return text
