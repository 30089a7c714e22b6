"""The time left: judged by the work of this run, and said where there is no terminal too."""

from __future__ import annotations

import pytest

pytest.importorskip("rich")

from pmaf.cli import progress


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)


def test_what_an_earlier_run_left_does_not_count_as_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    pace = progress._Pace()
    assert pace.left() is None
    for done in range(0, 60, 10):  # read from disk, at once
        clock.now += 0.001
        pace.update(done, 100)
    assert pace.left() is None
    for done in (60, 70):
        clock.now += 40.0
        pace.update(done, 100)
    assert pace.left() == pytest.approx(120, rel=1e-3)
    clock.now += 15.0
    assert pace.left() == pytest.approx(105, rel=1e-3)


def test_a_log_file_gets_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock(monkeypatch)
    with progress.items_bar("less", share=True) as report:
        for done in range(5):
            report(done, 8, "2×2")
            clock.now += 20.0
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["less 2×2: 25 %, 0:02:00 left", "less 2×2: 50 %, 0:01:20 left"]
