"""Kill runs over files at random moments, one process or all: ``python benchmarks/killed.py``.

The command is started again after each kill, as often as ``--kills`` says, and then left alone. Each time, what was
recorded before must be there still, and in the end the file must have the bytes of a run that nobody disturbed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from files import TORCHRUN, write_problems

SUFFIXES = (".npy", ".npz", ".pt", ".zarr")


def command(output: str, processes: int, restarts: int = 0) -> list[str]:
    """The command line of a run."""
    launcher = [*TORCHRUN, str(processes), "--max-restarts", str(restarts), "-m"] if processes > 1 else []
    words = [sys.executable, "-m", *launcher, "pmaf.cli", "solve", "less", "A.npy", "b.npy"]
    return [*words, "-o", output, "--chunk", "100", "--json"]


def recorded(folder: Path) -> set[int]:
    """The numbers of the chunks that are finished."""
    lines = [line for file in folder.glob(".out.*/done-*") for line in file.read_bytes().split(b"\n")[:-1]]
    return {json.loads(line)[0] for line in lines}


def content(path: Path) -> dict[str, bytes]:
    """The bytes of a file, or of all files of a folder."""
    if path.is_file():
        return {"": path.read_bytes()}
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def descendants(pid: int) -> list[int]:
    """The processes that a process has started, as Linux tells them."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    try:
        return [int(child) for child in children.read_text().split()]
    except OSError:
        return []


def soak(folder: Path, suffix: str, processes: int, kills: int, rng: random.Random) -> str:
    """Kill a run, and start it again, until it was killed often enough; what happened in a line.

    Raises:
        AssertionError: if something that was finished is lost, or the bytes are others.
    """
    output, killed, single = f"out{suffix}", 0, 0
    while not (folder / output).exists():
        before = recorded(folder)
        running = subprocess.Popen(
            command(output, processes, restarts=kills),
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        while killed < kills and running.poll() is None:
            known = recorded(folder)
            while recorded(folder) <= known and running.poll() is None:
                time.sleep(0.001)
            time.sleep(rng.uniform(0, 0.1))
            if running.poll() is None:
                killed += 1
                workers = descendants(running.pid)
                if workers and rng.random() < 0.5:  # one of them: the launcher starts all of them anew
                    single += 1
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(rng.choice(workers), signal.SIGKILL)
                else:
                    for pid in (running.pid, *workers):
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(pid, signal.SIGKILL)
                    break
        _, said = running.communicate()
        assert running.returncode in {0, -signal.SIGKILL}, said.decode()
        assert (folder / output).exists() or before <= recorded(folder), "a finished chunk is lost"
    assert killed == kills, f"done after {killed} kills: give it more --problems"
    whole = folder / f"whole{suffix}"
    assert content(folder / output) == content(whole), f"{output} differs from {whole}"
    assert not list(folder.glob(".out.*")), "something is left"
    return (
        f"{suffix}, {processes} processes: killed {killed} times, one process {single} times of these; the same bytes"
    )


def main() -> None:
    """Disturb runs of every kind of file, alone and shared."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=40_000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--suffixes", default=",".join(SUFFIXES))
    parser.add_argument("--processes", default="1,2")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_problems(folder, options.problems, 8, 4)
        for suffix in options.suffixes.split(","):
            subprocess.run(command(f"whole{suffix}", 1), cwd=folder, check=True, stdout=subprocess.DEVNULL)
            for processes in map(int, options.processes.split(",")):
                print(soak(folder, suffix, processes, options.kills, rng), flush=True)
                target = folder / f"out{suffix}"
                shutil.rmtree(target) if target.is_dir() else target.unlink()


if __name__ == "__main__":
    main()
