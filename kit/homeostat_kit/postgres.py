"""PostgreSQL: pools, numbered migrations, named queries, and transactions that are tried again."""

import asyncio
import hashlib
import random
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import asyncpg

from homeostat_kit import logs

if TYPE_CHECKING:
    Pool = asyncpg.Pool[asyncpg.Record]
    Connection = (
        asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]
    )
else:
    Pool = asyncpg.Pool
    Connection = asyncpg.Connection

T = TypeVar("T")

_KIT = "homeostat_kit"
_COMMAND_SECONDS = 30.0
_CONNECT_SECONDS = 5.0
# How long a start or a transaction waits for a server that is away, before the caller hears of it.
_AWAY_SECONDS = 30.0
_CONFLICT_ATTEMPTS = 20
# Any number that nobody else in these databases locks: "migrate" in ASCII.
_MIGRATE_LOCK = 0x6D696772617465

_CONFLICTS = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError)
_AWAY = (
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.InterfaceError,
    # What asyncpg raises on a connection that was lost in the middle of its protocol.
    asyncpg.InternalClientError,
    OSError,
)

_log = logs.get_logger("homeostat_kit.postgres")


class MigrationError(Exception):
    """The files of a package and what its database has seen do not agree."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered file."""

    number: int
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        """Of its text, to notice that an applied file was changed."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


async def open_pool(url: str, *, max_size: int = 8) -> Pool:
    """A pool with deadlines on connecting and on each command.

    Waits up to 30 s for a server that is starting; then raises what asyncpg raised.
    """
    deadline = asyncio.get_running_loop().time() + _AWAY_SECONDS
    pause = 0.05
    while True:
        try:
            pool: Pool = await asyncpg.create_pool(
                url,
                min_size=1,
                max_size=max_size,
                timeout=_CONNECT_SECONDS,
                command_timeout=_COMMAND_SECONDS,
            )
            return pool
        except (TimeoutError, *_AWAY):
            if asyncio.get_running_loop().time() + pause > deadline:
                raise
            await asyncio.sleep(pause)
            pause = min(2 * pause, 1.0)


async def retrying(pool: Pool, work: Callable[[Connection], Awaitable[T]]) -> T:
    """Runs ``work`` in one transaction, again after a conflict or a lost connection, with back-off.

    A lost connection may have committed: ``work`` must be idempotent. Raises the last error after
    20 conflicts, or when the server was away for 30 s.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _AWAY_SECONDS
    attempt = 0
    while True:
        attempt += 1
        try:
            async with pool.acquire() as connection, connection.transaction():
                return await work(connection)
        except _CONFLICTS:
            if attempt >= _CONFLICT_ATTEMPTS:
                raise
        except _AWAY as error:
            if not _is_lost(error) or loop.time() > deadline:
                raise
        await asyncio.sleep(_pause(attempt))


def is_away(error: BaseException) -> bool:
    """Whether the connection was lost or can't be made, so that another try is worth it."""
    return isinstance(error, _AWAY) and _is_lost(error)


def _is_lost(error: BaseException) -> bool:
    """InterfaceError stands for misuse too."""
    if isinstance(error, asyncpg.InterfaceError):
        return "closed" in str(error) or "released back" in str(error)
    return True


def _pause(attempt: int) -> float:
    return min(1.0, 0.01 * 2.0 ** min(attempt, 7)) * (0.5 + random.random())


async def migrate(pool: Pool, package: str) -> None:
    """Applies what is new of the kit's own and then of ``package``'s ``sql/NNNN_name.sql`` files.

    Safe to call from several processes at once. MigrationError if an applied file has changed.
    """
    async with pool.acquire() as connection:
        await connection.execute("SELECT pg_advisory_lock($1)", _MIGRATE_LOCK)
        try:
            await connection.execute(
                "CREATE TABLE IF NOT EXISTS schema_migration ("
                " package text, number int, name text NOT NULL, sha256 text NOT NULL,"
                " applied_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (package, number))"
            )
            for each in dict.fromkeys((_KIT, package)):
                await _migrate_package(connection, each)
        finally:
            await connection.execute("SELECT pg_advisory_unlock($1)", _MIGRATE_LOCK)


async def _migrate_package(connection: Connection, package: str) -> None:
    files = {each.number: each for each in migrations(package)}
    rows = await connection.fetch(
        "SELECT number, name, sha256 FROM schema_migration WHERE package = $1", package
    )
    for row in rows:
        file = files.pop(row["number"], None)
        if file is None or file.sha256 != row["sha256"]:
            raise MigrationError(
                f"{package}: migration {row['number']:04d}_{row['name']} was applied and has "
                "changed since; migrations are append-only: restore it and add a new one"
            )
    for _, file in sorted(files.items()):
        async with connection.transaction():
            await connection.execute(file.sql)
            await connection.execute(
                "INSERT INTO schema_migration (package, number, name, sha256)"
                " VALUES ($1, $2, $3, $4)",
                package,
                file.number,
                file.name,
                file.sha256,
            )
        _log.info("migration_applied", package=package, number=file.number, name=file.name)


def migrations(package: str) -> list[Migration]:
    """The package's migration files in order of their numbers."""
    found: list[Migration] = []
    folder = resources.files(package) / "sql"
    for entry in folder.iterdir() if folder.is_dir() else ():
        match = re.fullmatch(r"(\d{4})_(\w+)\.sql", entry.name)
        if match:
            found.append(Migration(int(match[1]), match[2], entry.read_text("utf-8")))
    found.sort(key=lambda each: each.number)
    numbers = [each.number for each in found]
    if len(set(numbers)) != len(numbers):
        raise MigrationError(f"{package}: two migrations have one number")
    return found


@lru_cache
def queries(package: str, file: str = "queries.sql") -> Mapping[str, str]:
    """The blocks of the package's ``sql/<file>`` by the names in their "-- name: x" lines."""
    text = (resources.files(package) / "sql" / file).read_text("utf-8")
    parts = re.split(r"^-- name: *(\w+) *$", text, flags=re.MULTILINE)
    named = dict(zip(parts[1::2], (each.strip() for each in parts[2::2]), strict=True))
    if len(named) != len(parts[1::2]):
        raise ValueError(f"{package}: two queries have one name")
    return MappingProxyType(named)


def affected(status: Any) -> int:
    """Rows that a command touched, from the status that ``execute`` returned."""
    return int(str(status).rpartition(" ")[2])
