"""The experiments of the paper in miniature, from the plan to the page, and what happens when something goes wrong."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("scipy")
pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")
pytest.importorskip("threadpoolctl")

from threadpoolctl import threadpool_info, threadpool_limits

from pmaf.cli.commands import parse_size
from pmaf.errors import MissingExtraError
from pmaf.paper import reproduce as reproduction
from pmaf.paper.experiments import parts
from pmaf.paper.experiments.base import Column, Experiment, Options, Row, Task
from pmaf.paper.experiments.environment import one_thread
from pmaf.paper.experiments.inverse import leading_by_inverse
from pmaf.paper.experiments.less import CASES, OPTIMALITY
from pmaf.paper.experiments.measure import reference_gradient
from pmaf.paper.experiments.parts import part
from pmaf.paper.experiments.peers import COLUMNS, bench, write_bench
from pmaf.paper.experiments.precision import DISTRIBUTIONS, PRECISION, precision, random_matrices
from pmaf.paper.experiments.registry import EXPERIMENTS
from pmaf.paper.experiments.speed import SPEED, speed
from pmaf.paper.experiments.timing import DENSE, METHODS, TIMING, timing
from pmaf.paper.report.facts import provenance
from pmaf.paper.report.page import write_found, write_page
from pmaf.paper.report.tables import make_table, markdown, tables
from pmaf.paper.reproduce import reproduce, run
from pmaf.solvers import PowerIteration


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def less(out: Path, problems: int, *sizes: tuple[int, int], methods: tuple[str, ...] = ()) -> list[Row]:
    options = Options(sizes=sizes, problems=problems, methods=methods)
    found = run(OPTIMALITY, OPTIMALITY.plan(options), out, "pmaf reproduce less")
    return write_found(out, found).rows


class TestLESS:
    def test_table_file_and_page(self, tmp_path: Path) -> None:
        methods = ("SciPy", "PGD", "PGD+RM+TWD", "Secular")
        rows = less(tmp_path, 20, (2, 2), methods=methods)
        write_found(tmp_path, run(CASES, [Task("one", {"seeds": [19]})], tmp_path, "pmaf reproduce less"))
        assert [row["method"] for row in read(tmp_path / "less.csv")] == list(methods)
        assert rows[-1]["above"] == 0
        assert rows[-1]["certified"] == rows[-1]["problems"] == 20
        text = write_page(tmp_path).read_text("utf-8")
        for piece in ("Seed 19", 'class="cited"', "code failed in", "<math", 'href="less.csv"', ">pmaf</h4>"):
            assert piece in text

    def test_parts_add_up_and_other_sizes_stay(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        methods = ("PGD", "Secular")
        (whole, _) = less(tmp_path / "whole", 12, (3, 3), methods=methods)
        monkeypatch.setattr("pmaf.paper.experiments.less._PART", 5)
        (split, _) = less(tmp_path / "split", 12, (3, 3), methods=methods)
        # in float32 rounding decides when a method stops, and a batch of another size may round differently
        for count in ("failed_inside", "failed_outside", "better", "above"):
            assert split[count] == pytest.approx(whole[count], abs=1)
        assert split["problems"] == whole["problems"]
        assert split["mean_diff_percent"] == pytest.approx(whole["mean_diff_percent"], rel=1e-3)
        assert split["mean_steps"] == pytest.approx(whole["mean_steps"], rel=0.1)
        assert len(list((tmp_path / "split" / "parts").iterdir())) == 3
        more = less(tmp_path / "split", 3, (2, 2), methods=methods)
        assert [row["size"] for row in more] == ["3×3", "3×3", "2×2", "2×2"]
        assert more[0] == split

    @pytest.mark.parametrize("size", ["64", "0x3", "axb", "3x", ""])
    def test_sizes_are_read_or_refused(self, size: str) -> None:
        assert [parse_size(said) for said in ("64x32", "2X2", "3×4")] == [(64, 32), (2, 2), (3, 4)]
        with pytest.raises(ValueError, match="a size is given as MxN"):
            parse_size(size)


def test_the_number_of_problems_holds_for_the_usual_sizes_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pmaf.paper.experiments.less._QUICK", ((2, 2, 1000), (3, 2, 500)))
    reproduce(["less"], out=tmp_path, quick=True, problems=3, methods=["Secular"])
    assert [(row["size"], row["problems"]) for row in read(tmp_path / "less.csv")] == [("2×2", "3"), ("3×2", "3")]
    (made, _) = read(tmp_path / "environment.csv")
    assert made["command"] == "pmaf reproduce less --quick --problems 3 --methods Secular"
    with pytest.raises(ValueError, match="the number of problems must be at least 1, not 0"):
        reproduce(["less"], out=tmp_path, quick=True, problems=0)


def counting(**changes: Any) -> tuple[Experiment, list[int]]:
    """An experiment that says how often it computed, and on how many threads."""
    threads: list[int] = []

    def compute(value: int) -> list[Row]:
        threads.append(torch.get_num_threads())
        return [{"value": value}]

    options: dict[str, Any] = {
        "columns": (Column("value", "value", "d"),),
        "plan": lambda options: [Task("a", {"value": 1})],
    }
    return Experiment("ied_speed", "ied", "Counting", compute=compute, **(options | changes)), threads


class TestParts:
    def test_what_is_done_is_used_again_until_fresh_is_asked_for(self, tmp_path: Path) -> None:
        experiment, computed = counting()
        first, again = (part(tmp_path, experiment, Task("a", {"value": 1})) for _ in range(2))
        assert again.rows == first.rows
        assert (first.made["replayed"], again.made["replayed"]) == (False, True)
        assert again.made["date"] == first.made["date"]
        assert len(computed) == 1
        assert not part(tmp_path, experiment, Task("a", {"value": 1}), fresh=True).made["replayed"]
        part(tmp_path, experiment, Task("a", {"value": 2}))
        assert len(computed) == 3

    @pytest.mark.parametrize("timed", [True, False])
    def test_only_times_are_of_one_processor_and_one_thread(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, timed: bool
    ) -> None:
        experiment, computed = counting(timed=timed)
        before = torch.get_num_threads()
        torch.set_num_threads(2)
        try:
            part(tmp_path, experiment, Task("a", {"value": 1}))
            monkeypatch.setattr(parts, "processor", lambda: "another one")
            part(tmp_path, experiment, Task("a", {"value": 1}))
            assert torch.get_num_threads() == 2
        finally:
            torch.set_num_threads(before)
        assert computed == ([1, 1] if timed else [2])

    def test_one_thread_holds_for_the_peers_too(self) -> None:
        """NumPy's and SciPy's BLAS have threads of their own, which torch does not govern."""
        with threadpool_limits(2), one_thread():
            assert all(pool["num_threads"] == 1 for pool in threadpool_info())

    def test_threads_come_back_after_a_failure(self) -> None:
        before = torch.get_num_threads()
        with pytest.raises(RuntimeError), one_thread():
            raise RuntimeError
        assert torch.get_num_threads() == before

    def test_a_damaged_part_is_computed_anew(self, tmp_path: Path) -> None:
        experiment, computed = counting()
        part(tmp_path, experiment, Task("a", {"value": 1}))
        (path,) = tmp_path.iterdir()
        path.write_text(path.read_text()[:-20])
        assert part(tmp_path, experiment, Task("a", {"value": 1})).rows == [{"value": 1}]
        assert len(computed) == 2


def test_a_replay_says_so_on_the_page(tmp_path: Path) -> None:
    task = [Task("3x3", {"batch": 3, "n": 3, "seconds": 0.0})]
    write_found(tmp_path, run(SPEED, task, tmp_path, "pmaf reproduce ied"))
    assert "Replayed" not in write_page(tmp_path).read_text("utf-8")
    found = write_found(tmp_path, run(SPEED, task, tmp_path, "pmaf reproduce ied"))
    assert provenance(found)["replayed"] == 1
    assert "Replayed: 1 of 1 parts" in write_page(tmp_path).read_text("utf-8")
    write_found(tmp_path, run(SPEED, task, tmp_path, "pmaf reproduce ied", fresh=True))
    assert "Replayed" not in write_page(tmp_path).read_text("utf-8")


def test_an_experiment_that_cannot_run_leaves_a_note_and_the_others_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(**settings: Any) -> list[Row]:
        raise MissingExtraError("Features of photographs needs skimage: pip install 'pmaf[examples]'")

    broken = Experiment("ied_speed", "ied", "Broken", lambda options: [Task("a", {})], absent, SPEED.columns)
    cases = Experiment(**(vars(CASES) | {"plan": lambda options: [Task("one", {"seeds": [19]})]}))
    monkeypatch.setattr(reproduction, "EXPERIMENTS", (broken, cases))
    page, tables = reproduce(["ied", "less"], out=tmp_path, quick=True)
    text = page.read_text("utf-8")
    assert tables[-1].title == "Case studies in the plane"
    assert "This part could not be run. Features of photographs needs skimage" in text
    assert "Seed 19" in text
    with pytest.raises(MissingExtraError):
        reproduce(["ied"], out=tmp_path)


class TestIED:
    def test_files_and_page(self, tmp_path: Path) -> None:
        methods = [name for name in METHODS if name not in DENSE]
        tasks = [
            Task(f"cpu-{m}", {"m": m, "runs": 1, "methods": names, "device": "cpu"})
            for m, names in ((6, list(METHODS)), (8, methods))
        ]
        timed = write_found(tmp_path, run(TIMING, tasks, tmp_path, "pmaf reproduce ied"))
        assert {row["m"] for row in timed.rows if row["method"] == "PI-DDN-J"} == {6}
        tasks = [
            Task(f"{d}-{m}", {"distribution": d, "m": m, "seeds": 2}) for d in list(DISTRIBUTIONS)[:2] for m in (6, 8)
        ]
        solved = write_found(tmp_path, run(PRECISION, tasks, tmp_path, "pmaf reproduce ied"))
        assert all(row["matrices"] == 10 for row in solved.rows)
        assert max(row["fixed_point_gap"] for row in solved.rows) < 1e-5
        text = write_page(tmp_path).read_text("utf-8")
        for piece in (
            "Published times",
            "eigh + autograd",
            'id="duels"',
            "No GPU is seen" * (not torch.cuda.is_available()),
        ):
            assert piece in text
        assert "AutoDiff" not in text.replace("The paper calls “eigh + autograd” AutoDiff-unroll", "")
        assert len(read(tmp_path / "ied_timing.csv")) == len(timed.rows)

    def test_every_pairing_gives_the_gradient(self) -> None:
        rows = timing(12, 2, list(METHODS))
        assert [row["method"] for row in rows] == list(METHODS)
        for row in rows:
            assert row["error"] <= row["worst"] < (0.1 if "DDN-E" in row["method"] else 1e-3), row["method"]
            assert min(row["forward"], row["backward"]) > 0
            assert row["backward_mb"] > 0

    def test_the_inverse_of_a_singular_matrix_costs_digits_that_the_bordered_system_keeps(self) -> None:
        rows = {row["method"]: row for row in timing(64, 3, ["PI-DDN-E", "PI, pmaf gradient"])}
        assert rows["PI-DDN-E"]["error"] > 100 * rows["PI, pmaf gradient"]["error"]

    def test_the_formula_by_the_letter_is_the_gradient_where_rounding_does_not_hide_it(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("pmaf.paper.experiments.inverse.SHIFT", 1e-6)
        X = random_matrices("gaussian", 7, 0).double().requires_grad_()
        c = torch.randn(5, 7, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        u = leading_by_inverse(PowerIteration(max_steps=5000, rtol=1e-14))(X)
        (gradient,) = torch.autograd.grad(((u * c).sum(-2) ** 2).sum(), X)
        torch.testing.assert_close(gradient, reference_gradient(X.detach(), c @ c.mT), rtol=1e-4, atol=1e-6)

    @pytest.mark.parametrize("k", [1, 3])
    def test_reference_gradient_is_that_of_autograd(self, k: int) -> None:
        X = random_matrices("gaussian", 7, 0).double().requires_grad_()
        C = torch.randn(5, 7, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        C = C + C.mT
        U = torch.linalg.eigh(X).eigenvectors[..., -k:]
        (gradient,) = torch.autograd.grad(((C @ U) * U).sum(), X)
        assert torch.allclose(reference_gradient(X.detach(), C, k), (gradient + gradient.mT) / 2, atol=1e-9)

    @pytest.mark.parametrize("distribution", [name for name in DISTRIBUTIONS if name != "features"])
    def test_matrices_are_symmetric_non_negative_and_repeatable(self, distribution: str) -> None:
        X = random_matrices(distribution, 5, 3)
        assert X.shape == (5, 5, 5)
        assert torch.equal(X, X.mT)
        assert float(X.min()) >= 0
        assert torch.equal(X, random_matrices(distribution, 5, 3))
        assert {row["method"] for row in precision(distribution, 5, 1)} == {"eigh", "PI", "SI", "pmaf"}

    @pytest.mark.slow
    def test_features_of_photographs(self) -> None:
        pytest.importorskip("skimage")
        pytest.importorskip("efficientnet_lite_pytorch")
        X = random_matrices("features", 16, 0)
        assert torch.equal(X, X.mT)
        assert float(X.std()) > 0

    def test_speed_compares_within_a_turn(self) -> None:
        (row,) = speed(4, 3, 0.0)
        assert row["shape"] == "4 × 3×3"
        assert 0 < row["low"] <= row["ratio"] <= row["high"]
        assert max(row["eigh_error"], row["pmaf_error"]) < 1e-3


def test_peers_side_by_side(tmp_path: Path) -> None:
    rows = bench(rounds=1, tasks=((3, 12, 2),))
    ours = [row for row in rows if row["method"] == "pmaf"]
    assert len(ours) == 2
    assert all(row["ratio"] == 1.0 for row in ours)
    assert ours[0]["error"] < 1e-3
    write_bench(tmp_path / "bench.json", rows)
    assert len(json.loads((tmp_path / "bench.json").read_text())["rows"]) == len(rows)
    assert len(make_table("", COLUMNS, rows).texts) == len(rows)


class TestTables:
    COLUMNS = (
        Column("method", "method"),
        Column("m", "m", "d"),
        Column("time", "ms", ".3g", 1e3, "least"),
        Column("hidden"),
        Column("theirs", "theirs", "d", cited=True),
    )
    ROWS = ({"method": "pmaf", "m": 1, "time": 0.5}, {"method": "a & b", "m": 1, "time": 2.5}, {"method": "c", "m": 2})

    def test_one_specification_gives_cells_and_markdown(self) -> None:
        table = make_table("t", self.COLUMNS, self.ROWS, group="m", ours=("pmaf",))
        assert table.header == ["method", "m", "ms"]  # what nobody has a number for is no column
        assert table.texts == [["pmaf", "1", "500"], ["a & b", "1", "2500"], ["c", "2", "–"]]
        assert [row[2].best for row in table.rows] == [True, False, False]
        assert markdown(table).splitlines()[2] == "| **pmaf** | **1** | **500** |"

    def test_a_group_without_a_column_parts_the_table(self) -> None:
        experiment, _ = counting(columns=(Column("method", "method"),), group="m")
        assert [table.title for table in tables(experiment, self.ROWS)] == ["1: counting", "2: counting"]
        assert len(tables(counting(columns=self.COLUMNS, group="m")[0], self.ROWS)) == 1
        assert tables(experiment, []) == []

    @pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda experiment: experiment.key)
    def test_every_experiment_is_declared_whole(self, experiment: Experiment) -> None:
        for quick in (True, False):
            tasks = experiment.plan(Options(quick=quick))
            assert len({task.name for task in tasks}) == len(tasks) > 0
            assert all(task.cost > 0 for task in tasks)
            json.dumps([task.settings for task in tasks])
        keys = [column.key for column in experiment.columns]
        assert len(set(keys)) == len(keys)
        assert experiment.columns[0].title
