"""Arrays in files, opened without reading them whole, and which files may be written."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pmaf.checks.extras import needs

__all__ = ["Array", "FileError", "Source", "UnreachableError", "check_output", "floating", "in_words", "open_array"]

with needs("cli", "pmaf.cli.files"):
    import numpy as np
    import numpy.typing as npt


Array = npt.NDArray[Any]

_READ = (".npy", ".npz", ".pt", ".zarr")
_PRECISIONS = {"float16", "float32", "float64", "complex64", "complex128"}


class FileError(ValueError):
    """A file is refused; the message is one sentence that says why and what to do."""


class UnreachableError(FileError):
    """A file cannot be read or written now, though the same command may work later."""


class Source:
    """A batch of arrays in a file, read piece by piece.

    Args:
        path: a ``.npy``, ``.npz`` or ``.pt`` file, or a Zarr directory.
        names: under which of these names to look where it holds several arrays.
        core: how many dimensions an item has.

    Raises:
        FileError: if there is no such file, or it does not hold a plain numeric array of that many dimensions.
    """

    def __init__(self, path: Path, names: Sequence[str], core: int) -> None:
        self.path = path
        self.array = open_array(path, names)
        self.dtype = floating(self.array, str(path))
        if self.array.ndim < core:
            what = "matrices, (*, m, n)" if core == 2 else "vectors, (*, m)"
            raise FileError(f"{names[0]} must hold {what}, but {path} is {self.array.shape}")
        self.batch = tuple(self.array.shape[: self.array.ndim - core])
        self.core = tuple(self.array.shape[self.array.ndim - core :])
        self._seen = self._look()

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the whole."""
        return self.batch + self.core

    def _look(self) -> tuple[int, int]:
        try:
            seen = self.path.stat()
        except OSError as error:
            raise UnreachableError(f"{self.path} cannot be read any more: {in_words(error)}") from None
        return seen.st_size, seen.st_mtime_ns

    def mark(self) -> str:
        """What tells this input from another: its name, how large it is, and when it was written last.

        Returns:
            A text; of a directory, it tells of all files in it.
        """
        inside = [part.stat() for part in self.path.rglob("*")]
        size, newest = sum(part.st_size for part in inside), max((part.st_mtime_ns for part in inside), default=0)
        return f"{self.path.name} {self.shape} {self.dtype} {self._look()} {len(inside)} {size} {newest}"

    def read(self, box: tuple[slice, ...]) -> Array:
        """The items in a box of the batch that this one is broadcast to.

        Args:
            box: a slice for each dimension of that batch.

        Returns:
            The items, one after the other: ``(items, *core)``.

        Raises:
            FileError: if the file is not any more what it was when it was opened.
        """
        if self._look() != self._seen:  # what is mapped into memory must not end early
            raise FileError(f"{self.path} was changed while it was being read: run the command again when it is whole")
        own = zip(self.batch, box[len(box) - len(self.batch) :], strict=True)
        found = np.asarray(self.array[tuple(slice(0, 1) if size == 1 else part for size, part in own)])
        shape = tuple(part.stop - part.start for part in box)
        whole: Array = np.broadcast_to(found, shape + self.core)
        return whole.reshape(-1, *self.core) if whole.size else np.zeros((int(np.prod(shape)), *self.core), found.dtype)


def in_words(error: OSError) -> str:
    """Why the system refused, without numbers: ``no space left on device``."""
    why = error.strerror or str(error)
    return why[:1].lower() + why[1:]


def open_array(path: Path, names: Sequence[str]) -> Any:
    """Open the array in a file; a ``.npy`` or ``.pt`` file is mapped into memory, not read.

    Integers and booleans are left as they are; :func:`floating` says what they are computed in.

    Args:
        path: a ``.npy``, ``.npz`` or ``.pt`` file, or a Zarr directory.
        names: under which of these names to look where a file holds several arrays.

    Returns:
        The array, read-only: of NumPy, or of Zarr, which reads what is sliced.

    Raises:
        FileError: if there is no such file, or it does not hold a plain numeric array.
    """
    if not path.exists():
        raise FileError(f"{path} does not exist")
    if path.is_dir() != (path.suffix == ".zarr"):
        what = "a folder, not a file" if path.is_dir() else "a file, not a Zarr directory"
        raise FileError(f"{path} is {what}")
    if path.suffix not in _READ:
        raise FileError(f"{path} has the ending {path.suffix!r}; pmaf reads {', '.join(_READ)}")
    reader = {".npy": _open_npy, ".npz": _open_npz, ".pt": _open_pt, ".zarr": _open_zarr}[path.suffix]
    try:
        array = reader(path, names)
    except PermissionError:
        raise FileError(f"{path} may not be read: permission denied") from None
    floating(array, str(path))
    return array


def floating(array: Any, name: str) -> np.dtype[Any]:
    """The precision an array is computed in: its own, or float64 for integers.

    Args:
        array: any array.
        name: what the message calls it.

    Returns:
        A real or complex floating data type in the machine's byte order.

    Raises:
        FileError: if the entries are not numbers that torch can compute with.
    """
    kind: np.dtype[Any] = array.dtype.newbyteorder("=")
    if kind.kind in "iub":
        return np.dtype(np.float64)
    if kind.name not in _PRECISIONS:
        raise FileError(
            f"{name} holds entries of type {array.dtype}; pmaf computes with {', '.join(sorted(_PRECISIONS))}"
        )
    return kind


def _pickled(path: Path) -> FileError:
    return FileError(
        f"{path} holds pickled Python objects, which pmaf does not read: save a plain numeric array instead"
    )


def _open_npy(path: Path, _: Sequence[str]) -> Array:
    with path.open("rb") as file:
        head = file.read(6)
    if head[:1] == b"\x80":
        raise _pickled(path)
    if head != b"\x93NUMPY":
        raise FileError(f"{path} is not a .npy file: write one with numpy.save")
    try:
        array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        if "objects" in str(error) or "pickle" in str(error):
            raise _pickled(path) from None
        raise FileError(f"{path} is damaged or cut short ({error})") from None
    except (EOFError, OSError) as error:
        raise FileError(f"{path} is damaged or cut short ({error})") from None
    return array


def _open_npz(path: Path, names: Sequence[str]) -> Array:
    if not zipfile.is_zipfile(path):
        raise FileError(f"{path} is damaged or not a .npz file: write one with numpy.savez")
    try:
        with np.load(path, allow_pickle=False) as archive:
            array: Array = archive[_choose(path, archive.files, names)]
    except (zipfile.BadZipFile, EOFError, OSError, KeyError) as error:
        raise FileError(f"{path} is damaged or not a .npz file ({error})") from None
    except ValueError as error:
        if isinstance(error, FileError):
            raise
        raise _pickled(path) from None
    return array


def _open_pt(path: Path, names: Sequence[str]) -> Array:
    import pickle

    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError:
        raise _pickled(path) from None
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise FileError(
            f"{path} is damaged or not a .pt file ({(str(error).splitlines() or ['it is empty'])[0]})"
        ) from None
    if isinstance(content, dict):
        content = content[_choose(path, [str(name) for name in content], names)]
    if not isinstance(content, torch.Tensor) or content.layout != torch.strided:
        raise FileError(
            f"{path} holds a {type(content).__name__}; pmaf reads one dense tensor, or a dictionary of tensors"
        )
    if content.dtype == torch.bfloat16:
        content = content.float()
    array: Array = content.detach().resolve_conj().resolve_neg().numpy()
    return array


def _open_zarr(path: Path, names: Sequence[str]) -> Any:
    with needs("zarr", "reading and writing .zarr directories"):
        import zarr
    try:
        content = zarr.open(path, mode="r")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FileError(f"{path} is damaged or not a Zarr directory ({error})") from None
    if isinstance(content, zarr.Group):
        content = content[_choose(path, sorted(content.array_keys()), names)]
    return content


def _choose(path: Path, present: Sequence[str], wanted: Sequence[str]) -> str:
    for name in wanted:
        if name in present:
            return name
    if len(present) == 1:
        return present[0]
    held = ", ".join(present) or "nothing"
    raise FileError(f"{path} holds {held}; name the array to use {' or '.join(wanted)}")


def check_output(path: Path, inputs: Sequence[Path] = (), *, alone: bool = False) -> None:
    """Refuse a target that could not, or should not, be written, before anything is computed.

    Args:
        path: where the output shall go.
        inputs: files that must not be overwritten.
        alone: whether one array may be written alone, so that a ``.npy`` file can hold it.

    Raises:
        FileError: if the ending does not fit, the folder does not exist, or the file is one of the inputs.
    """
    endings = _READ if alone else _READ[1:]
    if path.suffix not in endings:
        raise FileError(f"{path} has the ending {path.suffix!r}; the output needs one of {', '.join(endings)}")
    if not path.parent.is_dir():
        raise FileError(f"{path} cannot be written: the folder {path.parent} does not exist")
    if path.exists() and path.is_dir() != (path.suffix == ".zarr"):
        raise FileError(f"{path} cannot be written: it is a {'folder' if path.is_dir() else 'file'}")
    if path.suffix == ".zarr":
        with needs("zarr", "reading and writing .zarr directories"):
            import zarr  # noqa: F401
        if path.exists() and not any((path / name).exists() for name in ("zarr.json", ".zgroup", ".zarray")):
            raise FileError(f"{path} cannot be written: it is a folder that holds something else than Zarr arrays")
    for source in inputs:
        if path.exists() and source.exists() and path.samefile(source):
            raise FileError(f"{path} is the input {source}, which would be lost: give the output another name")
