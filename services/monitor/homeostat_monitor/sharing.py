"""Which partitions this monitor reads, where several share one database.

Every live monitor is in a table; they share the partitions out by their places among the names.
For a moment two may read the same one: offsets move by compare-and-set, so one of them keeps it.
"""

import asyncio

import asyncpg

from homeostat.topics import Topic
from homeostat_kit import logs
from homeostat_kit.kafka.bus import first_of
from homeostat_kit.postgres import Pool, queries

_SQL = queries("homeostat_monitor")
_log = logs.get_logger("homeostat_monitor.sharing")

_AWAY = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)


class Sharing:
    """This monitor's part of the partitions."""

    def __init__(self, pool: Pool, instance: str, ttl_seconds: float) -> None:
        """Who was not seen for ``ttl_seconds`` is gone."""
        self._pool = pool
        self._instance = instance
        self._ttl_seconds = ttl_seconds
        self._names = [instance]
        # Set, and replaced, when the parts have changed.
        self.changed = asyncio.Event()

    def partitions(self, topic: Topic) -> list[int]:
        """Its numbers of the topic's partitions."""
        place = self._names.index(self._instance)
        return [each for each in range(topic.partitions) if each % len(self._names) == place]

    async def join(self) -> None:
        """Before anything is read."""
        await self._look()

    async def run(self, stop: asyncio.Event) -> None:
        """Keeps this monitor among the live ones until ``stop``."""
        while not stop.is_set():
            await first_of(stop, timeout=self._ttl_seconds / 4)
            try:
                await self._look()
            except _AWAY as error:
                _log.warning("sharing_waits", error=repr(error))
        try:
            await self._pool.execute(_SQL["leave"], self._instance)
        except _AWAY as error:
            _log.warning("left_unseen", error=repr(error))

    async def _look(self) -> None:
        await self._pool.execute(_SQL["heartbeat"], self._instance)
        rows = await self._pool.fetch(_SQL["instances"], self._ttl_seconds)
        names = sorted({self._instance, *(row["name"] for row in rows)})
        if names != self._names:
            _log.info("partitions_shared", instances=names)
            self._names = names
            before, self.changed = self.changed, asyncio.Event()
            before.set()
