"""The wheel is what people install: build it, unpack it elsewhere, import it from outside the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from pmaf.kernels import available

pytest.importorskip("scikit_build_core")
ROOT = Path(__file__).parents[1]
BUILD = "import sys; from scikit_build_core.build import build_wheel; build_wheel(sys.argv[1])"
KERNELS = "import pmaf.kernels; print(pmaf.kernels.available(), pmaf.kernels.reason())"


def run(*command: str, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def unpacked(wheel: Path, folder: Path, code: str, **environment: str) -> str:
    """What code prints where the wheel is unpacked and an editable installation of the checkout is out of sight.

    Such an installation announces itself by a ``.pth`` file, which is only read from the folders of the site.
    """
    zipfile.ZipFile(wheel).extractall(folder / "site")
    path = os.pathsep.join([str(folder / "site"), sysconfig.get_path("platlib"), sysconfig.get_path("purelib")])
    return run(sys.executable, "-S", "-c", code, cwd=folder, PYTHONPATH=path, OMP_NUM_THREADS="1", **environment)


def built(folder: Path, **environment: str) -> Path:
    """The wheel, built from a copy of the sources, so that nothing is left in the checkout.

    Without optimisation, for which the compiler needs four times as long: what lies in the wheel is the question here.
    """
    sources = folder / "sources"
    sources.mkdir()
    for name in ("pyproject.toml", "CMakeLists.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, sources)
    shutil.copytree(ROOT / "src", sources / "src", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    run(sys.executable, "-c", BUILD, str(folder), cwd=sources, SKBUILD_CMAKE_BUILD_TYPE="Debug", **environment)
    (found,) = folder.glob("pmaf-*.whl")
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """As it comes out where there is no compiler, which takes a second."""
    return built(tmp_path_factory.mktemp("dist"), CXX="/bin/false", CC="/bin/false")


@pytest.mark.slow
@pytest.mark.skipif(not available(), reason="there is no compiler, or the kernels are switched off")
def test_with_a_compiler_it_holds_the_kernels_for_every_python(tmp_path):
    found = built(tmp_path)
    assert "-py3-none-" in found.name
    assert not found.name.endswith("-any.whl")
    names = zipfile.ZipFile(found).namelist()
    assert [name for name in names if "libpmaf_kernels" in name]
    assert not any(name.endswith((".cpp", ".h")) for name in names)
    told = unpacked(found, tmp_path, KERNELS)
    assert told.startswith("True")
    assert str(tmp_path) in told


def test_without_a_compiler_it_is_a_wheel_for_every_machine(wheel, tmp_path):
    assert wheel.name.endswith("-py3-none-any.whl")
    assert unpacked(wheel, tmp_path, KERNELS, PMAF_KERNELS="auto").startswith("False not built")


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
    code = (
        "import torch, pmaf; print(pmaf.__file__); print(pmaf.__version__); "
        "print(pmaf.less(torch.eye(2), torch.tensor([3.0, 4.0])).tolist())"
    )
    out = unpacked(wheel, tmp_path, code).splitlines()
    assert Path(out[0]).is_relative_to(tmp_path)
    assert out[1] in wheel.name
    assert out[2].startswith("[0.6")


def test_the_console_script_is_declared(wheel):
    archive = zipfile.ZipFile(wheel)
    (points,) = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
    assert "pmaf = pmaf.cli:main" in archive.read(points).decode()
