"""Problems from files, with one process and with several that share them: ``python benchmarks/files.py``.

Each process uses one thread. What is timed is what ``pmaf solve`` says: from the first chunk of the first process to
the finished file; beside it stands the time of the whole command, most of which is the import of torch for few
problems. One process and several take turns. The processes of a job start a few tenths of a second apart: with
``--problems`` large enough to see through that, the ratio of the two rates is what more processes gain.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness import Row, report

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np

TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc-per-node"]


def write_problems(folder: Path, problems: int, m: int, n: int) -> None:
    """Write random A and b, piece by piece."""
    rng = np.random.default_rng(0)
    for name, shape in (("A", (problems, m, n)), ("b", (problems, m))):
        array = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.float64, shape)
        for start in range(0, problems, 100_000):
            stop = min(start + 100_000, problems)
            array[start:stop] = rng.normal(size=(stop - start, *shape[1:]))
        array.flush()


def solve(folder: Path, processes: int, output: str) -> tuple[float, float]:
    """Seconds of the work and of the whole command."""
    launcher = [*TORCHRUN, str(processes), "-m"] if processes > 1 else []
    command = [sys.executable, "-m", *launcher, "pmaf.cli", "solve", "less", "A.npy", "b.npy", "-o", output]
    began = time.perf_counter()
    done = subprocess.run([*command, "--json", "--overwrite"], cwd=folder, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["seconds"], time.perf_counter() - began


def main() -> None:
    """Measure, compare the bytes, print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=400_000)
    parser.add_argument("--shape", default="8x4", help="rows and columns")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder", type=Path, help="where the files go; a temporary folder if left out")
    options = parser.parse_args()
    m, n = map(int, options.shape.split("x"))
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    rows: list[Row] = []
    try:
        write_problems(folder, options.problems, m, n)
        counts = (1, options.processes)
        times: dict[int, list[tuple[float, float]]] = {count: [] for count in counts}
        for round_ in range(options.rounds + 1):
            for count in counts:
                seconds = solve(folder, count, f"{count}.npy")
                if round_:  # the first fills the caches
                    times[count].append(seconds)
        same = len({(folder / f"{count}.npy").read_bytes() for count in counts}) == 1
        base = statistics.median(work for work, _ in times[1])
        for count in counts:
            work, whole = (statistics.median(column) for column in zip(*times[count], strict=True))
            row: Row = {"problems": options.problems, "shape": options.shape, "processes": count}
            row |= {"work_s": work, "command_s": whole, "problems_per_s": options.problems / work}
            rows.append(row | {"ratio": base / work, "same_bytes": same})
    finally:
        shutil.rmtree(folder)
    report("files", "Least squares on the sphere, from files", rows)


if __name__ == "__main__":
    main()
