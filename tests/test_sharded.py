"""DTensors: two and four processes get what one gets, and send as little as they say."""

import functools
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

import ranks

pytestmark = pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs gloo")


def finish_in_time(context: torch.multiprocessing.ProcessContext) -> bool:
    """Wait for processes, and kill them when patience is over."""
    deadline = time.monotonic() + ranks.PATIENCE
    while time.monotonic() < deadline:
        if context.join(timeout=1):
            return True
    for process in context.processes:
        process.kill()
    return False


@functools.cache
def failures(world: int) -> dict[str, str]:
    """What went wrong, by check; where the machine keeps the first processes waiting, others get a chance."""
    for _ in range(2):
        with tempfile.TemporaryDirectory() as folder:
            context = torch.multiprocessing.spawn(ranks.run, (world, folder), nprocs=world, join=False)
            if finish_in_time(context):
                found: dict[str, str] = {}
                for file in sorted(Path(folder).glob("failures*.pt"), reverse=True):
                    found.update(torch.load(file, weights_only=True))
                return found
    raise TimeoutError(f"{world} gloo processes did not finish within {ranks.PATIENCE:.0f} seconds, twice")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DeviceMesh]:
    """A job of this process alone, where a debugger and the coverage see what goes on."""
    store = dist.FileStore(str(tmp_path_factory.mktemp("ranks") / "store"), 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLOO_SOCKET_IFNAME", ranks.loopback())
        dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


@pytest.mark.parametrize("name", [name for name in ranks.CHECKS if name != "training"])
@pytest.mark.xdist_group("ranks")
def test_one_rank(name: str, alone: DeviceMesh) -> None:
    torch.manual_seed(0)
    ranks.CHECKS[name](alone)


@pytest.mark.timeout(2 * ranks.PATIENCE + 60)
@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.xdist_group("ranks")
def test_ranks(world: int) -> None:
    found = failures(world)
    assert not found, "\n".join(f"{name}: {text}" for name, text in found.items())
