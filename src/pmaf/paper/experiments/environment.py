"""On what machine, with which versions and under which load numbers are obtained, and on how many threads."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from importlib import metadata
from typing import Any

import torch
from threadpoolctl import threadpool_limits

import pmaf
from pmaf.config import kernels, processor

__all__ = ["environment", "kernels", "one_thread", "packages", "processor"]

_PACKAGES = ("numpy", "scipy", "matplotlib", "mlxtend", "scikit-image", "efficientnet-lite-pytorch", "xitorch")


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread inside the block, as many as before behind it: times can be compared then.

    That is so for torch and for the BLAS of NumPy and SciPy, whose second thread waits without sleeping.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(threads)


def environment() -> dict[str, Any]:
    """Where and when something is computed: JSON can hold it."""
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "kernels": kernels(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "pmaf": pmaf.__version__,
    }


def packages() -> dict[str, str]:
    """The versions of packages that supply data or a baseline."""
    versions = dict.fromkeys(_PACKAGES, "not installed")
    for package in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions
