"""Telling callers that the database is away, instead of what its driver raised."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import asyncpg

from homeostat_kit.postgres import Connection, Pool, retrying
from homeostat_ledger.domain.errors import DatabaseAway

T = TypeVar("T")
_AWAY = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.OperatorInterventionError,
    OSError,
)


@contextmanager
def away_is_told() -> Iterator[None]:
    """DatabaseAway for a connection that is lost or can't be made."""
    try:
        yield
    except _AWAY as error:
        raise DatabaseAway("the ledger's database is away; try again") from error


async def reading(pool: Pool, work: Callable[[Connection], Awaitable[T]]) -> T:
    """Runs ``work`` in a transaction, with patience for a server that restarts.

    DatabaseAway if it stays away for 30 s.
    """
    with away_is_told():
        return await retrying(pool, work)


async def fetch(pool: Pool, query: str, *arguments: object) -> list[asyncpg.Record]:
    """Rows of one query, like ``reading``."""
    return await reading(pool, lambda connection: connection.fetch(query, *arguments))


async def fetchrow(pool: Pool, query: str, *arguments: object) -> asyncpg.Record | None:
    """The first row of one query, like ``reading``."""
    return await reading(pool, lambda connection: connection.fetchrow(query, *arguments))
