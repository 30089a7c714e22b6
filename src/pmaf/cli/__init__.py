"""The command ``pmaf``."""

__all__ = ["main"]


def main() -> None:
    """Run the command line."""
    from pmaf.cli.commands import main as run  # typer is asked for when it is needed

    run()
