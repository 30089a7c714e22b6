"""The processes that share a job, as ``torchrun`` starts them, and the store they count in."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from typing import Protocol

__all__ = ["Counts", "Job"]


class Counts(Protocol):
    """What is asked of a store: ``torch.distributed.Store`` can more."""

    def add(self, key: str, amount: int, /) -> int:
        """Add to a number that begins at zero, and return the sum, as one step for all processes."""


class Alone:
    """The store of a process that shares its work with nobody."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def add(self, key: str, amount: int, /) -> int:
        """Add to a number that begins at zero, and return the sum."""
        self._counts[key] += amount
        return self._counts[key]


class Job:
    """One process among those of a job.

    Args:
        counts: the store they share.
        rank: the number of this process.
        world: how many there are.
        attempt: how often the job was started anew; each time the work is dealt out anew.
    """

    def __init__(self, counts: Counts | None = None, rank: int = 0, world: int = 1, attempt: str = "0") -> None:
        self.rank, self.world, self.attempt = rank, world, attempt
        self._counts = Alone() if counts is None else counts

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Job:
        """The job whose launcher set the variables ``RANK``, ``WORLD_SIZE``, ``MASTER_ADDR`` and ``MASTER_PORT``.

        Args:
            environment: where to look.

        Returns:
            The job, of one process where they are not set.

        Raises:
            RuntimeError: if the store cannot be reached.
        """
        given = [environment.get(name) for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")]
        if None in given or int(given[1] or 1) == 1:
            return cls()
        from torch.distributed import TCPStore  # type: ignore[attr-defined]  # named in its documentation

        rank, world, address, port = int(given[0] or 0), int(given[1] or 1), str(given[2]), int(given[3] or 0)
        hosted = environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True"  # by torchrun
        try:
            store = TCPStore(address, port, is_master=rank == 0 and not hosted, wait_for_workers=False)
        except RuntimeError as error:
            why = (str(error).splitlines() or ["no answer"])[0]
            raise RuntimeError(f"the job's store at {address}:{port} cannot be reached: {why}") from None
        return cls(store, rank, world, environment.get("TORCHELASTIC_RESTART_COUNT", "0"))

    def add(self, key: str, amount: int) -> int:
        """Add to a number that all processes of this attempt share, and return the sum.

        Args:
            key: of the number.
            amount: what to add, 0 to look.

        Returns:
            The sum.
        """
        return int(self._counts.add(f"pmaf/{self.attempt}/{key}", amount))

    def once(self, key: str) -> bool:
        """Whether this process is the first, in all attempts, to ask."""
        return int(self._counts.add(f"pmaf/{key}", 1)) == 1

    def was(self, key: str) -> bool:
        """Whether :meth:`once` was asked already."""
        return int(self._counts.add(f"pmaf/{key}", 0)) > 0

    def device(self, name: str) -> str:
        """The device of this process: a GPU for each where only ``"cuda"`` is said."""
        local = os.environ.get("LOCAL_RANK")
        return f"cuda:{local}" if name == "cuda" and self.world > 1 and local is not None else name
