"""The arrays of an output on its way: each item is written where it belongs, to stay there through a power cut."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from io import BytesIO
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, Protocol, cast
from uuid import uuid4

from pmaf.checks.extras import needs
from pmaf.cli.files import Array
from pmaf.cli.plan import Cell, Plan

__all__ = ["GONE", "ZARR", "Arrays", "Flat", "Member", "Zarr"]

with needs("cli", "pmaf.cli.arrays"):
    import numpy as np

if TYPE_CHECKING:
    import zarr


ZARR = ".zarr"
GONE = "its parts are gone, as if another command wrote the same file"


class Member(NamedTuple):
    """One array of an output.

    Attributes:
        core: the shape of an item.
        dtype: the type of an entry.
    """

    core: tuple[int, ...]
    dtype: np.dtype[Any]


class Arrays(Protocol):
    """Where the items of several arrays are put."""

    def write(self, cell: Cell, values: Mapping[str, Array]) -> None:
        """Put the items of a cell where they belong, to stay there whatever happens."""

    def whole(self) -> Path:
        """The finished output, beside its place."""


class Flat:
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
        """Write the items of a cell where they belong in each file."""
        for name, (file, begin) in self._files.items():
            core, dtype = self._members[name]
            data = np.ascontiguousarray(values[name], dtype).reshape(-1).view(np.uint8).data
            file.seek(begin + cell.start * prod(core) * dtype.itemsize)
            while data:
                data = data[file.write(data) :]
            os.fsync(file.fileno())

    def whole(self) -> Path:
        """The file itself, linked, or an archive of all."""
        whole = self._folder / f"whole{self._suffix}"
        whole.unlink(missing_ok=True)
        try:
            if self._suffix == ".npy":
                (name,) = self._members
                try:
                    os.link(self._folder / f"{name}.npy", whole)
                except OSError:  # a file system without links
                    shutil.copyfile(self._folder / f"{name}.npy", whole)
            elif self._suffix == ".npz":
                np.savez(whole, **{name: self._read(name) for name in self._members})  # type: ignore[arg-type]
            else:
                import torch

                torch.save({name: torch.from_numpy(self._read(name)) for name in self._members}, whole)
        except BaseException:
            whole.unlink(missing_ok=True)
            raise
        _to_disk(whole)
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


def _to_disk(path: Path) -> None:
    """Return when a file is where a power cut leaves it."""
    with path.open("r+b") as file:
        os.fsync(file.fileno())


class Zarr:
    """A Zarr group whose chunks are the cells, so that no two processes write to the same."""

    def __init__(self, folder: Path, members: Mapping[str, Member], plan: Plan) -> None:
        import zarr

        self._path, self._members = folder / f"whole{ZARR}", members
        if not self._path.exists():
            own = folder / f"{uuid4().hex}{ZARR}"
            group = zarr.create_group(own)
            for name, (core, dtype) in members.items():
                shape, chunks = plan.batch + core, tuple(max(1, size) for size in plan.chunk + core)
                group.create_array(name, shape=shape, chunks=chunks, dtype=dtype)
            for path in own.rglob("*.json"):
                _to_disk(path)
            try:
                own.rename(self._path)
            except OSError:  # another process was first
                shutil.rmtree(own)
        self._group = zarr.open_group(self._path, mode="r+")

    def write(self, cell: Cell, values: Mapping[str, Array]) -> None:
        """Write the items of a cell as one chunk of each array.

        Args:
            cell: which items.
            values: an array for each member.

        Raises:
            OSError: if the group is not there any more, or cannot be written.
        """
        if not self._path.exists():  # else Zarr makes it anew, without what tells that it is Zarr
            raise OSError(errno.ENOENT, GONE)
        for name, (core, dtype) in self._members.items():
            array = cast("zarr.Array[Any]", self._group[name])
            array[cell.box] = values[name].reshape(cell.shape + core).astype(dtype, copy=False)
            begin = [part.start for part in cell.box] + [0] * len(core)
            at = tuple(start // size for start, size in zip(begin, array.chunks, strict=True))
            path = self._path / name / array.metadata.encode_chunk_key(at)
            if path.exists():  # a chunk of zeros is not written
                _to_disk(path)

    def whole(self) -> Path:
        """The group, which is written where it stays until it is put in place."""
        return self._path
