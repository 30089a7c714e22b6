"""With what the library runs here: the first thing a bug report needs."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

import torch

from pmaf.kernels import loader
from pmaf.version import __version__

__all__ = ["configuration", "kernels", "processor", "show_config"]


def processor() -> str:
    """The processor's name as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine() or "unknown"


def kernels() -> str:
    """The instruction sets that the compiled kernels, of pmaf and of torch, were chosen for."""
    ours = loader.kernels()
    return f"kernels {ours.name if ours else 'none'}, torch {torch.backends.cpu.get_cpu_capability()}"


def blas() -> str:
    """The linear algebra that torch was built with, and its version where torch tells it."""
    built = torch.__config__.show()
    names = dict(re.findall(r"\b(BLAS_INFO|LAPACK_INFO)=(\w+)", built))
    version = re.search(r"Math Kernel Library Version ([\w.]+)", built)
    parts = list(dict.fromkeys([*names.values(), *([version[1]] if version else [])]))
    return " ".join(parts) or "unknown"


def configuration() -> dict[str, str]:
    """Versions, compiled kernels and their instruction set or why there are none, threads, BLAS and processor.

    Returns:
        What is told, by its name.
    """
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none seen by torch"
    variables = {
        name: value for name, value in sorted(os.environ.items()) if name.startswith(("PMAF_", "OMP_", "MKL_"))
    }
    return {
        "pmaf": __version__,
        "kernels": loader.reason(),
        "torch": torch.__version__,
        "Python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": f"{processor()}, {os.cpu_count()} cores; torch uses {torch.backends.cpu.get_cpu_capability()}",
        "threads": f"{torch.get_num_threads()}, between operations {torch.get_num_interop_threads()}",
        "BLAS": blas(),
        "GPU": gpu,
        "environment": " ".join(f"{name}={value}" for name, value in variables.items()) or "nothing set",
    }


def show_config() -> str:
    """Print versions, compiled kernels and their instruction set or why there are none, threads, BLAS and processor.

    Returns:
        The text that was printed.

    Example:
        >>> import pmaf
        >>> text = pmaf.show_config()  # doctest: +ELLIPSIS
        pmaf ...
    """
    text = "\n".join(f"{name:12}{value}" for name, value in configuration().items())
    print(text)
    return text
