"""Migrations and transactions, on a real PostgreSQL."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from homeostat_kit import postgres
from homeostat_kit.postgres import (
    Connection,
    Migration,
    MigrationError,
    Pool,
    migrate,
    open_pool,
    queries,
    retrying,
)


@pytest.fixture
async def pool(postgres_url: str) -> AsyncIterator[Pool]:
    pool = await open_pool(postgres_url)
    yield pool
    await pool.close()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of migrations of an importable package "some_service"."""
    folder = tmp_path / "some_service" / "sql"
    folder.mkdir(parents=True)
    (tmp_path / "some_service" / "__init__.py").touch()
    (folder / "0001_first.sql").write_text("CREATE TABLE first (id int);")
    monkeypatch.delitem(sys.modules, "some_service", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    return folder


async def test_migrations_run_once_whoever_comes_first(pool: Pool, package: Path) -> None:
    await asyncio.gather(*(migrate(pool, "some_service") for _ in range(4)))
    (package / "0002_second.sql").write_text("CREATE TABLE second (id int);")
    await migrate(pool, "some_service")
    rows = await pool.fetch(
        "SELECT number, name FROM schema_migration WHERE package = 'some_service' ORDER BY number"
    )
    assert [tuple(row) for row in rows] == [(1, "first"), (2, "second")]
    assert await pool.fetchval("SELECT count(*) FROM second") == 0
    assert await pool.fetchval("SELECT count(*) FROM outbox") == 0


async def test_an_applied_migration_that_was_changed_is_refused(pool: Pool, package: Path) -> None:
    await migrate(pool, "some_service")
    (package / "0001_first.sql").write_text("CREATE TABLE first (id bigint);")
    with pytest.raises(MigrationError, match="0001_first"):
        await migrate(pool, "some_service")


async def test_a_migration_that_fails_leaves_nothing(pool: Pool, package: Path) -> None:
    (package / "0002_bad.sql").write_text("CREATE TABLE half (id int); SELECT 1/0;")
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(pool, "some_service")
    assert await pool.fetchval("SELECT to_regclass('half')") is None
    (package / "0002_bad.sql").write_text("CREATE TABLE half (id int);")
    await migrate(pool, "some_service")


def test_the_kit_itself_has_migrations_and_queries() -> None:
    first, *_ = postgres.migrations("homeostat_kit")
    assert isinstance(first, Migration)
    assert (first.number, first.name) == (1, "kit")
    assert queries("homeostat_kit")["read_offsets"].startswith("SELECT")
    assert all(text.endswith(";") for text in queries("homeostat_kit").values())


async def test_a_transaction_whose_connection_is_killed_is_tried_again(pool: Pool) -> None:
    await pool.execute("CREATE TABLE thing (id int PRIMARY KEY)")
    attempts = 0

    async def work(connection: Connection) -> str:
        nonlocal attempts
        attempts += 1
        await connection.execute("INSERT INTO thing VALUES (1)")
        if attempts == 1:
            pid = await connection.fetchval("SELECT pg_backend_pid()")
            await pool.execute("SELECT pg_terminate_backend($1)", pid)
        await connection.execute("INSERT INTO thing VALUES (2)")
        return "done"

    assert await retrying(pool, work) == "done"
    assert attempts == 2
    assert await pool.fetchval("SELECT count(*) FROM thing") == 2


async def test_an_error_of_the_caller_is_not_tried_again(pool: Pool) -> None:
    attempts = 0

    async def work(connection: Connection) -> None:
        nonlocal attempts
        attempts += 1
        await connection.execute("SELECT * FROM nowhere")

    with pytest.raises(asyncpg.UndefinedTableError):
        await retrying(pool, work)
    assert attempts == 1
