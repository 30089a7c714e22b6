"""What the ranks of a distributed job check; :mod:`test_sharded` starts them and says which check failed."""

from __future__ import annotations

import copy
import datetime
import faulthandler
import os
import socket
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.debug import CommDebugMode
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.utils._python_dispatch import TorchDispatchMode

import pmaf

PATIENCE = 200.0  # seconds, of which two idle cores need fifteen
CHECKS: dict[str, Callable[[DeviceMesh], None]] = {}


def check(function: Callable[[DeviceMesh], None]) -> Callable[[DeviceMesh], None]:
    CHECKS[function.__name__] = function
    return function


def run(rank: int, world: int, folder: str) -> None:
    """Every check, in turn; what goes wrong on this rank is written down."""
    faulthandler.dump_traceback_later(PATIENCE - 10)  # a rank that waits in vain says where
    torch.set_num_threads(1)
    warnings.simplefilter("error", pmaf.DegeneracyWarning)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback())
    store = dist.FileStore(f"{folder}/store", world)
    wait = datetime.timedelta(seconds=PATIENCE - 20)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=wait)
    mesh = init_device_mesh("cpu", (world,))
    failures = {}
    for name, function in CHECKS.items():
        torch.manual_seed(0)
        try:
            function(mesh)
        except Exception:
            failures[name] = traceback.format_exc()
        torch.save(failures, f"{folder}/failures{rank}.pt")
        if len(set(everywhere(name in failures))) > 1:
            break  # the ranks are no longer at the same place
    dist.destroy_process_group()


def loopback() -> str:
    """The device through which a host talks to itself; else gloo asks the network what this host is called."""
    return next(name for _, name in socket.if_nameindex() if name.startswith("lo"))


def everywhere(value: Any) -> list[Any]:
    """The values of all ranks."""
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, value)
    return found


def full(x: Any) -> Tensor:
    """A tensor as one process would have it."""
    return x.full_tensor() if isinstance(x, DTensor) else x


def place(x: Tensor, mesh: DeviceMesh, *placements: Any) -> DTensor:
    return distribute_tensor(x.detach().clone(), mesh, placements)


def close(found: Any, expected: Any, factor: float = 1e4) -> None:
    """Equal up to rounding."""
    found, expected = full(found).detach(), full(expected).detach()
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    size = expected.abs().max() if expected.any() else 1
    torch.testing.assert_close(found / size, expected / size, rtol=0, atol=factor * torch.finfo(expected.dtype).eps)


class Sent(TorchDispatchMode):
    """How many numbers each collective is given."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[tuple[str, int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "c10d" in func.namespace:
            first = args[0][0] if isinstance(args[0], (list, tuple)) else args[0]
            if isinstance(first, Tensor):
                self.sizes.append((func.__name__, first.numel()))
        return func(*args, **(kwargs or {}))


Problem = Callable[..., Any]


def data(dtype: torch.dtype = torch.float64, batch: tuple[int, ...] = (5,), m: int = 13, n: int = 3) -> list[Tensor]:
    """A, b, weights and free."""
    b = torch.randn(*batch, m, dtype=dtype)
    return [
        torch.randn(*batch, m, n, dtype=dtype),
        b,
        torch.rand(*batch, m, dtype=b.real.dtype),
        torch.randn(*batch, m, 2, dtype=dtype),
    ]


def by_rows() -> dict[str, Problem]:
    """Problems whose rows may be divided, as functions of A, b, weights and free."""
    return {
        "less": lambda A, b, w, C: pmaf.less_ex(A, b),
        "weighted": lambda A, b, w, C: pmaf.less_ex(A, b, weights=w, radius=2.0, constraint="ball"),
        "free": lambda A, b, w, C: pmaf.less_ex(A, b, weights=w, free=C),
        "gram": lambda A, b, w, C: pmaf.ied_ex(pmaf.Gram(A), 2),
        "smallest": lambda A, b, w, C: pmaf.ied_ex(pmaf.Gram(A, weights=w), 1, largest=False),
        "metric": lambda A, b, w, C: pmaf.ied_ex(pmaf.Gram(A), 1, metric=pmaf.Gram(torch.cat((C, b[..., None]), -1))),
        "svd": lambda A, b, w, C: pmaf.svd_ex(A, 2),
        "projector": lambda A, b, w, C: pmaf.principal_projector_ex(pmaf.Gram(A), 2),
        "root": lambda A, b, w, C: pmaf.spectral_function_ex(pmaf.Gram(A), "sqrt"),
    }


def by_batch() -> dict[str, Problem]:
    """Problems whose batch may be divided, as functions of X, g, r."""
    return {
        "ied": lambda X, g, r: pmaf.ied_ex(X, 2, reference=g),
        "metric": lambda X, g, r: pmaf.ied_ex(X, 1, metric=X @ X + X),
        "quadratic": lambda X, g, r: pmaf.sphere_quadratic_ex(X, g, radius=r),
        "projector": lambda X, g, r: pmaf.principal_projector_ex(X, 1),
        "log": lambda X, g, r: pmaf.spectral_function_ex(X, "log"),
        "dominant": lambda X, g, r: pmaf.dominant_pair_ex(X),
        "svd": lambda X, g, r: pmaf.svd_ex(X, 1),
    }


def same_everything(fn: Problem, inputs: list[Tensor], placed: list[Any], factor: float = 1e4) -> tuple[int, int]:
    """Values, statuses and gradients are those of one process; returns how many collectives each pass had."""
    one = [x.clone().requires_grad_() for x in inputs]
    two = [x.requires_grad_() for x in placed]
    expected = fn(*one)
    with CommDebugMode() as forward:
        found = fn(*two)
    losses = []
    for solution in (expected, found):
        loss: Any = 0
        for field, x in solution._asdict().items():
            if x is None or field in ("residual", "gap", "steps", "status"):
                continue
            generic = torch.rand(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
            loss = loss + (full(x).abs().square() * generic).sum()
        losses.append(loss)
    for field, x in found._asdict().items():
        y = getattr(expected, field)
        if field == "residual":
            assert full(x).shape == y.shape
            assert full(x).max() < 1e3 * torch.finfo(y.dtype).eps
        elif field == "status":
            assert torch.equal(full(x), y)
        elif field == "gap":
            finite = y.isfinite()
            close(full(x)[finite], y[finite], factor)
        elif x is not None and field != "steps":
            close(x, y, factor)
    wanted = torch.autograd.grad(losses[0], one, allow_unused=True)
    with CommDebugMode() as backward:
        grads = torch.autograd.grad(losses[1], two, allow_unused=True)
    for x, y, param in zip(grads, wanted, two, strict=True):
        assert (x is None) == (y is None)
        if x is not None:
            assert not isinstance(param, DTensor) or x.placements == param.placements
            close(x, y, 100 * factor)
    return forward.get_total_counts(), backward.get_total_counts()


# ---- values and gradients ------------------------------------------------------------------------------------------


@check
def rows(mesh: DeviceMesh) -> None:
    for dtype in (torch.float64, torch.float32, torch.complex128):
        inputs = data(dtype)
        for name, fn in by_rows().items():
            forward, backward = same_everything(fn, inputs, [place(x, mesh, Shard(1)) for x in inputs])
            assert forward <= (6 if name == "metric" else 3), name
            assert backward <= (name == "svd"), name


@check
def batches(mesh: DeviceMesh) -> None:
    inputs = data()
    for fn in by_rows().values():
        assert same_everything(fn, inputs, [place(x, mesh, Shard(0)) for x in inputs]) == (0, 0)
    A, b, *_ = inputs
    inputs = [A.mT @ A, b[:, :3], torch.rand(5, dtype=A.dtype) + 0.5]
    for fn in by_batch().values():
        assert same_everything(fn, inputs, [place(x, mesh, Shard(0)) for x in inputs]) == (0, 0)


@check
def several_batch_dimensions(mesh: DeviceMesh) -> None:
    inputs = data(batch=(2, 5))
    fn = by_rows()["less"]
    same_everything(fn, inputs, [place(x, mesh, Shard(1)) for x in inputs])
    same_everything(fn, inputs, [place(x, mesh, Shard(2)) for x in inputs])


@check
def few_rows_and_few_items(mesh: DeviceMesh) -> None:
    for m in (1, 2, 3, 5):  # empty shards, and fewer rows than columns
        inputs = data(batch=(), m=m, n=4)
        fns = [lambda A, b, w, C: pmaf.less_ex(A, b, radius=0.1), lambda A, b, w, C: pmaf.svd_ex(A, 1, largest=False)]
        if m < 4:
            fns[0] = lambda A, b, w, C: pmaf.svd_ex(A, 1)
        for fn in [*fns, lambda A, b, w, C: pmaf.ied_ex(pmaf.Gram(A), 1)]:
            same_everything(fn, inputs, [place(x, mesh, Shard(0)) for x in inputs])
    inputs = data(batch=(1,))
    same_everything(by_rows()["less"], inputs, [place(x, mesh, Shard(0)) for x in inputs])
    none = pmaf.less_ex(place(inputs[0][:0], mesh, Shard(0)), place(inputs[1][:0], mesh, Shard(0)))
    assert none.u.shape == (0, 3)


@check
def plain_among_dtensors(mesh: DeviceMesh) -> None:
    A, b, w, _ = data()
    r = torch.rand(5, dtype=A.dtype) + 0.5

    def fn(A: Any, b: Any, w: Any, r: Any) -> Any:
        return pmaf.less_ex(A, b, weights=w, radius=r)

    for where in (Shard(0), Shard(1)):
        for several in ((0,), (1,), (0, 2)):
            placed = [place(x, mesh, where) if i in several else x.clone() for i, x in enumerate((A, b, w, r))]
            same_everything(fn, [A, b, w, r], placed)
        placed = [place(A, mesh, where), place(b, mesh, Replicate()), w.clone(), place(r, mesh, Replicate())]
        same_everything(fn, [A, b, w, r], placed)
    shared = A[0]  # by all problems
    same_everything(
        lambda A, b: pmaf.less_ex(A, b), [shared, b], [place(shared, mesh, Replicate()), place(b, mesh, Shard(0))]
    )


@check
def two_dimensions(mesh: DeviceMesh) -> None:
    if mesh.size() != 4:
        return
    square = init_device_mesh("cpu", (2, 2))
    inputs = data()
    for name, fn in by_rows().items():
        forward, backward = same_everything(fn, inputs, [place(x, square, Shard(0), Shard(1)) for x in inputs])
        assert forward <= (6 if name == "metric" else 3), name
        assert backward <= (name == "svd"), name
    found = pmaf.svd(place(inputs[0], square, Shard(0), Shard(1)), 2)
    assert found.U.placements == (Shard(0), Shard(1))
    assert found.S.placements == (Shard(0), Replicate())


@check
def second_derivatives(mesh: DeviceMesh) -> None:
    A, b, *_ = data()
    V = torch.randn_like(A)
    for dim in (0, 1):
        for fn in (
            lambda A, b: pmaf.less(A, b),
            lambda A, b: pmaf.ied(pmaf.Gram(A), 1).eigenvectors,
            lambda A, b: pmaf.svd(A, 1).U,
        ):
            found = []
            for put in (lambda x: x.clone(), lambda x: place(x, mesh, Shard(dim))):  # noqa: B023
                params = [put(A).requires_grad_(), put(b).requires_grad_()]
                loss = full((fn(*params)[..., 0] ** 3).sum())
                (first,) = torch.autograd.grad(loss, params[0], create_graph=True)
                found.append(torch.autograd.grad(full((first * put(V)).sum()), params, allow_unused=True))
            for x, y in zip(*found, strict=True):
                assert (x is None) == (y is None)
                if x is not None:
                    close(x, y, 1e6)


@check
def accuracy(mesh: DeviceMesh) -> None:
    """Where squaring loses digits: rows with singular values 1, 1e-2, 1e-4, 1e-6, against those of one process."""
    Q = torch.linalg.qr(torch.randn(3, 40, 4, dtype=torch.float64))[0]
    A = Q * torch.logspace(0, -6, 4, dtype=torch.float64) @ torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))[0]
    b, w = torch.randn(3, 40, dtype=torch.float64), torch.rand(3, 40, dtype=torch.float64)
    w[:, ::7] = 0
    inputs = [A, b, w]
    placed = [place(x, mesh, Shard(1)) for x in inputs]
    for fn in (
        lambda A, b, w: pmaf.less_ex(A, b, weights=w),
        lambda A, b, w: pmaf.ied_ex(pmaf.Gram(A), 1, largest=False),
        lambda A, b, w: pmaf.svd_ex(A, 4),
    ):
        forward, backward = same_everything(fn, inputs, placed, 1e7)
        assert forward <= 5
        assert backward <= 1
    A = placed[0].detach().requires_grad_()
    (first,) = torch.autograd.grad(full(pmaf.less(A, placed[1])).sum(), A, create_graph=True)
    with pytest.raises(NotImplementedError, match="ill-conditioned"):
        full(first).sum().backward()


@check
def solvers_and_modes(mesh: DeviceMesh) -> None:
    A, b, *_ = data()
    placed, start = place(A, mesh, Shard(1)), torch.ones(3, dtype=A.dtype)
    for options in ({"backward": pmaf.DenseJacobian()}, {"backward": pmaf.Unrolled()}, {"constraint": "ball"}):
        close(pmaf.less(placed, b, **options), pmaf.less(A, b, **options))
    iterative = {"solver": "riemannian_gradient", "start": start}
    close(pmaf.less_ex(placed, b, **iterative).u, pmaf.less_ex(A, b, **iterative).u, 1e11)  # as far as it goes
    for options in ({"solver": "block_lanczos", "start": start}, {"near": 1.0}, {"metric": A.mT @ A + A.mT @ A}):
        found, expected = pmaf.ied(pmaf.Gram(placed), **options), pmaf.ied(pmaf.Gram(A), **options)
        close(found.eigenvalues, expected.eigenvalues, 1e5)
    A, placed = A.float(), place(A.float(), mesh, Shard(1))
    eye = 2 * torch.eye(3)
    close(pmaf.ied(pmaf.Gram(placed), metric=eye)[1], pmaf.ied(pmaf.Gram(A), metric=eye)[1])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        close(pmaf.less(placed, b.float()), pmaf.less(A, b.float()))


@check
def scales(mesh: DeviceMesh) -> None:
    A, b, *_ = data()
    u = pmaf.less(A, b)
    for size in (1e-200, 1e-18, 1e18, 1e200):
        close(pmaf.less(place(A * size, mesh, Shard(1)), place(b * size, mesh, Shard(1))), u)
    for dtype in (torch.float16, torch.bfloat16):
        for dim in (0, 1):
            found = pmaf.less_ex(place(A.to(dtype), mesh, Shard(dim)), place(b.to(dtype), mesh, Shard(dim)))
            expected = pmaf.less_ex(A.to(dtype), b.to(dtype))
            close(found.u, expected.u, 4)
            assert found.multiplier.dtype == expected.multiplier.dtype


@check
def certificates(mesh: DeviceMesh) -> None:
    A, b, w, C = data()
    for dim in (0, 1):
        placed = [place(x, mesh, Shard(dim)) for x in (A, b, w, C)]
        u = pmaf.less(placed[0], placed[1], weights=placed[2], free=placed[3])
        found = pmaf.certify(placed[0], placed[1], u, weights=placed[2], free=placed[3])
        expected = pmaf.certify(A, b, full(u), weights=w, free=C)
        assert full(found.is_global).all()
        close(found.gap, expected.gap)
    X = A.mT @ A
    u = pmaf.sphere_quadratic(X, b[:, :3])
    assert full(pmaf.certify_quadratic(place(X, mesh, Shard(0)), b[:, :3], u).is_global).all()


# ---- what is sent --------------------------------------------------------------------------------------------------


@check
def numbers_sent(mesh: DeviceMesh) -> None:
    B, n = 7, 6
    A, b, *_ = data(batch=(B,), m=40, n=n)
    A, b = place(A, mesh, Shard(1)).requires_grad_(), place(b, mesh, Shard(1)).requires_grad_()
    with Sent() as sent:
        solution = pmaf.less_ex(A, b)
    assert all("allreduce" in name for name, _ in sent.sizes)
    assert len(sent.sizes) <= 8
    assert max((size for _, size in sent.sizes), default=0) <= B * (n * n + n)
    assert sum(size for _, size in sent.sizes) <= B * (n * n + n + 4)
    with Sent() as sent:
        torch.autograd.grad(solution.u.to_local().sum() + solution.multiplier.to_local().sum(), (A, b))
    assert not sent.sizes


@check
def the_same_bits(mesh: DeviceMesh) -> None:
    A, b, *_ = data(m=101)
    A[1] *= torch.tensor([1, 1e-5, 1e-9], dtype=A.dtype)
    A[1] += A[1, :, :1]
    found = pmaf.less_ex(place(A, mesh, Shard(1)), place(b, mesh, Shard(1)))
    assert len(set(everywhere([x.to_local().numpy().tobytes() for x in found if x is not None].__repr__()))) == 1


# ---- failures ------------------------------------------------------------------------------------------------------


def said(call: Callable[[], Any]) -> tuple[str, str]:
    """How a call is refused."""
    try:
        call()
    except (ValueError, TypeError, pmaf.ConvergenceError) as error:
        return type(error).__name__, str(error)
    return "", ""


@check
def a_bad_item(mesh: DeviceMesh) -> None:
    A, b, *_ = data()
    good = pmaf.less(A, b)
    A[2, 7, 1] = torch.nan
    for dim in (0, 1):
        placed = place(A, mesh, Shard(dim)), place(b, mesh, Shard(dim))
        found = pmaf.less_ex(*placed)
        assert full(found.status).tolist() == [0, 0, int(pmaf.Status.NON_FINITE), 0, 0]
        close(full(found.u)[[0, 1, 3, 4]], good[[0, 1, 3, 4]])
        for fn in (lambda A: pmaf.less_ex(A, b if A is one else placed[1]).u, lambda A: pmaf.svd_ex(A).Vh):  # noqa: B023
            one, two = A.clone().requires_grad_(), placed[0].detach().requires_grad_()
            (expected,) = torch.autograd.grad(fn(one).square()[..., 0].nansum(), one)
            (gradient,) = torch.autograd.grad(full(fn(two)).square()[..., 0].nansum(), two)
            close(gradient, expected)
        for call in (lambda: pmaf.less(*placed), lambda: pmaf.ied(pmaf.Gram(placed[0])), lambda: pmaf.svd(placed[0])):  # noqa: B023
            told = everywhere(said(call))
            assert set(told) == {told[0]}
            assert told[0][0] == "ConvergenceError"
            assert "item (2,) ended with NON_FINITE (1 of 5 items)" in told[0][1]


@check
def refusals(mesh: DeviceMesh) -> None:
    A, b, w, _ = data()
    X = A.mT @ A
    skew = X.clone()
    skew[0, 0, 1] += 1
    w[0, 1] = -1
    other = init_device_mesh("cpu", (mesh.size(), 1))

    def put(x: Tensor, dim: int) -> DTensor:
        return place(x, mesh, Shard(dim))

    calls: dict[str, tuple[Callable[[], Any], str]] = {
        "columns": (lambda: pmaf.less(put(A, 2), b), r"Shard(1), its rows"),
        "rows of X": (lambda: pmaf.ied(put(X, 1)), "is placed as"),
        "sums": (lambda: pmaf.ied(DTensor.from_local(X, mesh, [Partial()])), "what works is Replicate()"),
        "both": (lambda: pmaf.less(put(A, 0), put(b, 1)), "divide both by the same"),
        "meshes": (lambda: pmaf.less(put(A, 0), place(b, other, Shard(0), Replicate())), "must share one mesh"),
        "sizes": (lambda: pmaf.less(put(A, 1), b[:, :4]), "must have size 13"),
        "types": (lambda: pmaf.less_ex(put(A, 1), b.float()), "share one dtype"),
        "k": (lambda: pmaf.ied(pmaf.Gram(put(A, 1)), 7), "between 0 and n = 3"),
        "weights": (lambda: pmaf.less_ex(put(A, 1), b, weights=put(w, 1)), "non-negative"),
        "weights, batch": (lambda: pmaf.less(put(A, 0), b, weights=put(w, 0)), ""),
        "skew": (lambda: pmaf.ied(put(skew, 0)), ""),
        "radius": (lambda: pmaf.less(put(A, 0), b, radius=-1.0), "positive"),
    }
    for name, (call, text) in calls.items():
        told = everywhere(said(call))
        assert all(kind in ("ValueError", "TypeError") and text in message for kind, message in told), (name, told)


# ---- vectors that are divided themselves ---------------------------------------------------------------------------


def product(L: Any, V: Any) -> Any:
    return L @ V


def cycle(n: int) -> Tensor:
    """A weighted Laplacian."""
    shift = torch.eye(n, dtype=torch.float64).roll(1, 0) * torch.linspace(1, 2, n, dtype=torch.float64)
    edges = shift + shift.mT + torch.outer(torch.linspace(0, 1, n), torch.linspace(0, 1, n)).double() * 0.01
    edges.fill_diagonal_(0)
    return torch.diag(edges.sum(-1)) - edges


@check
def vectors_divided_by_rows(mesh: DeviceMesh) -> None:
    for n, k, largest in ((3, 2, True), (61, 3, False), (61, 1, True)):
        L = cycle(n)
        weights = torch.randn(n, k, dtype=L.dtype)
        one, two = L.clone().requires_grad_(), place(L, mesh, Shard(0)).requires_grad_()
        expected = pmaf.ied_ex(one, k, largest=largest)
        found = pmaf.ied_ex(pmaf.MatVec(product, n, two), k, largest=largest)
        assert found.eigenvectors.placements == (Shard(0),)
        assert full(found.status) == pmaf.Status.CONVERGED
        assert full(found.residual) < 1e-12
        close(found.eigenvalues, expected.eigenvalues)
        close(found.eigenvectors, expected.eigenvectors, 1e6)
        if k < n:
            close(found.gap, expected.gap, 1e6)
        grads = []
        for solution, param in ((expected, one), (found, two)):
            loss = full(solution.eigenvalues).square().sum() + (full(solution.eigenvectors) * weights).sum() ** 2
            (gradient,) = torch.autograd.grad(loss, param)
            grads.append(full(gradient) + full(gradient).mT)
        assert gradient.placements == (Shard(0),)
        close(grads[1], grads[0], 1e7)
    d = place(torch.rand(30), mesh, Shard(0))
    values, _ = pmaf.nn.IED(2)(pmaf.MatVec(lambda d, V: d[:, None] * V, 30, d))
    close(values, full(d).sort(descending=True).values[:2], 100)
    same = pmaf.ied_ex(pmaf.MatVec(lambda d, V: d[:, None] * V, 30, torch.ones_like(d)), 2)
    assert full(same.status) == pmaf.Status.NOT_UNIQUE


@check
def page_rank(mesh: DeviceMesh) -> None:
    n = 30
    links = (torch.rand(n, n, dtype=torch.float64) < 0.2) + 0.05  # from column to row
    weights = torch.randn(n, dtype=torch.float64)
    found = []
    for L in (links.clone().requires_grad_(), place(links, mesh, Shard(0)).requires_grad_()):
        X = L if L.grad_fn is None and not isinstance(L, DTensor) else pmaf.MatVec(product, n, L)
        solution = pmaf.dominant_pair_ex(X)
        assert full(solution.status) == pmaf.Status.CONVERGED
        loss = (full(solution.eigenvector) * weights).sum() + full(solution.eigenvalue)
        found.append((solution.eigenvalue, solution.eigenvector, torch.autograd.grad(loss, L)[0]))
    assert found[1][1].placements == found[1][2].placements == (Shard(0),)
    for x, y in zip(found[1], found[0], strict=True):
        close(x, y, 1e6)


@check
def vectors_refused(mesh: DeviceMesh) -> None:
    skew, nan = torch.randn(20, 20), torch.eye(20)
    nan[3, 3] = torch.nan

    def of(x: Tensor, fn: Any = product) -> pmaf.MatVec:
        return pmaf.MatVec(fn, 20, place(x, mesh, Shard(0)))

    eye = torch.eye(20)
    calls: list[tuple[Callable[[], Any], str]] = [
        (lambda: pmaf.ied(of(skew), 2), "must be symmetric"),
        (lambda: pmaf.ied(of(nan), 2), "NON_FINITE"),
        (lambda: pmaf.ied(of(eye, lambda L, V: full(V))), "must return a DTensor like V"),
        (lambda: pmaf.ied(of(eye), solver="eigh"), "solver cannot be given"),
        (lambda: pmaf.spectral_function(of(eye), "exp"), "is for pmaf.ied"),
        (lambda: pmaf.less(of(eye), eye[0]), "what works is"),
    ]
    for call, text in calls:
        told = everywhere(said(call))
        assert all(text in message for _, message in told), told


# ---- training ------------------------------------------------------------------------------------------------------


class Net(nn.Module):
    """A small network that ends in one of the layers."""

    def __init__(self, layer: str) -> None:
        super().__init__()
        self.kind = layer
        self.first, self.second = nn.Linear(6, 12).double(), nn.Linear(12, 12).double()
        self.layer = {"LESS": pmaf.nn.LESS(), "IED": pmaf.nn.IED(2), "PrincipalPool2d": pmaf.nn.PrincipalPool2d(1)}[
            layer
        ]

    def forward(self, x: Tensor) -> Tensor:
        y: Any = self.second(torch.tanh(self.first(x)))  # (B, 12)
        if self.kind == "LESS":
            return self.layer(y[:, :9].reshape(-1, 3, 3), y[:, 9:])
        if self.kind == "IED":
            F = y.reshape(-1, 4, 3)
            found = self.layer(F.mT @ F)
            return (found.eigenvectors * found.eigenvalues[..., None, :]).flatten(1)
        return self.layer(y.reshape(-1, 3, 2, 2))


def trained(model: nn.Module, x: Any) -> dict[str, Tensor]:
    """The gradients of one step."""
    y = full(model(x))
    (y.square() * torch.arange(1.0, 1 + y.shape[-1], dtype=y.dtype)).sum(-1).mean().backward()
    return {name.removeprefix("module."): full(p.grad) for name, p in model.named_parameters()}


@check
def training(mesh: DeviceMesh) -> None:
    world, rank = mesh.size(), mesh.get_local_rank()
    x = torch.randn(8, 6, dtype=torch.float64)
    for layer in ("LESS", "IED", "PrincipalPool2d"):
        model = Net(layer)
        expected = trained(copy.deepcopy(model), x)
        part = x.chunk(world)[rank]
        replicas = nn.parallel.DistributedDataParallel(copy.deepcopy(model))
        shards = copy.deepcopy(model)
        for module in (shards.first, shards.second, shards):
            fully_shard(module, mesh=mesh)
        columns = parallelize_module(
            copy.deepcopy(model),
            mesh,
            {
                "first": ColwiseParallel(),
                "second": RowwiseParallel(output_layouts=Replicate(), use_local_output=False),
            },
        )
        batch = parallelize_module(
            copy.deepcopy(model),
            mesh,
            {
                "first": ColwiseParallel(),
                "second": RowwiseParallel(output_layouts=Shard(0), use_local_output=False),
            },
        )
        for name, gradients in {
            "DistributedDataParallel": trained(replicas, part),
            "fully_shard": trained(shards, part),
            "tensor parallel": trained(columns, x),
            "tensor parallel, batch": trained(batch, x),
        }.items():
            assert gradients.keys() == expected.keys(), name
            for key, gradient in gradients.items():
                close(gradient, expected[key], 1e6)
