"""An output on its way: what is finished lies beside the target, is recorded, and is put in place at once.

Several processes may write to the same parts. All of what they do there can be done twice: files are made if they are
not there, an item is written where it belongs, and a record says no more than that a cell is finished. So whoever is
killed, and whenever, what is recorded is right.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from io import BytesIO
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, Protocol, cast
from uuid import uuid4

from pmaf.checks.extras import needs
from pmaf.cli.files import Array, UnreachableError, in_words
from pmaf.cli.plan import Cell, Plan

__all__ = ["Member", "Parts", "Record"]

with needs("cli", "pmaf.cli.parts"):
    import numpy as np

if TYPE_CHECKING:
    import zarr


_ZARR = ".zarr"
_GONE = "its parts are gone, as if another command wrote the same file"


class Member(NamedTuple):
    """One array of an output.

    Attributes:
        core: the shape of an item.
        dtype: the type of an entry.
    """

    core: tuple[int, ...]
    dtype: np.dtype[Any]


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


class _Arrays(Protocol):
    """Where the items of several arrays are put."""

    def write(self, cell: Cell, values: Mapping[str, Array]) -> None:
        """Put the items of a cell where they belong, to stay there whatever happens."""

    def whole(self) -> Path:
        """The finished output, beside its place."""


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
        self._arrays: _Arrays | None = None
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
        return [f"whole{_ZARR}"] if self.output.suffix == _ZARR else [f"{name}.npy" for name in self.members]

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
                if self.output.suffix == _ZARR:
                    self._arrays = _Zarr(self.folder, self.members, self.plan)
                else:
                    self._arrays = _Flat(self.folder, self.output.suffix, self.members, self.plan, self._files)

    def commit(self) -> None:
        """Put the finished output in its place, and remove all parts, those of other inputs and options too.

        Raises:
            UnreachableError: if it cannot be written; the target is as it was.
        """
        with self._refusals():
            self.open()
            assert self._arrays is not None
            if not self.folder.exists():
                raise UnreachableError(f"{self.output} cannot be written: {_GONE}")
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


class _Flat:
    """A ``.npy`` file for each array, written item by item, and in the end linked or put into an archive."""

    def __init__(self, folder: Path, suffix: str, members: Mapping[str, Member], plan: Plan, files: ExitStack) -> None:
        self._folder, self._suffix, self._members = folder, suffix, members
        self._files: dict[str, tuple[BinaryIO, int]] = {}
        for name, (core, dtype) in members.items():
            head = BytesIO()
            shape = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": plan.batch + core}
            np.lib.format.write_array_header_1_0(head, shape)
            descriptor = os.open(folder / f"{name}.npy", os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
            file = files.enter_context(os.fdopen(descriptor, "r+b", buffering=0))
            file.write(head.getvalue())
            _reserve(file, head.tell() + plan.items * prod(core) * dtype.itemsize)
            self._files[name] = file, head.tell()

    def write(self, cell: Cell, values: Mapping[str, Array]) -> None:
        for name, (file, begin) in self._files.items():
            core, dtype = self._members[name]
            data = np.ascontiguousarray(values[name], dtype).reshape(-1).view(np.uint8).data
            file.seek(begin + cell.start * prod(core) * dtype.itemsize)
            while data:
                data = data[file.write(data) :]
            os.fsync(file.fileno())

    def whole(self) -> Path:
        whole = self._folder / f"whole{self._suffix}"
        whole.unlink(missing_ok=True)
        try:
            if self._suffix == ".npy":
                (name,) = self._members
                try:
                    os.link(self._folder / f"{name}.npy", whole)
                except OSError:  # a file system without links
                    shutil.copyfile(self._folder / f"{name}.npy", whole)
                return whole
            arrays = {name: self._read(name) for name in self._members}
            if self._suffix == ".npz":
                np.savez(whole, **arrays)  # type: ignore[arg-type]
            else:
                import torch

                torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, whole)
        except BaseException:
            whole.unlink(missing_ok=True)
            raise
        with whole.open("rb") as file:
            os.fsync(file.fileno())
        return whole

    def _read(self, name: str) -> Array:
        path = self._folder / f"{name}.npy"
        head: Array = np.load(path, mmap_mode="c") if path.stat().st_size > self._files[name][1] else np.load(path)
        return head


def _reserve(file: BinaryIO, size: int) -> None:
    """Take the room that a file will need, so that a disk that is too small says so at once.

    Raises:
        OSError: if there is no room.
    """
    if hasattr(os, "posix_fallocate"):
        try:
            return os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            if error.errno not in {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}:
                raise
    if os.fstat(file.fileno()).st_size < size:  # a system, or a file system, that cannot promise room
        file.truncate(size)
    return None


class _Zarr:
    """A Zarr group whose chunks are the cells, so that no two processes write to the same."""

    def __init__(self, folder: Path, members: Mapping[str, Member], plan: Plan) -> None:
        import zarr

        self._path, self._members = folder / f"whole{_ZARR}", members
        if not self._path.exists():
            own = folder / f"{uuid4().hex}{_ZARR}"
            group = zarr.create_group(own)
            for name, (core, dtype) in members.items():
                shape, chunks = plan.batch + core, tuple(max(1, size) for size in plan.chunk + core)
                group.create_array(name, shape=shape, chunks=chunks, dtype=dtype)
            try:
                own.rename(self._path)
            except OSError:  # another process was first
                shutil.rmtree(own)
        self._group = zarr.open_group(self._path, mode="r+")

    def write(self, cell: Cell, values: Mapping[str, Array]) -> None:
        if not self._path.exists():  # else Zarr makes it anew, without what tells that it is Zarr
            raise OSError(errno.ENOENT, _GONE)
        for name, (core, dtype) in self._members.items():
            array = cast("zarr.Array[Any]", self._group[name])
            array[cell.box] = values[name].reshape(cell.shape + core).astype(dtype, copy=False)

    def whole(self) -> Path:
        return self._path
