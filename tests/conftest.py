"""What every test starts from, and what its failure shows."""

import os
import sys
from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

# The same examples in every run, so that a change is not blamed for what it did not touch; with
# HYPOTHESIS_PROFILE=explore others each time.
settings.register_profile("same", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

THREADS = os.environ.get("PMAF_TEST_THREADS", "1")  # a number, or "default" for those that torch takes by itself
LONGEST = ("test_wheel", "test_compile")  # files that build something

if THREADS != "default":
    torch.set_num_threads(int(THREADS))


@pytest.fixture(autouse=True)
def fixed_seed() -> Iterator[None]:
    """The same random numbers in every run and every order, and the library's default type."""
    threads = torch.get_num_threads()
    torch.manual_seed(0)
    yield
    assert torch.get_default_dtype() == torch.float32
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(call: pytest.CallInfo) -> None:
    """Leave torch's own frames out of a traceback; in a graph there are some eighty of them for one of ours."""
    if call.excinfo is not None:
        for name, module in list(sys.modules.items()):
            if name.partition(".")[0] == "torch":
                vars(module)["__tracebackhide__"] = True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest tests first, so that no worker waits for another at the end; what cannot run here is skipped.

    Where there are no compiled kernels, as by ``PMAF_KERNELS=off``, the solver that is made of them cannot run.
    """
    from pmaf.kernels import available

    items.sort(key=lambda item: item.path.stem not in LONGEST)
    if not available():
        for item in items:
            if "tridiagonal" in item.name:
                item.add_marker(pytest.mark.skip(reason="there are no compiled kernels"))
