"""Options that several commands have, under the same names."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["CODES", "FILES", "Chunk", "Device", "Fresh", "Json", "Out", "Overwrite", "Quick", "Solver"]

CODES = "Exit status: 0 done; 1 done, but an item has no answer; 2 refused, in one sentence; 130 interrupted."
Solver = Annotated[str | None, typer.Option(help="Name of the solver; chosen automatically if left out.")]
Device = Annotated[str, typer.Option(help="Where to compute, such as cpu or cuda.")]
Chunk = Annotated[
    int | None, typer.Option(min=1, help="Problems worked on, and recorded, at a time; 16 MiB of them if left out.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an output that is there already.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, for scripts.")]
Quick = Annotated[bool, typer.Option("--quick", help="A smaller version that takes minutes.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Compute everything anew, whatever an earlier run left.")]
Out = Annotated[Path, typer.Option("--output", "-o", "--out", help="Folder for the report, tables and figures.")]
FILES = "a .npy, .npz or .pt file, or a .zarr directory"
