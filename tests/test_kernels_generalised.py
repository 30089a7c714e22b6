"""The reduction kernel: right in sixty digits, item by item, and clear about what it cannot reduce."""

from __future__ import annotations

import mpmath
import pytest
import torch

from cases import WORKING, eps, randn, symmetric
from pmaf.kernels import available
from pmaf.kernels.generalised import reduction

pytestmark = pytest.mark.skipif(not available(), reason="there are no compiled kernels")


def definite(*batch, n, dtype, seed=5):
    F = randn(*batch, n + 3, n, seed=seed, dtype=dtype)
    return F.mH @ F / n


@pytest.mark.parametrize("dtype", WORKING, ids=str)
def test_the_reduced_matrix_in_sixty_digits(dtype):
    n = 5
    X, B = symmetric(2, n=n, dtype=dtype), definite(2, n=n, dtype=dtype)
    d = torch.tensor([1.0, 2**-14, 3.0, 2**13, 0.3]).to(dtype)  # bad scaling of the diagonal alone costs nothing
    X, B = d[:, None] * X * d, d[:, None] * B * d
    found = reduction(X, B)
    assert found.seen == 0
    with mpmath.workdps(60):
        for i in range(2):
            L = mpmath.cholesky(mpmath.matrix(((B[i] + B[i].mH) / 2).tolist()))
            inverse = mpmath.inverse(L)
            R = inverse * mpmath.matrix(X[i].tolist()) * inverse.H
            even = mpmath.diag([1 / entry for entry in d.tolist()])
            for ours, theirs in ((found.X[i], R), (found.L[i] / d[:, None], even * L)):
                off = mpmath.mnorm(mpmath.matrix(ours.tolist()) - theirs, "f") / mpmath.mnorm(theirs, "f")
                assert off < 50 * eps(dtype)
    assert torch.equal(found.X, found.X.mH)


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex128], ids=str)
@pytest.mark.parametrize("n", [1, 6, 37])
def test_an_item_does_not_see_its_neighbours(dtype, n):
    X, B = symmetric(21, n=n, dtype=dtype), definite(21, n=n, dtype=dtype)
    B[3] = torch.nan
    whole = reduction(X, B)
    for i in (0, 4, 20):
        alone = reduction(X[i : i + 1], B[i : i + 1])
        assert torch.equal(alone.X[0], whole.X[i])
        assert torch.equal(alone.L[0], whole.L[i])
    assert whole.code.nonzero().tolist() == [[3]]


def test_what_is_not_definite_or_not_hermitian_has_a_code():
    X, B = torch.eye(4).repeat(7, 1, 1), torch.eye(4).repeat(7, 1, 1)
    B[1], B[2], B[3, 1, 1], B[4, 3, 3] = -B[1], 1.0, torch.nan, 0.0
    B[5, 0, 1] = 0.1
    X[6, 0, 1] = 0.1
    code = reduction(X, B).code
    assert (code != 0).tolist() == [False] + 6 * [True]
    assert code[5:].tolist() == [2, 2]
    assert code[1] == code[2] == code[4] == 1
