"""What layers go through: one function a transform, one row a layer with a solver; a new transform is one function.

``python tools/transform_table.py`` writes README and documentation from this table, and ``test_transforms.py`` runs
every cell of it: where ``refuses`` gives an error, the cell passes only if that error is raised.
"""

from __future__ import annotations

import copy
import faulthandler
import functools
import io
import os
import pickle
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import deployment
from cases import ROWS, Row, randn

Refusal = tuple[type[Exception], str]


@dataclass(frozen=True)
class Column:
    """One transform: what readers see, and a check that raises if a row does not survive it."""

    title: str
    group: str
    check: Callable[[Row], None]
    refuses: Callable[[Row], Refusal | None] = lambda row: None

    @property
    def name(self) -> str:
        return self.check.__name__

    def run(self, row: Row) -> None:
        refusal = self.refuses(row)
        if refusal is None:
            self.check(row)
        else:
            with pytest.raises(refusal[0], match=refusal[1]):
                self.check(row)


COLUMNS: list[Column] = []


def column(title: str, group: str, refuses: Callable[[Row], Refusal | None] = lambda row: None) -> Any:
    """Enter a check into the table.

    Args:
        title: the transform as readers know it.
        group: the heading it stands under.
        refuses: the error that a row answers with, or ``None`` if it works.
    """

    def enter(check: Callable[[Row], None]) -> Callable[[Row], None]:
        COLUMNS.append(Column(title, group, check, refuses))
        return check

    return enter


# ---- what the checks share -----------------------------------------------------------------------------------------


def single(row: Row, requires_grad: bool = False) -> tuple[Tensor, ...]:
    return row.layer.inputs(torch.float64, requires_grad=requires_grad)


def batch(row: Row, *shape: int) -> tuple[Tensor, ...]:
    """Several items; where the layer has no batch dimension, scaled copies of one."""
    if row.layer.batched:
        return row.layer.inputs(torch.float64, *shape)
    scales = 1 + 0.1 * torch.arange(torch.Size(shape).numel(), dtype=torch.float64).reshape(shape)
    return tuple(x * scales[(..., *[None] * x.dim())] for x in single(row))


def loss(row: Row) -> Callable[..., Tensor]:
    """A scalar function of the row's inputs that every entry of the output enters."""
    weight = randn(*row(*single(row)).shape, seed=21)
    return lambda *inputs: (weight * row(*inputs)).sum()


def gradients(row: Row, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """By plain backward of the default solver."""
    leaves = tuple(x.detach().clone().requires_grad_() for x in inputs)
    return torch.autograd.grad(loss(Row(row.layer, None))(*leaves), leaves)


def close(row: Row, ours: Any, truth: Any, factor: float = 100.0) -> None:
    """Equal up to the accuracy of the row's solver."""
    torch.testing.assert_close(ours, truth, rtol=factor * row.error, atol=factor * row.error)


@functools.cache
def jacobian(name: str) -> tuple[Tensor, ...]:
    """By plain backward, entry by entry, of the layer's default solver."""
    (row,) = [row for row in ROWS if row.name == name]
    inputs = single(row, requires_grad=True)
    output = row(*inputs)
    columns = [torch.autograd.grad(y, inputs, retain_graph=True) for y in output.flatten()]
    return tuple(
        torch.stack(c).reshape(output.shape + x.shape) for c, x in zip(zip(*columns, strict=True), inputs, strict=True)
    )


@functools.cache
def hessian(name: str) -> Tensor:
    """Of the loss with respect to the first input, by plain double backward of the layer's default solver."""
    (row,) = [row for row in ROWS if row.name == name]
    inputs = single(row, requires_grad=True)
    (first,) = torch.autograd.grad(loss(row)(*inputs), inputs[:1], create_graph=True)
    rows = [torch.autograd.grad(g, inputs[0], retain_graph=True)[0] for g in first.flatten()]
    return torch.stack(rows).reshape(first.shape + first.shape)


class AsModule(nn.Module):
    """A row as a module whose parameter is the first input; it is shifted by what comes in, item by item."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        first, *rest = single(self.row)
        self.first = nn.Parameter(first)
        for i, x in enumerate(rest):
            self.register_buffer(f"input{i}", x)

    @property
    def row(self) -> Row:
        (row,) = [row for row in ROWS if row.name == self.name]
        return row

    def forward(self, shift: Tensor) -> Tensor:
        return torch.stack([self.row(self.first + delta, *self.buffers()) for delta in shift])


def shifts(row: Row, count: int = 4) -> Tensor:
    return 0.01 * randn(count, *single(row)[0].shape, seed=31)


# ---- torch.func ----------------------------------------------------------------------------------------------------


@column("`vmap`", "torch.func")
def vmap(row: Row) -> None:
    inputs = batch(row, 3)
    mapped = torch.func.vmap(row)(*inputs)
    close(row, mapped, torch.stack([row(*(x[i] for x in inputs)) for i in range(3)]))


@column("`vmap`, nested", "torch.func")
def vmap_nested(row: Row) -> None:
    inputs = batch(row, 2, 3)
    mapped = torch.func.vmap(torch.func.vmap(row))(*inputs)
    for i in range(2):
        close(row, mapped[i], torch.func.vmap(row)(*(x[i] for x in inputs)))


@column("`vmap`, any `in_dims` and `out_dims`", "torch.func")
def vmap_dimensions(row: Row) -> None:
    inputs = batch(row, 3)
    last = tuple(x.movedim(0, -1) for x in inputs)
    truth = torch.func.vmap(row)(*inputs)
    close(row, torch.func.vmap(row, in_dims=-1, out_dims=-1)(*last).movedim(-1, 0), truth)
    in_dims = tuple(-1 if i % 2 == 0 else 0 for i in range(len(inputs)))
    mixed = tuple(x if d == 0 else y for d, x, y in zip(in_dims, inputs, last, strict=True))
    close(row, torch.func.vmap(row, in_dims=in_dims, out_dims=1)(*mixed).movedim(1, 0), truth)


@column("`vmap` with inputs that are shared", "torch.func")
def vmap_shared(row: Row) -> None:
    inputs, shared = batch(row, 3), single(row)
    for i in range(len(inputs)):
        in_dims = tuple(0 if j == i else None for j in range(len(inputs)))
        mixed = tuple(inputs[j] if j == i else shared[j] for j in range(len(inputs)))
        mapped = torch.func.vmap(row, in_dims=in_dims)(*mixed)
        for n in range(3):
            close(row, mapped[n], row(*(x[n] if j == i else x for j, x in enumerate(mixed))))


@column("`grad`", "torch.func")
def grad(row: Row) -> None:
    inputs = single(row)
    ours = torch.func.grad(loss(row), argnums=tuple(range(len(inputs))))(*inputs)
    close(row, ours, gradients(row, inputs))


@column("`vjp`", "torch.func")
def vjp(row: Row) -> None:
    inputs = single(row)
    output, pull = torch.func.vjp(row, *inputs)
    close(row, pull(randn(*output.shape, seed=21)), gradients(row, inputs))


@column("`jvp`", "torch.func")
def jvp(row: Row) -> None:
    inputs = single(row)
    tangents = tuple(randn(*x.shape, seed=40 + i) for i, x in enumerate(inputs))
    output, change = torch.func.jvp(row, inputs, tangents)
    close(row, output, row(*inputs))
    blocks = zip(jacobian(row.layer.name), tangents, strict=True)
    close(row, change, sum((J * t).reshape(*output.shape, -1).sum(-1) for J, t in blocks))


@column("`jacrev`", "torch.func")
def jacrev(row: Row) -> None:
    inputs = single(row)
    close(row, torch.func.jacrev(row, argnums=tuple(range(len(inputs))))(*inputs), jacobian(row.layer.name))


@column("`jacfwd`", "torch.func")
def jacfwd(row: Row) -> None:
    inputs = single(row)
    close(row, torch.func.jacfwd(row, argnums=tuple(range(len(inputs))))(*inputs), jacobian(row.layer.name))


@column("`hessian`, that is `jacfwd(jacrev)`", "torch.func")
def hessian_forward_over_reverse(row: Row) -> None:
    close(row, torch.func.hessian(loss(row))(*single(row)), hessian(row.layer.name))


@column("`jacrev(jacfwd)`", "torch.func")
def hessian_reverse_over_forward(row: Row) -> None:
    close(row, torch.func.jacrev(torch.func.jacfwd(loss(row)))(*single(row)), hessian(row.layer.name))


@column("`jacrev(jacrev)`", "torch.func")
def hessian_reverse_over_reverse(row: Row) -> None:
    close(row, torch.func.jacrev(torch.func.jacrev(loss(row)))(*single(row)), hessian(row.layer.name))


@column("`jacfwd(jacfwd)`", "torch.func")
def hessian_forward_over_forward(row: Row) -> None:
    close(row, torch.func.jacfwd(torch.func.jacfwd(loss(row)))(*single(row)), hessian(row.layer.name))


@column("`vmap(grad)`: gradients per sample", "torch.func")
def vmap_of_grad(row: Row) -> None:
    inputs = batch(row, 3)
    ours = torch.func.vmap(torch.func.grad(loss(row), argnums=tuple(range(len(inputs)))))(*inputs)
    for n in range(3):
        close(row, tuple(g[n] for g in ours), gradients(row, tuple(x[n] for x in inputs)))


@column("`functional_call`", "torch.func")
def functional_call(row: Row) -> None:
    model, shift = AsModule(row.name), shifts(row, 2)
    other = {"first": model.first.detach() * 1.01}
    called = torch.func.functional_call(model, other, (shift,))
    with torch.no_grad():
        model.first.mul_(1.01)
    close(row, called, model(shift))


# ---- autograd ------------------------------------------------------------------------------------------------------


@column("first derivatives by finite differences, forward, reverse, and reverse in batches", "torch.autograd")
def gradcheck(row: Row) -> None:
    inputs = single(row, requires_grad=True)
    options = {"check_forward_ad": True, "check_batched_grad": True, "fast_mode": True}
    assert torch.autograd.gradcheck(row, inputs, **options, **row.differences)


@column("`autograd.grad(..., is_grads_batched=True)`", "torch.autograd")
def batched_grad(row: Row) -> None:
    inputs = single(row, requires_grad=True)
    output = row(*inputs)
    basis = torch.eye(output.numel(), dtype=output.dtype).reshape(-1, *output.shape)
    blocks = torch.autograd.grad(output, inputs, basis, is_grads_batched=True)
    for ours, truth in zip(blocks, jacobian(row.layer.name), strict=True):
        close(row, ours.reshape(truth.shape), truth)


@column("second derivatives by finite differences", "torch.autograd")
def gradgradcheck(row: Row) -> None:
    assert torch.autograd.gradgradcheck(row, single(row, requires_grad=True), fast_mode=True, **row.differences)


@column("backward twice with `retain_graph`; without, refused", "torch.autograd")
def backward_twice(row: Row) -> None:
    inputs = single(row, requires_grad=True)
    value = loss(row)(*inputs)
    first = torch.autograd.grad(value, inputs, retain_graph=True)
    close(row, torch.autograd.grad(value, inputs), first)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        torch.autograd.grad(value, inputs)


@column("activation checkpointing, reentrant and not", "torch.autograd")
def checkpointing(row: Row) -> None:
    for reentrant in (False, True):
        inputs = single(row, requires_grad=True)
        weight = randn(*row(*single(row)).shape, seed=21)
        output = checkpoint(row, *inputs, use_reentrant=reentrant)
        (weight * output).sum().backward()
        close(row, tuple(x.grad for x in inputs), gradients(row, inputs))


@column("some inputs without `requires_grad`", "torch.autograd")
def partial_requires_grad(row: Row) -> None:
    truth = gradients(row, single(row))
    for i in range(len(truth)):
        inputs = tuple(x.requires_grad_(i == j) for j, x in enumerate(single(row)))
        loss(row)(*inputs).backward()
        assert all(x.grad is None for j, x in enumerate(inputs) if j != i)
        close(row, inputs[i].grad, truth[i])


@column("inputs that are not contiguous, or expanded", "torch.autograd")
def strides(row: Row) -> None:
    truth = gradients(row, single(row))
    padded = tuple(torch.stack((x, x + 1), -1).detach().requires_grad_() for x in single(row))
    views = tuple(x[..., 0] for x in padded)
    assert all(x.dim() == 0 or not x.is_contiguous() or x.numel() == 1 for x in views)
    loss(row)(*views).backward()
    close(row, tuple(x.grad[..., 0] for x in padded), truth)
    if row.layer.batched:
        inputs = single(row, requires_grad=True)
        weight = randn(*row(*single(row)).shape, seed=21)
        (weight * row(*(x.expand(3, *x.shape) for x in inputs))).sum().backward()
        close(row, tuple(x.grad / 3 for x in inputs), truth)


@column("in-place change of an input after the call: detected, or harmless", "torch.autograd")
def modification(row: Row) -> None:
    truth = gradients(row, single(row))
    inputs = single(row, requires_grad=True)
    value = loss(row)(*inputs)
    with torch.no_grad():
        inputs[0].mul_(2)
    if row.layer.name.startswith("less"):
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            value.backward()
        return
    with suppress_modification():  # some layers here are given a copy, ½(X + Xᵀ)
        value.backward()
        close(row, tuple(x.grad for x in inputs), truth)


@contextmanager
def suppress_modification() -> Any:
    try:
        yield
    except RuntimeError as error:
        if "modified by an inplace operation" not in str(error):
            raise


@column("`no_grad` and `inference_mode`", "torch.autograd")
def without_grad(row: Row) -> None:
    inputs = single(row, requires_grad=True)
    truth = row(*inputs).detach()
    with torch.no_grad():
        output = row(*inputs)
    assert not output.requires_grad
    close(row, output, truth)
    with torch.inference_mode():
        output = row(*single(row))
        assert output.is_inference()
        close(row, output, truth)


@column("anomaly mode", "torch.autograd")
def anomaly(row: Row) -> None:
    inputs = single(row, requires_grad=True)
    with quiet_anomaly():
        loss(row)(*inputs).backward()
    close(row, tuple(x.grad for x in inputs), gradients(row, inputs))


@contextmanager
def quiet_anomaly() -> Any:
    with pytest.warns(UserWarning, match="Anomaly Detection has been enabled"), torch.autograd.detect_anomaly():
        yield


# ---- precision -----------------------------------------------------------------------------------------------------


@column("autocast keeps float32 accuracy", "precision")
def autocast(row: Row) -> None:
    inputs = row.layer.inputs(torch.float32, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = row(*inputs)
    assert output.dtype == torch.float32
    scale = float(output.detach().abs().max())
    tolerance = 1e-3 if row.error > 1e-10 else 1e-5
    torch.testing.assert_close(output, row(*inputs), rtol=0, atol=tolerance * scale)
    found = torch.autograd.grad(output.sum(), inputs)
    truth = torch.autograd.grad(row(*inputs).sum(), inputs)
    for ours, theirs in zip(found, truth, strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, theirs, rtol=0, atol=10 * tolerance * (1 + float(theirs.abs().max())))


@column("float16 and bfloat16 in and out", "precision")
def half(row: Row) -> None:
    for dtype in (torch.float16, torch.bfloat16):
        inputs = tuple(x.detach().to(dtype).requires_grad_() for x in row.layer.inputs(torch.float32))
        output = row(*inputs)
        assert output.dtype == dtype
        wide = row(*(x.detach().float() for x in inputs))
        torch.testing.assert_close(output.float(), wide, rtol=0, atol=0.02 * float(wide.abs().max()))
        output.float().sum().backward()
        assert all(x.grad.dtype == dtype and x.grad.isfinite().all() for x in inputs)


# ---- modules, threads and processes --------------------------------------------------------------------------------


@column("`deepcopy`, `pickle`, `torch.save`, `state_dict`", "deployment")
def copies(row: Row) -> None:
    model, shift = AsModule(row.name), shifts(row, 2)
    truth = model(shift)
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    loaded = AsModule(row.name)
    loaded.load_state_dict(torch.load(buffer, weights_only=True))
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), loaded):
        assert torch.equal(other(shift), truth)
    for solver in () if row.solver is None else (row.solver.make(),):
        assert pickle.loads(pickle.dumps(solver)) == solver


@column("`to(dtype)`", "deployment")
def to_dtype(row: Row) -> None:
    model, shift = AsModule(row.name), shifts(row, 2)
    truth = model(shift).detach()
    narrow = model.to(torch.float32)(shift.float())
    assert narrow.dtype == torch.float32
    torch.testing.assert_close(narrow.double(), truth, rtol=0, atol=2e-3 if row.error > 1e-10 else 2e-4)


@column("several threads at once", "deployment")
def threads(row: Row) -> None:
    inputs = single(row)
    truth, found = gradients(row, inputs), []

    def work() -> None:
        for _ in range(3):
            leaves = tuple(x.clone().requires_grad_() for x in inputs)
            found.append(torch.autograd.grad(loss(row)(*leaves), leaves))

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(found) == 12
    for ours in found:
        close(row, ours, truth)


class Solved(torch.utils.data.Dataset[Tensor]):
    """Every row, solved where the item is loaded."""

    def __len__(self) -> int:
        return len(ROWS)

    def __getitem__(self, i: int) -> Tensor:
        torch.set_num_threads(1)
        return ROWS[i](*single(ROWS[i]))


@functools.cache
def solved_by_workers() -> list[Tensor]:
    loader = torch.utils.data.DataLoader(
        Solved(), batch_size=None, num_workers=2, multiprocessing_context="spawn"
    )  # fmt: skip
    return list(loader)


@column("`DataLoader` workers", "deployment")
def data_loader(row: Row) -> None:
    close(row, solved_by_workers()[ROWS.index(row)], row(*single(row)))


PATIENCE = 120.0  # seconds, of which two idle cores need ten


def parallel_rank(rank: int, world: int, folder: str) -> None:
    """Every row as a distributed module on this process's half of the batch."""
    faulthandler.dump_traceback_later(PATIENCE - 10)  # a rank that waits in vain says where
    torch.set_num_threads(1)
    loopback = [name for _, name in socket.if_nameindex() if name.startswith("lo")]
    os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback[0])  # else gloo asks the network what this host is called
    store = torch.distributed.FileStore(f"{folder}/store", world)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=world)
    found = {}
    for row in ROWS:
        model = nn.parallel.DistributedDataParallel(AsModule(row.name))
        outputs = model(shifts(row).chunk(world)[rank])
        outputs.square().mean().backward()
        found[row.name] = model.module.first.grad
    if rank == 0:
        torch.save(found, f"{folder}/gradients.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def finish_in_time(ranks: torch.multiprocessing.ProcessContext) -> bool:
    """Wait for processes, and kill them when patience is over."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if ranks.join(timeout=1):
            return True
    for process in ranks.processes:
        process.kill()
    return False


@functools.cache
def parallel_gradients() -> dict[str, Tensor]:
    """The gradients of two processes; where the machine keeps the first pair waiting, a second one gets a chance."""
    for _ in range(2):
        with tempfile.TemporaryDirectory() as folder:
            ranks = torch.multiprocessing.spawn(parallel_rank, (2, folder), nprocs=2, join=False)
            if finish_in_time(ranks):
                found: dict[str, Tensor] = torch.load(f"{folder}/gradients.pt", weights_only=True)
                return found
    raise TimeoutError(f"two gloo processes did not finish within {PATIENCE:.0f} seconds, twice")


@column("`DistributedDataParallel` on two processes", "deployment")
def data_parallel(row: Row) -> None:
    model = AsModule(row.name)
    model(shifts(row)).square().mean().backward()
    close(row, parallel_gradients()[row.name], model.first.grad)


# ---- graphs: the checks are in deployment.py -----------------------------------------------------------------------


column("`torch.compile(fullgraph=True)`, forward and backward", "graphs")(deployment.compile_static)
column("`torch.compile`, dynamic batch without recompilation", "graphs")(deployment.compile_dynamic)
column("`torch.export` with a dynamic batch, saved and loaded", "graphs")(deployment.export_dynamic)


def cells() -> list[tuple[Row, Column]]:
    """The whole table."""
    return [(row, column) for column in COLUMNS for row in ROWS if applies(row)]


def applies(row: Row) -> bool:
    """A sparse matrix is differentiable through its values, once, which torch's transforms do not know."""
    return row.layer.name != "ied(sparse)"
