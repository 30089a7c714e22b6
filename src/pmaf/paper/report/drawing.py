"""Panels of figures as SVG whose colours follow the page they stand in, and the keys of their legends.

Text, axes and series are drawn in marker colours, which are exchanged for CSS variables in the report, so that one
drawing is legible on a light and on a dark page, and for plain colours in the files beside it.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from pmaf.checks.extras import needs

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["INK", "MUTED", "SERIES", "Figure", "Panel", "line_key", "panel", "patch_key", "plain", "standalone"]

INK = "#0a0b01"
MUTED = "#0a0b02"
SERIES = tuple(f"#0a0c{i:02x}" for i in range(8))

_NAMES = {INK: "ink", MUTED: "muted"} | {colour: f"series-{i}" for i, colour in enumerate(SERIES)}
_SERIES = ("#2563a8", "#c2570c", "#1b7f4d", "#8b3fb0", "#b3261e", "#0f7c86", "#9a7400", "#5b6470")
_PLAIN = {INK: "#1c2024", MUTED: "#8a939c"} | dict(zip(SERIES, _SERIES, strict=True))

_SETTINGS: dict[Any, Any] = {
    **dict.fromkeys(("axes.labelcolor", "axes.titlecolor", "text.color", "xtick.labelcolor", "ytick.labelcolor"), INK),
    **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color", "grid.color"), MUTED),
    **{"axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25},
    **{"lines.linewidth": 1.8, "lines.markersize": 4, "font.size": 9, "svg.fonttype": "path"},
    "axes.prop_cycle": f"cycler(color={SERIES})",
}


class Panel(NamedTuple):
    """A drawing with its heading and a line below the heading."""

    title: str
    svg: str
    note: str = ""


class Figure(NamedTuple):
    """Panels that wrap on narrow pages, with one legend for all: label and drawn key of each series."""

    name: str
    title: str
    panels: Sequence[Panel]
    legend: Sequence[tuple[str, str]] = ()
    size: str = "medium"


def panel(draw: Callable[..., object], *data: Any, width: float = 4.2, height: float = 3.0) -> str:
    """Draw one panel: ``draw`` is called with the axes and the data."""
    with needs("cli", "Drawing figures"):
        import matplotlib as mpl
        from matplotlib.figure import Figure as Drawing
    stream = io.StringIO()
    with mpl.rc_context(_SETTINGS):
        drawing = Drawing(figsize=(width, height), layout="constrained")
        draw(drawing.subplots(), *data)
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        drawing.savefig(stream, format="svg", transparent=True, metadata=nothing)
    head, rest = stream.getvalue().partition("<svg")[2].split(">", 1)
    box = re.findall(r'viewBox="[^"]*"', head)[0]
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    rest = re.sub(r'<g id="[^"]*"', "<g", rest)  # these would be there once for each panel of the page
    for colour, name in _NAMES.items():
        rest = rest.replace(colour, f"var(--{name})")
    return f"<svg {names} {box}>{rest}".strip()


def line_key(**style: Any) -> str:
    """The key of a series in a legend, drawn as matplotlib draws the series itself."""

    def draw(axes: Axes) -> None:
        axes.plot([0, 1, 2], [0, 0, 0], **({"markevery": [1]} | style))
        axes.set_axis_off()

    return panel(draw, width=0.55, height=0.2)


def patch_key(**style: Any) -> str:
    """The key of a filled area."""

    def draw(axes: Axes) -> None:
        axes.barh([0], [1], **style)
        axes.set_axis_off()

    return panel(draw, width=0.35, height=0.2)


def plain(colour: str) -> str:
    """A colour for drawings on white whatever the page: of a marker colour, and of no other, the one it stands for."""
    return _PLAIN.get(colour, colour)


def standalone(svg: str) -> str:
    """The same drawing with plain colours on white, as a file of its own."""
    for colour, name in _NAMES.items():
        svg = svg.replace(f"var(--{name})", plain(colour))
    head, rest = svg.split(">", 1)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{head}><rect width="100%" height="100%" fill="#fff"/>{rest}\n'
