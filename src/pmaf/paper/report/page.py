"""The report: one self-contained page, made anew from what has been computed so far, and the files beside it."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pmaf
from pmaf.checks.extras import needs
from pmaf.paper.experiments.base import Found
from pmaf.paper.experiments.environment import environment, packages
from pmaf.paper.experiments.parts import write_csv, write_whole
from pmaf.paper.experiments.registry import BY_KEY, SECTIONS
from pmaf.paper.report import quoted
from pmaf.paper.report.charts import CHARTS
from pmaf.paper.report.drawing import standalone
from pmaf.paper.report.facts import DUELS, duels, facts, provenance
from pmaf.paper.report.tables import make_table, markdown, tables

__all__ = ["markdown_page", "read_csvs", "write_found", "write_page"]


def write_found(out: Path, found: Found) -> Found:
    """Keep what an experiment found, as JSON and CSV; groups with tables of their own stay from an earlier run."""
    experiment = BY_KEY[found.key]
    older = _read(out).get(found.key)
    if older is not None and experiment.parted:
        now = {row[experiment.group] for row in found.rows}
        found.rows = [row for row in older.rows if row[experiment.group] not in now] + found.rows
        found.made = [made for made in older.made if made["group"] not in now] + found.made
    kept = {"version": pmaf.__version__, "columns": experiment.keys, **asdict(found)}
    write_whole(out / "results" / f"{found.key}.json", json.dumps(kept))
    write_csv(out / f"{found.key}.csv", experiment.keys, found.rows)
    return found


def _read(out: Path) -> dict[str, Found]:
    """What the folder holds from this version of pmaf; anything else is as good as not run."""
    held = {}
    for key, experiment in BY_KEY.items():
        with suppress(OSError, ValueError, KeyError, TypeError):
            kept = json.loads((out / "results" / f"{key}.json").read_text("utf-8"))
            if [kept.pop("version"), kept.pop("columns")] == [pmaf.__version__, experiment.keys]:
                held[key] = Found(**kept)
    return held


def write_page(out: Path) -> Path:
    """Write the page, its drawings as files, and ``environment.csv``, from everything the folder holds."""
    found = _read(out)
    made = [provenance(result) for result in found.values()]
    if made:
        write_csv(out / "environment.csv", list(made[0]), made)
    figures = {key: CHARTS[key](result.rows) for key, result in found.items() if key in CHARTS and result.rows}
    for figure in (figure for several in figures.values() for figure in several):
        for number, panel in enumerate(figure.panels, 1):
            write_whole(out / "figures" / f"{figure.name}-{number}.svg", standalone(panel.svg))
    path = out / "index.html"
    now = environment() | packages()
    write_whole(path, _render("page.html.j2", found, figures=figures, environment=now, autoescape=True))
    return path


def markdown_page(found: Mapping[str, Found], made: Mapping[str, Mapping[str, Any]]) -> str:
    """The tables and sentences as Markdown."""
    return _render("results.md.j2", found, made=made, autoescape=False)


def read_csvs(folder: Path) -> tuple[dict[str, Found], dict[str, dict[str, str]]]:
    """What the CSV files of a run hold: rows by experiment, and where each was computed."""

    def rows(name: str) -> list[dict[str, str]]:
        with (folder / f"{name}.csv").open(encoding="utf-8") as file:
            return list(csv.DictReader(file))

    found = {}
    for key in BY_KEY:
        if (folder / f"{key}.csv").exists():
            values = [{name: _value(text) for name, text in row.items()} for row in rows(key)]
            found[key] = Found(key, "", values, [])
    return found, {row["experiment"]: row for row in rows("environment")}


def _value(text: str) -> Any:
    with suppress(ValueError):
        return json.loads(text)
    return text or None


def _render(template: str, found: Mapping[str, Found], *, autoescape: bool, **values: Any) -> str:
    with needs("cli", "The report"):
        import jinja2
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("pmaf.paper.report"),
        autoescape=autoescape,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    templates.globals |= {"markdown": markdown, "share": _share}
    shown = {key: tables(BY_KEY[key], *quoted.beside(BY_KEY[key], result.rows)) for key, result in found.items()}
    timed = found["ied_timing"].rows if "ied_timing" in found else []
    return templates.get_template(template).render(
        version=pmaf.__version__,
        experiments=BY_KEY,
        sections=SECTIONS,
        found=found,
        facts=facts(found),
        tables=shown,
        duels=make_table("pmaf’s default against the best of the paper’s methods", DUELS, duels(timed)),
        published=quoted.published(),
        provenance={key: provenance(result) for key, result in found.items()},
        **values,
    )


def _share(part: int, of: int) -> str:
    """A share in percent, with a digit where it would be rounded to nothing."""
    percent = 100 * part / max(1, of)
    return f"{percent:.0f} %" if not part or percent >= 1 else f"{percent:.2g} %"
