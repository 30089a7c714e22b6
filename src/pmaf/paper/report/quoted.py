"""Numbers that were not computed here, each with where it is from.

The reference for the optimality tables is the published code of Xu, Wang, Liu and Gould (2023, arXiv 2306.14759), run
unchanged on the same 1000 problems with torch 2.13.0 on a two-core x86-64 machine; the times and memory figures are
those the paper reports.
"""

from __future__ import annotations

from collections.abc import Sequence

from pmaf.paper.experiments.base import Column, Experiment, Row
from pmaf.paper.report.tables import Table, make_table

__all__ = ["LESS_CODE", "beside", "published"]

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
_CODE = (
    Column("code_inside", "code failed in", "d", cited=True),
    Column("code_outside", "code failed out", "d", cited=True),
    Column("code_better", "code better", "d", cited=True),
    Column("code_diff", "code mean diff %", ".3g", cited=True),
)

# milliseconds on a GeForce RTX 3090, batch 5, forward and backward for orders 32 to 1024; the same on a CPU that is not
# named at order 256; peak MB on the GPU forward and backward at order 1024, of which the input takes 20
_GPU = {
    "eigh + autograd": "0.4 0.3 4.2 0.3 9.7 0.3 26.2 0.3 75.8 0.5 220.1 0.8 7.1 1.2 80.6 100",
    "PI-unroll": "7.9 16.7 7.9 16.7 8 16.9 8.1 17.3 8.7 17.2 8.7 17.5 - - 24.6 59.9",
    "PI-DDN-J": "6.7 2.9 6.7 5.1 6.9 9.7 6.9 18 7 43 6.9 542 - - 20.6 20520",
    "PI-DDN-E": "6.7 6.8 6.7 6.1 6.9 3.3 7 5.9 7.1 11.3 7.1 41.3 4.9 2.4 20.6 64",
    "PI-IFT-E": "6.6 0.7 6.7 1 7.2 1.3 6.9 2.3 7.5 4.3 6.9 15.2 - - 20.6 124",
    "SI-unroll": "59.4 17.4 183 17 268.6 22.7 460.3 57.8 1064 141.2 2633 485 - - 4083 100",
    "SI-DDN-E": "58.5 4.5 183.8 2.1 269.3 3.2 465 5.8 1063 11.3 2583 39.6 435.1 3.1 123 64",
    "SI-IFT-E": "58.5 0.7 183.9 0.9 269.3 1.3 464.3 2.2 1063 4.1 2608 14.2 - - - -",
}
_PLACES = [*(str(m) for m in (32, 64, 128, 256, 512, 1024)), "CPU 256", "MB 1024"]


def beside(experiment: Experiment, rows: Sequence[Row]) -> tuple[list[Row], tuple[Column, ...]]:
    """The rows and columns of an experiment, with what the published code makes of the same methods and sizes."""
    if experiment.key != "less":
        return list(rows), experiment.columns
    known = [LESS_CODE.get((row["m"], row["n"]), {}).get(row["method"], ()) for row in rows]
    keys = [column.key for column in _CODE]
    cited = [row | dict(zip(keys, numbers, strict=False)) for row, numbers in zip(rows, known, strict=True)]
    return cited, experiment.columns + _CODE


def published() -> Table:
    """The paper's own times and memory, as a table."""
    ways = [f"{place} {way}" for place in _PLACES for way in ("forward", "backward")]
    rows = [
        {"method": name} | {way: float(number) for way, number in zip(ways, text.split(), strict=True) if number != "-"}
        for name, text in _GPU.items()
    ]
    columns = [Column("method", "method"), *(Column(way, way, ".4g", cited=True) for way in ways)]
    return make_table("Published times in ms, and memory", columns, rows)
