"""What problems on several ranks send and what that costs: ``python benchmarks/sharded.py``.

Each rank is a process with one thread that talks to the others by gloo on the loopback device. Counted are the
collectives of a forward and a backward pass and the numbers that each rank gives them, for each problem of the batch;
timed are both passes, beside one process with all the data. On a machine with fewer cores than ranks the times say
little, the counts are the same everywhere.
"""

from __future__ import annotations

import argparse
import csv
import os
import socket
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.utils._python_dispatch import TorchDispatchMode

import pmaf

RESULT = Path(__file__).parent / "results" / "sharded.csv"


class Counter(TorchDispatchMode):
    """Collectives, and how many numbers each is given."""

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.numbers, self.largest = 0, 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count what is sent, and do it."""
        if "c10d" in func.namespace and args:
            tensors = args[0] if isinstance(args[0], (list, tuple)) else [args[0]]
            if "allgather" in func.__name__ or "all_gather" in func.__name__:
                tensors = args[1] if len(args) > 1 and isinstance(args[1], (list, tuple)) else tensors
            sizes = [t.numel() for t in tensors if isinstance(t, Tensor)]
            self.calls, self.numbers = self.calls + 1, self.numbers + sum(sizes)
            self.largest = max(self.largest, *sizes, 0)
        return func(*args, **(kwargs or {}))


Problem = Callable[[Any, Any], Any]
CASES: dict[str, tuple[Problem, Problem]] = {  # the layer, and a number that depends on its answer
    "less_ex": (lambda A, b: pmaf.less_ex(A, b), lambda s, _: s.u),
    "ied_ex(Gram)": (lambda A, b: pmaf.ied_ex(pmaf.Gram(A), 1), lambda s, _: s.eigenvectors),
    "svd_ex": (lambda A, b: pmaf.svd_ex(A, 1), lambda s, _: s.Vh),
}


def local(x: Any) -> Tensor:
    """This rank's part."""
    return x.to_local() if isinstance(x, DTensor) else x


def passes(fn: Problem, answer: Problem, A: Any, b: Any) -> tuple[Counter, Counter, float]:
    """Both passes, counted and timed."""
    A, b = A.detach().requires_grad_(), b.detach().requires_grad_()
    with Counter() as forward:
        y = local(answer(fn(A, b), None))
        loss = y.square().sum() + y[..., 0].sum()
    with Counter() as backward:
        torch.autograd.grad(loss, (A, b), allow_unused=True)
    times = []
    for _ in range(3):
        began = time.perf_counter()
        loss = local(answer(fn(A, b), None))[..., 0].sum()
        torch.autograd.grad(loss, (A, b), allow_unused=True)
        times.append(time.perf_counter() - began)
    return forward, backward, statistics.median(times)


def rank_of(rank: int, world: int, folder: str, sizes: list[tuple[int, int, int]]) -> None:
    """Measure on one rank; the first one writes."""
    torch.set_num_threads(1)
    loopback = [name for _, name in socket.if_nameindex() if name.startswith("lo")]
    os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback[0])
    store = dist.FileStore(f"{folder}/store", world)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world)
    mesh = init_device_mesh("cpu", (world,))
    rows = []
    for B, m, n in sizes:
        torch.manual_seed(0)
        A, b = torch.randn(B, m, n, dtype=torch.float64), torch.randn(B, m, dtype=torch.float64)
        ill = A * torch.logspace(0, -6, n, dtype=A.dtype) @ torch.linalg.qr(torch.randn(n, n, dtype=A.dtype))[0]
        for name, (fn, answer) in CASES.items():
            alone = passes(fn, answer, A, b)[2]
            for what, data, dim in (("batch", A, 0), ("rows", A, 1), ("rows, condition 1e6", ill, 1)):
                placed = [distribute_tensor(x, mesh, [Shard(dim)]) for x in (data, b)]
                forward, backward, seconds = passes(fn, answer, *placed)
                rows.append(
                    {
                        "function": name,
                        "ranks": world,
                        "problems": B,
                        "m": m,
                        "n": n,
                        "divided": what,
                        "collectives_forward": forward.calls,
                        "collectives_backward": backward.calls,
                        "numbers_a_problem": (forward.numbers + backward.numbers) / B,
                        "largest_a_problem": forward.largest / B,
                        "n2_plus_n": n * n + n,
                        "seconds": round(seconds, 5),
                        "seconds_one_process": round(alone, 5),
                    }
                )
    if rank == 0:
        with Path(folder, "rows.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    dist.barrier()
    dist.destroy_process_group()


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, nargs="*", default=[2, 4])
    options = parser.parse_args()
    sizes = [(1000, 16, 4), (20, 500, 8), (1, 20_000, 32)]
    found: list[str] = []
    for world in options.ranks:
        with tempfile.TemporaryDirectory() as folder:
            torch.multiprocessing.spawn(rank_of, (world, folder, sizes), nprocs=world)
            lines = Path(folder, "rows.csv").read_text().splitlines()
        found += lines if not found else lines[1:]
    RESULT.write_text("\n".join(found) + "\n")
    print("\n".join(found))


if __name__ == "__main__":
    main()
