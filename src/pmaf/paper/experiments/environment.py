"""On what machine and with which versions the numbers were obtained."""

from __future__ import annotations

import os
import platform
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

import torch

import pmaf

__all__ = ["environment"]

_PACKAGES = ("numpy", "scipy", "matplotlib", "mlxtend", "scikit-image", "efficientnet-lite-pytorch", "xitorch")


def environment() -> list[tuple[str, str]]:
    """What, and its value, in the order to show them."""
    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else "none seen by torch"
    rows = [
        ("date", datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")),
        ("pmaf", pmaf.__version__),
        ("torch", torch.__version__),
        ("Python", platform.python_version()),
        ("system", f"{platform.system()} {platform.machine()}"),
        ("processor", _processor()),
        ("cores", f"{os.cpu_count()}, of which torch uses {torch.get_num_threads()}"),
        ("load", f"{os.getloadavg()[0]:.1f} over the last minute" if hasattr(os, "getloadavg") else "not known"),
        ("GPU", cuda),
    ]
    return rows + [(package, _version(package)) for package in _PACKAGES]


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"
