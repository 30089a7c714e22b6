"""Every cell of the table of transforms, and the pages that are written from it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from transforms import cells

OTHER_PROCESSES = ("data_loader", "data_parallel")
CELLS = [
    pytest.param(
        row,
        column,
        id=f"{column.name}-{row.name}",
        marks=pytest.mark.slow if column.group == "graphs" or column.name in OTHER_PROCESSES else (),
    )
    for row, column in cells()
]


@pytest.mark.parametrize(("row", "column"), CELLS)
def test_cell(row, column):
    column.run(row)


def test_the_written_tables_are_up_to_date():
    tool = Path(__file__).parents[1] / "tools" / "transform_table.py"
    done = subprocess.run(
        [sys.executable, str(tool), "--check"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
