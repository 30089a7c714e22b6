"""Every cell of the table of transforms, and the pages that are written from it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from transforms import Column, cells


def marks(column: Column) -> list[pytest.MarkDecorator]:
    """What takes long is slow; what starts processes once for all rows stays with one worker."""
    if column.name in ("data_loader", "data_parallel"):
        return [pytest.mark.slow, pytest.mark.xdist_group(column.name)]
    return [pytest.mark.slow] if column.group == "graphs" else []


CELLS = [pytest.param(row, column, id=f"{column.name}-{row.name}", marks=marks(column)) for row, column in cells()]


@pytest.mark.parametrize(("row", "column"), CELLS)
def test_cell(row, column):
    column.run(row)


def test_the_written_tables_are_up_to_date():
    tool = Path(__file__).parents[1] / "tools" / "transform_table.py"
    done = subprocess.run(
        [sys.executable, str(tool), "--check"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
