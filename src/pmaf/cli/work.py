"""One file of problems, however many processes: cells are dealt out, solved, recorded, and put together at the end."""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import pmaf
from pmaf.checks.extras import needs
from pmaf.cli.arrays import Member
from pmaf.cli.files import Array, FileError, Source, UnreachableError
from pmaf.cli.parts import Parts
from pmaf.cli.plan import Cell, Plan
from pmaf.cli.ranks import Job
from pmaf.cli.summary import Summary, measure, summarise

__all__ = ["Batch", "Interrupted", "Run", "work"]

with needs("cli", "pmaf.cli.work"):
    import numpy as np


Report = Callable[[int, int], None]


class Interrupted(KeyboardInterrupt):
    """Somebody pressed Ctrl-C; the message says what is kept."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A batch of problems in files.

    Attributes:
        layer: what is solved, ``"less"``, ``"ied"`` or ``"svd"``.
        sources: where the problems are.
        batch: the dimensions that their batches broadcast to.
        dtype: what is computed in.
        cores: the shape of an item of each array that is written, by its name.
        vectors: which of them are of the type that is computed in; what is measured is real.
        solve: solves the items of a cell, which it reads with the function it is given.
        options: how they are solved, in a word.
    """

    layer: str
    sources: Sequence[Source]
    batch: tuple[int, ...]
    dtype: np.dtype[Any]
    cores: Mapping[str, tuple[int, ...]]
    vectors: frozenset[str]
    solve: Callable[[Cell], Mapping[str, torch.Tensor | None]]
    options: str

    def members(self) -> dict[str, Member]:
        """The arrays that are written."""
        real = np.dtype(np.float32 if self.dtype == np.float16 else np.zeros(0, self.dtype).real.dtype)
        types = {"status": np.dtype(np.int64)} | dict.fromkeys(self.vectors, self.dtype)
        return {name: Member(core, types.get(name, real)) for name, core in self.cores.items()}


@dataclass(frozen=True, kw_only=True)
class Run:
    """How a file is worked through.

    Attributes:
        chunk: how many items are worked on at a time; as many as fit into 16 MiB where ``None``.
        overwrite: whether an output that is there already is replaced.
        job: the processes that share the work.
        report: called with the items done, by all of them, and the items in all.
    """

    chunk: int | None = None
    overwrite: bool = False
    job: Job = field(default_factory=Job)
    report: Report | None = None

    def size(self, item_bytes: int) -> int:
        """How many items are worked on at a time.

        Args:
            item_bytes: how large an item is.

        Returns:
            At least one.

        Raises:
            ValueError: if less was asked for.
        """
        if self.chunk is not None and self.chunk < 1:
            raise ValueError(f"a chunk must hold at least one item, got {self.chunk}")
        return self.chunk or max(1, _CHUNK // max(1, item_bytes))


_CHUNK = 16 << 20  # bytes of input


def work(batch: Batch, output: Path, run: Run) -> Summary | None:
    """Solve a batch, or this process's share of it, and write the answers.

    Cells are dealt out by a counter, so that whoever is free takes the next. What is finished is known from its
    record alone: the counter may be lost, and processes killed, without harm. The first process waits for the cells
    of the others, does what is overdue itself, and puts the output together.

    Args:
        batch: the problems.
        output: where the answers go.
        run: how.

    Returns:
        What became of the whole batch; ``None`` from all processes but the first.

    Raises:
        FileError: if an input is refused or has changed.
        UnreachableError: if an input cannot be read any more, or the output cannot be written.
        Interrupted: if Ctrl-C was pressed.
    """
    item_bytes = sum(int(np.prod(source.core, dtype=np.int64)) for source in batch.sources) * batch.dtype.itemsize
    plan = Plan(batch.batch, run.size(item_bytes))
    mark = _mark(batch, plan, output)
    job = run.job
    if output.exists() and not run.overwrite:
        if job.was(f"{mark}/written"):
            return None  # by the others, before this process was there
        raise FileError(f"{output} is there already: give another name, or replace it with --overwrite")
    with Parts(output, batch.members(), plan, mark) as parts:
        try:
            return _share(batch, plan, parts, mark, run)
        except BaseException as error:
            if job.rank and isinstance(error, UnreachableError) and job.was(f"{mark}/written"):
                return None  # the first process did what was overdue, and has put all in place
            said = _in_words(error, parts)
            if said is None:
                raise
            raise said from None


def _in_words(error: BaseException, parts: Parts) -> BaseException | None:
    """What is kept of a run that ended early, nothing that is of no use to the next; ``None`` if it goes unsaid."""
    finished = sum(record.items for record in parts.records().values())
    if not finished or (isinstance(error, ValueError) and not isinstance(error, UnreachableError)):
        parts.discard()  # other data, or other options, make other parts
    kept = (
        f"{finished} of {parts.plan.items} items are finished and kept beside {parts.output}, "
        "the same command goes on from there"
    )
    if isinstance(error, KeyboardInterrupt):
        return Interrupted(kept if finished else "nothing was finished yet")
    if isinstance(error, UnreachableError) and finished:
        return UnreachableError(f"{error}; {kept}")
    return None


def _share(batch: Batch, plan: Plan, parts: Parts, mark: str, run: Run) -> Summary | None:
    """Take cells until there are none, and as the first process wait for those of the others.

    Raises:
        FileError: if an input was changed.
    """
    job, began = run.job, time.perf_counter()
    before = parts.records()
    kept = sum(record.items for record in before.values()) - job.add(f"{mark}/items", 0)

    def tell(items: int) -> None:
        if run.report is not None and not job.rank:
            run.report(max(0, min(items, plan.items)), plan.items)

    def solve(at: int) -> None:
        since, cell = time.perf_counter(), plan[at]
        with torch.no_grad(), warnings.catch_warnings():
            for doubt in (pmaf.DegeneracyWarning, pmaf.LocalSolutionWarning):
                warnings.simplefilter("ignore", doubt)  # the summary counts them
            found = batch.solve(cell)
        answer: dict[str, Array] = {name: value.cpu().numpy() for name, value in found.items() if value is not None}
        parts.write(cell, answer, measure(at, cell, answer, time.perf_counter() - since))
        tell(kept + job.add(f"{mark}/items", cell.stop - cell.start))

    tell(0)
    tell(kept + job.add(f"{mark}/items", 0))
    while (at := job.add(f"{mark}/dealt", 1) - 1) < len(plan):
        if at not in before:
            solve(at)
    if job.rank:
        return None
    records = parts.records()
    since = time.perf_counter()
    while missing := [at for at in range(len(plan)) if at not in records]:
        longest = max((record.seconds for record in records.values()), default=_PATIENCE)
        if time.perf_counter() - since > 2 * longest + 1:
            solve(missing[0])  # whoever had it is gone, and the next will be overdue too
            records = parts.records()
            continue
        time.sleep(min(1.0, longest / 8 + 0.01))
        seen, records = len(records), parts.records()
        if len(records) > seen:
            since = time.perf_counter()
            tell(sum(record.items for record in records.values()))
    tell(plan.items)
    if _mark(batch, plan, parts.output) != mark:
        raise FileError("an input was changed while it was being read: run the command again when it is whole")
    job.once(f"{mark}/written")
    parts.commit()
    shapes = {name: plan.batch + member.core for name, member in parts.members.items()}
    return summarise(batch.layer, records, plan, shapes, time.perf_counter() - began, max(0, kept))


_PATIENCE = 30.0  # seconds that a cell may take as long as none is finished


def _mark(batch: Batch, plan: Plan, output: Path) -> str:
    """What tells these problems, and how they are solved, from all others."""
    told = [pmaf.__version__, batch.layer, batch.options, output.suffix, str(plan.batch), str(plan.chunk)]
    told += [source.mark() for source in batch.sources]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:16]
