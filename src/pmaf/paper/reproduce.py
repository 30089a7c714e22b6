"""Run experiments by name and write each into the report as soon as it is done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from pmaf.progress import items_bar, print_table

__all__ = ["EXPERIMENTS", "reproduce"]

Runner = Callable[..., Path]


def _learning(out: Path, quick: bool, command: str) -> Path:
    from pmaf.paper.learning import LearningSettings, run_learning
    from pmaf.paper.learning_section import HEADER, learning_section, table_rows
    from pmaf.paper.report import write_section

    settings = LearningSettings.quick() if quick else LearningSettings()
    with items_bar("learning") as report:
        result = run_learning(out, settings, report=report)
    print_table("MNIST digits: five heads, one network", HEADER, [[c["text"] for c in r] for r in table_rows(result)])
    return write_section(out, learning_section(result, command))


EXPERIMENTS: dict[str, Runner] = {"learning": _learning}


def reproduce(names: Sequence[str], *, out: Path, quick: bool = False, **options: Any) -> Path:
    """Run experiments one after the other, on one thread so that their times can be compared.

    Args:
        names: which ones, of ``EXPERIMENTS``.
        out: folder for the report and the files beside it.
        quick: smaller versions that take minutes.
        options: further settings of a single experiment.

    Returns:
        Where the report is.
    """
    page = out / "index.html"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for name in names:
            command = f"pmaf reproduce {name}{' --quick' if quick else ''}"
            page = EXPERIMENTS[name](out, quick, command, **options)
    finally:
        torch.set_num_threads(threads)
    return page
