"""Bearer tokens: made here, shown once, kept as hashes in the file that services read."""

from pathlib import Path
from typing import Annotated

import typer

from homeostat.cli.shared import FOLDER, Folder, show_table
from homeostat.tokens import Role, add_token, read_tokens

_FILE_NAME = "tokens.json"
_File = Annotated[
    Path | None,
    typer.Option("--file", help="The file of tokens; by default tokens.json in the folder."),
]


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who uses it; stands in the audit.")],
    roles: Annotated[list[Role], typer.Option("--role", help="What it is for; may be repeated.")],
    file: _File = None,
    folder: Folder = FOLDER,
) -> None:
    """Makes a token, prints it, and appends its hash to the file. It is never shown again."""
    path = file or folder / _FILE_NAME
    token = add_token(path, name, roles)
    typer.echo(f"{name} may {', '.join(roles)}; services read {path} (TOKENS_FILE)", err=True)
    # Alone on standard output, for `HOMEOSTAT_TOKEN=$(homeostat token new ...)`.
    typer.echo(token)


def listed(file: _File = None, folder: Folder = FOLDER) -> None:
    """Lists the tokens of the file: names and roles."""
    path = file or folder / _FILE_NAME
    rows = ((each.name, ", ".join(sorted(each.roles))) for each in read_tokens(path))
    show_table("tokens", ("name", "may"), rows)


def add_to(app: typer.Typer) -> None:
    """Mounts the commands."""
    tokens = typer.Typer(no_args_is_help=True, help="Bearer tokens that services ask for.")
    tokens.command("new")(new)
    tokens.command("list")(listed)
    app.add_typer(tokens, name="token")
