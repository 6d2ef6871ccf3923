"""One SQL statement against a database, for tests that are not async."""

import asyncio

import asyncpg


def query(url: str, sql: str) -> str:
    """The first value of the first row as text; empty if there is none."""
    return asyncio.run(_query(url, sql))


async def _query(url: str, sql: str) -> str:
    connection = await asyncpg.connect(url, timeout=10)
    try:
        value = await connection.fetchval(sql)
    finally:
        await connection.close()
    return "" if value is None else str(value)
