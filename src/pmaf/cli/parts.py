"""An output on its way: what is finished lies beside the target, is recorded, and is put in place at once.

Several processes may write to the same parts. All of what they do there can be done twice: files are made if they are
not there, an item is written where it belongs, and a record says no more than that a cell is finished. So whoever is
killed, and whenever, what is recorded is right.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple
from uuid import uuid4

from pmaf.cli.arrays import GONE, ZARR, Arrays, Flat, Member, Zarr
from pmaf.cli.files import Array, UnreachableError, in_words
from pmaf.cli.plan import Cell, Plan

__all__ = ["Parts", "Record"]


class Record(NamedTuple):
    """What became of a cell.

    Attributes:
        cell: its number.
        items: how many items it holds.
        counts: how many of them ended with each status code.
        failed: the first item without an answer, and its status code.
        worst: the largest residual among the others.
        smallest: the smallest gap among them.
        seconds: how long it took.
    """

    cell: int
    items: int
    counts: dict[str, int]
    failed: tuple[int, int] | None
    worst: float
    smallest: float
    seconds: float


class Parts:
    """The parts of an output, in a folder beside it.

    Args:
        output: where the arrays shall be in the end.
        members: the arrays, by name.
        plan: how the batch is cut.
        mark: what tells these problems and options from all others; parts with another mark are not looked at.
    """

    def __init__(self, output: Path, members: Mapping[str, Member], plan: Plan, mark: str) -> None:
        self.output, self.members, self.plan = output, dict(members), plan
        self.folder = output.parent / f".{output.name}.{mark}"
        self._arrays: Arrays | None = None
        self._journal: BinaryIO | None = None
        self._own: dict[int, Record] = {}
        self._files = ExitStack()

    def __enter__(self) -> Parts:
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def records(self) -> dict[int, Record]:
        """What is finished, by this process, by others or by an earlier run, in the order of the cells."""
        found: dict[int, Record] = {}
        for journal in self.folder.glob("done-*"):
            for line in journal.read_bytes().split(b"\n")[:-1]:  # what ends without a newline was cut off
                record = Record(*json.loads(line))
                found[record.cell] = record
        if found and self._arrays is None and not all((self.folder / name).exists() for name in self._needed()):
            self.discard()  # of an output that was put in its place already
            return {}
        return dict(sorted((found | self._own).items()))

    def _needed(self) -> list[str]:
        return [f"whole{ZARR}"] if self.output.suffix == ZARR else [f"{name}.npy" for name in self.members]

    def write(self, cell: Cell, values: Mapping[str, Array], record: Record) -> None:
        """Write the items of a cell, and then record that it is finished.

        Args:
            cell: which items.
            values: an array for each member, ``(items, *core)``.
            record: what became of them.

        Raises:
            UnreachableError: if they cannot be written.
        """
        with self._refusals():
            self.open()
            assert self._arrays is not None
            self._arrays.write(cell, values)
            if self._journal is None:
                journal = (self.folder / f"done-{uuid4().hex}").open("xb", buffering=0)
                self._journal = self._files.enter_context(journal)
            line = json.dumps(record).encode() + b"\n"
            if self._journal.write(line) < len(line):
                raise UnreachableError(f"{self.output} cannot be written: no space left on device")
            self._own[record.cell] = record

    def open(self) -> None:
        """Make room for the arrays, or find what was made before.

        Raises:
            UnreachableError: if there is none.
        """
        if self._arrays is None:
            with self._refusals():
                self.folder.mkdir(exist_ok=True)
                if self.output.suffix == ZARR:
                    self._arrays = Zarr(self.folder, self.members, self.plan)
                else:
                    self._arrays = Flat(self.folder, self.output.suffix, self.members, self.plan, self._files)

    def commit(self) -> None:
        """Put the finished output in its place, and remove all parts, those of other inputs and options too.

        Raises:
            UnreachableError: if it cannot be written; the target is as it was.
        """
        with self._refusals():
            self.open()
            assert self._arrays is not None
            if not self.folder.exists():
                raise UnreachableError(f"{self.output} cannot be written: {GONE}")
            whole = self._arrays.whole()
            if self.output.is_dir():
                os.replace(self.output, self.folder / "replaced")
            os.replace(whole, self.output)
        self.discard()
        leftover = re.compile(rf"\.{re.escape(self.output.name)}\.[0-9a-f]{{16}}(\.gone)?")
        for path in self.output.parent.iterdir():
            if leftover.fullmatch(path.name):
                shutil.rmtree(path, ignore_errors=True)

    def discard(self) -> None:
        """Remove the parts."""
        self._files.close()
        gone = self.folder.with_name(f"{self.folder.name}.gone")
        shutil.rmtree(gone, ignore_errors=True)
        try:
            os.replace(self.folder, gone)  # else a kill half way leaves records of arrays that are not there
        except OSError:
            return
        shutil.rmtree(gone, ignore_errors=True)

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UnreachableError(f"{self.output} cannot be written: {in_words(error)}") from None
