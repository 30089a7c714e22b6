"""The command ``pmaf``: parses, calls the public functions, prints. torch is imported when a command needs it."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Annotated

import pmaf

try:
    import typer
except ImportError:
    raise SystemExit("pmaf: the command line needs typer: pip install 'pmaf[cli]'") from None

from pmaf.cli.options import CODES, Device, Fresh, Json, Out, Quick
from pmaf.cli.solve import solve

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Least squares on the sphere and leading eigenpairs, batched.",
    epilog=CODES,
)
reproduce = typer.Typer(no_args_is_help=True, help="Run the experiments and write the report.")


app.add_typer(solve, name="solve")


app.add_typer(reproduce, name="reproduce")


def _version(wanted: bool) -> None:
    if wanted:
        from pmaf.kernels.loader import reason

        typer.echo(f"pmaf {pmaf.__version__}\nkernels: {reason()}")
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
    sizes = [parse_size(text) for text in size or []]
    _reproduce(["less"], quick, fresh, out, sizes=sizes, problems=problems, methods=chosen)


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
    from pmaf.checks.devices import check_device
    from pmaf.cli.progress import items_bar, print_table
    from pmaf.paper.experiments.peers import COLUMNS, write_bench
    from pmaf.paper.experiments.peers import bench as run
    from pmaf.paper.report.tables import make_table

    check_device(device)
    with items_bar("bench") as report:
        rows = run(device, rounds, report=report)
    table = make_table(f"Side by side on {device}, fastest of {rounds}", COLUMNS, rows)
    print_table(table.title, table.header, table.texts)
    if out is not None:
        write_bench(out, rows)
        typer.echo(f"wrote {out}")


def parse_size(text: str) -> tuple[int, int]:
    """Rows and columns.

    Args:
        text: such as ``"64x32"``.

    Returns:
        Two positive numbers.

    Raises:
        ValueError: if it does not read as that.
    """
    m, _, n = text.lower().replace("×", "x").partition("x")
    if not (m.isdigit() and n.isdigit() and int(m) and int(n)):
        raise ValueError(f"a size is given as MxN, such as 64x32, not as {text!r}")
    return int(m), int(n)


def _check_json(out: Path | None) -> None:
    if out is not None and (out.suffix != ".json" or not out.parent.is_dir()):
        raise ValueError(f"{out} cannot be written: it must end in .json and lie in a folder that is there")


def _reproduce(names: list[str], quick: bool, fresh: bool, out: Path, **options: object) -> None:
    from pmaf.cli.progress import items_bar, print_table
    from pmaf.paper.reproduce import reproduce as run

    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file, not a folder: give the report another name")
    try:
        with items_bar("reproduce", share=True) as report:
            page, tables = run(names, quick=quick, fresh=fresh, out=out, report=report, **options)
    except KeyboardInterrupt:
        typer.echo(
            f"pmaf: interrupted; what is finished is kept in {out}, the same command goes on from there", err=True
        )
        raise typer.Exit(130) from None
    for table in tables:
        print_table(table.title, table.header, table.texts)
    typer.echo(f"report: {page}")


def main() -> None:
    """Run the command line; a refusal is one sentence and exit status 2, never a traceback."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else torch.profiler writes into the progress bar,
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # and torch's allocator what it makes of that
    try:
        app(prog_name="pmaf")
    except KeyboardInterrupt:
        typer.echo("pmaf: interrupted", err=True)
        sys.exit(130)
    except (pmaf.MissingExtraError, ValueError, TypeError, OSError, RuntimeError) as error:
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
        for name, solver in (pmaf.solvers.SPHERE | pmaf.solvers.EIGEN).items():
            message = message.replace(f"pmaf.solvers.{solver.__name__}:", f"--solver {name}")
            message = message.replace(f"{solver.__name__}()", f"--solver {name}")
    return re.sub(r"^pmaf(\.\w+)*: ", "", message)
