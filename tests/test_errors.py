"""Refusals: the type of the error, the rule that was broken, what was received, and what to do."""

from __future__ import annotations

import re

import pytest
import torch

import pmaf

A, b = torch.zeros(5, 3), torch.zeros(5)
X = torch.eye(3)
SHIFT = torch.tensor([[0.0, 1.0], [0.0, 0.0]])


REFUSALS = [
    # call, type, message
    (lambda: pmaf.less([[1.0]], b), TypeError, "pmaf.less: A must be a torch.Tensor of shape (*, m, n), got [[1.0]] (list)"),
    (lambda: pmaf.less(A, None), TypeError, "pmaf.less: b must be a torch.Tensor of shape (*, m), got None (NoneType)"),
    (lambda: pmaf.less(A.int(), b), TypeError, "A must be float16, bfloat16, float32, float64, complex64 or complex128, got a torch.int32 tensor of shape (5, 3); convert it with .to(torch.float32)"),
    (lambda: pmaf.less(b, b), ValueError, "A must have shape (*, m, n), got a torch.float32 tensor of shape (5,)"),
    (lambda: pmaf.less(A, torch.zeros(4)), ValueError, "pmaf.less: b must have size 5 (the rows of A), got 4"),
    (lambda: pmaf.less(A, torch.zeros(())), ValueError, "b must have shape (*, m)"),
    (lambda: pmaf.less(torch.zeros(5, 0), b), ValueError, "A must have at least one column, got a torch.float32 tensor of shape (5, 0)"),
    (lambda: pmaf.less(torch.zeros(2, 5, 3), torch.zeros(3, 5)), ValueError, "pmaf.less: batch shapes must broadcast against each other, got A (2,), b (3,)"),
    (lambda: pmaf.less(A, b.double()), TypeError, "pmaf.less: arguments must share one dtype, got A torch.float32, b torch.float64; convert with .to(dtype)"),
    (lambda: pmaf.less(A, b, radius=0.0), ValueError, "pmaf.less: radius must be positive, got 0"),
    (lambda: pmaf.less(A, b, radius=-1), ValueError, "radius must be positive, got -1"),
    (lambda: pmaf.less(A, b, radius="1"), TypeError, "radius must be a number or a real tensor, got '1' (str)"),
    (lambda: pmaf.less(A, b, radius=True), TypeError, "radius must be a number or a real tensor, got True (bool)"),
    (lambda: pmaf.less(A, b, radius=torch.tensor([1.0, 0.0])), ValueError, "radius must be positive, got 0 at index (1,)"),
    (lambda: pmaf.less(A, b, radius=torch.tensor(1j)), TypeError, "radius must be real, got a torch.complex64 tensor"),
    (lambda: pmaf.less(A, b, weights=torch.tensor([1.0, 1, -2, 1, 1])), ValueError, "weights must be non-negative, got -2 at index (2,)"),
    (lambda: pmaf.less(A, b, weights=torch.ones(4)), ValueError, "weights must have size 5 (the rows of A), got 4"),
    (lambda: pmaf.less(A, b, weights=torch.ones(5, dtype=torch.complex64)), TypeError, "weights must be real"),
    (lambda: pmaf.less(A, b, free=torch.zeros(4, 2)), ValueError, "free must have size 5 (the rows of A), got 4"),
    (lambda: pmaf.less(A, b, free=torch.zeros(5)), ValueError, "free must have shape (*, m, p)"),
    (lambda: pmaf.less(A, b, constraint="disc"), ValueError, "pmaf.less: constraint must be one of 'sphere', 'ball', got 'disc' (str)"),
    (lambda: pmaf.less(A, b, degenerate="ignore"), ValueError, "degenerate must be one of 'drop', 'nan', 'raise', got 'ignore' (str)"),
    (lambda: pmaf.less(A, b, solver="newton"), ValueError, "pmaf.less: unknown solver 'newton'; known are "),
    (lambda: pmaf.less(A, b, solver="eigh"), ValueError, "pmaf.less: unknown solver 'eigh'"),
    (lambda: pmaf.less(A, b, solver=3), TypeError, "solver must be a short name"),
    (lambda: pmaf.less(A, b, solver=pmaf.solvers.Secular), TypeError, "an object with a method solve"),
    (lambda: pmaf.less(A, b, start=torch.zeros(3)), ValueError, "start= needs an iterative solver; Secular() is global and needs none"),
    (lambda: pmaf.less_ex(A, torch.zeros(4)), ValueError, "pmaf.less_ex: b must have size 5"),
    (lambda: pmaf.sphere_quadratic(A, b), ValueError, "must be square, (*, n, n) with n ≥ 1, got a torch.float32 tensor of shape (5, 3)"),
    (lambda: pmaf.sphere_quadratic(torch.tensor([[0.0, 1], [0, 0]]), torch.zeros(2)), ValueError, "must be symmetric (Hermitian), but item () of a torch.float32 tensor of shape (2, 2) is not; pass (X + X.mH) / 2"),
    (lambda: pmaf.sphere_quadratic(X, torch.zeros(2)), ValueError, "g must have size 3 (the order of H), got 2"),
    (lambda: pmaf.ied(None, 1), TypeError, "pmaf.ied: X must be a tensor or an operator such as pmaf.Gram, got None (NoneType)"),
    (lambda: pmaf.ied(A, 1), ValueError, "pmaf.ied: X must be square"),
    (lambda: pmaf.ied(torch.zeros(0, 0), 1), ValueError, "X must be square, (*, n, n) with n ≥ 1"),
    (lambda: pmaf.ied(X.long(), 1), TypeError, "pmaf.ied: X must be float16"),
    (lambda: pmaf.ied(torch.stack((X, torch.tensor([[1.0, 2, 0], [0, 1, 0], [0, 0, 1]]))), 1), ValueError, "X must be symmetric (Hermitian), but item (1,) of a torch.float32 tensor of shape (2, 3, 3) is not"),
    (lambda: pmaf.ied(torch.tensor([[1.0, 1j], [1j, 1.0]]), 1), ValueError, "must be symmetric (Hermitian)"),
    (lambda: pmaf.ied(X, 0), ValueError, "pmaf.ied: k must lie between 1 and n = 3, got 0"),
    (lambda: pmaf.ied(X, 4), ValueError, "k must lie between 1 and n = 3, got 4"),
    (lambda: pmaf.ied(X, 1.0), TypeError, "pmaf.ied: k must be an integer, got 1.0 (float)"),
    (lambda: pmaf.ied(X, True), TypeError, "k must be an integer, got True (bool)"),
    (lambda: pmaf.ied(X, 1, reference=torch.zeros(2)), ValueError, "reference must have size 3 (the order of X), got 2"),
    (lambda: pmaf.ied(torch.zeros(2, 3, 3), 1, reference=torch.zeros(4, 3)), ValueError, "batch shapes must broadcast"),
    (lambda: pmaf.ied(X, 1, start=torch.ones(7)), ValueError, "start must have size 3 (the number of unknowns), got 7"),
    (lambda: pmaf.ied(SHIFT.to_sparse()), ValueError, "pmaf.ied: X must be symmetric (Hermitian), but this Sparse of order 2 tells"),
    (lambda: pmaf.ied_ex(SHIFT.to_sparse_csc().bfloat16()), ValueError, "pmaf.ied_ex: X must be symmetric"),
    (lambda: pmaf.ied_ex(pmaf.MatVec(lambda W, V: W @ V, 2, SHIFT)), ValueError, "pmaf.ied_ex: X must be symmetric (Hermitian), but this MatVec"),
    (lambda: pmaf.ied(pmaf.MatVec(lambda d, V: d[:, None] * V, 2, 1j * torch.ones(2))), ValueError, "pmaf.ied: X must be symmetric"),
    (lambda: pmaf.principal_projector(SHIFT.to_sparse(), 1), ValueError, "pmaf.principal_projector: X must be symmetric"),
    (lambda: pmaf.sphere_quadratic(SHIFT.to_sparse(), SHIFT[0]), ValueError, "pmaf.sphere_quadratic: H must be symmetric"),
    (lambda: pmaf.less(A, b, start=torch.ones(9)), ValueError, "start must have size"),
    (lambda: pmaf.ied(X, 1, solver="secular"), ValueError, "pmaf.ied: unknown solver 'secular'; known are "),
    (lambda: pmaf.ied(X, 1, solver="eigh", start=torch.ones(3)), ValueError, "start= needs an iterative solver; Eigh() is direct"),
    (lambda: pmaf.ied_ex(X, 5), ValueError, "pmaf.ied_ex: k must lie between 1 and n = 3"),
    (lambda: pmaf.principal_projector(X, 4), ValueError, "pmaf.principal_projector: k must lie"),
    (lambda: pmaf.principal_projector(X, 1, solver="x"), ValueError, "pmaf.principal_projector: unknown solver"),
    (lambda: pmaf.Gram(b), ValueError, "pmaf.Gram: F must be a tensor of shape (*, r, n), got a torch.float32 tensor of shape (5,)"),
    (lambda: pmaf.MatVec(None, 3, X), ValueError, "pmaf.MatVec: needs a callable fn(*params, V) and at least one parameter tensor"),
    (lambda: pmaf.MatVec(lambda V: V, 3, ()), ValueError, "at least one parameter tensor"),
    (lambda: pmaf.Implicit(rtol=-1.0), ValueError, "Implicit needs non-negative tolerances"),
    (lambda: pmaf.solvers.Secular(max_steps=0), ValueError, "Secular needs max_steps >= 1"),
    (lambda: pmaf.solvers.select("svd"), ValueError, "problem must be 'less', 'sphere_quadratic' or 'ied', got 'svd'"),
    (lambda: pmaf.nn.PrincipalPool2d(0), ValueError, "pmaf.nn.PrincipalPool2d: k must be at least 1, got 0"),
    (lambda: pmaf.nn.PrincipalPool2d()(A), ValueError, "pmaf.nn.PrincipalPool2d: features must be (*, C, H, W), got a torch.float32 tensor of shape (5, 3)"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "kind", "message"), REFUSALS, ids=[message[:60] for _, _, message in REFUSALS])
def test_refusal(call, kind, message):
    with pytest.raises(kind, match=re.escape(message)):
        call()


def test_meta_and_cpu_do_not_mix():
    with pytest.raises(ValueError, match=r"pmaf\.less: b is on cpu but A on meta; move one with \.to"):
        pmaf.less(A.to("meta"), b)


def test_unknown_keywords_are_refused():
    with pytest.raises(TypeError, match="unexpected keyword argument 'raduis'"):
        pmaf.less(A, b, raduis=1.0)
    with pytest.raises(TypeError, match="positional argument"):
        pmaf.less(A, b, 1.0)


def test_errors_have_their_own_classes():
    assert issubclass(pmaf.ConvergenceError, RuntimeError)
    assert issubclass(pmaf.DegeneracyError, RuntimeError)
    assert issubclass(pmaf.DegeneracyWarning, UserWarning)
    assert issubclass(pmaf.LocalSolutionWarning, UserWarning)


def test_a_local_minimum_is_called_one():
    # the far side of the sphere is stationary for gradient descent; started there, it stays
    A, b = torch.diag(torch.tensor([1.0, 2.0])), torch.tensor([1.0, 0.0])
    solver = pmaf.solvers.RiemannianGradient()
    far = torch.tensor([-1.0, 0.0])
    assert int(pmaf.less_ex(A, b, start=far, solver=solver).status) == pmaf.Status.NOT_GLOBAL
    with pytest.warns(
        pmaf.LocalSolutionWarning, match=r"pmaf\.less: the problem ended with NOT_GLOBAL.*default solver"
    ):
        pmaf.less(A, b, start=far, solver=solver)
