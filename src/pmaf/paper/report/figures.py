"""Panels of figures as SVG whose colours follow the page they stand in.

Text, axes and series are drawn in marker colours, which are exchanged for CSS variables in the report, so that one
drawing is legible on a light and on a dark page, and for plain colours in the files beside it.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pmaf.extras import needs
from pmaf.paper.report.blocks import Key

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["INK", "MUTED", "SERIES", "legend", "line_style", "panel", "standalone"]

INK = "#0a0b01"
MUTED = "#0a0b02"
SERIES = tuple(f"#0a0c{i:02x}" for i in range(8))

_NAMES = {INK: "ink", MUTED: "muted"} | {colour: f"series-{i}" for i, colour in enumerate(SERIES)}
_PLAIN = ("#2563a8", "#c2570c", "#1b7f4d", "#8b3fb0", "#b3261e", "#0f7c86", "#9a7400", "#5b6470")


def panel(draw: Callable[[Axes], None], *, width: float = 4.2, height: float = 3.0, square: bool = False) -> str:
    """Draw one panel.

    Args:
        draw: draws into the axes it is given.
        width: inches; about 72 points of the drawing are 90 pixels of a page.
        height: inches.
        square: whether one unit is as long in both directions.

    Returns:
        An ``<svg>`` element that scales with its container.
    """
    with _matplotlib() as plt:
        figure, axes = plt.subplots(figsize=(width, height), layout="constrained")
        try:
            draw(axes)
            if square:
                axes.set_aspect("equal")
            stream = io.StringIO()
            figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        finally:
            plt.close(figure)
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # these would be there once for each panel of the page
    head, rest = svg.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', head)
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    svg = f"<svg {names} {box[0] if box else ''}>{rest}"
    for colour, name in _NAMES.items():
        svg = svg.replace(colour, f"var(--{name})")
    return svg.strip()


def line_style(number: int, name: str) -> dict[str, Any]:
    """How the line of a series is drawn: pmaf's own stands out in the colour of the text."""
    if name == "pmaf":
        return {"color": INK, "linestyle": "-", "linewidth": 2.6, "zorder": 3}
    return {"color": SERIES[number % 8], "linestyle": "-" if number < 8 else "--", "linewidth": 1.5, "zorder": 2}


def legend(names: Sequence[str]) -> list[Key]:
    """The legend of series drawn with :func:`line_style`, in this order."""
    styles = [line_style(number, name) for number, name in enumerate(names)]
    return [
        {"label": name, "colour": _NAMES[style["color"]], "dashed": style["linestyle"] != "-"}
        for name, style in zip(names, styles, strict=True)
    ]


def standalone(svg: str) -> str:
    """The same drawing with plain colours on white, as a file of its own."""
    svg = svg.replace("var(--ink)", "#1c2024").replace("var(--muted)", "#8a939c")
    for i, colour in enumerate(_PLAIN):
        svg = svg.replace(f"var(--series-{i})", colour)
    head, rest = svg.split(">", 1)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{head}><rect width="100%" height="100%" fill="#fff"/>{rest}\n'


@contextmanager
def _matplotlib() -> Iterator[Any]:
    with needs("cli", "Drawing figures"):
        import matplotlib as mpl

        mpl.use("agg")
        import matplotlib.pyplot as plt
        from cycler import cycler
    settings: dict[Any, Any] = {
        "svg.fonttype": "path",
        "font.size": 9,
        "axes.titlesize": 9.5,
        "axes.titleweight": "bold",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": MUTED,
        "axes.labelcolor": INK,
        "axes.titlecolor": INK,
        "text.color": INK,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "grid.color": MUTED,
        "grid.alpha": 0.25,
        "axes.grid": True,
        "lines.linewidth": 1.8,
        "lines.markersize": 4,
        "legend.frameon": False,
        "legend.fontsize": 8,
        "axes.prop_cycle": cycler(color=SERIES),
        "image.interpolation": "nearest",
    }
    with plt.rc_context(settings):
        yield plt
