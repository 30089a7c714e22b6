"""Tables of the solvers, written from what the solvers say of themselves."""

from pathlib import Path

from pmaf import solvers

HEAD = "| solver | short name | needs | k | order | dtypes | start | waits for the device | use it for |"


def write(folder: Path) -> None:
    """Write the table of each problem, and the list of classes for the reference."""
    folder.mkdir(exist_ok=True)
    for problem, table in (("sphere", solvers.SPHERE), ("eigen", solvers.EIGEN)):
        lines = [HEAD, "|---" * HEAD.count(" |") + "|", *map(row, table.values())]
        (folder / f"{problem}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
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
