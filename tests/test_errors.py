"""Refusals: the type of the error, the rule that was broken, what was received, and what to do."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
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
    (lambda: pmaf.less(A, b, radius=0.0), ValueError, "pmaf.less: radius must be positive and finite, got 0"),
    (lambda: pmaf.less(A, b, radius=-1), ValueError, "radius must be positive and finite, got -1"),
    (lambda: pmaf.less(A, b, radius=float("nan")), ValueError, "pmaf.less: radius must be positive and finite, got nan"),
    (lambda: pmaf.less_ex(A, b, radius=torch.tensor(torch.inf)), ValueError, "radius must be positive and finite, got inf"),
    (lambda: pmaf.less(A, b, radius=1e300), ValueError, "radius must be positive and finite in torch.float32, got 1e+300"),
    (lambda: pmaf.less(A, b, radius=torch.tensor(1e300, dtype=torch.float64)), ValueError, "got 1e+300 at index (), which is inf in torch.float32"),
    (lambda: pmaf.less(A, b, radius="1"), TypeError, "radius must be a number, got '1' (str)"),
    (lambda: pmaf.less(A, b, radius=True), TypeError, "radius must be a number, got True (bool)"),
    (lambda: pmaf.less(A, b, radius=torch.tensor([1.0, 0.0])), ValueError, "radius must be positive and finite, got 0 at index (1,)"),
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
    (lambda: pmaf.less(A, b, start=torch.zeros(3)), ValueError, "pmaf.solvers.Secular: is global and needs no start"),
    (lambda: pmaf.less_ex(A, torch.zeros(4)), ValueError, "pmaf.less_ex: b must have size 5"),
    (lambda: pmaf.sphere_quadratic(A, b), ValueError, "must be square, (*, n, n) with n ≥ 1, got a torch.float32 tensor of shape (5, 3)"),
    (lambda: pmaf.sphere_quadratic(torch.tensor([[0.0, 1], [0, 0]]), torch.zeros(2)), ValueError, "pmaf.sphere_quadratic: H must be symmetric (Hermitian), but a torch.float32 tensor of shape (2, 2) is not; pass (H + H.mH) / 2 if that is meant"),
    (lambda: pmaf.sphere_quadratic(X, torch.zeros(2)), ValueError, "g must have size 3 (the order of H), got 2"),
    (lambda: pmaf.ied(None, 1), TypeError, "pmaf.ied: X must be a tensor or an operator such as pmaf.Gram, got None (NoneType)"),
    (lambda: pmaf.ied(A, 1), ValueError, "pmaf.ied: X must be square"),
    (lambda: pmaf.ied(torch.zeros(0, 0), 1), ValueError, "X must be square, (*, n, n) with n ≥ 1"),
    (lambda: pmaf.ied(X.long(), 1), TypeError, "pmaf.ied: X must be float16"),
    (lambda: pmaf.ied(torch.stack((X, torch.tensor([[1.0, 2, 0], [0, 1, 0], [0, 0, 1]]))), 1), ValueError, "X must be symmetric (Hermitian), but item (1,) of a torch.float32 tensor of shape (2, 3, 3) is not"),
    (lambda: pmaf.ied(torch.tensor([[1.0, 1j], [1j, 1.0]]), 1), ValueError, "must be symmetric (Hermitian)"),
    (lambda: pmaf.ied(X, -1), ValueError, "pmaf.ied: k must lie between 0 and n = 3, got -1"),
    (lambda: pmaf.ied(X, 4), ValueError, "k must lie between 0 and n = 3, got 4"),
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
    (lambda: pmaf.ied(X, 1, solver="eigh", start=torch.ones(3)), ValueError, "pmaf.solvers.Eigh: is direct and needs no start"),
    (lambda: pmaf.ied_ex(X, 5), ValueError, "pmaf.ied_ex: k must lie between 0 and n = 3"),
    (lambda: pmaf.principal_projector(X, 4), ValueError, "pmaf.principal_projector: k must lie"),
    (lambda: pmaf.principal_projector(X, 1, solver="x"), ValueError, "pmaf.principal_projector: unknown solver"),
    (lambda: pmaf.Gram(b), ValueError, "pmaf.Gram: F must have shape (*, r, n), got a torch.float32 tensor of shape (5,)"),
    (lambda: pmaf.MatVec(None, 3, X), ValueError, "pmaf.MatVec: needs a callable fn(*params, V) and at least one parameter tensor"),
    (lambda: pmaf.MatVec(lambda V: V, 3, ()), ValueError, "at least one parameter tensor"),
    (lambda: pmaf.Implicit(rtol=-1.0), ValueError, "pmaf.Implicit: rtol must be non-negative, got -1"),
    (lambda: pmaf.solvers.Secular(max_steps=0), ValueError, "pmaf.solvers.Secular: max_steps must be at least 1, got 0"),
    (lambda: pmaf.solvers.select("svd"), ValueError, "problem must be 'less', 'sphere_quadratic' or 'ied', got 'svd'"),
    (lambda: pmaf.less(A, torch.eye(5).to_sparse()), TypeError, "pmaf.less: b must be dense, got torch.sparse_coo"),
    (lambda: pmaf.less(A, b, weights=torch.ones(5, dtype=torch.float64)), TypeError, "arguments must share one dtype, got A torch.float32, b torch.float32, weights torch.float64"),
    (lambda: pmaf.less(A, b, solver=pmaf.solvers.Eigh()), TypeError, "pmaf.less: solver Eigh() finds eigenpairs, which is another problem; known are "),
    (lambda: pmaf.ied(X, solver=pmaf.solvers.Secular()), TypeError, "minimises on the sphere, which is another problem; known are block_lanczos"),
    (lambda: pmaf.less_ex(A.to_sparse(), torch.zeros(4)), ValueError, "pmaf.less_ex: b must have size 5 (the rows of A), got 4"),
    (lambda: pmaf.less(A.int().to_sparse(), b), TypeError, "pmaf.less: A must be float16"),
    (lambda: pmaf.less(A.to_sparse(), b.double()), TypeError, "arguments must share one dtype, got operator torch.float32, b torch.float64"),
    (lambda: pmaf.sphere_quadratic_ex(A.to_sparse(), torch.zeros(3)), ValueError, "pmaf.sphere_quadratic_ex: H must be square, (*, n, n) with n ≥ 1"),
    (lambda: pmaf.sphere_quadratic(X.to_sparse(), b), ValueError, "g must have size 3 (the order of H), got 5"),
    (lambda: pmaf.sphere_quadratic(pmaf.Gram(A), b), ValueError, "g must have size 3 (the order of H), got 5"),
    (lambda: pmaf.svd(torch.stack((X, X)).to_sparse()), ValueError, "pmaf.svd: a sparse A has no batch dimensions"),
    (lambda: pmaf.ied(A.to_sparse()), ValueError, "pmaf.ied: X must be square"),
    (lambda: pmaf.ied(pmaf.Gram(torch.ones(0, 3))), ValueError, "pmaf.ied: F of pmaf.Gram must have at least one row"),
    (lambda: pmaf.ied(X, largest="smallest"), TypeError, "pmaf.ied: largest must be True or False, got 'smallest' (str)"),
    (lambda: pmaf.Implicit(check_gauge=None), TypeError, "check_gauge must be True or False"),
    (lambda: pmaf.principal_projector(X, 1, largest=0), TypeError, "pmaf.principal_projector: largest must be True or False"),
    (lambda: pmaf.principal_projector(torch.tensor([[0.0, 1], [0, 0]]), 1), ValueError, "pass (X + X.mH) / 2 if that is meant"),
    (lambda: pmaf.ied(X, reference=torch.ones(3, dtype=torch.complex64)), TypeError, "pmaf.ied: reference must be real, as X is"),
    (lambda: pmaf.ied(X, 1, start=torch.full((3,), float("nan"))), ValueError, "pmaf.ied: start must be finite, but is not at index (0,)"),
    (lambda: pmaf.ied(X, 1, start=torch.ones(3, dtype=torch.complex64)), TypeError, "pmaf.ied: start must be real, as the data are"),
    (lambda: pmaf.ied(X, 1, start=torch.ones(3, 0)), ValueError, "pmaf.ied: start must have at least one column"),
    (lambda: pmaf.ied(torch.eye(5).expand(2, 5, 5), 1, start=torch.ones(3, 5, 1)), ValueError, "batch shapes must broadcast against each other, got data (2,), start (3,)"),
    (lambda: pmaf.ied(torch.eye(5), 1, start=torch.ones(3, 5, 1)), ValueError, "start has the batch shape (3,), more than that of the problem, ()"),
    (lambda: pmaf.less(A, b, start=torch.ones(2, 3)), ValueError, "start has the batch shape (2,), more than that of the problem, ()"),
    (lambda: pmaf.less(A, b, start=torch.tensor([1.0, float("inf"), 0.0]), solver="riemannian_gradient"), ValueError, "pmaf.less: start must be finite, but is not at index (1,)"),
    (lambda: pmaf.sphere_quadratic(X.to_sparse(), torch.ones(3), start=torch.ones(3) * 1j), TypeError, "start must be real"),
    (lambda: pmaf.sphere_quadratic(X, torch.ones(3), start=[1, 2, 3]), TypeError, "start must be a torch.Tensor of shape (*, n)"),
    (lambda: pmaf.certify(A.to_sparse(), b, torch.ones(3)), TypeError, "pmaf.certify: A must be dense, got torch.sparse_coo; make it so with .to_dense()"),
    (lambda: pmaf.certify(A, b, torch.ones(3), radius="1"), TypeError, "pmaf.certify: radius must be a number, got '1' (str)"),
    (lambda: pmaf.Gram(A.int()), TypeError, "pmaf.Gram: F must be float16"),
    (lambda: pmaf.Gram(A.to_sparse()), TypeError, "pmaf.Gram: F must be dense"),
    (lambda: pmaf.Gram([[1.0]]), TypeError, "pmaf.Gram: F must be a torch.Tensor"),
    (lambda: pmaf.MatVec(lambda a, V: V, 3, [2.0]), TypeError, "pmaf.MatVec: params must be tensors, got 2.0 (float)"),
    (lambda: pmaf.MatVec(lambda a, V: V, 2.5, X), TypeError, "pmaf.MatVec: n must be an integer, got 2.5 (float)"),
    (lambda: pmaf.MatVec(lambda a, V: V, 0, X), ValueError, "pmaf.MatVec: n must be at least 1, got 0"),
    (lambda: pmaf.MatVec(lambda a, V: V, 3, torch.arange(3)), ValueError, "at least one parameter tensor that is floating-point or complex"),
    (lambda: pmaf.ied(pmaf.MatVec(lambda a, V: (a @ V)[:2], 3, X)), ValueError, "pmaf.MatVec: fn(*params, V) must return X V of shape (3, "),
    (lambda: pmaf.ied(pmaf.MatVec(lambda a, V: (a @ V).sum(-1), 3, X)), ValueError, "fn(*params, V) must return X V of shape (3, 2) for V of shape (3, 2), got a torch.float32 tensor of shape (3,)"),
    (lambda: pmaf.ied(pmaf.MatVec(lambda a, V: a @ V, 4, X)), ValueError, "pmaf.MatVec: fn(*params, V) fails for V of shape (4, "),
    (lambda: pmaf.ied(pmaf.MatVec(lambda a, V: (a @ V).double(), 3, X)), TypeError, "must return a torch.float32 tensor like V, got a torch.float64"),
    (lambda: pmaf.ied(pmaf.MatVec(lambda a, V: None, 3, X)), TypeError, "must return a torch.float32 tensor like V, got None"),
    (lambda: pmaf.less(pmaf.MatVec(lambda a, V: a @ V, 3, A), torch.ones(4)), ValueError, "fn(*params, V) returns 5 rows, so b must have size 5, got 4"),
    (lambda: pmaf.less(pmaf.MatVec(lambda a, V: a @ V, 4, A), b), ValueError, "fn(*params, V) fails for V of shape (4, 1)"),
    (lambda: pmaf.less(pmaf.MatVec(lambda a, V: (a @ V)[:, 0], 3, A), b), ValueError, "fn(*params, V) must return X V of shape (m, 1) for V of shape (3, 1)"),
    (lambda: pmaf.FixedPoint(dense="yes"), TypeError, "pmaf.FixedPoint: dense must be True or False"),
    (lambda: pmaf.nn.LESS(-1), ValueError, "pmaf.nn.LESS: radius must be positive and finite, got -1"),
    (lambda: pmaf.nn.LESS("a"), TypeError, "pmaf.nn.LESS: radius must be a number, got 'a' (str)"),
    (lambda: pmaf.nn.LESS(constraint="cube"), ValueError, "pmaf.nn.LESS: constraint must be one of 'sphere', 'ball', got 'cube' (str)"),
    (lambda: pmaf.nn.LESS(solver="eigh"), ValueError, "pmaf.nn.LESS: unknown solver 'eigh'"),
    (lambda: pmaf.nn.LESS(backward="implicit"), TypeError, "pmaf.nn.LESS: backward must be a mode such as pmaf.Implicit()"),
    (lambda: pmaf.nn.IED(0), ValueError, "pmaf.nn.IED: k must be at least 1, got 0"),
    (lambda: pmaf.nn.IED("a"), TypeError, "pmaf.nn.IED: k must be an integer, got 'a' (str)"),
    (lambda: pmaf.nn.IED(largest="no"), TypeError, "pmaf.nn.IED: largest must be True or False"),
    (lambda: pmaf.nn.IED(degenerate="x"), ValueError, "pmaf.nn.IED: degenerate must be one of"),
    (lambda: pmaf.nn.PrincipalPool2d(1.5), TypeError, "pmaf.nn.PrincipalPool2d: k must be an integer, got 1.5 (float)"),
    (lambda: pmaf.nn.PrincipalPool2d(center=2), TypeError, "pmaf.nn.PrincipalPool2d: center must be True or False"),
    (lambda: pmaf.nn.PrincipalPool2d()(torch.ones(2, 3, 0, 4)), ValueError, "features must have channels and pixels, got a torch.float32 tensor of shape (2, 3, 0, 4)"),
    (lambda: pmaf.nn.PrincipalPool2d(0), ValueError, "pmaf.nn.PrincipalPool2d: k must be at least 1, got 0"),
    (lambda: pmaf.nn.PrincipalPool2d()(A), ValueError, "pmaf.nn.PrincipalPool2d: features must have shape (*, C, H, W), got a torch.float32 tensor of shape (5, 3)"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "kind", "message"), REFUSALS, ids=[message[:60] for _, _, message in REFUSALS])
def test_refusal(call, kind, message):
    with pytest.raises(kind, match=re.escape(message)):
        call()


SOLVERS = sorted({**pmaf.solvers.SPHERE, **pmaf.solvers.EIGEN}.values(), key=lambda solver: solver.__name__)


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: solver.__name__)
def test_settings_of_solvers_are_checked_alike(solver):
    integers = {"max_steps", "block_size", "max_basis"} & {field.name for field in dataclasses.fields(solver)}
    for name in integers:
        for wrong, kind in ((0, ValueError), (2.5, TypeError), ("a", TypeError), (True, TypeError)):
            with pytest.raises(kind, match=rf"^pmaf\.solvers\.{solver.__name__}: {name} must be .*, got "):
                solver(**{name: wrong})
        made = solver(**{name: np.int64(3)})
        assert type(getattr(made, name)) is int
    for name in {"rtol", "tol"} & {field.name for field in dataclasses.fields(solver)}:
        for wrong, kind in ((-1.0, ValueError), (float("nan"), ValueError), ("a", TypeError)):
            with pytest.raises(kind, match=rf"^pmaf\.solvers\.{solver.__name__}: {name} must be .*, got "):
                solver(**{name: wrong})
        assert type(getattr(solver(**{name: np.float32(0.5)}), name)) is float


def test_numbers_of_numpy_are_numbers():
    plain = pmaf.ied(X + torch.diag(torch.arange(3.0)), 2)
    for k in (np.int64(2), np.uint8(2)):
        torch.testing.assert_close(pmaf.ied(X + torch.diag(torch.arange(3.0)), k), plain, rtol=0, atol=0)
    u = pmaf.less(torch.eye(3), torch.ones(3), radius=np.float32(2))
    torch.testing.assert_close(u, pmaf.less(torch.eye(3), torch.ones(3), radius=2), rtol=0, atol=0)
    assert repr(pmaf.nn.IED(np.int64(2))) == "IED(k=2)"


@pytest.mark.parametrize("batch", [(), (2,)])
def test_a_free_block_without_columns_is_none(batch):
    A = torch.randn(*batch, 5, 3, requires_grad=True)
    solution = pmaf.less_ex(A, torch.ones(5), free=torch.ones(5, 0))
    torch.testing.assert_close(solution.u, pmaf.less(A, torch.ones(5)), rtol=0, atol=0)
    assert solution.z.shape == (*batch, 0)
    solution.u.sum().backward()
    assert A.grad.isfinite().all()


@pytest.mark.filterwarnings("ignore:Sparse BSR tensor support:UserWarning")  # torch itself
def test_a_matrix_in_blocks_is_refused():
    with pytest.raises(
        TypeError, match=r"pmaf\.ied: a sparse X must have the layout COO, CSR or CSC, got torch\.sparse_b"
    ):
        pmaf.ied(torch.eye(4).to_sparse_bsr((2, 2)))


def test_a_start_that_is_not_finite_says_how_to_go_on():
    A, b = torch.randn(2, 5, 3), torch.ones(5)
    start = torch.tensor([[1.0, 0, 0], [float("nan")] * 3])
    solver = pmaf.solvers.RiemannianGradient()
    with pytest.raises(ValueError, match=r"index \(1, 0\); start.nan_to_num\(\) is"):
        pmaf.less_ex(A, b, start=start, solver=solver)
    assert pmaf.less_ex(A, b, start=start.nan_to_num(), solver=solver).u.isfinite().all()
    assert pmaf.less_ex(A, b, start=start[:1].double(), solver=solver).u.dtype == torch.float32


def test_meta_and_cpu_do_not_mix():
    with pytest.raises(ValueError, match=r"pmaf\.less: b is on cpu but A on meta; move one with \.to"):
        pmaf.less(A.to("meta"), b)


def test_unknown_keywords_are_refused():
    with pytest.raises(TypeError, match="unexpected keyword argument 'raduis'"):
        pmaf.less(A, b, raduis=1.0)
    with pytest.raises(TypeError, match="takes A, b by position, got 3 arguments"):
        pmaf.less(A, b, 1.0)
    with pytest.raises(TypeError, match=r"^pmaf\.less\(\) missing 1 required positional argument: 'b'"):
        pmaf.less(A)
    with pytest.raises(TypeError, match=r"^pmaf\.ied\(\) got an unexpected keyword argument 'sover'"):
        pmaf.ied_ex(A.mT @ A, sover="eigh")


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
