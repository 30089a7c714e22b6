"""The report: one self-contained page, made anew from the sections that have been computed so far."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import TypedDict

import pmaf
from pmaf.extras import needs
from pmaf.paper.report.blocks import Section
from pmaf.paper.experiments.environment import environment
from pmaf.paper.report.figures import standalone
from pmaf.paper.experiments.parts import write_csv, write_whole

__all__ = ["SECTIONS", "Planned", "write_section"]


class Planned(TypedDict):
    """A section the report has a place for."""

    title: str
    short: str
    command: str


SECTIONS: Mapping[str, Planned] = {
    "less": {"title": "Least squares on the sphere", "short": "LESS", "command": "pmaf reproduce less"},
    "ied": {"title": "Implicit eigen decomposition", "short": "IED", "command": "pmaf reproduce ied"},
    "learning": {"title": "Learning through both layers", "short": "Learning", "command": "pmaf reproduce learning"},
}


def write_section(out: Path, section: Section) -> Path:
    """Put a section into the report, in place of an older one, and write the page anew.

    Its drawings are written beside the page, and so is ``KEY_environment.csv``: the command, versions and machine.

    Args:
        out: folder of the report.
        section: the section.

    Returns:
        Where the page is.
    """
    write_whole(out / "sections" / f"{section['key']}.json", json.dumps({"layout": _layout(), **section}))
    made = [("command", section["command"]), *section["environment"]]
    write_csv(out / f"{section['key']}_environment.csv", ("what", "value"), made)
    for block in section["blocks"]:
        if block["kind"] == "figure":
            for number, panel in enumerate(block["panels"], 1):
                path = out / "figures" / f"{section['key']}-{block['name']}-{number}.svg"
                write_whole(path, standalone(panel["svg"]))
    return _write_page(out)


def _layout() -> str:
    """A digest of what blocks look like; sections are only put on a page that knows their blocks."""
    code = resources.files("pmaf.paper.report").joinpath("blocks.py").read_bytes()
    return hashlib.sha256(code).hexdigest()[:16]


def _write_page(out: Path) -> Path:
    with needs("cli", "The report"):
        import jinja2
    sections = {}
    for key in SECTIONS:
        path = out / "sections" / f"{key}.json"
        if path.exists():
            section = json.loads(path.read_text("utf-8"))
            if section.get("layout") == _layout():  # else it is of another version, and as good as not run
                sections[key] = section
    text = resources.files("pmaf.paper.report").joinpath("templates", "report.html.j2").read_text("utf-8")
    templates = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    page = templates.from_string(text).render(
        version=pmaf.__version__, planned=SECTIONS, sections=sections, environment=environment()
    )
    path = out / "index.html"
    write_whole(path, page)
    return path
