"""Finished parts of an experiment, kept on disk so that an interrupted run goes on where it stopped."""

from __future__ import annotations

import csv
import functools
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import pmaf

__all__ = ["part", "write_csv", "write_whole"]

# What only shows results: they stay valid when it changes.
_SHOWN = {
    "blocks.py",
    "cli.py",
    "environment.py",
    "figures.py",
    "progress.py",
    "quoted.py",
    "report.py",
    "reproduce.py",
}


def part(folder: Path, name: str, settings: Mapping[str, Any], compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The result of ``compute``, taken from disk if it was computed before with the same settings and code.

    Args:
        folder: where the parts are kept.
        name: name of this part, also of its file.
        settings: everything the result depends on besides the code.
        compute: computes the result, a dictionary that JSON can hold.

    Returns:
        The result.
    """
    key = hashlib.sha256(
        json.dumps([dict(settings), pmaf.__version__, torch.__version__, _code()], sort_keys=True).encode()
    ).hexdigest()[:16]
    path = folder / f"{name}.json"
    if path.exists():
        try:
            kept = json.loads(path.read_text("utf-8"))
            if kept["key"] == key:
                result: dict[str, Any] = kept["result"]
                return result
        except (ValueError, KeyError, TypeError):
            pass  # a damaged part is computed anew
    result = compute()
    write_whole(path, json.dumps({"key": key, "settings": dict(settings), "result": result}, indent=1))
    return result


def write_whole(path: Path, text: str) -> None:
    """Write a file under another name and move it in place, so that it is never there in half.

    Args:
        path: the file.
        text: what it shall hold.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, "utf-8")
    os.replace(temporary, path)


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table, whole or not at all.

    Args:
        path: the file.
        header: names of the columns.
        rows: the cells; ``None`` becomes an empty one.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_whole(path, stream.getvalue())


@functools.cache
def _code() -> str:
    """A digest of the library's code, without that of the command line and the report.

    Taken once: the code that runs is that which was there at the start, whatever becomes of the files meanwhile.
    """
    root = Path(__file__).parent.parent.parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        if path.name not in _SHOWN and not path.name.endswith(("_section.py", "_figures.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()
