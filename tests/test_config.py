"""What a bug report needs."""

from __future__ import annotations

import os
import subprocess
import sys

import torch

import pmaf
from pmaf.kernels.loader import reason


def test_versions_kernels_threads_and_blas(capsys):
    text = pmaf.show_config()
    assert capsys.readouterr().out == text + "\n"
    rows = {line[:12].strip(): line[12:] for line in text.splitlines()}
    assert rows["pmaf"] == pmaf.__version__
    assert rows["torch"] == torch.__version__
    assert rows["kernels"] == reason()
    assert rows["threads"].startswith(f"{torch.get_num_threads()},")
    assert {"Python", "system", "processor", "BLAS", "GPU", "environment"} <= rows.keys()


def test_it_says_why_there_are_no_kernels():
    code = "import pmaf; pmaf.show_config()"
    environment = {**os.environ, "PMAF_KERNELS": "off"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "switched off by PMAF_KERNELS=off" in done.stdout
    assert "PMAF_KERNELS=off" in done.stdout.splitlines()[-1]
