"""Every cell of the table of transforms, and the pages that are written from it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from transforms import cells

CELLS = cells()


@pytest.mark.parametrize(("row", "column"), CELLS, ids=[f"{column.name}-{row.name}" for row, column in CELLS])
def test_cell(row, column):
    column.run(row)


def test_the_written_tables_are_up_to_date():
    tool = Path(__file__).parents[1] / "tools" / "transform_table.py"
    done = subprocess.run(
        [sys.executable, str(tool), "--check"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
