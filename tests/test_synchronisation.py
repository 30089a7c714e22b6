"""The functions that end in ``_ex`` never make the host wait for a device, and fit into a CUDA graph.

Without a GPU, every operator that the default path runs is looked at instead, in two ways. Tensors are treated as if
they were not on the host, and whatever would read a value, or is known to wait for the device on CUDA, raises. And
the same path runs on the device "meta", where tensors have no values that could be read, and no tensor may be on
another device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import pmaf
from cases import WORKING, factor, randn, right_side, separated, sym, with_spectrum
from pmaf import solvers, transforms
from pmaf.operators import base
from pmaf.operators.dense import Dense

# What copies a value to the host, has a size that depends on values, checks an error code on the host, or copies from
# unpinned memory of the host. torch.linalg.cholesky_ex, qr and solve_triangular do none of it.
WAITS = {
    "_local_scalar_dense",
    "item",
    "is_nonzero",
    "equal",
    "allclose",
    "nonzero",
    "masked_select",
    "unique_dim",
    "_unique",
    "_unique2",
    "unique_consecutive",
    "repeat_interleave",
    "bincount",
    "lift_fresh",  # torch.tensor(...) of Python data
    "_linalg_eigh",
    "_linalg_eigvals",
    "linalg_eig",
    "_linalg_svd",
    "linalg_lstsq",
    "linalg_pinv",
    "_linalg_check_errors",
    "linalg_inv_ex",
    "linalg_lu_factor_ex",
    "linalg_ldl_factor_ex",
    "_linalg_solve_ex",
    "_linalg_det",
    "_linalg_slogdet",
    "cholesky",  # the old one, with a check
    "cholesky_solve",  # MAGMA
    "cholesky_inverse",
}


class NoWaiting(TorchDispatchMode):
    """Raises at the first operator that would make the host wait for a device."""

    def __init__(self, device: str | None = None) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.device = device  # where every tensor has to be

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        self.seen.add(name)
        if name in WAITS:
            raise AssertionError(f"{func} makes the host wait")
        if name in {"index", "index_put", "index_put_", "_unsafe_index"}:
            masks = [i for i in args[1] if i is not None and i.dtype in (torch.bool, torch.uint8)]
            assert not masks, f"{func} with a mask makes the host wait"
        if kwargs.get("check_errors"):
            raise AssertionError(f"{func} with check_errors makes the host wait")
        result = func(*args, **kwargs)
        for x in tree_leaves((args, kwargs, result)) if self.device else ():
            assert not isinstance(x, Tensor) or x.device.type == self.device, f"{func} leaves the device"
        return result


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat every tensor as one that the host would have to wait for."""
    put_elsewhere(monkeypatch)


def put_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (transforms, base):
        monkeypatch.setattr(module, "on_host", lambda x: False)


def least_squares(A: Tensor, b: Tensor, **options: Any) -> Tensor:
    solution = pmaf.less_ex(A, b, **options)
    return torch.cat((solution.u, solution.multiplier[..., None].to(A.dtype)), -1)


def everything(A: Tensor, b: Tensor, weights: Tensor, C: Tensor, radius: Tensor) -> Tensor:
    solution = pmaf.less_ex(A, b, weights=weights, free=C, radius=radius)
    return torch.cat((solution.u, solution.multiplier[..., None].to(A.dtype), solution.z), -1)


def pair(solution: pmaf.IEDSolution) -> Tensor:
    return torch.cat((solution.eigenvalues[..., None, :].to(solution.eigenvectors.dtype), solution.eigenvectors), -2)


def diagonal_plus_one(d: Tensor, v: Tensor) -> Tensor:
    X = pmaf.MatVec(lambda d, v, V: d[:, None] * V + v[:, None] * (v.conj() @ V), d.shape[-1], (d, v))
    return pair(pmaf.ied_ex(X, 2))


def positive(seed: int, dtype: torch.dtype, *shape: int) -> Tensor:
    return randn(*shape, seed=seed, dtype=dtype).abs() + 0.5


# Layers with batches of inputs; the last ones repeat eigenvalues, so that the degenerate branches run as well.
LAYERS: dict[str, tuple[Callable[..., Tensor], Callable[[torch.dtype], tuple[Tensor, ...]]]] = {
    "less": (least_squares, lambda t: (factor(t, 3, m=6, n=4), right_side(t, 3, m=6))),
    "less, m < n": (
        lambda A, b: least_squares(A, b, radius=0.2),
        lambda t: (factor(t, 3, m=2, n=4), right_side(t, 3, m=2)),
    ),
    "less, all arguments": (
        everything,
        lambda t: (
            factor(t, 3, m=6, n=2),
            right_side(t, 3, m=6),
            positive(3, t, 3, 6),
            randn(3, 6, 2, seed=9, dtype=t),
            positive(4, t, 3),
        ),
    ),
    "less, ball": (
        lambda A, b: least_squares(A, b, radius=8.0, constraint="ball"),
        lambda t: (factor(t, 3), right_side(t, 3)),
    ),
    "sphere_quadratic": (
        lambda H, g: pmaf.sphere_quadratic_ex(sym(H), g).u,
        lambda t: (separated(t, 3), right_side(t, 3, m=4)),
    ),
    "sphere_quadratic, ball": (
        lambda H, g: pmaf.sphere_quadratic_ex(sym(H), g, constraint="ball").u,
        lambda t: (separated(t, 3) + 9 * torch.eye(4, dtype=t), right_side(t, 3, m=4)),
    ),
    "ied, k = 1": (lambda X: pair(pmaf.ied_ex(sym(X), 1)), lambda t: (separated(t, 3),)),
    "ied, k = 3": (lambda X: pair(pmaf.ied_ex(sym(X), 3)), lambda t: (separated(t, 3, n=5),)),
    "ied, k = n": (lambda X: pair(pmaf.ied_ex(sym(X), 3)), lambda t: (separated(t, 3, n=3),)),
    "ied, smallest": (lambda X: pair(pmaf.ied_ex(sym(X), 2, largest=False)), lambda t: (separated(t, 3),)),
    "ied(Gram)": (lambda F: pair(pmaf.ied_ex(pmaf.Gram(F), 2)), lambda t: (factor(t, 3, m=6, n=4),)),
    "ied(Gram), wide": (lambda F: pair(pmaf.ied_ex(pmaf.Gram(F), 2)), lambda t: (factor(t, 3, m=3, n=5),)),
    "ied(Gram), every row": (lambda F: pair(pmaf.ied_ex(pmaf.Gram(F), 3)), lambda t: (factor(t, 3, m=3, n=5),)),
    "ied(Gram), smallest": (
        lambda F: pair(pmaf.ied_ex(pmaf.Gram(F), 1, largest=False)),
        lambda t: (factor(t, 3, m=5, n=3),),
    ),
    "ied(MatVec)": (
        diagonal_plus_one,
        lambda t: (torch.tensor([5.0, 3.0, 1.0, -1.0], dtype=t), 0.5 * randn(4, seed=5, dtype=t)),
    ),
    "ied, repeated": (
        lambda X: pair(pmaf.ied_ex(sym(X), 2)),
        lambda t: (torch.stack([with_spectrum((2.0, 2.0, 2.0, 1.0, -1.0), i, t)[0] for i in range(2)]),),
    ),
    "less, hard": (least_squares, lambda t: (factor(t, 3, m=2, n=4) / 9, 0.01 * right_side(t, 3, m=2))),
}
UNIQUE = [name for name in LAYERS if name not in ("ied, repeated", "less, hard")]


def run(call: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The output and the gradients of a weighted sum of it, which weighs imaginary parts as well."""
    leaves = tuple(x.detach().clone().requires_grad_() for x in inputs)
    output = call(*leaves)
    weight = torch.linspace(-1, 1, output.numel(), dtype=torch.float64, device=output.device).reshape(output.shape)
    return output.detach(), *torch.autograd.grad((weight.to(output.dtype) * output).real.sum(), leaves)


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("dtype", WORKING, ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_forward_and_backward_read_no_value(name, dtype):
    call, make = LAYERS[name]
    inputs = make(dtype)
    with NoWaiting() as mode:
        found = run(call, inputs)
    assert all(x.isfinite().all() for x in found)
    assert "linalg_cholesky_ex" in mode.seen


@pytest.mark.parametrize("dtype", WORKING, ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_forward_and_backward_run_on_a_device_that_has_no_values(name, dtype):
    call, make = LAYERS[name]
    inputs = tuple(x.to("meta") for x in make(dtype))
    with NoWaiting("meta") as mode:
        found = run(call, inputs)
    assert [x.shape for x in found[1:]] == [x.shape for x in inputs]
    assert "linalg_cholesky_ex" in mode.seen


@pytest.mark.parametrize("dtype", WORKING, ids=str)
@pytest.mark.parametrize("name", UNIQUE)
def test_the_answers_are_those_of_the_host(name, dtype, monkeypatch):
    call, make = LAYERS[name]
    inputs = make(dtype)
    truth = run(call, tuple(x.to(torch.complex128 if x.is_complex() else torch.float64) for x in inputs))
    put_elsewhere(monkeypatch)
    found = run(call, inputs)
    scale = 1e-4 if torch.finfo(dtype).bits < 64 else 1e-10
    for ours, theirs in zip(found, truth, strict=True):
        assert float((ours.to(theirs.dtype) - theirs).abs().max()) <= scale * (1 + float(theirs.abs().max()))


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("name", UNIQUE)
def test_second_derivatives(name):
    call, make = LAYERS[name]
    inputs = tuple(x[:1].requires_grad_() if name != "ied(MatVec)" else x.requires_grad_() for x in make(torch.float64))
    assert torch.autograd.gradcheck(call, inputs, check_forward_ad=True, fast_mode=True)
    assert torch.autograd.gradgradcheck(call, inputs, fast_mode=True)


@pytest.mark.usefixtures("elsewhere")
class TestDegenerate:
    def test_repeated_eigenvalues_leave_no_trace_of_rounding(self):
        X = with_spectrum((4.0, 4.0, 4.0, 1.0, -2.0))[0].requires_grad_()
        solution = pmaf.ied_ex(X, 1)
        assert int(solution.status) == pmaf.Status.NOT_UNIQUE
        solution.eigenvectors.sum().backward()
        assert float(X.grad.abs().max()) < 10

    @pytest.mark.parametrize("dtype", WORKING, ids=str)
    def test_items_that_are_not_finite_spoil_no_other(self, dtype):
        X = separated(dtype, 3)
        spoilt = X.clone()
        spoilt[1, 0, 0] = torch.nan
        spoilt.requires_grad_()
        solution = pmaf.ied_ex(sym(spoilt), 2)
        assert solution.status.tolist() == [0, pmaf.Status.NON_FINITE, 0]
        assert torch.equal(solution.eigenvalues[::2], pmaf.ied_ex(sym(X), 2).eigenvalues[::2])
        solution.eigenvectors.abs().nan_to_num().sum().backward()
        assert spoilt.grad.isfinite().all()
        assert (spoilt.grad[1] == 0).all()

    @pytest.mark.parametrize("radius", [torch.tensor([1.0, -1.0]), torch.tensor([1.0, 0.0])], ids=["negative", "zero"])
    def test_a_bad_radius_becomes_a_status(self, radius):
        A, b = factor(torch.float32, 2), right_side(torch.float32, 2)
        assert pmaf.less_ex(A, b, radius=radius).status.tolist() == [0, pmaf.Status.NON_FINITE]

    def test_a_negative_weight_becomes_a_status(self):
        A, b, weights = factor(torch.float64, 2), right_side(torch.float64, 2), torch.ones(2, 5, dtype=torch.float64)
        weights[1, 3] = -1
        assert pmaf.less_ex(A, b, weights=weights).status.tolist() == [0, pmaf.Status.NON_FINITE]


class TestTheAudit:
    """A test that cannot fail proves nothing."""

    @pytest.mark.parametrize(
        "wait",
        [
            lambda x: x.sum().item(),
            lambda x: bool((x > 0).all()),
            lambda x: x[x > 0],
            lambda x: x.nonzero(),
            lambda x: torch.linalg.eigh(x),
            lambda x: torch.linalg.svd(x),
            lambda x: torch.linalg.cholesky(x @ x.mT + torch.eye(3)),
            lambda x: torch.linalg.solve(x, x),
            lambda x: torch.linalg.pinv(x, hermitian=True),
            lambda x: torch.tensor([1.0, 2.0]),
        ],
    )
    def test_it_notices(self, wait):
        with NoWaiting(), pytest.raises(AssertionError, match="makes the host wait"):
            wait(torch.eye(3) + 1)

    def test_it_notices_another_device(self):
        with NoWaiting("meta"), pytest.raises(AssertionError, match="leaves the device"):
            torch.ones(3, device="meta") + torch.ones(())

    def test_it_notices_the_default_of_the_host(self):
        with NoWaiting(), pytest.raises(AssertionError, match="makes the host wait"):
            pmaf.ied_ex(separated(torch.float64), 2)

    @pytest.mark.usefixtures("elsewhere")
    def test_the_plain_functions_do_wait(self):
        with NoWaiting(), pytest.raises(AssertionError, match="makes the host wait"):
            pmaf.less(*LAYERS["less"][1](torch.float64))


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("gram", [False, True], ids=["dense", "gram"])
def test_a_start_near_the_answer_saves_factorisations(gram):
    X = pmaf.Gram(factor(torch.float64, 3, m=3, n=5)) if gram else separated(torch.float64, 3)
    cold = pmaf.ied_ex(X, 2)
    warm = pmaf.ied_ex(X, 2, start=cold.eigenvectors)
    torch.testing.assert_close(warm.eigenvalues, cold.eigenvalues)
    torch.testing.assert_close(warm.eigenvectors, cold.eigenvectors)
    useless = pmaf.ied_ex(X, 2, start=torch.full((X.n if gram else 4, 1), torch.nan, dtype=torch.float64))
    torch.testing.assert_close(useless.eigenvalues, cold.eigenvalues)
    assert (warm.steps < cold.steps).all()


def test_selection():
    X = Dense(separated(torch.float64))
    assert isinstance(solvers.select("less", wait=False), solvers.MoreSorensen)
    assert isinstance(solvers.select("ied", X, wait=False), solvers.CholeskyInverseIteration)
    assert isinstance(solvers.select("less"), solvers.Secular)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", WORKING, ids=str)
@pytest.mark.parametrize("name", LAYERS)
class TestOnCuda:
    def test_no_synchronisation(self, name, dtype):
        call, make = LAYERS[name]
        inputs = tuple(x.cuda() for x in make(dtype))
        run(call, inputs)  # handles and workspaces are made here
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            found = run(call, inputs)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert all(x.isfinite().all() for x in found)

    def test_capture_in_a_graph(self, name, dtype):
        call, make = LAYERS[name]
        inputs = tuple(x.cuda() for x in make(dtype))
        fixed = tuple(x.clone().requires_grad_() for x in inputs)

        def step() -> tuple[Tensor, ...]:
            output = call(*fixed)
            weight = torch.linspace(-1, 1, output.numel(), dtype=torch.float64, device="cuda").reshape(output.shape)
            return output, *torch.autograd.grad((weight.to(output.dtype) * output).real.sum(), fixed)

        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = step()
        if name not in UNIQUE:
            graph.replay()
            assert all(x.isfinite().all() for x in captured)
            return
        for factor_of in (1.0, 1.25):  # new data in the same memory
            with torch.no_grad():
                for old, new in zip(fixed, inputs, strict=True):
                    old.copy_(factor_of * new)
            graph.replay()
            for ours, theirs in zip(captured, run(call, tuple(factor_of * x for x in inputs)), strict=True):
                torch.testing.assert_close(ours.detach(), theirs)
