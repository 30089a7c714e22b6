"""Files of problems, shared, killed, interrupted, short of room: the bytes are those of one quiet run."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch

import pmaf as library

pytest.importorskip("typer")

from pmaf.cli.batches import solve_ied_file, solve_less_files, solve_svd_file
from pmaf.cli.files import FileError, Source, UnreachableError
from pmaf.cli.parts import Parts
from pmaf.cli.plan import Plan
from pmaf.cli.progress import items_bar
from pmaf.cli.ranks import Alone, Job
from pmaf.cli.summary import Summary
from pmaf.cli.work import Interrupted, Run
from pmaf.errors import MissingExtraError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and limits are others")

Solve = Callable[[Path, Run], Summary | None]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "A.npy", rng.normal(size=(40, 6, 4)))
    np.save(tmp_path / "b.npy", rng.normal(size=(40, 6)))
    F = rng.normal(size=(5, 8, 4, 4)).astype(np.float32)
    np.save(tmp_path / "X.npy", F + F.swapaxes(-1, -2))
    return tmp_path


def less(output: Path, run: Run) -> Summary | None:
    return solve_less_files(output.parent / "A.npy", output.parent / "b.npy", output, run=run)


def ied(output: Path, run: Run) -> Summary | None:
    return solve_ied_file(output.parent / "X.npy", 2, output, run=run)


def svd(output: Path, run: Run) -> Summary | None:
    return solve_svd_file(output.parent / "A.npy", 2, output, run=run)


def content(path: Path) -> dict[str, bytes]:
    """The bytes of a file, or of all files of a folder."""
    if path.is_file():
        return {"": path.read_bytes()}
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def parts(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name.startswith("."))


def recorded(folder: Path) -> int:
    return sum(file.read_bytes().count(b"\n") for path in parts(folder) for file in path.glob("done-*"))


class Calls:
    """Counts the calls of a function of the library, and does something else at one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str, at: int = 0, act: Callable[[], Any] = int) -> None:
        real, self.count = getattr(library, name), 0

        def counted(*arguments: Any, **options: Any) -> Any:
            self.count += 1
            if self.count == at:
                act()
            return real(*arguments, **options)

        monkeypatch.setattr(library, name, counted)


def raising(error: BaseException) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


@pytest.mark.parametrize("batch", [(), (7,), (3, 4), (2, 3, 5), (4, 1, 3), (1, 1), (0,), (3, 0, 2)], ids=str)
@pytest.mark.parametrize("size", [1, 2, 4, 7, 100])
def test_cells_cover_the_batch_in_order(batch: tuple[int, ...], size: int) -> None:
    plan, numbers = Plan(batch, size), np.arange(np.prod(batch, dtype=int)).reshape(batch)
    cells = [plan[at] for at in range(len(plan))]
    assert [item for cell in cells for item in numbers[cell.box].reshape(-1)] == list(range(plan.items))
    for cell in cells:
        assert numbers[cell.box].reshape(-1).tolist() == list(range(cell.start, cell.stop))
        assert cell.stop - cell.start <= size
        assert all(part.start % chunk == 0 for part, chunk in zip(cell.box, plan.chunk, strict=True))
    with pytest.raises(IndexError):
        plan[len(plan)]


@pytest.mark.parametrize(
    ("solve", "name"), [(less, "u.npy"), (less, "u.npz"), (ied, "e.pt"), (ied, "e.zarr"), (svd, "s.npz")]
)
def test_the_bytes_are_those_of_one_process(folder: Path, solve: Solve, name: str) -> None:
    if name.endswith(".zarr"):
        pytest.importorskip("zarr")
    single, shared = folder / f"single_{name}", folder / name
    alone = solve(single, Run(chunk=7))
    store = torch.distributed.HashStore()
    found: list[Summary | None] = [None] * 3
    seen: list[tuple[int, int]] = []

    def rank(number: int) -> None:
        run = Run(chunk=7, job=Job(store, number, 3), report=lambda done, of: seen.append((done, of)))
        found[number] = solve(shared, run)

    threads = [Thread(target=rank, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert content(shared) == content(single)
    assert alone is not None
    assert found[0] is not None
    assert found[0]._replace(seconds=0, kept=0) == alone._replace(seconds=0)
    assert found[1:] == [None, None]
    assert seen[0] == (0, 40)
    assert seen[-1] == (40, 40)
    assert parts(folder) == []


def test_a_npy_file_is_the_one_that_numpy_writes(folder: Path) -> None:
    less(folder / "u.npy", Run(chunk=9))
    np.save(folder / "same.npy", np.load(folder / "u.npy"))
    assert content(folder / "u.npy") == content(folder / "same.npy")


@pytest.mark.parametrize(("solve", "name"), [(less, "u.npy"), (less, "u.npz"), (ied, "e.pt"), (ied, "e.zarr")])
def test_what_is_finished_is_on_disk(folder: Path, monkeypatch: pytest.MonkeyPatch, solve: Solve, name: str) -> None:
    if name.endswith(".zarr"):
        pytest.importorskip("zarr")
    safe: set[int] = set()
    wait = os.fsync

    def fsync(file: int) -> None:
        wait(file)
        safe.add(os.fstat(file).st_ino)

    monkeypatch.setattr(os, "fsync", fsync)
    solve(folder / name, Run(chunk=7))
    written = [folder / name, *(folder / name).rglob("*")]
    assert {path.stat().st_ino for path in written if path.is_file()} <= safe


def test_chunks_of_any_size_give_the_same_answers(folder: Path) -> None:
    small, whole = less(folder / "small.npy", Run(chunk=3)), less(folder / "whole.npy", Run())
    assert small is not None
    assert whole is not None
    assert small.counts == whole.counts
    assert np.allclose(np.load(folder / "small.npy"), np.load(folder / "whole.npy"), rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="at least one item, got 0"):
        less(folder / "no.npy", Run(chunk=0))


class TestZarr:
    def test_in_and_out(self, folder: Path) -> None:
        zarr = pytest.importorskip("zarr")
        X = np.load(folder / "X.npy")
        group = zarr.create_group(folder / "in.zarr")
        for name in ("X", "other"):
            group.create_array(name, shape=X.shape, chunks=(2, 3, 4, 4), dtype=X.dtype)[:] = X
        zarr.create_array(folder / "alone.zarr", shape=X.shape, dtype=X.dtype)[:] = X
        ied(folder / "right.npz", Run(chunk=5))
        for source in ("in.zarr", "alone.zarr"):
            solve_ied_file(folder / source, 2, folder / "out.zarr", run=Run(chunk=5, overwrite=True))
            out = zarr.open_group(folder / "out.zarr", mode="r")
            with np.load(folder / "right.npz") as right:
                assert sorted(out.array_keys()) == sorted(right.files)
                for name in right.files:
                    assert np.array_equal(out[name][:], right[name]), name
        assert parts(folder) == []
        zarr.create_group(folder / "two.zarr").create_group("no_array")
        with pytest.raises(FileError, match=r"two.zarr holds nothing; name the array to use X"):
            solve_ied_file(folder / "two.zarr", 2, folder / "o.npz")
        (folder / "in.zarr" / "zarr.json").write_text("{")
        with pytest.raises(FileError, match=r"damaged or not a Zarr directory"):
            solve_ied_file(folder / "in.zarr", 2, folder / "o.npz")

    def test_without_it_the_extra_is_named(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "zarr", None)
        (folder / "in.zarr").mkdir()
        for source, output in ((folder / "X.npy", "o.zarr"), (folder / "in.zarr", "o.npz")):
            with pytest.raises(MissingExtraError, match=r"needs zarr: pip install 'pmaf\[zarr\]'"):
                solve_ied_file(source, 1, folder / output)
        assert parts(folder) == []


class TestGoingOn:
    @pytest.mark.parametrize("suffix", [".npy", ".npz", ".zarr"])
    def test_what_is_finished_is_not_solved_again(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
    ) -> None:
        if suffix == ".zarr":
            pytest.importorskip("zarr")
        right, output = folder / f"right{suffix}", folder / f"u{suffix}"
        less(right, Run(chunk=7))
        output_before = b"older" if suffix != ".zarr" else None
        if output_before:
            output.write_bytes(output_before)
        Calls(monkeypatch, "less_ex", 4, raising(RuntimeError("half way")))
        with pytest.raises(RuntimeError, match="half way"):
            less(output, Run(chunk=7, overwrite=True))
        assert (output.read_bytes() if output.exists() else None) == output_before
        calls = Calls(monkeypatch, "less_ex")
        summary = less(output, Run(chunk=7, overwrite=True))
        assert calls.count == 6 - 3
        assert content(output) == content(right)
        assert summary is not None
        assert (summary.items, summary.kept, sum(summary.counts.values())) == (40, 21, 40)
        assert parts(folder) == []

    def test_other_options_and_other_inputs_begin_anew(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        Calls(monkeypatch, "ied_ex", 4, raising(RuntimeError("half way")))
        with pytest.raises(RuntimeError):
            ied(folder / "e.npz", Run(chunk=8))
        (left,) = parts(folder)
        calls = Calls(monkeypatch, "ied_ex")
        solve_ied_file(folder / "X.npy", 2, folder / "e.npz", largest=False, run=Run(chunk=8))
        solve_ied_file(folder / "X.npy", 2, folder / "right.npz", largest=False, run=Run(chunk=8))
        assert calls.count == 10
        assert content(folder / "e.npz") == content(folder / "right.npz")
        assert not left.exists()
        for change in (Run(chunk=7), Run(chunk=8)):  # another size; and then another input
            Calls(monkeypatch, "ied_ex", 4, raising(RuntimeError("half way")))
            with pytest.raises(RuntimeError):
                ied(folder / "f.npz", Run(chunk=8))
            np.save(folder / "X.npy", np.load(folder / "X.npy"))
            calls = Calls(monkeypatch, "ied_ex")
            ied(folder / "f.npz", change)
            assert calls.count == len(Plan((5, 8), change.chunk or 0))
            assert parts(folder) == []
            (folder / "f.npz").unlink()

    def test_a_record_that_was_cut_off_does_not_count(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        Calls(monkeypatch, "less_ex", 4, raising(RuntimeError("half way")))
        with pytest.raises(RuntimeError):
            less(folder / "u.npy", Run(chunk=7))
        (journal,) = parts(folder)[0].glob("done-*")
        journal.write_bytes(journal.read_bytes()[:-1])
        calls = Calls(monkeypatch, "less_ex")
        less(folder / "u.npy", Run(chunk=7))
        assert calls.count == 4

    def test_records_without_their_arrays_do_not_count(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        Calls(monkeypatch, "less_ex", 4, raising(RuntimeError("half way")))
        with pytest.raises(RuntimeError):
            less(folder / "u.npy", Run(chunk=7))
        (parts(folder)[0] / "u.npy").unlink()
        calls = Calls(monkeypatch, "less_ex")
        less(folder / "u.npy", Run(chunk=7))
        assert calls.count == 6

    def test_an_interrupt_says_what_is_kept(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        Calls(monkeypatch, "less_ex", 4, raising(KeyboardInterrupt()))
        with pytest.raises(
            Interrupted, match=r"21 of 40 items are finished and kept beside .*the same command goes on"
        ):
            less(folder / "u.npy", Run(chunk=7))
        assert len(parts(folder)) == 1
        Calls(monkeypatch, "svd_ex", 1, raising(KeyboardInterrupt()))
        with pytest.raises(Interrupted, match="nothing was finished yet"):
            svd(folder / "s.npz", Run(chunk=7))
        assert len(parts(folder)) == 1

    def test_the_command_interrupted(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        from pmaf.cli import main

        monkeypatch.chdir(folder)
        command = ["pmaf", "solve", "less", "A.npy", "b.npy", "-o", "u.npy", "--chunk", "7"]
        monkeypatch.setattr(sys, "argv", command)
        Calls(monkeypatch, "less_ex", 2, raising(KeyboardInterrupt()))
        with pytest.raises(SystemExit) as left:
            main()
        assert left.value.code == 130
        said = "interrupted; 7 of 40 items are finished and kept beside u.npy, the same command goes on from there"
        assert capsys.readouterr().err == f"pmaf: {said}\n"
        with pytest.raises(SystemExit) as left:
            main()
        assert not left.value.code
        assert "an earlier run had solved 7 of 40 items" in capsys.readouterr().out


class TestOneSentence:
    def test_an_input_that_vanishes_or_changes(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        A = np.load(folder / "A.npy")
        Calls(monkeypatch, "less_ex", 3, (folder / "A.npy").unlink)
        with pytest.raises(UnreachableError, match=r"cannot be read any more: no such file .*; 21 of 40 items are"):
            less(folder / "u.npy", Run(chunk=7))
        np.save(folder / "A.npy", A)
        Calls(monkeypatch, "less_ex", 3, lambda: np.save(folder / "b.npy", A[..., 0]))
        with pytest.raises(FileError, match=r"b.npy was changed while it was being read: run the command again"):
            less(folder / "v.npy", Run(chunk=7))
        assert [path.name[:7] for path in parts(folder)] == [".u.npy."]
        Calls(monkeypatch, "less_ex", 6, lambda: np.save(folder / "b.npy", A[..., 1]))  # after the last was read
        with pytest.raises(FileError, match="was changed"):
            less(folder / "v.npy", Run(chunk=7))
        assert not (folder / "u.npy").exists()
        assert not (folder / "v.npy").exists()

    @pytest.fixture
    def room(self) -> Iterator[Callable[[int], None]]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    def test_too_little_room(self, folder: Path, room: Callable[[int], None]) -> None:
        less(folder / "right.npz", Run(chunk=7))
        room(1000)
        with pytest.raises(UnreachableError, match=r"u\.npz cannot be written: file too large$"):
            less(folder / "u.npz", Run(chunk=7))
        assert parts(folder) == []
        room(2000)  # enough for each array, but not for all of them
        with pytest.raises(UnreachableError, match=r"cannot be written: file too large; 40 of 40 items are finished"):
            less(folder / "u.npz", Run(chunk=7))
        assert not (folder / "u.npz").exists()
        assert not list(parts(folder)[0].glob("whole*"))
        room(resource.getrlimit(resource.RLIMIT_FSIZE)[1])
        summary = less(folder / "u.npz", Run(chunk=7))
        assert summary is not None
        assert summary.kept == 40
        assert content(folder / "u.npz") == content(folder / "right.npz")

    @pytest.mark.skipif(not Path("/proc/self").exists(), reason="no folder that nobody may write to")
    def test_a_folder_that_cannot_be_written_to(self, folder: Path) -> None:
        with pytest.raises(UnreachableError, match=r"^/proc/u\.npy cannot be written: \w[^;]*$"):
            solve_less_files(folder / "A.npy", folder / "b.npy", Path("/proc/u.npy"))

    def test_a_file_system_that_promises_nothing(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        less(folder / "right.npy", Run(chunk=7))
        refuse = raising(OSError(95, "not supported"))
        monkeypatch.setattr(os, "posix_fallocate", lambda *_: refuse(), raising=False)
        monkeypatch.setattr(os, "link", lambda *_: refuse())
        less(folder / "u.npy", Run(chunk=7))
        assert content(folder / "u.npy") == content(folder / "right.npy")


class TestJobs:
    def test_a_job_finds_the_store_of_its_launcher(self) -> None:
        assert Job.from_environment({}).world == 1
        server = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        given = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(server.port)}
        given |= {"TORCHELASTIC_USE_AGENT_STORE": "True"}
        first, second = (Job.from_environment({**given, "RANK": str(rank)}) for rank in range(2))
        assert (first.rank, second.rank, second.world) == (0, 1, 2)
        assert (first.add("dealt", 1), second.add("dealt", 1), first.add("dealt", 0)) == (1, 2, 2)
        again = Job.from_environment({**given, "RANK": "0", "TORCHELASTIC_RESTART_COUNT": "1"})
        assert again.add("dealt", 1) == 1
        assert (first.once("said"), again.once("said"), second.was("said")) == (True, False, True)

    def test_each_process_has_its_gpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LOCAL_RANK", "3")
        assert [Job(None, 3, 4).device(name) for name in ("cuda", "cuda:0", "cpu")] == ["cuda:3", "cuda:0", "cpu"]
        assert Job().device("cuda") == "cuda"

    def test_the_first_does_what_the_others_left(self, folder: Path) -> None:
        class Stale(Alone):
            def add(self, key: str, amount: int, /) -> int:
                return super().add(key, amount) + (4 if key.endswith("dealt") else 0)

        less(folder / "right.npy", Run(chunk=7))
        summary = less(folder / "u.npy", Run(chunk=7, job=Job(Stale(), 0, 2)))
        assert content(folder / "u.npy") == content(folder / "right.npy")
        assert summary is not None
        assert summary.items == 40

    @pytest.mark.parametrize("suffix", [".npy", ".zarr"])
    def test_parts_that_another_command_took_away(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
    ) -> None:
        if suffix == ".zarr":
            pytest.importorskip("zarr")
        output = folder / f"u{suffix}"
        less(folder / f"right{suffix}", Run(chunk=7))

        def meanwhile() -> None:
            less(output, Run(chunk=7))

        Calls(monkeypatch, "less_ex", 4, meanwhile)
        with pytest.raises(UnreachableError, match="as if another command wrote the same file"):
            less(output, Run(chunk=7))
        assert content(output) == content(folder / f"right{suffix}")
        output.rename(folder / "first")
        store = Alone()
        Calls(monkeypatch, "less_ex", 6, lambda: less(output, Run(chunk=7, job=Job(store, 0, 2))))
        assert less(output, Run(chunk=7, job=Job(store, 1, 2))) is None  # a straggler
        assert content(output) == content(folder / f"right{suffix}")
        assert parts(folder) == []

    def test_who_comes_when_all_is_written_leaves(self, folder: Path) -> None:
        store = Alone()
        assert less(folder / "u.npy", Run(job=Job(store, 0, 2))) is not None
        assert less(folder / "u.npy", Run(job=Job(store, 1, 2))) is None
        assert less(folder / "u.npy", Run(job=Job(store, 0, 2))) is None  # started anew right after
        assert less(folder / "u.npy", Run(job=Job(store, 1, 2), overwrite=True)) is None
        assert parts(folder) == []
        with pytest.raises(FileError, match="is there already"):
            less(folder / "u.npy", Run(job=Job(Alone(), 1, 2)))


def start(folder: Path, *launcher: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", *launcher, "pmaf.cli", "solve", "less", "A.npy", "b.npy", "-o", "u.npz"]
    return subprocess.Popen(
        [*command, "--chunk", "20"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Problems enough to be killed among them."""
    folder, rng = tmp_path_factory.mktemp("many"), np.random.default_rng(1)
    np.save(folder / "A.npy", rng.normal(size=(1600, 40, 30)))
    np.save(folder / "b.npy", rng.normal(size=(1600, 40)))
    less(folder / "right.npz", Run(chunk=20))
    return folder


def until_recorded(folder: Path, running: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 100
    while not recorded(folder) and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)


def test_killed_and_gone_on(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(10):  # should it ever be done before it is killed
        (many / "u.npz").unlink(missing_ok=True)
        running = start(many)
        until_recorded(many, running)
        running.kill()
        running.communicate()
        if not (many / "u.npz").exists():
            break
    done = recorded(many)
    assert done > 0
    assert running.returncode == -signal.SIGKILL
    calls = Calls(monkeypatch, "less_ex")
    summary = less(many / "u.npz", Run(chunk=20))
    assert summary is not None
    assert summary.kept == 20 * done
    assert calls.count == 80 - done
    assert content(many / "u.npz") == content(many / "right.npz")
    assert parts(many) == []


def test_torchrun_starts_a_killed_rank_anew(many: Path) -> None:
    launcher = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "1", "-m")
    (many / "u.npz").unlink(missing_ok=True)
    running = start(many, *launcher)
    until_recorded(many, running)
    tasks = Path(f"/proc/{running.pid}/task/{running.pid}/children")
    if tasks.exists():
        workers = [int(pid) for pid in tasks.read_text().split()]
        with contextlib.suppress(ProcessLookupError):  # which may have nothing to do any more
            os.kill(workers[-1], signal.SIGKILL)
    out, said = running.communicate(timeout=200)
    assert running.returncode == 0, said
    assert out.count("wrote u.npz") == 1
    assert content(many / "u.npz") == content(many / "right.npz")
    assert parts(many) == []


def test_the_bar_shows_a_rate(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from pmaf.cli import progress

    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with items_bar("solving", rate=True) as report:
        for done in (0, 20_000, 50_000, 70_000):
            report(done, 100_000)
            now[0] += 20.0
    assert capsys.readouterr().err.splitlines() == ["solving: 50 %, 1,250/s, 0:00:40 left"]


def test_parts_and_sources_are_named_after_what_they_belong_to(folder: Path) -> None:
    kept = Parts(folder / "u.npz", {}, Plan((3,), 1), "0123456789abcdef")
    assert kept.folder == folder / ".u.npz.0123456789abcdef"
    assert kept.records() == {}
    first = Source(folder / "A.npy", ("A",), 2).mark()
    assert first == Source(folder / "A.npy", ("A",), 2).mark()
    assert first != Source(folder / "b.npy", ("b",), 1).mark()
