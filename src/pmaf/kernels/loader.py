"""Finds the shared library of compiled kernels, chooses an instruction set, and says why there is none."""

import ctypes
import functools
import os
from pathlib import Path
from typing import NamedTuple

__all__ = ["Kernels", "available", "kernels", "reason"]

VERSION = 6  # of the C interface
NAMES = ("baseline", "avx2", "avx512")  # as the library numbers them


class Kernels(NamedTuple):
    """A loaded library, and the instruction set that its functions are called with."""

    library: ctypes.CDLL
    isa: int
    path: Path

    @property
    def name(self) -> str:
        """The instruction set in words."""
        return NAMES[self.isa]


def wanted() -> str:
    """What the environment variable ``PMAF_KERNELS`` asks for: off, auto, or an instruction set.

    Raises:
        ValueError: for any other word.
    """
    choice = os.environ.get("PMAF_KERNELS", "").strip().lower() or "auto"
    if choice not in ("off", "auto", *NAMES):
        raise ValueError(
            f"pmaf: PMAF_KERNELS must be one of off, auto, {', '.join(NAMES)}, got {choice!r}; unset it to choose by "
            "processor"
        )
    return choice


def find() -> Path | None:
    """The library beside this file, or wherever else the package lies (editable installations have two places)."""
    import pmaf.kernels

    for folder in pmaf.kernels.__path__:
        for path in sorted(Path(folder).glob("libpmaf_kernels.*")):
            if path.suffix in (".so", ".dylib", ".dll"):
                return path
    return None


@functools.cache
def load() -> Kernels | str:
    """The kernels, or in words why there are none."""
    choice = wanted()
    if choice == "off":
        return "switched off by PMAF_KERNELS=off"
    path = find()
    if path is None:
        return "not built: the package was installed without a C++ compiler"
    try:
        library = ctypes.CDLL(str(path))
        version = int(library.pmaf_version())
    except (OSError, AttributeError) as error:
        return f"{path.name} could not be loaded: {error}"
    if version != VERSION:
        return f"{path.name} belongs to another version (interface {version}, expected {VERSION}); build it again"
    best = int(library.pmaf_best_isa())
    isa = best if choice == "auto" else NAMES.index(choice)
    if isa > best:
        return f"this processor has no {choice}; its best is {NAMES[best]}"
    return Kernels(library, isa, path)


def kernels() -> Kernels | None:
    """The kernels, or ``None``."""
    found = load()
    return found if isinstance(found, Kernels) else None


def available() -> bool:
    """Whether compiled kernels are used."""
    return kernels() is not None


def reason() -> str:
    """Which kernels are used, or why none are."""
    found = load()
    return f"{found.name} ({found.path})" if isinstance(found, Kernels) else found
