"""Several threads: nothing hangs, and the answers are those of one thread within rounding.

A process in which torch takes its number of threads by itself differs from one in which somebody has set it, so the
pass needs a process of its own: ``make test-threads``. The reference comes from another one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import conftest
from large import CASES, MIDDLE, Large, crowded, equations

LIMIT = 60.0  # seconds; the slowest problem takes four on one idle core
PATIENCE = 2 * LIMIT  # with a process, which has to import torch as well

pytestmark = [
    pytest.mark.skipif(conftest.THREADS != "default", reason="needs a process of its own: make test-threads"),
    pytest.mark.timeout(LIMIT, func_only=True),  # the process with one thread has a limit of its own
]


def run(*command: str, cwd: Path | None = None, limit: float = PATIENCE, **environment: str) -> str:
    """Run Python with torch's own choice of threads unless the environment is told otherwise; what it says."""
    env = {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env=env | {"COLUMNS": "200"} | environment,
        capture_output=True,
        text=True,
        timeout=limit,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "oneMKL ERROR" not in said
    return said


@pytest.fixture(scope="session")
def one_thread(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Tensor, ...]]:
    """Every answer of a process with one thread."""
    path = tmp_path_factory.mktemp("threads") / "answers.pt"
    run(str(Path(__file__).with_name("large.py")), str(path), limit=10 * LIMIT, OMP_NUM_THREADS="1")
    answers: dict[str, tuple[Tensor, ...]] = torch.load(path)
    return answers


@pytest.fixture(scope="module", params=["default", 2], ids=["default", "two"])
def threads(request: pytest.FixtureRequest) -> int:
    """First those that torch takes by itself, then two that somebody has set."""
    if request.param != "default":
        torch.set_num_threads(request.param)
    return torch.get_num_threads()


def test_one_thread_has_an_answer_for_every_problem(one_thread: dict[str, tuple[Tensor, ...]]) -> None:
    assert set(one_thread) == {case.key for case in CASES}
    assert all(x.isfinite().all() for answer in one_thread.values() for x in answer)


@pytest.mark.parametrize("case", CASES, ids=[case.key for case in CASES])
def test_answers_and_gradients_are_those_of_one_thread(
    case: Large, threads: int, one_thread: dict[str, tuple[Tensor, ...]]
) -> None:
    for ours, theirs in zip(case.answer(), one_thread[case.key], strict=True):
        error = torch.linalg.vector_norm(ours - theirs)
        assert float(error) <= case.tolerance * float(torch.linalg.vector_norm(theirs))


@pytest.mark.timeout(3 * PATIENCE, func_only=True)
@pytest.mark.parametrize("environment", [{}, {"OMP_NUM_THREADS": "2"}], ids=["default", "two"])
class TestCommandLine:
    def test_solve(self, environment: dict[str, str], tmp_path: Path) -> None:
        (X,), (A, b) = crowded(*MIDDLE), equations(*MIDDLE)
        for name, array in {"X": X.float(), "A": A, "b": b}.items():
            np.save(tmp_path / f"{name}.npy", array.numpy())
        said = run("-m", "pmaf.cli", "solve", "ied", "X.npy", "-o", "e.npz", cwd=tmp_path, **environment)
        assert "CONVERGED" in said
        values = torch.from_numpy(np.load(tmp_path / "e.npz")["eigenvalues"])[:, 0]
        torch.testing.assert_close(values.double(), torch.linalg.eigvalsh(X)[:, -1], rtol=1e-5, atol=0)
        run("-m", "pmaf.cli", "solve", "less", "A.npy", "b.npy", "-o", "u.npy", cwd=tmp_path, **environment)
        assert np.allclose(np.linalg.norm(np.load(tmp_path / "u.npy"), axis=-1), 1)

    def test_reproduce(self, environment: dict[str, str], tmp_path: Path) -> None:
        command = ["-m", "pmaf.cli", "reproduce", "less", "--size", "12x6", "--problems", "50", "--out", "report"]
        run(*command, cwd=tmp_path, **environment)
        assert (tmp_path / "report" / "less.csv").exists()

    def test_training(self, environment: dict[str, str]) -> None:
        """As a training script does it, without a word about threads but its own."""
        script = (
            "import torch, pmaf\n"
            "X = torch.randn(5, 256, 256)\n"
            "X = (X + X.mT).requires_grad_()\n"
            "for step in range(3):\n"
            "    pmaf.ied(X, 1).eigenvectors.pow(4).sum().backward()\n"
            "assert X.grad.isfinite().all()\n"
        )
        run("-c", script, **environment)
