"""The wheel is what people install: build it, unpack it elsewhere, import it from outside the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("hatchling")
ROOT = Path(__file__).parents[1]


def run(*command: str, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder), cwd=ROOT)
    (found,) = folder.glob("pmaf-*.whl")
    return found


def test_it_holds_the_package_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert "pmaf/py.typed" in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"pmaf"}
    assert not any("__pycache__" in name for name in names)
    in_tree = {str(p.relative_to(ROOT / "src")) for p in (ROOT / "src/pmaf").rglob("*") if p.suffix in (".py", ".j2")}
    assert in_tree <= set(names)
    (metadata,) = [name for name in names if name.endswith("METADATA")]
    text = zipfile.ZipFile(wheel).read(metadata).decode()
    assert "License-Expression: MIT" in text
    core = [line for line in text.splitlines() if line.startswith("Requires-Dist") and "extra ==" not in line]
    assert core == ["Requires-Dist: torch>=2.9"]


def test_it_works_outside_the_checkout(wheel, tmp_path):
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    code = (
        "import torch, pmaf; print(pmaf.__file__); print(pmaf.__version__); "
        "print(pmaf.less(torch.eye(2), torch.tensor([3.0, 4.0])).tolist())"
    )
    out = run(sys.executable, "-c", code, cwd=tmp_path, PYTHONPATH=str(site), OMP_NUM_THREADS="1").splitlines()
    assert Path(out[0]).is_relative_to(site)
    assert out[1] in wheel.name
    assert out[2].startswith("[0.6")


def test_the_console_script_is_declared(wheel):
    archive = zipfile.ZipFile(wheel)
    (points,) = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
    assert "pmaf = pmaf.cli:main" in archive.read(points).decode()
