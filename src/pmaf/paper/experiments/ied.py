"""The eigen decomposition experiments: precision and timing, kept in parts and written as CSV and JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch

from pmaf.errors import MissingExtraError
from pmaf.paper.experiments.matrices import DISTRIBUTIONS
from pmaf.paper.experiments.parts import part, write_csv, write_whole
from pmaf.paper.experiments.precision import Precision, precision
from pmaf.paper.experiments.timing import DENSE, METHODS, Timing, timing
from pmaf.progress import Report

__all__ = ["IEDResult", "IEDSettings", "run_ied"]


class IEDSettings(NamedTuple):
    """What to run: orders, how many seeds and runs, and up to which order the dense Jacobians are formed."""

    orders: tuple[int, ...] = (32, 64, 128, 256, 512, 1024)
    seeds: int = 100
    runs: int = 20
    dense_orders: int = 256

    @classmethod
    def quick(cls) -> IEDSettings:
        """Smaller matrices, fewer seeds and runs."""
        return cls(orders=(32, 64, 128, 256, 512), seeds=3, runs=7, dense_orders=64)


class IEDResult(NamedTuple):
    """All rows, and the sentences about what could not be run."""

    settings: IEDSettings
    precision: list[Precision]
    timing: list[Timing]
    missing: list[str]


def run_ied(out: Path, settings: IEDSettings, report: Report | None = None) -> IEDResult:
    """Measure precision and timing, keep finished parts, and write ``ied_*.csv`` and ``ied.json``.

    Args:
        out: folder for the results.
        settings: what to run.
        report: called with the work done, the work in all, and what is being run.

    Returns:
        The results.
    """
    result = IEDResult(settings, [], [], [])
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    plan: list[tuple[str, dict[str, Any]]] = [
        ("precision", {"distribution": distribution, "m": m, "seeds": settings.seeds})
        for distribution in DISTRIBUTIONS
        for m in settings.orders
    ]
    plan += [
        (
            "timing",
            {
                "m": m,
                "runs": settings.runs,
                "methods": [name for name in METHODS if name not in DENSE or m <= settings.dense_orders],
                "device": device,
            },
        )
        for device in devices
        for m in settings.orders
    ]
    absent: set[str] = set()
    costs = [_cost(**asked) for _, asked in plan]
    for number, (kind, asked) in enumerate(plan):
        what = f"{kind} {asked.get('distribution') or asked['device']} {asked['m']}"
        if report is not None:
            report(sum(costs[:number]), sum(costs), what)
        if asked.get("distribution") in absent:
            continue
        name = f"ied-{what}".replace(" ", "-")
        try:
            found = part(out / "parts", name, asked, lambda k=kind, a=asked: _compute(k, a))  # type: ignore[misc]
        except MissingExtraError as error:
            absent.add(asked["distribution"])
            result.missing.append(str(error))
            continue
        if kind == "precision":
            result.precision.extend(Precision(**row) for row in found["rows"])
        else:
            result.timing.extend(Timing(**row) for row in found["rows"])
    if report is not None:
        report(sum(costs), sum(costs))
    _write(out, result)
    return result


def _cost(m: int, *, seeds: int = 0, runs: int = 0, **_: Any) -> int:
    """What a part costs, roughly: a timed run tries more methods than a seed, and knows the exact gradient besides."""
    return (m + 32) ** 2 * (seeds + 5 * runs)


def _compute(kind: str, asked: dict[str, Any]) -> dict[str, Any]:
    if kind == "precision":
        return {"rows": [row._asdict() for row in precision(**asked)]}
    return {"rows": [row._asdict() for row in timing(**asked)]}


def _write(out: Path, result: IEDResult) -> None:
    for name, fields, rows in (
        ("precision", Precision._fields, result.precision),
        ("timing", Timing._fields, result.timing),
    ):
        write_csv(out / f"ied_{name}.csv", fields, rows)
    kept = {
        "settings": result.settings._asdict(),
        "precision": [row._asdict() for row in result.precision],
        "timing": [row._asdict() for row in result.timing],
        "missing": result.missing,
    }
    write_whole(out / "ied.json", json.dumps(kept, indent=1))
