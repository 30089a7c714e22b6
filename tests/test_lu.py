"""LU factorisations where more than one thread is active, which torch's own do not survive on some processors."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import pmaf
from pmaf.linalg.lu import SAFE_ORDER, lu_factor, lu_solve, solve

SOURCES = Path(pmaf.__file__).parent
AFFECTED = {
    *("lu", "lu_factor", "lu_factor_ex", "lu_solve", "lu_unpack"),
    *("solve", "solve_ex", "inv", "inv_ex", "inverse", "det", "logdet", "slogdet", "tensorsolve", "tensorinv"),
}


def raw_calls(path: Path) -> list[str]:
    """Calls of the functions that rest on LU, from torch or as a method of a tensor."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and node.attr in AFFECTED:
            owner = ast.unparse(node.value)
            if owner.split(".")[0] == "torch" or node.attr in {"det", "logdet", "slogdet"}:
                found.append(f"{path.name}:{node.lineno} {ast.unparse(node)}")
    return found


def test_only_one_file_calls_the_functions_that_hang():
    files = sorted(SOURCES.rglob("*.py"))
    assert len(files) > 50
    helper = SOURCES / "linalg" / "lu.py"
    assert raw_calls(helper)
    assert [call for path in files if path != helper for call in raw_calls(path)] == []


@pytest.mark.parametrize("n", [3, SAFE_ORDER + 1])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_items_one_by_one_are_the_batch(n, dtype):
    A = torch.randn(2, 1, n, n, dtype=dtype) + n * torch.eye(n, dtype=dtype)
    B = torch.randn(2, 3, n, 2, dtype=dtype)
    right = torch.linalg.solve(A, B)
    torch.testing.assert_close(solve(A, B), right)
    wide = A.expand(2, 3, n, n)
    torch.testing.assert_close(lu_solve(*lu_factor(wide), B), right)
    assert solve(A[:0], B[:0]).shape == (0, 3, n, 2)
    assert lu_solve(*lu_factor(wide[:0]), B[:0]).shape == (0, 3, n, 2)
    torch.testing.assert_close(solve(A[0, 0], B[0, 0]), right[0, 0])


def test_a_singular_item_spoils_no_other():
    n = SAFE_ORDER + 1
    A = torch.eye(n, dtype=torch.float64).repeat(2, 1, 1)
    A[0, 0, 0] = 0
    x = solve(A, torch.ones(2, n, 1, dtype=torch.float64))
    assert not x[0].isfinite().all()
    assert torch.equal(x[1], torch.ones(n, 1, dtype=torch.float64))


SCRIPT = """
import torch, pmaf
torch.set_num_threads(2)
for n in (160, 256):
    X = torch.randn(5, n, n)
    X = (X + X.mT).requires_grad_()
    for solver in (None, "eigvals_inverse_iteration"):
        solution = pmaf.ied_ex(X, 1, solver=solver)
        solution.eigenvectors.square().square().sum().backward()
        assert solution.status.eq(0).all() and float(solution.residual.max()) < 1e-5 and X.grad.isfinite().all()
X = torch.rand(3, 150, 150, dtype=torch.float64).requires_grad_()
pmaf.ied(X + X.mT, 1, backward=pmaf.FixedPoint()).eigenvectors.square().square().sum().backward()
assert X.grad.isfinite().all()
print("returned")
"""


def test_two_threads_return():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.strip() == "returned", done.stderr
    assert "oneMKL ERROR" not in done.stdout + done.stderr
