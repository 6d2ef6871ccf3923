"""Puts the commands together and turns errors into one line with the cure."""

import importlib
import sys

import grpc
import typer
from rich.console import Console

from homeostat.cli import models, pushing, watching

app = typer.Typer(
    name="homeostat",
    help="Keeps machine-learning models true in production.\n\n"
    "Start with [bold]homeostat up[/bold], push a model with [bold]homeostat push[/bold], or watch "
    "a year of real flights with [bold]homeostat demo flights[/bold].",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
pushing.add_to(app)
models.add_to(app)
watching.add_to(app)

# Packages of other extras that bring commands of their own.
_EXTENSIONS = ("homeostat_local.cli", "homeostat_flights.cli")


def _add_extensions() -> None:
    for name in _EXTENSIONS:
        try:
            extension = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name and name.startswith(error.name.split(".")[0]):
                continue
            raise
        extension.add_to(app)


def main() -> None:
    """Runs the command; exit code 1 with one line on an error that a user can act on."""
    _add_extensions()
    try:
        app()
    except grpc.aio.AioRpcError as error:
        _fail(f"{error.code().name.lower().replace('_', ' ')}: {error.details()}")
    except (ValueError, LookupError, OSError) as error:
        _fail(str(error))


def _fail(message: str) -> None:
    Console(stderr=True).print(f"[red]error[/red] {message}", highlight=False, soft_wrap=True)
    sys.exit(1)
