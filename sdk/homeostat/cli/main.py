"""Puts the commands together and turns errors into one line with the cure."""

import importlib

import typer

from homeostat.cli import (
    advising,
    alerts,
    models,
    monitoring,
    policies,
    pushing,
    serving,
    tokens,
    watching,
)
from homeostat.cli.reporting import guarded

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
serving.add_to(app)
watching.add_to(app)
alerts.add_to(app)
policies.add_to(app)
monitoring.add_to(app)
advising.add_to(app)
tokens.add_to(app)

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
    guarded(_run)


def _run() -> None:
    _add_extensions()
    app()
