"""The experiments of the paper in miniature: optimality, precision and timing, and their sections."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

pytest.importorskip("scipy")
pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

from pmaf.errors import MissingExtraError
from pmaf.paper.experiments import ied as ied_experiment
from pmaf.paper.experiments.ied import IEDSettings, run_ied
from pmaf.paper.experiments.inverse import leading_by_inverse
from pmaf.paper.experiments.less import LESSSettings, parse_sizes, run_less
from pmaf.paper.experiments.matrices import DISTRIBUTIONS, random_matrices
from pmaf.paper.experiments.peers import bench, text_rows, write_bench
from pmaf.paper.experiments.timing import METHODS, reference_gradient, timing
from pmaf.paper.report.blocks import prose, section
from pmaf.paper.report.ied_section import ied_section
from pmaf.paper.report.less_section import less_section
from pmaf.paper.report.page import write_section
from pmaf.paper.reproduce import reproduce
from pmaf.solvers import PowerIteration


class TestLESS:
    def test_table_file_and_section(self, tmp_path: Path) -> None:
        settings = LESSSettings(sizes=((2, 2, 20),), methods=("SciPy", "PGD", "PGD+RM+TWD", "Secular"))
        result = run_less(tmp_path, settings)
        with (tmp_path / "less.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert list(rows[0]) == (
            [
                "m",
                "n",
                "method",
                "failed_inside",
                "failed_outside",
                "better",
                "mean_diff_percent",
                "mean_steps",
                "ms_per_problem",
            ]
        )
        assert [row["method"] for row in rows] == list(settings.methods)
        assert result.sizes[2, 2].missed["Secular"].problems == 0
        page = write_section(tmp_path, less_section(result, "pmaf reproduce less", seeds=(19,)))
        text = page.read_text("utf-8")
        assert "Seed 19" in text
        assert "pmaf reproduce less --size 1024x256" in text
        assert 'class="cited"' in text

    def test_parts_add_up_and_other_sizes_stay(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        methods = ("PGD", "Secular")
        whole = run_less(tmp_path / "whole", LESSSettings(sizes=((3, 3, 12),), methods=methods)).sizes[3, 3].rows[0]
        monkeypatch.setattr("pmaf.paper.experiments.less._PART", 5)
        split = run_less(tmp_path / "split", LESSSettings(sizes=((3, 3, 12),), methods=methods)).sizes[3, 3].rows[0]
        counts = ("failed_inside", "failed_outside", "better")
        assert [getattr(split, name) for name in counts] == [getattr(whole, name) for name in counts]
        assert split.mean_diff_percent == pytest.approx(whole.mean_diff_percent, rel=1e-3)
        assert split.mean_steps == pytest.approx(whole.mean_steps)
        assert len(list((tmp_path / "split" / "parts").iterdir())) == 3
        more = run_less(tmp_path / "split", LESSSettings(sizes=((2, 2, 3),), methods=methods))
        assert set(more.sizes) == {(3, 3), (2, 2)}
        assert more.sizes[3, 3].rows[0] == split

    @pytest.mark.parametrize("size", ["64", "0x3", "axb", "3x", ""])
    def test_sizes_are_read_or_refused(self, size: str) -> None:
        assert parse_sizes(["64x32", "2X2", "3×4"], 5) == ((64, 32, 5), (2, 2, 5), (3, 4, 5))
        with pytest.raises(ValueError, match="a size is given as MxN"):
            parse_sizes([size], 5)


def test_the_number_of_problems_holds_for_the_usual_sizes_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = ((2, 2, 1000), (3, 2, 500))
    monkeypatch.setattr(LESSSettings, "quick", classmethod(lambda cls: cls(sizes=usual)))
    page = reproduce(["less"], out=tmp_path, quick=True, problems=3, methods=["Secular"])
    held = json.loads((tmp_path / "less.json").read_text("utf-8"))["sizes"]
    assert [(size["m"], size["n"], size["problems"]) for size in held] == [(2, 2, 3), (3, 2, 3)]
    assert "pmaf reproduce less --quick --problems 3 --methods Secular" in page.read_text("utf-8")
    with pytest.raises(ValueError, match="the number of problems must be at least 1, not 0"):
        reproduce(["less"], out=tmp_path, quick=True, problems=0)


def test_an_experiment_that_cannot_run_leaves_a_note_and_the_others_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(out: Path, quick: bool, command: str) -> Path:
        raise MissingExtraError("The baseline needs scipy: pip install 'pmaf[cli]'")

    def present(out: Path, quick: bool, command: str) -> Path:
        return write_section(out, section("ied", "Eigen", [prose("it ran")], command, []))

    monkeypatch.setattr("pmaf.paper.reproduce.EXPERIMENTS", {"less": absent, "ied": present})
    text = reproduce(["less", "ied"], out=tmp_path, quick=True).read_text("utf-8")
    assert "This part could not be run. The baseline needs scipy" in text
    assert "it ran" in text
    with pytest.raises(MissingExtraError):
        reproduce(["less"], out=tmp_path)


class TestIED:
    def test_files_and_section(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ied_experiment, "DISTRIBUTIONS", ("gaussian", "integers"))
        result = run_ied(tmp_path, IEDSettings(orders=(6, 8), seeds=2, runs=1, dense_orders=6))
        assert {row.m for row in result.timing if row.method == "PI-DDN-J"} == {6}
        assert all(row.matrices == 10 for row in result.precision)
        assert max(row.fixed_point_gap for row in result.precision) < 1e-5
        text = write_section(tmp_path, ied_section(result, "pmaf reproduce ied")).read_text("utf-8")
        assert "Published times" in text
        assert "were left out at m = 8" in text
        if not torch.cuda.is_available():
            assert "No GPU is seen by torch here" in text
        assert len(json.loads((tmp_path / "ied.json").read_text())["timing"]) == len(result.timing)
        with (tmp_path / "ied_timing.csv").open() as file:
            assert len(list(csv.DictReader(file))) == len(result.timing)

    def test_a_missing_extra_is_said_and_the_rest_runs(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def absent(distribution: str, m: int, seeds: int) -> list[object]:
            raise MissingExtraError("Features of photographs needs skimage: pip install 'pmaf[examples]'")

        monkeypatch.setattr(ied_experiment, "DISTRIBUTIONS", ("features",))
        monkeypatch.setattr(ied_experiment, "precision", absent)
        result = run_ied(tmp_path, IEDSettings(orders=(4, 5), seeds=1, runs=1, dense_orders=4))
        assert len(result.missing) == 1
        assert result.timing
        text = write_section(tmp_path, ied_section(result, "pmaf reproduce ied")).read_text("utf-8")
        assert "pip install" in text

    def test_every_pairing_gives_the_gradient(self) -> None:
        rows = timing(12, 2, list(METHODS))
        assert [row.method for row in rows] == list(METHODS)
        for row in rows:
            assert row.error <= row.worst < (0.1 if "DDN-E" in row.method else 1e-3), row.method
            assert min(row.forward, row.backward) > 0
            assert row.backward_mb > 0

    def test_the_inverse_of_a_singular_matrix_costs_digits_that_the_bordered_system_keeps(self) -> None:
        rows = {row.method: row for row in timing(64, 3, ["PI-DDN-E", "PI, pmaf gradient"])}
        assert rows["PI-DDN-E"].error > 100 * rows["PI, pmaf gradient"].error

    def test_the_formula_by_the_letter_is_the_gradient_where_rounding_does_not_hide_it(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("pmaf.paper.experiments.inverse.SHIFT", 1e-6)
        X = random_matrices("gaussian", 7, 0).double().requires_grad_()
        c = torch.randn(5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        u = leading_by_inverse(PowerIteration(max_steps=5000, rtol=1e-14))(X)
        (gradient,) = torch.autograd.grad((u * c).sum(), X)
        torch.testing.assert_close(gradient, reference_gradient(X.detach(), c), rtol=1e-4, atol=1e-6)

    def test_reference_gradient_is_that_of_autograd(self) -> None:
        X = random_matrices("gaussian", 7, 0).double().requires_grad_()
        c = torch.randn(5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        u = torch.linalg.eigh(X).eigenvectors[..., -1]
        u = u * torch.where(u.sum(-1, keepdim=True) < 0, -1.0, 1.0)
        (gradient,) = torch.autograd.grad((u * c).sum(), X)
        assert torch.allclose(reference_gradient(X.detach(), c), (gradient + gradient.mT) / 2, atol=1e-10)

    @pytest.mark.parametrize("distribution", [name for name in DISTRIBUTIONS if name != "features"])
    def test_matrices_are_symmetric_non_negative_and_repeatable(self, distribution: str) -> None:
        X = random_matrices(distribution, 5, 3)
        assert X.shape == (5, 5, 5)
        assert torch.equal(X, X.mT)
        assert float(X.min()) >= 0
        assert torch.equal(X, random_matrices(distribution, 5, 3))

    @pytest.mark.slow
    def test_features_of_photographs(self) -> None:
        pytest.importorskip("skimage")
        pytest.importorskip("efficientnet_lite_pytorch")
        X = random_matrices("features", 16, 0)
        assert torch.equal(X, X.mT)
        assert float(X.std()) > 0


class TestBench:
    def test_rows_and_file(self, tmp_path: Path) -> None:
        rows = bench(rounds=1, tasks=((3, 12, 2),))
        ours = [row for row in rows if row.method == "pmaf"]
        assert len(ours) == 2
        assert all(row.ratio == 1.0 for row in ours)
        assert ours[0].error is not None
        assert ours[0].error < 1e-3
        write_bench(tmp_path / "bench.json", rows)
        assert len(json.loads((tmp_path / "bench.json").read_text())["rows"]) == len(rows)
        assert all(isinstance(text, str) for row in text_rows(rows) for text in row)


def test_versions_and_the_command_stand_beside_the_tables(tmp_path: Path) -> None:
    write_section(tmp_path, section("ied", "Eigen", [], "pmaf reproduce ied", [("torch", "2.13, with a comma")]))
    with (tmp_path / "ied_environment.csv").open() as file:
        assert list(csv.reader(file)) == [
            ["what", "value"],
            ["command", "pmaf reproduce ied"],
            ["torch", "2.13, with a comma"],
        ]
