"""Formulas as MathML, so that a page needs neither a script nor a network."""

import re
import shutil
from pathlib import Path
from typing import Any

import ziamath
from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx

FONT = Path(ziamath.__file__).parent / "fonts" / "STIXTwoMath-Regular.ttf"  # SIL Open Font License
ENVIRONMENT = re.compile(r"\\begin\{(?:equation|align|gather)\*?\}|\\end\{(?:equation|align|gather)\*?\}")


def inline(self: Any, node: nodes.math) -> None:
    """A formula in a line."""
    self.body.append(convert(node.astext()))
    raise nodes.SkipNode


def block(self: Any, node: nodes.math_block) -> None:
    """A formula on a line of its own; too wide a one scrolls by itself."""
    formula = convert(ENVIRONMENT.sub("", node.astext()), display="block")
    self.body.append(f'<div class="formula" tabindex="0">{formula}</div>\n')
    raise nodes.SkipNode


def font(folder: Path) -> str:
    """Lay the font of the formulas into a folder: brackets grow only with a font that is made for mathematics."""
    folder.mkdir(exist_ok=True)
    shutil.copy(FONT, folder / "math.ttf")
    return folder.name


def setup(app: Sphinx) -> dict[str, bool]:
    """Announce the renderer."""
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
