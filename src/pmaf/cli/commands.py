"""The command ``pmaf``: parses, calls the public functions, prints. torch is imported when a command needs it."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pmaf.errors import MissingExtraError
from pmaf.version import __version__

try:
    import typer
except ImportError:
    raise SystemExit("pmaf: the command line needs typer: pip install 'pmaf[cli]'") from None


if TYPE_CHECKING:
    from pmaf.cli.summary import Summary
    from pmaf.cli.work import Run


CODES = "Exit status: 0 done; 1 done, but an item has no answer; 2 refused, in one sentence; 130 interrupted."

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Least squares on the sphere and leading eigenpairs, batched.",
    epilog=CODES,
)
solve = typer.Typer(
    no_args_is_help=True,
    help="Solve a file of problems; alone, or shared: torchrun --no-python --nproc-per-node 8 pmaf solve …",
    epilog=CODES,
)
reproduce = typer.Typer(no_args_is_help=True, help="Run the experiments and write the report.")


app.add_typer(solve, name="solve")


app.add_typer(reproduce, name="reproduce")


class Constraint(str, Enum):
    """Where the answer of a least-squares problem has to lie."""

    sphere = "sphere"
    ball = "ball"


Solver = Annotated[str | None, typer.Option(help="Name of the solver; chosen automatically if left out.")]
Device = Annotated[str, typer.Option(help="Where to compute, such as cpu or cuda.")]
Chunk = Annotated[
    int | None, typer.Option(min=1, help="Problems worked on, and recorded, at a time; 16 MiB of them if left out.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an output that is there already.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, for scripts.")]
Quick = Annotated[bool, typer.Option("--quick", help="A smaller version that takes minutes.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Compute everything anew, whatever an earlier run left.")]
Out = Annotated[Path, typer.Option("--output", "-o", "--out", help="Folder for the report, tables and figures.")]
FILES = "a .npy, .npz or .pt file, or a .zarr directory"


def _version(wanted: bool) -> None:
    if wanted:
        from pmaf.kernels.loader import reason

        typer.echo(f"pmaf {__version__}\nkernels: {reason()}")
        raise typer.Exit


@app.callback()
def _pmaf(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_version,
            is_eager=True,
            help="Print the version and which compiled kernels are used, and leave.",
        ),
    ] = False,
) -> None:
    pass


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
        from pmaf.cli.ranks import Job
        from pmaf.cli.work import Run
        from pmaf.paper.progress import items_bar

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


@reproduce.command("learning")
def reproduce_learning(quick: Quick = False, fresh: Fresh = False, out: Out = Path("report")) -> None:
    """Train networks through the layers on real data."""
    _reproduce(["learning"], quick, fresh, out)


@reproduce.command("less")
def reproduce_less(
    quick: Quick = False,
    fresh: Fresh = False,
    out: Out = Path("report"),
    size: Annotated[
        list[str] | None, typer.Option(help="Rows and columns, such as 64x32; may be given several times.")
    ] = None,
    problems: Annotated[
        int | None, typer.Option(min=1, help="Problems of each size; if left out, as many as are usual.")
    ] = None,
    methods: Annotated[str | None, typer.Option(help="Methods to run, separated by commas; all if left out.")] = None,
) -> None:
    """Compare the paper's solvers for least squares on the sphere with the certified optimum."""
    chosen = [name.strip() for name in methods.split(",")] if methods else []
    _reproduce(["less"], quick, fresh, out, sizes=size or [], problems=problems, methods=chosen)


@reproduce.command("ied")
def reproduce_ied(quick: Quick = False, fresh: Fresh = False, out: Out = Path("report")) -> None:
    """Compare precision, time, memory and gradients of eigen decompositions."""
    _reproduce(["ied"], quick, fresh, out)


@reproduce.command("all")
def reproduce_all(quick: Quick = False, fresh: Fresh = False, out: Out = Path("report")) -> None:
    """Run all experiments into one report."""
    _reproduce(["less", "ied", "learning"], quick, fresh, out)


@app.command()
def env(json: Json = False) -> None:
    """Print the versions, the compiled kernels or why there are none, the threads and the processor."""
    from pmaf.config import configuration, show_config

    if json:
        from json import dumps

        typer.echo(dumps(configuration()))
    else:
        show_config()


@app.command()
def bench(
    device: Device = "cpu",
    rounds: Annotated[int, typer.Option(min=1, help="How often each method has its turn.")] = 5,
    out: Annotated[Path | None, typer.Option("--output", "-o", "--out", help="A .json file for the numbers.")] = None,
) -> None:
    """Compare time and accuracy with the peers installed here."""
    _check_json(out)
    from pmaf.paper.experiments.peers import COLUMNS, write_bench
    from pmaf.paper.experiments.peers import bench as run
    from pmaf.paper.progress import items_bar, print_table
    from pmaf.paper.report.tables import make_table

    with items_bar("bench") as report:
        rows = run(device, rounds, report=report)
    table = make_table(f"Side by side on {device}, fastest of {rounds}", COLUMNS, rows)
    print_table(table.title, table.header, table.texts)
    if out is not None:
        write_bench(out, rows)
        typer.echo(f"wrote {out}")


def _check_json(out: Path | None) -> None:
    if out is not None and (out.suffix != ".json" or not out.parent.is_dir()):
        raise ValueError(f"{out} cannot be written: it must end in .json and lie in a folder that is there")


def _reproduce(names: list[str], quick: bool, fresh: bool, out: Path, **options: object) -> None:
    from pmaf.paper.reproduce import reproduce as run

    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file, not a folder: give the report another name")
    try:
        page = run(names, quick=quick, fresh=fresh, out=out, **options)
    except KeyboardInterrupt:
        typer.echo(
            f"pmaf: interrupted; what is finished is kept in {out}, the same command goes on from there", err=True
        )
        raise typer.Exit(130) from None
    typer.echo(f"report: {page}")


def main() -> None:
    """Run the command line; a refusal is one sentence and exit status 2, never a traceback."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else torch.profiler writes into the progress bar
    try:
        app(prog_name="pmaf")
    except KeyboardInterrupt:
        typer.echo("pmaf: interrupted", err=True)
        sys.exit(130)
    except (MissingExtraError, ValueError, TypeError, OSError, RuntimeError) as error:
        said = in_words_of_the_command(" ".join(_words(error).split()))
        if _first_to_say(said):
            typer.echo(f"pmaf: {said}", err=True)
        sys.exit(2)


def _words(error: Exception) -> str:
    """What went wrong, with the file's name and without the system's number where the system says it."""
    if isinstance(error, OSError) and error.strerror:
        from pmaf.cli.files import in_words

        return f"{error.filename}: {in_words(error)}" if error.filename else in_words(error)
    return str(error)


def _first_to_say(sentence: str) -> bool:
    """Whether no other process of the job has said it."""
    from pmaf.cli.ranks import Job

    try:
        return Job.from_environment().once(sentence)
    except RuntimeError:
        return True


def in_words_of_the_command(message: str) -> str:
    """A message of the library without the name of the function, and with options where Python has objects.

    Args:
        message: one sentence.

    Returns:
        The sentence.
    """
    if "pmaf.solvers." in message or "()" in message:
        from pmaf.solvers import EIGEN, SPHERE

        for name, solver in {**SPHERE, **EIGEN}.items():
            message = message.replace(f"pmaf.solvers.{solver.__name__}:", f"--solver {name}")
            message = message.replace(f"{solver.__name__}()", f"--solver {name}")
    return re.sub(r"^pmaf(\.\w+)*: ", "", message)
