"""The recorded run of the experiments says what the project says about it."""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path

import pytest

from pmaf.paper.experiments.timing import OURS, PAPER
from pmaf.paper.report.quoted import LESS_CODE

RECORDED = Path(__file__).parent.parent / "benchmarks" / "results" / "paper"
PAGE = Path(__file__).parent.parent / "docs" / "results.md"

pytestmark = pytest.mark.skipif(not RECORDED.exists(), reason="an installed copy has no recorded results")


def read(name: str) -> list[dict[str, str]]:
    with (RECORDED / name).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("size", LESS_CODE, ids=lambda size: f"{size[0]}x{size[1]}")
def test_optimality_agrees_with_the_published_code(size: tuple[int, int]) -> None:
    rows = {row["method"]: row for row in read("less.csv") if (int(row["m"]), int(row["n"])) == size}
    for name, (inside, outside, better, percent) in LESS_CODE[size].items():
        row = rows[name]
        counts = [int(row[column]) for column in ("failed_inside", "failed_outside", "better")]
        # Rounding decides some, and with other draws the counts of 1000 problems would scatter by √(np(1 − p)) ≤ 16.
        assert counts == pytest.approx([inside, outside, better], abs=30), name
        if percent > 0.01:
            assert float(row["mean_diff_percent"]) == pytest.approx(percent, rel=0.3), name


def test_every_optimum_is_certified_and_secular_finds_it() -> None:
    rows = read("less.csv")
    assert {(row["size"], row["problems"]) for row in rows} == {
        ("2×2", "1000"),
        ("9×9", "1000"),
        ("64×32", "1000"),
        ("1024×256", "1000"),
    }
    assert all(row["certified"] == row["problems"] for row in rows)
    assert all(row["above"] == "0" for row in rows if row["method"] == "Secular")


def test_the_readme_counts_as_the_table_does() -> None:
    above = {row["size"]: row["above"] for row in read("less.csv") if row["method"] == "PGD+RM+TWD"}
    text = " ".join((PAGE.parent.parent / "README.md").read_text("utf-8").split())
    assert f"ends above the certified optimum in {above['2×2']}, {above['64×32']} and {above['1024×256']};" in text
    assert f"of 1000 of size 9×9, which the paper does not have, in {above['9×9']};" in text
    (best,) = [row["above"] for row in read("less.csv") if (row["size"], row["method"]) == ("9×9", "PGD+RM+BLSOne")]
    assert f"problems of size 9×9 on the sphere, the paper's best method leaves {best} above" in text
    eigh = next(row for row in read("learning.csv") if row["head"] == "eigh")
    assert f"{eigh['lost_steps']} of {int(eigh['steps']):,} training steps" in text
    assert f"(float32, {eigh['seeds']} seeds)" in text
    small = [float(row["ratio"]) for row in read("ied_speed.csv") if row["batch"] == "1" and int(row["n"]) <= 16]
    assert f"`pmaf` is {min(small):.2f} to {max(small):.2f} times as fast there" in text


def test_pmaf_is_ahead_of_every_method_of_the_paper_at_every_order() -> None:
    rows = read("ied_timing.csv")
    assert {int(row["m"]) for row in rows} == {32, 64, 128, 256, 512, 1024}
    for row in rows:
        if row["method"] in PAPER:
            (ours,) = (other for other in rows if (other["m"], other["method"]) == (row["m"], OURS))
            for column in ("total", "error"):
                assert float(ours[column]) < float(row[column]), (row["method"], row["m"], column)


def test_pmaf_loses_no_step_and_torch_does() -> None:
    rows = read("learning.csv")
    assert all(row["lost_steps"] == "0" for row in rows if row["head"] != "eigh")
    assert any(int(row["lost_steps"]) > 0 for row in rows if row["head"] == "eigh")


def test_the_page_is_what_the_tables_give() -> None:
    pytest.importorskip("jinja2")
    tool = PAGE.parent.parent / "tools" / "record_results.py"
    spec = importlib.util.spec_from_file_location("record_results", tool)
    assert spec is not None
    assert spec.loader is not None
    record = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(record)
    assert record.page() == PAGE.read_text("utf-8")


def test_one_version_everywhere() -> None:
    import pmaf

    root = PAGE.parent.parent
    assert f"version: {pmaf.__version__}\n" in (root / "CITATION.cff").read_text("utf-8")
    assert f"\n## [{pmaf.__version__}]" in (root / "CHANGELOG.md").read_text("utf-8")


def test_every_benchmark_is_listed_with_its_table_and_what_is_older() -> None:
    folder = PAGE.parent.parent / "benchmarks"
    lines = (folder / "README.md").read_text("utf-8").splitlines()
    (usual,) = (line for line in lines if line.startswith("Unless a row says otherwise"))
    for script in folder.glob("*.py"):
        assert any(f"`{script.name}`" in line for line in lines), script.name
    for table in (folder / "results").glob("*.csv"):
        (line,) = (line for line in lines if f"`{table.name}`" in line)
        with table.open(encoding="utf-8") as file:
            versions = {row.get("versions") for row in csv.DictReader(file)}
        days = {told.rpartition(", ")[2] for told in versions if told}
        assert all(day in usual or day in line for day in days), table.name
