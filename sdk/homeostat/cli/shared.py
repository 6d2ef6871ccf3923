"""What several commands need: the folder option, channels, tables."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

import grpc
import typer
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console
from rich.table import Table
from rich.text import Text

from homeostat.channels import open_channel
from homeostat.endpoints import DEFAULT_FOLDER, address
from homeostat.events.v1.alert_pb2 import AlertRule

Result = TypeVar("Result")

Folder = Annotated[
    Path, typer.Option("--folder", help="Where `homeostat up` keeps its data.", show_default=True)
]
FOLDER = DEFAULT_FOLDER
console = Console()


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Runs one command's work to its end."""
    return asyncio.run(work)


@asynccontextmanager
async def channel(service: str, folder: Path) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to that service, with the environment's token and TLS; NoEndpoint where nothing
    tells its address."""
    async with open_channel(address(service, folder)) as opened:
        yield opened


def show_table(title: str, heads: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Prints a table; says so where it is empty."""
    table = Table(title=Text(title), title_justify="left", box=None, pad_edge=False)
    for head in heads:
        table.add_column(head, overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    console.print(table if table.row_count else Text(f"{title}: none"))


def when(stamp: Timestamp) -> str:
    """A timestamp for people, UTC."""
    return at(stamp.ToMicroseconds())


def at(us: int) -> str:
    """Microseconds since 1970 for people, UTC."""
    return datetime.fromtimestamp(us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S")


def span(seconds: float) -> str:
    """A length of time for people."""
    for unit, name in ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min")):
        if abs(seconds) >= unit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds:.3g} s"


def rule_name(rule: "AlertRule.ValueType") -> str:
    """As policies and options take it."""
    return AlertRule.Name(rule).removeprefix("ALERT_RULE_").lower()


def word(name: str, prefix: str) -> str:
    """An enum value's name as a word."""
    return name.removeprefix(prefix).lower().replace("_", " ")
