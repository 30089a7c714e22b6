"""The commands ``pmaf solve …``: a file of problems in, a file of answers out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pmaf.cli.options import CODES, FILES, Chunk, Device, Json, Overwrite, Solver

if TYPE_CHECKING:
    from pmaf.cli.summary import Summary
    from pmaf.cli.work import Run

__all__ = ["solve"]

solve = typer.Typer(
    no_args_is_help=True,
    help="Solve a file of problems; alone, or shared: torchrun --no-python --nproc-per-node 8 pmaf solve …",
    epilog=CODES,
)


class Constraint(str, Enum):
    """Where the answer of a least-squares problem has to lie."""

    sphere = "sphere"
    ball = "ball"


@solve.command("less")
def solve_less(
    A: Annotated[Path, typer.Argument(help=f"Matrices, shape (*, m, n): {FILES}.")],
    b: Annotated[Path, typer.Argument(help="Right-hand sides, shape (*, m).")],
    output: Annotated[Path, typer.Option("--output", "-o", help="u alone as .npy; all results as .npz, .pt, .zarr.")],
    weights: Annotated[Path | None, typer.Option(help="Non-negative weights of the rows, shape (*, m).")] = None,
    free: Annotated[
        Path | None, typer.Option(help="Columns of unknowns z that the constraint does not see, shape (*, m, p).")
    ] = None,
    radius: Annotated[float, typer.Option(help="Radius of the sphere.")] = 1.0,
    constraint: Annotated[Constraint, typer.Option(help="On the sphere, or anywhere in the ball.")] = Constraint.sphere,
    solver: Solver = None,
    device: Device = "cpu",
    chunk: Chunk = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Minimise ||A u - b|| subject to ||u|| = r, for every item of a batch."""
    with _run(chunk, overwrite) as run:
        from pmaf.cli.batches import solve_less_files

        summary = solve_less_files(
            A,
            b,
            output,
            weights=weights,
            free=free,
            radius=radius,
            solver=solver,
            constraint=constraint.value,
            device=device,
            run=run,
        )
    _finish(summary, output, run, json)


@solve.command("ied")
def solve_ied(
    X: Annotated[Path, typer.Argument(help=f"Symmetric matrices, shape (*, n, n): {FILES}.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the eigenpairs go: .npz, .pt or .zarr.")],
    k: Annotated[int, typer.Option("-k", help="How many eigenpairs.")] = 1,
    smallest: Annotated[bool, typer.Option("--smallest", help="The smallest eigenvalues, not the largest.")] = False,
    metric: Annotated[
        Path | None, typer.Option(help="Positive definite matrices B, shape (*, n, n), for the pairs of X u = c B u.")
    ] = None,
    solver: Solver = None,
    device: Device = "cpu",
    chunk: Chunk = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Find the k leading eigenpairs of every matrix of a batch."""
    with _run(chunk, overwrite) as run:
        from pmaf.cli.batches import solve_ied_file

        summary = solve_ied_file(
            X, k, output, largest=not smallest, metric=metric, solver=solver, device=device, run=run
        )
    _finish(summary, output, run, json)


@solve.command("svd")
def solve_svd(
    A: Annotated[Path, typer.Argument(help=f"Matrices, shape (*, m, n): {FILES}.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the triplets go: .npz, .pt or .zarr.")],
    k: Annotated[int, typer.Option("-k", help="How many triplets.")] = 1,
    smallest: Annotated[bool, typer.Option("--smallest", help="The smallest singular values.")] = False,
    solver: Solver = None,
    device: Device = "cpu",
    chunk: Chunk = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Find the k leading singular triplets of every matrix of a batch."""
    with _run(chunk, overwrite) as run:
        from pmaf.cli.batches import solve_svd_file

        summary = solve_svd_file(A, k, output, largest=not smallest, solver=solver, device=device, run=run)
    _finish(summary, output, run, json)


@contextmanager
def _run(chunk: int | None, overwrite: bool) -> Iterator[Run]:
    """A run with a bar for all processes; an interrupt ends it in one sentence.

    Args:
        chunk: how many items are worked on at a time.
        overwrite: whether an output may be replaced.

    Yields:
        The run.

    Raises:
        Exit: if it was interrupted.
    """
    rank = os.environ.get("RANK", "0")
    try:
        from pmaf.cli.progress import items_bar
        from pmaf.cli.ranks import Job
        from pmaf.cli.work import Run

        job = Job.from_environment()
        if job.rank:
            yield Run(chunk=chunk, overwrite=overwrite, job=job)
        else:
            with items_bar("solving", rate=True) as report:
                yield Run(chunk=chunk, overwrite=overwrite, job=job, report=report)
    except KeyboardInterrupt as interrupt:
        if rank == "0":
            typer.echo("; ".join(filter(None, ["pmaf: interrupted", str(interrupt)])), err=True)
        raise typer.Exit(130) from None


def _finish(summary: Summary | None, output: Path, run: Run, json: bool) -> None:
    """Print what became of a batch and leave with an exit status that says so.

    Args:
        summary: what became of the batch; nothing is printed without.
        output: where the answers are.
        run: how it was worked through.
        json: whether a script is to read it.

    Raises:
        Exit: if an item has no answer, and no launcher would take that for a crash and start the job anew.
    """
    from pmaf.cli.summary import print_summary

    if summary is None:
        return
    if json:
        typer.echo(summary.to_json(output))
    else:
        print_summary(summary, output)
    if summary.failed and run.job.world == 1:
        raise typer.Exit(1)
