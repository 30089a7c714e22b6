"""Formulas as MathML, so that a page needs neither a script nor a network."""

import re
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import ziamath
from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx

FONT = Path(ziamath.__file__).parent / "fonts" / "STIXTwoMath-Regular.ttf"  # SIL Open Font License
ENVIRONMENT = re.compile(r"\\begin\{(?:equation|align|gather)\*?\}|\\end\{(?:equation|align|gather)\*?\}")
NAMESPACE = "http://www.w3.org/1998/Math/MathML"
PRIMES, RELATIONS, UNDER = {"′", "″"}, {"⪰", "⪯"}, {"min", "max", "argmin", "argmax"}


def mathml(formula: str, display: str = "inline") -> str:
    """The formula, with what the converter leaves to be done.

    Primes are raised already in fonts for mathematics; relations are operators, which have space about them; what is
    minimised over stands below; a bar is as wide as what is below it, and a root no lower than a tall letter.
    """
    root = ElementTree.fromstring(convert(formula, display=display))
    for element in list(root.iter()):
        tag = element.tag.removeprefix(f"{{{NAMESPACE}}}")
        if tag == "msup" and element[1].text in PRIMES:
            element.tag, element[1].tag = f"{{{NAMESPACE}}}mrow", f"{{{NAMESPACE}}}mo"
        elif tag == "msqrt":
            element.insert(0, ElementTree.Element(f"{{{NAMESPACE}}}mspace", height="0.75em"))
        elif tag == "mo" and element.text == "¯":
            element.text = "‾"
        elif tag == "mi" and element.text in RELATIONS:
            element.tag = f"{{{NAMESPACE}}}mo"
        elif tag == "msub" and "".join(element[0].itertext()) in UNDER and display == "block":
            element.tag = f"{{{NAMESPACE}}}munder"
    ElementTree.register_namespace("", NAMESPACE)
    return ElementTree.tostring(root, encoding="unicode")


def inline(self: Any, node: nodes.math) -> None:
    """A formula in a line."""
    self.body.append(mathml(node.astext()))
    raise nodes.SkipNode


def block(self: Any, node: nodes.math_block) -> None:
    """A formula on a line of its own; too wide a one scrolls by itself."""
    formula = mathml(ENVIRONMENT.sub("", node.astext()), "block")
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
