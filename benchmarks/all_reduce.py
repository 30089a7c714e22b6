"""What rows on several processes send: ``torchrun --nproc-per-node 2 benchmarks/all_reduce.py``.

A problem with n columns takes the sum over ranks of n² + n numbers. Here sums of as many are timed, alone and of a
batch of 1,000 problems at once, by gloo between the processes of one machine, or of several if torchrun starts them.
"""

from __future__ import annotations

import argparse
import time

import torch
import torch.distributed as dist

from harness import report


def main() -> None:
    """Measure, print and record on the first rank."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    dist.init_process_group("gloo")
    rows = []
    for n in (4, 16, 64, 256, 1024):
        for problems in (1, 1000):
            numbers = problems * (n * n + n)
            if numbers > 2e7:
                continue
            x, times = torch.zeros(numbers, dtype=torch.float64), []
            for _ in range(12):
                dist.barrier()
                began = time.perf_counter()
                dist.all_reduce(x)
                times.append(time.perf_counter() - began)
            best = sorted(times[2:])[len(times[2:]) // 2]
            rows.append({"processes": dist.get_world_size(), "n": n, "problems": problems, "megabytes": numbers * 8e-6})
            rows[-1] |= {"ms": 1e3 * best, "GB_per_s": numbers * 8e-9 / best}
    if dist.get_rank() == 0:
        report("all_reduce", "The sum over ranks of n² + n numbers a problem", rows)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
