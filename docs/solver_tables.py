"""Tables of the solvers, written from what the solvers say of themselves."""

import csv
from pathlib import Path

from pmaf import solvers

RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"
HEAD = "| solver | short name | needs | k | order | dtypes | start | waits for the device | use it for |"


def write(folder: Path) -> None:
    """Write the table of each problem, and the list of classes for the reference."""
    folder.mkdir(exist_ok=True)
    for problem, table in (("sphere", solvers.SPHERE), ("eigen", solvers.EIGEN)):
        lines = [HEAD, "|---" * HEAD.count(" |") + "|", *map(row, table.values())]
        (folder / f"{problem}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "best.md").write_text(best(), encoding="utf-8")
    names = [cls.__name__ for cls in (*solvers.SPHERE.values(), *solvers.EIGEN.values())]
    names += ["ExactStep", "Backtracking", "TangentDecay"]
    text = "".join(f".. autoclass:: pmaf.solvers.{name}\n" for name in names)
    (folder / "classes.rst").write_text(text, encoding="utf-8")


def row(cls: type[solvers.base.Solver]) -> str:
    """One solver."""
    cells = (
        f"{{class}}`~pmaf.solvers.{cls.__name__}`",
        f"`{cls.name}`",
        cls.needs,
        "any" if cls.largest_k is None else f"≤ {cls.largest_k}",
        "any" if cls.largest_n is None else f"≤ {cls.largest_n}",
        cls.dtypes,
        "yes" if cls.takes_start else "no",
        "yes" if cls.waits else "no",
        cls.use,
    )
    return f"| {' | '.join(cells)} |"


def best() -> str:
    """For every solver the recorded cases in which it is the fastest that answers right, and the next one."""
    with (RESULTS / "solvers.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["right"] == "True"]
    head = "| solver | is the best for | kernels | ms | the next | takes times as long |"
    lines = [head, "|---" * (head.count("|") - 1) + "|"]
    for name, cls in (*solvers.SPHERE.items(), *solvers.EIGEN.items()):
        wins = [row for row in rows if row["solver"] == name and float(row["times_the_best"]) == 1]
        for win in wins:
            here = [row for row in rows if (row["case"], row["kernels"]) == (win["case"], win["kernels"])]
            others = sorted(here, key=lambda row: float(row["times_the_best"]))[1:]
            after = f"`{others[0]['solver']}` | {float(others[0]['times_the_best']):.3g}" if others else "none | "
            time = float(win["forward_ms"]) + float(win["backward_ms"])
            lines.append(
                f"| {{class}}`~pmaf.solvers.{cls.__name__}` | {win['case']} | {win['kernels']} | {time:.3g} | {after} |"
            )
    return "\n".join(lines) + "\n"
