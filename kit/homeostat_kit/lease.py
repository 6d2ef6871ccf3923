"""Leases: one holder at a time, with a token that rises, so that a former one can be refused."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import asyncpg

from homeostat_kit import logs
from homeostat_kit.postgres import Connection, Pool, is_away, queries

_SQL = queries("homeostat_kit")
_RELEASE_SECONDS = 1.0
_DATABASE_ERRORS = (
    TimeoutError,
    OSError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)

_log = logs.get_logger("homeostat_kit.lease")


class LeaseLost(Exception):
    """Somebody else holds the lease by now."""


@dataclass(frozen=True, slots=True)
class Lease:
    """What its holder has in hand."""

    name: str
    # Greater than that of every holder before.
    token: int
    # Set when it could not be renewed in time: end what it protects.
    lost: asyncio.Event = field(default_factory=asyncio.Event, compare=False)

    async def check(self, connection: Connection) -> None:
        """LeaseLost if a newer token was given; no newer one is until the transaction ends."""
        token = await connection.fetchval(_SQL["check_lease"], self.name)
        if token != self.token:
            raise LeaseLost(f"the lease {self.name} went from token {self.token} to {token}")


@asynccontextmanager
async def held_lease(
    pool: Pool, name: str, holder: str, ttl_seconds: float
) -> AsyncIterator[Lease]:
    """Waits until the lease is free, then holds and renews it for the length of the block.

    The same ``holder`` takes its own lease over at once, with a new token: use one name per process
    slot. Time is the database's.
    """
    lease = Lease(name, await _take(pool, name, holder, ttl_seconds))
    _log.info("lease_taken", lease=name, holder=holder, token=lease.token)
    renewal = asyncio.create_task(_renew(pool, lease, ttl_seconds), name=f"lease-{name}")
    try:
        yield lease
    finally:
        renewal.cancel()
        with suppress(asyncio.CancelledError):
            await renewal
        await _release(pool, lease)


class Leases:
    """Many leases of one holder, taken and renewed in one statement.

    None is renewed by itself: who still needs one takes it again before it ends. Work under a lease
    checks it in its own transaction (Lease.check), so that one that ended does no harm.
    """

    def __init__(self, pool: Pool, holder: str, ttl_seconds: float) -> None:
        """``holder``: one name per process slot, as for held_lease."""
        self._pool = pool
        self._holder = holder
        self._ttl_seconds = ttl_seconds
        self._held: dict[str, tuple[Lease, float]] = {}

    async def take(self, names: Sequence[str]) -> list[Lease]:
        """Those of the names that are free or ours; the others are left out."""
        now = asyncio.get_running_loop().time()
        # Half of the time is left: work under it ends before somebody else may begin.
        fresh = {
            name: lease
            for name, (lease, until) in self._held.items()
            if until - now > self._ttl_seconds / 2
        }
        wanted = sorted(set(names) - set(fresh))
        if wanted:
            tokens = [self._held[name][0].token if name in self._held else 0 for name in wanted]
            rows = await self._pool.fetch(
                _SQL["take_leases"], wanted, tokens, self._holder, self._ttl_seconds
            )
            for name in wanted:
                self._held.pop(name, None)
            for row in rows:
                lease = Lease(row["name"], row["token"])
                fresh[lease.name] = lease
                self._held[lease.name] = (lease, now + self._ttl_seconds)
        return [fresh[name] for name in names if name in fresh]

    def forget(self, lease: Lease) -> None:
        """It was lost: ask anew."""
        self._held.pop(lease.name, None)

    async def give_up(self, lease: Lease) -> None:
        """Lets others have this one at once."""
        self.forget(lease)
        await self._release([lease])

    async def release(self) -> None:
        """Lets others have them at once."""
        held = [lease for lease, _ in self._held.values()]
        self._held.clear()
        await self._release(held)

    async def _release(self, held: Sequence[Lease]) -> None:
        if not held:
            return
        with suppress(*_DATABASE_ERRORS):
            async with asyncio.timeout(_RELEASE_SECONDS):
                await self._pool.execute(
                    _SQL["release_leases"],
                    [each.name for each in held],
                    [each.token for each in held],
                )


async def _take(pool: Pool, name: str, holder: str, ttl_seconds: float) -> int:
    """Waits for the database as it waits for the lease: nothing is at stake before it is held.

    What a lost connection may have taken is taken over again by the same holder.
    """
    while True:
        try:
            token = await pool.fetchval(_SQL["take_lease"], name, holder, ttl_seconds)
        except Exception as error:
            if not is_away(error):
                raise
            _log.warning("lease_waits_for_database", lease=name, error=type(error).__name__)
            token = None
        if token is not None:
            return int(token)
        await asyncio.sleep(min(1.0, ttl_seconds / 4))


async def _renew(pool: Pool, lease: Lease, ttl_seconds: float) -> None:
    loop = asyncio.get_running_loop()
    good_until = loop.time() + ttl_seconds
    while not lease.lost.is_set():
        await asyncio.sleep(ttl_seconds / 4)
        asked_at = loop.time()
        try:
            async with asyncio.timeout(ttl_seconds / 2):
                token = await pool.fetchval(
                    _SQL["renew_lease"], lease.name, lease.token, ttl_seconds
                )
        except _DATABASE_ERRORS:
            if loop.time() < good_until:
                continue
            token = None
        if token is None:
            _log.warning("lease_lost", lease=lease.name, token=lease.token)
            lease.lost.set()
        else:
            good_until = asked_at + ttl_seconds


async def _release(pool: Pool, lease: Lease) -> None:
    with suppress(*_DATABASE_ERRORS):
        async with asyncio.timeout(_RELEASE_SECONDS):
            await pool.execute(_SQL["release_lease"], lease.name, lease.token)
