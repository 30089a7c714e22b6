"""The command line, run as its users run it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import pmaf as library
from pmaf import __version__
from pmaf.config import show_config
from pmaf.kernels.loader import reason

pytest.importorskip("typer")


def pmaf(*arguments: object, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pmaf.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=120,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"} | environment,
    )


class Inside:
    """The same in this process, which saves the import of torch."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capsys = monkeypatch, capsys

    def __call__(self, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
        from pmaf.cli import main

        self.monkeypatch.chdir(cwd)
        self.monkeypatch.setattr(sys, "argv", ["pmaf", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        printed = self.capsys.readouterr()
        code = left.value.code if isinstance(left.value.code, int) else 0
        return subprocess.CompletedProcess(arguments, code, printed.out, printed.err)


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Inside:
    return Inside(monkeypatch, capsys)


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one sentence of a refusal."""
    assert done.returncode == 2, done
    assert "Traceback" not in done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("pmaf: ")
    return lines[0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a batch of problems."""
    rng = np.random.default_rng(0)
    A, b = rng.normal(size=(40, 6, 4)), rng.normal(size=(40, 6))
    X = rng.normal(size=(5, 8, 4, 4))
    np.save(tmp_path / "A.npy", A)
    np.save(tmp_path / "b.npy", b)
    X = X + X.swapaxes(-1, -2)
    np.save(tmp_path / "X.npy", X)
    X[3, 2, 0, 1] += 1
    np.save(tmp_path / "skew.npy", X)
    np.save(tmp_path / "one_skew.npy", X[3, 2])
    return tmp_path


def left_behind(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


class TestFirstContact:
    def test_help_names_the_commands(self) -> None:
        done = pmaf("--help")
        assert done.returncode == 0
        for command in ("solve", "reproduce"):
            assert command in done.stdout

    def test_version(self) -> None:
        first, second = pmaf("--version").stdout.splitlines()
        assert first == f"pmaf {__version__}"
        assert second == f"kernels: {reason()}"
        assert pmaf("--version", PMAF_KERNELS="off").stdout.splitlines()[1].startswith("kernels: switched off")

    def test_completion_of_the_shell(self) -> None:
        told = pmaf(_PMAF_COMPLETE="complete_bash", COMP_WORDS="pmaf solve less --con", COMP_CWORD="3")
        assert "--constraint" in told.stdout.split()

    def test_env(self) -> None:
        told = pmaf("env").stdout.splitlines()
        assert told[:4] == show_config().splitlines()[:4]  # the number of threads may differ
        assert any("kernels" in line and reason() in line for line in told)

    @pytest.mark.parametrize("argument", ["--help", "--version"])
    def test_torch_is_not_imported_for(self, argument: str) -> None:
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "pmaf.cli", argument], capture_output=True, text=True, check=True
        )
        imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
        assert "typer" in imported
        assert "torch" not in imported

    def test_without_typer_the_extra_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "typer.py").write_text("raise ImportError('no typer')")
        paths = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
        done = pmaf("--version", PYTHONPATH=paths)
        assert done.returncode != 0
        assert done.stderr.strip() == "pmaf: the command line needs typer: pip install 'pmaf[cli]'"


class TestSolveLess:
    def test_answers_lie_on_the_sphere_and_are_stationary(self, folder: Path) -> None:
        done = pmaf("solve", "less", "A.npy", "b.npy", "-o", "u.npy", "--radius", "2.5", cwd=folder)
        assert done.returncode == 0, done.stderr
        assert "CONVERGED" in done.stdout
        assert "40" in done.stdout
        u, A, b = (np.load(folder / f"{name}.npy") for name in ("u", "A", "b"))
        assert np.allclose(np.linalg.norm(u, axis=-1), 2.5)
        gradient = np.einsum("bmn,bm->bn", A, np.einsum("bmn,bn->bm", A, u) - b)
        along = np.einsum("bn,bn->b", gradient, u)[:, None] * u / 2.5**2
        assert np.abs(gradient - along).max() < 1e-8

    def test_archive_holds_what_was_measured(self, folder: Path, inside: Inside) -> None:
        assert inside("solve", "less", "A.npy", "b.npy", "-o", "u.npz", cwd=folder).returncode == 0
        with np.load(folder / "u.npz") as out:
            assert sorted(out.files) == ["gap", "multiplier", "residual", "status", "u"]
            assert out["status"].tolist() == [0] * 40
            assert out["residual"].max() < 1e-10
            assert out["gap"].min() > 0

    def test_one_problem_and_a_shared_matrix(self, folder: Path, inside: Inside) -> None:
        np.save(folder / "A0.npy", np.load(folder / "A.npy")[0])
        np.save(folder / "b0.npy", np.load(folder / "b.npy")[0])
        for A, b, shape in (("A0", "b0", (4,)), ("A0", "b", (40, 4)), ("A", "b0", (40, 4))):
            done = inside("solve", "less", f"{A}.npy", f"{b}.npy", "-o", "u.npy", "--overwrite", cwd=folder)
            assert done.returncode == 0
            assert np.load(folder / "u.npy").shape == shape

    def test_ball_and_torch_files(self, folder: Path, inside: Inside) -> None:
        A, b = torch.eye(3), torch.tensor([[0.1, 0.2, 0.2], [3.0, 0.0, 4.0]])
        torch.save({"A": A, "b": b}, folder / "both.pt")
        done = inside("solve", "less", "both.pt", "both.pt", "-o", "u.pt", "--constraint", "ball", cwd=folder)
        assert done.returncode == 0, done.stderr
        u = torch.load(folder / "u.pt", weights_only=True)["u"]
        assert torch.allclose(u, torch.tensor([[0.1, 0.2, 0.2], [0.6, 0.0, 0.8]]), atol=1e-5)
        assert u.dtype == torch.float32

    def test_a_failed_item_gives_exit_status_1_and_spares_the_others(self, folder: Path, inside: Inside) -> None:
        A = np.load(folder / "A.npy")
        A[7, 0, 0] = np.nan
        np.save(folder / "bad.npy", A)
        done = inside("solve", "less", "bad.npy", "b.npy", "-o", "u.npz", cwd=folder)
        assert done.returncode == 1
        assert "1 of 40 items has no answer, first item 7 with NON_FINITE" in done.stderr
        assert inside("solve", "less", "A.npy", "b.npy", "-o", "good.npz", cwd=folder).returncode == 0
        with np.load(folder / "u.npz") as out, np.load(folder / "good.npz") as good:
            others = np.arange(40) != 7
            assert np.array_equal(out["u"][others], good["u"][others])


class TestSolveIED:
    @pytest.mark.parametrize("smallest", [False, True])
    def test_eigenpairs(self, folder: Path, inside: Inside, smallest: bool) -> None:
        flags = ["--smallest"] if smallest else []
        done = inside("solve", "ied", "X.npy", "-k", "2", "-o", "out.npz", *flags, cwd=folder)
        assert done.returncode == 0, done.stderr
        X = np.load(folder / "X.npy")
        with np.load(folder / "out.npz") as out:
            assert sorted(out.files) == ["eigenvalues", "eigenvectors", "gap", "residual", "status"]
            values, vectors = out["eigenvalues"], out["eigenvectors"]
            assert out["gap"].shape == (5, 8)
        assert vectors.shape == (5, 8, 4, 2)
        every = np.linalg.eigvalsh(X)
        assert np.allclose(values, every[..., :2] if smallest else every[..., :-3:-1])
        assert np.abs(X @ vectors - vectors * values[..., None, :]).max() < 1e-10

    def test_integers_are_read_as_float64(self, folder: Path, inside: Inside) -> None:
        np.save(folder / "I.npy", np.array([[2, 1], [1, 2]]))
        assert inside("solve", "ied", "I.npy", "-o", "out.npz", cwd=folder).returncode == 0
        with np.load(folder / "out.npz") as out:
            assert np.allclose(out["eigenvalues"], [3.0])
            assert out["eigenvalues"].dtype == np.float64

    def test_empty_batch(self, folder: Path, inside: Inside) -> None:
        np.save(folder / "E.npy", np.zeros((0, 3, 3)))
        assert inside("solve", "ied", "E.npy", "-o", "out.npz", cwd=folder).returncode == 0
        with np.load(folder / "out.npz") as out:
            assert out["eigenvectors"].shape == (0, 3, 1)


class TestTheFamily:
    def test_weights_and_free_unknowns(self, folder: Path, inside: Inside) -> None:
        A, b = np.load(folder / "A.npy"), np.load(folder / "b.npy")
        rng = np.random.default_rng(1)
        weights, free = rng.uniform(size=(40, 6)), rng.normal(size=(6, 2))
        np.save(folder / "w.npy", weights)
        np.save(folder / "C.npy", free)
        given = ("--weights", "w.npy", "--free", "C.npy", "--constraint", "ball", "--radius", "0.3")
        assert inside("solve", "less", "A.npy", "b.npy", "-o", "u.npz", *given, cwd=folder).returncode == 0
        options = {"weights": torch.from_numpy(weights), "free": torch.from_numpy(free)}
        right = library.less_ex(torch.from_numpy(A), torch.from_numpy(b), radius=0.3, constraint="ball", **options)
        with np.load(folder / "u.npz") as out:
            assert np.allclose(out["u"], right.u, rtol=0, atol=1e-9)
            assert right.z is not None
            assert np.allclose(out["z"], right.z, rtol=0, atol=1e-9)

    def test_a_summary_for_scripts(self, folder: Path, inside: Inside) -> None:
        A = np.load(folder / "A.npy")
        A[7] = np.nan
        np.save(folder / "bad.npy", A)
        done = inside("solve", "less", "bad.npy", "b.npy", "-o", "u.npz", "--json", cwd=folder)
        assert done.returncode == 1
        told = json.loads(done.stdout)
        assert (told["output"], told["layer"], told["items"], told["failed"]) == ("u.npz", "less", 40, 1)
        assert told["counts"] == {"CONVERGED": 39, "NON_FINITE": 1}
        assert told["first_failed"] == {"item": [7], "status": "NON_FINITE"}
        assert told["shapes"]["u"] == [40, 4]
        assert done.stderr == ""
        np.save(folder / "none.npy", np.full((3, 6, 4), np.inf))
        np.save(folder / "b3.npy", np.ones((3, 6)))
        done = inside("solve", "less", "none.npy", "b3.npy", "-o", "v.npz", "--json", cwd=folder)
        assert json.loads(done.stdout)["smallest_gap"] is None
        assert "kernels" in json.loads(inside("env", "--json", cwd=folder).stdout)

    def test_a_metric_and_an_item_without_one(self, folder: Path, inside: Inside) -> None:
        X = np.load(folder / "X.npy")
        B = np.stack([np.eye(4) * (i + 1) for i in range(8)])
        np.save(folder / "B.npy", B)
        arguments = ("solve", "ied", "X.npy", "--metric", "B.npy", "-k", "2", "-o", "out.npz", "--overwrite")
        assert inside(*arguments, cwd=folder).returncode == 0
        with np.load(folder / "out.npz") as out:
            values, U = out["eigenvalues"], out["eigenvectors"]
        assert np.abs(X @ U - B @ U * values[..., None, :]).max() < 1e-10
        B[3] = 0
        np.save(folder / "B.npy", B)
        done = inside(*arguments, cwd=folder)
        assert done.returncode == 1
        assert "NOT_DEFINITE" in done.stderr
        np.save(folder / "B.npy", np.eye(3))
        assert "the metric must have the shape" in refused(inside(*arguments, cwd=folder))

    @pytest.mark.parametrize("smallest", [False, True])
    def test_triplets(self, folder: Path, inside: Inside, smallest: bool) -> None:
        flags = ["--smallest"] if smallest else []
        assert inside("solve", "svd", "A.npy", "-k", "2", "-o", "out.npz", *flags, cwd=folder).returncode == 0
        A = np.load(folder / "A.npy")
        with np.load(folder / "out.npz") as out:
            U, S, Vh = out["U"], out["S"], out["Vh"]
            assert sorted(out.files) == ["S", "U", "Vh", "gap", "residual", "status"]
        every = np.linalg.svd(A, compute_uv=False)
        assert np.allclose(S, every[..., :-3:-1] if smallest else every[..., :2])
        assert np.abs(A @ Vh.swapaxes(-1, -2) - U * S[..., None, :]).max() < 1e-10
        assert "k must be between 1 and" in refused(
            inside("solve", "svd", "A.npy", "-k", "5", "-o", "o.npz", cwd=folder)
        )


def _write(folder: Path) -> None:
    np.save(folder / "objects.npy", np.array([{}], dtype=object))
    np.savez(folder / "objects.npz", X=np.array([{}], dtype=object))
    torch.save(object, folder / "objects.pt")
    (folder / "pickle.npy").write_bytes(b"\x80\x04N.")
    (folder / "garbage.npy").write_bytes(b"garbage")
    (folder / "garbage.npz").write_bytes(b"garbage")
    (folder / "garbage.pt").write_bytes(b"")
    (folder / "short.npy").write_bytes((folder / "X.npy").read_bytes()[:-8])
    np.save(folder / "text.npy", np.array(["a"]))
    np.save(folder / "vector.npy", np.zeros(3))
    np.savez(folder / "two.npz", P=np.eye(2), Q=np.eye(2))
    (folder / "a.csv").write_text("1,2")
    (folder / "folder.npy").mkdir()
    (folder / "b.zarr").write_text("")
    (folder / "c.zarr").mkdir()
    np.savez(folder / "in.npz", X=np.eye(2))
    (folder / "link.npy").symlink_to("b.npy")


REFUSALS = [
    (("ied", "none.npy", "-o", "o.npz"), "none.npy does not exist"),
    (("ied", "folder.npy", "-o", "o.npz"), "folder.npy is a folder"),
    (("ied", "a.csv", "-o", "o.npz"), "the ending '.csv'"),
    (("ied", "objects.npy", "-o", "o.npz"), "objects.npy holds pickled Python objects"),
    (("ied", "objects.npz", "-o", "o.npz"), "objects.npz holds pickled Python objects"),
    (("ied", "objects.pt", "-o", "o.npz"), "objects.pt holds pickled Python objects"),
    (("ied", "pickle.npy", "-o", "o.npz"), "pickle.npy holds pickled Python objects"),
    (("ied", "garbage.npy", "-o", "o.npz"), "not a .npy file"),
    (("ied", "garbage.npz", "-o", "o.npz"), "damaged or not a .npz file"),
    (("ied", "garbage.pt", "-o", "o.npz"), "damaged or not a .pt file"),
    (("ied", "short.npy", "-o", "o.npz"), "damaged or cut short"),
    (("ied", "text.npy", "-o", "o.npz"), "entries of type <U1"),
    (("ied", "two.npz", "-o", "o.npz"), "two.npz holds P, Q; name the array to use X"),
    (("ied", "vector.npy", "-o", "o.npz"), "X must hold matrices, (*, m, n), but vector.npy is (3,)"),
    (("ied", "A.npy", "-o", "o.npz"), r"square matrices, (*, n, n), but A.npy is (40, 6, 4)"),
    (("ied", "X.npy", "-k", "5", "-o", "o.npz"), "k must be between 1 and the order of the matrices, 4, but is 5"),
    (("ied", "X.npy", "-k", "0", "-o", "o.npz"), "k must be between"),
    (("ied", "X.npy", "-o", "o.npy"), "needs one of .npz, .pt, .zarr"),
    (("less", "A.npy", "b.npy", "-o", "o.csv"), "needs one of .npy, .npz, .pt, .zarr"),
    (("ied", "X.npy", "-o", "in.npz"), "in.npz is there already: give another name, or replace it with --overwrite"),
    (("ied", "b.zarr", "-o", "o.npz"), "b.zarr is a file, not a Zarr directory"),
    (("ied", "X.npy", "-o", "folder.npy/../c.zarr"), "it is a folder that holds something else than Zarr arrays"),
    (("less", "A.npy", "b.npy", "-o", "o.npy", "--weights", "A.npy"), "the weights must be real, of shape (*, 6)"),
    (("less", "A.npy", "b.npy", "-o", "o.npy", "--weights", "b.npy"), "b.npy has a negative one"),
    (("less", "A.npy", "b.npy", "-o", "o.npy", "--free", "X.npy"), "free must have the shape (*, 6, p)"),
    (("ied", "X.npy", "-o", "no/o.npz"), "the folder no does not exist"),
    (("ied", "X.npy", "-o", "o.npz", "--solver", "magic"), "magic"),
    (("ied", "X.npy", "-o", "o.npz", "--device", "abacus"), "pmaf: cannot compute on the device 'abacus': "),
    (("ied", "X.npy", "-o", "o.npz", "--device", "meta"), "pmaf: cannot compute on the device 'meta': "),
    (("less", "A.npy", "b.npy", "-o", "o.npz", "--device", "meta"), "pmaf: cannot compute on the device 'meta': "),
    (("ied", "skew.npy", "-o", "o.npz"), "must be symmetric (Hermitian), but item 3, 2 of skew.npy is not"),
    (("ied", "one_skew.npy", "-o", "o.npz"), "must be symmetric (Hermitian), but one_skew.npy is not"),
    (
        ("ied", "X.npy", "-k", "2", "-o", "o.npz", "--solver", "eigvals_inverse_iteration"),
        "use --solver eigh or --solver block_",
    ),
    (("ied", "X.npy", "-k", "2", "-o", "o.npz", "--solver", "power_iteration"), "pmaf: --solver power_iteration finds"),
    (("ied", "in.npz", "-o", "in.npz"), "in.npz is the input in.npz, which would be lost"),
    (("ied", "in.npz", "-o", "./folder.npy/../in.npz"), "which would be lost"),
    (("less", "A.npy", "b.npy", "-o", "A.npy"), "A.npy is the input A.npy, which would be lost"),
    (("less", "A.npy", "b.npy", "-o", "link.npy"), "link.npy is the input b.npy, which would be lost"),
    (("less", "A.npy", "X.npy", "-o", "u.npy"), "A must have the shape (*, m, n) and b the shape (*, m)"),
    (("less", "A.npy", "short_b.npy", "-o", "u.npy"), "do not broadcast"),
    (("less", "A.npy", "b.npy", "-o", "u.npy", "--radius", "nan"), "pmaf: radius must be positive and finite, got nan"),
    (("less", "A.npy", "b.npy", "-o", "u.npy", "--radius", "-1"), "pmaf: radius must be positive and finite, got -1"),
    (("less", "A.npy", "b.npy", "-o", "u.npy", "--solver", "magic"), "secular"),
]


@pytest.mark.parametrize(("arguments", "sentence"), REFUSALS, ids=[" ".join(arguments) for arguments, _ in REFUSALS])
def test_refused_in_one_sentence(folder: Path, inside: Inside, arguments: tuple[str, ...], sentence: str) -> None:
    _write(folder)
    np.save(folder / "short_b.npy", np.load(folder / "b.npy")[:3])
    before = sorted(path.name for path in folder.iterdir())
    said = refused(inside("solve", *arguments, cwd=folder))
    assert sentence in said
    assert "_ex" not in said
    assert sorted(path.name for path in folder.iterdir()) == before


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (("reproduce", "less", "--quick", "-o", "A.npy"), "A.npy is a file, not a folder"),
        (("bench", "-o", "x.txt"), "x.txt cannot be written: it must end in .json"),
        (("bench", "-o", "no/x.json"), "in a folder that is there"),
    ],
)
def test_an_output_that_cannot_be_is_refused_before_anything_is_computed(
    folder: Path, inside: Inside, command: tuple[str, ...], sentence: str
) -> None:
    assert sentence in refused(inside(*command, cwd=folder))


def test_a_refusal_leaves_the_process_with_status_2(folder: Path) -> None:
    assert "none.npy does not exist" in refused(pmaf("solve", "ied", "none.npy", "-o", "o.npz", cwd=folder))


def test_the_item_is_that_of_the_file_not_of_the_chunk(folder: Path) -> None:
    from pmaf.cli.batches import solve_ied_file
    from pmaf.cli.files import FileError
    from pmaf.cli.work import Run

    with pytest.raises(FileError, match=r"item 3, 2 of .*skew\.npy is not"):
        solve_ied_file(folder / "skew.npy", 1, folder / "o.npz", run=Run(chunk=4))
    assert left_behind(folder) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is such a device")
@pytest.mark.parametrize("command", [("solve", "ied", "X.npy", "-o", "o.npz"), ("bench",)], ids=lambda words: words[0])
def test_a_device_that_is_not_there_is_refused_in_one_sentence(folder: Path, command: tuple[str, ...]) -> None:
    assert "cannot compute on the device 'cuda': " in refused(pmaf(*command, "--device", "cuda", cwd=folder))


@pytest.mark.parametrize("command", [("reproduce", "less", "--problems"), ("bench", "--rounds")], ids=" ".join)
def test_counts_start_at_one(folder: Path, inside: Inside, command: tuple[str, ...]) -> None:
    done = inside(*command, "0", cwd=folder)
    assert done.returncode == 2
    assert command[-1] in done.stderr
    assert not (folder / "report").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="interrupts are sent differently")
def test_an_interrupted_experiment_says_that_it_can_go_on_and_does(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    command = [sys.executable, "-m", "pmaf.cli", "reproduce", "less", "--size", "64x32", "--problems", "400"]
    command += ["--methods", "Secular", "--out", str(tmp_path)]
    running = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which a job in the background ignores
    )
    parts = tmp_path / "parts"
    deadline = time.monotonic() + 100
    while not (parts.exists() and list(parts.glob("less-*.json"))) and time.monotonic() < deadline:
        time.sleep(0.01)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=100)
    assert running.returncode == 130
    assert said == f"pmaf: interrupted; what is finished is kept in {tmp_path}, the same command goes on from there\n"
    kept = {path: path.stat().st_mtime_ns for path in parts.glob("less-*.json")}
    assert 0 < len(kept) < 4
    again = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert again.returncode == 0
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert len(list(parts.glob("less-*.json"))) == 4
