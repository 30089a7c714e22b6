"""One file asks what torch is doing; the arrows between packages are held by import-linter."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import pmaf

SOURCE = Path(pmaf.__file__).parent
STATE = {"is_compiling", "is_current_stream_capturing"}  # public, but a question about what torch is doing


def private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def questions(tree: ast.Module) -> Iterator[str]:
    """Names of torch, however they are reached, that are private or tell what it is doing."""
    known = {"torch"}  # names that stand for torch or a part of it
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            known |= {(alias.asname or "torch") for alias in node.names if alias.name.split(".")[0] == "torch"}
            yield from (alias.name for alias in node.names if alias.name.startswith("torch._"))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "torch":
            known |= {alias.asname or alias.name for alias in node.names}
            path = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            yield from (name for name in path if private(name) or name in STATE)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and (private(node.attr) or node.attr in STATE):
            root: ast.expr = node
            while isinstance(root, ast.Attribute):
                root = root.value
            if isinstance(root, ast.Name) and root.id in known:
                yield node.attr


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_only_transforms_asks_what_torch_is_doing(path: Path) -> None:
    found = set(questions(ast.parse(path.read_text(encoding="utf-8"))))
    assert path.name == "transforms.py" or not found


def test_the_question_is_recognised() -> None:
    asked = """
import torch, torch._dynamo
from torch import _subclasses
from torch.autograd import forward_ad
from torch.compiler import is_compiling
torch._C._functorch.maybe_current_level()
forward_ad._current_level
torch.__version__
"""
    assert set(questions(ast.parse(asked))) == {
        "torch._dynamo",
        "_subclasses",
        "is_compiling",
        "_functorch",
        "_C",
        "_current_level",
    }
