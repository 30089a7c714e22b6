"""Numbers that were not computed here, each with where it is from.

The reference for the optimality tables is the published code of Xu, Wang, Liu and Gould (2023, arXiv 2306.14759), run
unchanged; the times and memory figures are those the paper reports.
"""

from __future__ import annotations

from collections.abc import Sequence

from pmaf.paper.experiments.base import Column, Experiment, Row
from pmaf.paper.report.tables import Table, make_table

__all__ = ["LESS_CODE", "LESS_SOURCE", "PAPER", "beside", "tables"]

PAPER = "Xu, Wang, Liu, Gould, “PMaF: Deep Declarative Layers for Principal Matrix Features”, 2023, arXiv 2306.14759"

LESS_SOURCE = (
    "the authors’ published code, run unchanged on the same 1000 problems with torch 2.13.0 on a two-core x86-64 machine"
)

# (m, n) → method → failed inside, failed outside, better, mean difference in percent; of 1000 problems
LESS_CODE: dict[tuple[int, int], dict[str, tuple[int, int, int, float]]] = {
    (2, 2): {
        "PGD": (169, 359, 387, 9.43),
        "PGD+DW": (178, 439, 33, 4.89),
        "PGD+RM": (0, 118, 852, 5.21),
        "PGD+RM+BLSOne": (0, 14, 940, 0.139),
        "PGD+RM+BLSOne+DW": (173, 422, 40, 3.51),
        "PGD+RM+BLS": (0, 107, 864, 4.91),
        "PGD+RM+BLS+DW": (204, 537, 17, 1.19),
        "PGD+RM+TWD": (0, 0, 797, 0.000185),
        "PGD+RM+TWD+DW": (204, 533, 15, 3.12),
    },
    (64, 32): {
        "PGD": (546, 434, 52, 0.147),
        "PGD+DW": (446, 328, 54, 0.0720),
        "PGD+RM": (25, 0, 973, 0.000233),
        "PGD+RM+BLSOne": (3, 0, 987, 0.0000572),
        "PGD+RM+BLSOne+DW": (214, 68, 239, 0.00597),
        "PGD+RM+BLS": (3, 0, 992, 0.0000408),
        "PGD+RM+BLS+DW": (431, 319, 77, 0.0450),
        "PGD+RM+TWD": (25, 0, 952, 0.000300),
        "PGD+RM+TWD+DW": (431, 321, 66, 0.0449),
    },
}

SIZES_GPU = (32, 64, 128, 256, 512, 1024)

# method → seconds forward, seconds backward, for each of SIZES_GPU; RTX 3090, batch 5
SECONDS_GPU: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "eigh + autograd": (
        (0.0004, 0.0042, 0.0097, 0.0262, 0.0758, 0.2201),
        (0.0003, 0.0003, 0.0003, 0.0003, 0.0005, 0.0008),
    ),
    "PI-unroll": ((0.0079, 0.0079, 0.0080, 0.0081, 0.0087, 0.0087), (0.0167, 0.0167, 0.0169, 0.0173, 0.0172, 0.0175)),
    "PI-DDN-J": ((0.0067, 0.0067, 0.0069, 0.0069, 0.0070, 0.0069), (0.0029, 0.0051, 0.0097, 0.0180, 0.0430, 0.5420)),
    "PI-DDN-E": ((0.0067, 0.0067, 0.0069, 0.0070, 0.0071, 0.0071), (0.0068, 0.0061, 0.0033, 0.0059, 0.0113, 0.0413)),
    "PI-IFT-E": ((0.0066, 0.0067, 0.0072, 0.0069, 0.0075, 0.0069), (0.0007, 0.0010, 0.0013, 0.0023, 0.0043, 0.0152)),
    "SI-unroll": ((0.0594, 0.1830, 0.2686, 0.4603, 1.064, 2.633), (0.0174, 0.0170, 0.0227, 0.0578, 0.1412, 0.4850)),
    "SI-DDN-E": ((0.0585, 0.1838, 0.2693, 0.4650, 1.063, 2.583), (0.0045, 0.0021, 0.0032, 0.0058, 0.0113, 0.0396)),
    "SI-IFT-E": ((0.0585, 0.1839, 0.2693, 0.4643, 1.063, 2.608), (0.0007, 0.0009, 0.0013, 0.0022, 0.0041, 0.0142)),
}

# method → seconds forward and backward on a CPU at m = 256; the paper does not name the processor
SECONDS_CPU: dict[str, tuple[float, float]] = {
    "eigh + autograd": (0.0071, 0.0012),
    "PI-DDN-E": (0.0049, 0.0024),
    "SI-DDN-E": (0.4351, 0.0031),
}

# method → peak MB forward and backward at m = 1024; RTX 3090, batch 5, of which the input takes 20 MB
MEMORY_GPU: dict[str, tuple[float, float]] = {
    "eigh + autograd": (80.6, 100.0),
    "PI-unroll": (24.6, 59.9),
    "PI-DDN-J": (20.6, 20520.0),
    "PI-DDN-E": (20.6, 64.0),
    "PI-IFT-E": (20.6, 124.0),
    "SI-unroll": (4083.0, 100.0),
    "SI-DDN-E": (123.0, 64.0),
}

_CODE = (
    Column("code_inside", "code failed in", "d", cited=True),
    Column("code_outside", "code failed out", "d", cited=True),
    Column("code_better", "code better", "d", cited=True),
    Column("code_diff", "code mean diff %", ".3g", cited=True),
)
_GPU = (
    Column("gpu_forward", "GPU forward ms", ".4g", 1e3, cited=True),
    Column("gpu_backward", "GPU backward ms", ".4g", 1e3, cited=True),
)


def beside(experiment: Experiment, rows: Sequence[Row]) -> tuple[tuple[Column, ...], list[Row]]:
    """The columns and rows of an experiment, with what others published of the same methods and sizes.

    Args:
        experiment: whose.
        rows: what it found.

    Returns:
        The columns and the rows; unchanged where nothing was published.
    """
    if experiment.key == "less":
        keys = [column.key for column in _CODE]
        published = [LESS_CODE.get((row["m"], row["n"]), {}).get(row["method"]) for row in rows]
        cited = [row | dict(zip(keys, known or [None] * 4, strict=True)) for row, known in zip(rows, published, strict=True)]
        return experiment.columns + _CODE, cited
    if experiment.key == "ied_timing":
        cited = []
        for row in rows:
            ways = SECONDS_GPU.get(row["method"], ((), ()))
            at = SIZES_GPU.index(row["m"]) if ways[0] and row["m"] in SIZES_GPU else None
            known = [None, None] if at is None else [way[at] for way in ways]
            cited.append(row | dict(zip(("gpu_forward", "gpu_backward"), known, strict=True)))
        return experiment.columns + _GPU, cited
    return experiment.columns, list(rows)


def tables() -> dict[str, Table]:
    """The published times and memory, as tables."""
    times = [Column("method", "ms")]
    for m in SIZES_GPU:
        times += [Column(f"forward {m}", f"{m} fwd", ".4g", 1e3, cited=True), Column(f"backward {m}", "bwd", ".4g", 1e3, cited=True)]
    times += [Column("forward cpu", "CPU 256 fwd", ".4g", 1e3, cited=True), Column("backward cpu", "bwd", ".4g", 1e3, cited=True)]
    rows = []
    for name, ways in SECONDS_GPU.items():
        row: Row = {"method": name}
        for way, seconds in zip(("forward", "backward"), ways, strict=True):
            row |= {f"{way} {m}": value for m, value in zip(SIZES_GPU, seconds, strict=True)}
            row[f"{way} cpu"] = SECONDS_CPU[name][way == "backward"] if name in SECONDS_CPU else None
        rows.append(row)
    memory = (
        Column("method", "method"),
        Column("forward", "forward MB", ".1f", cited=True),
        Column("backward", "backward MB", ".1f", cited=True),
    )
    held = [{"method": name, "forward": f, "backward": b} for name, (f, b) in MEMORY_GPU.items()]
    return {
        "times": make_table("Published times, GPU and CPU", times, rows),
        "memory": make_table("Published peak memory at m = 1024, GPU", memory, held),
    }
