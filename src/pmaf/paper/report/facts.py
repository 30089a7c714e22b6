"""What the sentences of the report say in numbers: drawn from the rows here, put into words in the templates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pmaf.paper.experiments.base import Column, Found, Row, grouped
from pmaf.paper.experiments.less import PAPER
from pmaf.paper.experiments.timing import OURS
from pmaf.paper.experiments.timing import PAPER as PAIRINGS

__all__ = ["DUELS", "duels", "facts", "provenance"]


def facts(found: Mapping[str, Found]) -> dict[str, Any]:
    """The facts of every experiment that has rows, by its key."""
    return {key: _FACTS[key](result.rows) for key, result in found.items() if result.rows and key in _FACTS}


def _above(rows: Sequence[Row]) -> dict[str, Any]:
    """Problems that end above the certified optimum: the paper's best method over all sizes, and pmaf's."""
    above = {name: sum(row["above"] for row in own) for name, own in grouped(rows, "method").items()}
    best = min((name for name in PAPER if name in above), key=above.__getitem__, default=None)
    sizes = [
        {key: own[0][key] for key in ("size", "problems", "certified")} | {row["method"]: row for row in own}
        for own in grouped(rows, "size").values()
    ]
    return {
        "best": best,
        "best_above": above[best] if best else None,
        "ours_above": above.get("Secular"),
        "problems": sum(size["problems"] for size in sizes),
        "sizes": sizes,
        "steady": "PGD+RM+TWD" if "PGD+RM+TWD" in above else None,
    }


def _speed(rows: Sequence[Row]) -> dict[str, Any]:
    ranked = sorted(rows, key=lambda row: row["ratio"])
    return {
        "ahead": [row for row in rows if row["ratio"] >= 1],
        "behind": [row for row in rows if row["ratio"] < 1],
        "least": ranked[0],
        "most": ranked[-1],
        "middle": ranked[len(ranked) // 2]["ratio"],
        "shapes": len(rows),
    }


DUELS = (
    Column("m", "m", "d"),
    Column("ours", "pmaf ms", ".3g", 1e3),
    Column("theirs", "fastest of the paper’s ms", ".3g", 1e3),
    Column("fastest", "which"),
    Column("faster", "times as fast", ".2f"),
    Column("ours_error", "pmaf error", ".1e"),
    Column("their_error", "most exact of the paper’s", ".1e"),
    Column("exactest", "which"),
    Column("more_exact", "times as exact", ".2f"),
)


def duels(rows: Sequence[Row]) -> list[Row]:
    """Pmaf's default against the best of the paper's methods, at each order and on each device."""
    found = []
    for (device, m), same in sorted(grouped(rows, "device", "m").items()):
        methods = {row["method"]: row for row in same}
        ours, paper = methods.get(OURS), [methods[name] for name in PAIRINGS if name in methods]
        if ours is None or not paper:
            continue
        fastest, exactest = (min(paper, key=lambda row: float(row[key])) for key in ("total", "error"))
        row = {"device": device, "m": m, "ours": ours["total"], "ours_error": ours["error"]}
        row |= {"theirs": fastest["total"], "fastest": fastest["method"], "faster": fastest["total"] / ours["total"]}
        row |= {"their_error": exactest["error"], "exactest": exactest["method"]}
        found.append(row | {"more_exact": exactest["error"] / ours["error"]})
    return found


def _timing(rows: Sequence[Row]) -> dict[str, Any]:
    """From which order on pmaf is ahead in time and exactness, on the first device, and the orders before."""
    own = [duel for duel in duels(rows) if duel["device"] == rows[0]["device"]]
    behind = [i for i, duel in enumerate(own) if min(duel["faster"], duel["more_exact"]) < 1]
    ahead = own[behind[-1] + 1 :] if behind else own
    return {"since": ahead[0]["m"] if ahead else None, "before": [duel for duel in own if duel not in ahead]}


def _precision(rows: Sequence[Row]) -> dict[str, Any]:
    ours = [row for row in rows if row["method"] == "pmaf"]
    return {
        "failed": sum(row["failed"] for row in ours),
        "solved": sum(row["matrices"] for row in ours),
        "worst": max(row["eigen_gap"] for row in ours),
        "seeds": max(row["matrices"] for row in ours) // 5,
    }


def _digits(rows: Sequence[Row]) -> dict[str, Any]:
    return {
        "by": {row["head"]: row for row in rows},
        "best": max(rows, key=lambda row: float(row["accuracy_mean"])),
        "losing": [row for row in rows if row["lost_steps"]],
        "training": rows[0]["runs"][0]["training"] if "runs" in rows[0] else None,
    }


def _stress(rows: Sequence[Row]) -> dict[str, Any]:
    dead = grouped((row for row in rows if row["rank"] < 32), "method")
    return {name: {key: sum(row[key] for row in own) for key in ("lost", "batches")} for name, own in dead.items()}


def _weights(rows: Sequence[Row]) -> dict[str, Any]:
    by_scene = grouped(rows, "scene").items()
    return {scene: {row["method"].split(", ")[-1]: row for row in own} for scene, own in by_scene}


_FACTS: dict[str, Callable[[Sequence[Row]], dict[str, Any]]] = {
    "less": _above,
    "ied_speed": _speed,
    "ied_timing": _timing,
    "ied_precision": _precision,
    "learning": _digits,
    "learning_stress": _stress,
    "learning_weights": _weights,
}


def provenance(found: Found) -> dict[str, Any]:
    """When, on what and under which load the parts of an experiment were computed, in few words."""
    made = found.made
    dates = sorted(part["date"] for part in made) or [""]
    loads = [f"{load:.1f}" for load in sorted(part["load"] for part in made if part["load"] is not None)]
    told = {"experiment": found.key, "command": found.command, "first": dates[0], "last": dates[-1]}
    told["load"] = " to ".join(dict.fromkeys(loads[:1] + loads[-1:]))
    for key in ("processor", "threads", "cores", "kernels", "gpu", "system", "python", "torch", "pmaf"):
        told[key] = ", ".join(dict.fromkeys(str(part[key]) for part in made if part.get(key) is not None))
    told["seconds"] = f"{sum(part['seconds'] for part in made):.0f}"
    return told | {"parts": len(made), "replayed": sum(part["replayed"] for part in made)}
