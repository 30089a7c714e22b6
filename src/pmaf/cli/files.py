"""Arrays in files: opened without reading them whole, written whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from pmaf.checks.extras import needs

__all__ = ["Array", "FileError", "Output", "check_output", "floating", "open_array"]

with needs("cli", "pmaf.cli.files"):
    import numpy as np
    import numpy.typing as npt


Array = npt.NDArray[Any]

_READ = (".npy", ".npz", ".pt")
_PRECISIONS = {"float16", "float32", "float64", "complex64", "complex128"}


class FileError(ValueError):
    """A file is refused; the message is one sentence that says why and what to do."""


def open_array(path: Path, names: Sequence[str]) -> Array:
    """Open the array in a file; a ``.npy`` or ``.pt`` file is mapped into memory, not read.

    Integers and booleans are left as they are; :func:`floating` says what they are computed in.

    Args:
        path: a ``.npy``, ``.npz`` or ``.pt`` file.
        names: under which of these names to look where a file holds several arrays.

    Returns:
        The array, read-only.

    Raises:
        FileError: if there is no such file, or it does not hold a plain numeric array.
    """
    if not path.exists():
        raise FileError(f"{path} does not exist")
    if path.is_dir():
        raise FileError(f"{path} is a folder, not a file")
    if path.suffix not in _READ:
        raise FileError(f"{path} has the ending {path.suffix!r}; pmaf reads {', '.join(_READ)}")
    reader = {".npy": _open_npy, ".npz": _open_npz, ".pt": _open_pt}[path.suffix]
    try:
        array = reader(path, names)
    except PermissionError:
        raise FileError(f"{path} may not be read: permission denied") from None
    floating(array, str(path))
    return array


def floating(array: Array, name: str) -> np.dtype[Any]:
    """The precision an array is computed in: its own, or float64 for integers.

    Args:
        array: any array.
        name: what the message calls it.

    Returns:
        A real or complex floating data type in the machine's byte order.

    Raises:
        FileError: if the entries are not numbers that torch can compute with.
    """
    kind = array.dtype.newbyteorder("=")
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


def _choose(path: Path, present: Sequence[str], wanted: Sequence[str]) -> str:
    for name in wanted:
        if name in present:
            return name
    if len(present) == 1:
        return present[0]
    held = ", ".join(present) or "nothing"
    raise FileError(f"{path} holds {held}; name the array to use {' or '.join(wanted)}")


class Output:
    """Arrays on their way into one file, filled piece by piece and put in place at once.

    The pieces go to a temporary folder beside the target. :meth:`commit` moves the finished file over the target; if
    the block ends without it, for whatever reason, the target is as it was.

    Args:
        path: where the arrays shall be: ``.npy`` for one array, ``.npz`` or ``.pt`` for several.
        members: shape and data type of each array.

    Raises:
        FileError: if the ending does not fit, or the folder cannot be written to.
    """

    def __init__(self, path: Path, members: Mapping[str, tuple[tuple[int, ...], Any]]) -> None:
        check_output(path, len(members))
        self.path = path
        self.members = dict(members)
        self.arrays: dict[str, Array] = {}

    def __enter__(self) -> Output:
        try:
            self._folder = Path(tempfile.mkdtemp(prefix=f".{self.path.name}.", dir=self.path.parent))
        except OSError as error:
            raise FileError(f"{self.path} cannot be written: {error.strerror}") from None
        for name, (shape, dtype) in self.members.items():
            self.arrays[name] = self._create(self._folder / f"{name}.npy", shape, np.dtype(dtype))
        return self

    @staticmethod
    def _create(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        if 0 in shape:  # an empty file cannot be mapped
            empty: Array = np.zeros(shape, dtype)
            np.save(path, empty)
            return empty
        return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)

    def write(self, start: int, stop: int, values: Mapping[str, Array]) -> None:
        """Put the items ``start`` to ``stop`` of each array, counted along the first dimension, in their place."""
        for name, array in self.arrays.items():
            array[start:stop] = values[name]

    def commit(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Give the arrays their final shapes and put the file in place of the target."""
        final = {name: array.reshape(shapes[name]) for name, array in self.arrays.items()}
        whole = self._folder / f"whole{self.path.suffix}"
        if self.path.suffix == ".npy":
            (array,) = final.values()
            np.save(whole, array)
        elif self.path.suffix == ".npz":
            np.savez(whole, **final)  # type: ignore[arg-type]
        else:
            import torch

            torch.save({name: torch.from_numpy(np.asarray(array)) for name, array in final.items()}, whole)
        os.replace(whole, self.path)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.arrays.clear()
        shutil.rmtree(self._folder, ignore_errors=True)


def check_output(path: Path, members: int = 1, inputs: Sequence[Path] = ()) -> None:
    """Refuse a target that could not, or should not, be written, before anything is computed.

    Args:
        path: where the output shall go.
        members: how many arrays it shall hold.
        inputs: files that must not be overwritten.

    Raises:
        FileError: if the ending does not fit, the folder does not exist, or the file is one of the inputs.
    """
    endings = _READ if members == 1 else (".npz", ".pt")
    if path.suffix not in endings:
        raise FileError(f"{path} has the ending {path.suffix!r}; the output needs one of {', '.join(endings)}")
    if not path.parent.is_dir():
        raise FileError(f"{path} cannot be written: the folder {path.parent} does not exist")
    if path.is_dir():
        raise FileError(f"{path} cannot be written: it is a folder")
    for source in inputs:
        if path.exists() and source.exists() and path.samefile(source):
            raise FileError(f"{path} is the input {source}, which would be lost: give the output another name")
