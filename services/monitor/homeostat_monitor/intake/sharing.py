"""Which partitions this monitor reads, where several share one database.

Every live monitor is in a table and says so four times in ``ttl_seconds``; who has said nothing for
that long is gone. The partitions are shared out by places among the live names: whoever sees the
same names agrees with the others without a word. Names are therefore to differ (the setting
``instance``).

What is counted stays exact through every change of the parts. Where two read the same partition for
a moment, offsets move by compare-and-set in the transaction that adds the sums: one of them keeps
it, the other reads on from what is stored. Where nobody reads one, since its reader was killed and
is not missed yet, its blocks and its marks wait; the watermark waits with them, so nothing is
judged before they are in, and no window looks thin. Sums are integers per partition: any monitor
may add to any other's.

Which monitor judges a model is another matter (leases, judge_loop.py): it merges all partitions'
sums, whoever has counted them.
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
    """This monitor's part of the partitions.

    A reader waits on ``changed`` beside its work, leaves its partitions when that is set, and asks
    for its new ones: what it had in hand is committed or read again by whoever has them then.
    """

    def __init__(self, pool: Pool, instance: str, ttl_seconds: float) -> None:
        """``instance`` is this process's own name. Who was not seen for ``ttl_seconds``, by the
        database's clock, is gone."""
        self._pool = pool
        self._instance = instance
        self._ttl_seconds = ttl_seconds
        self._names = [instance]
        # Set, and replaced, when the parts have changed.
        self.changed = asyncio.Event()

    def partitions(self, topic: Topic) -> list[int]:
        """Its numbers of the topic's partitions; none where there are more monitors than those."""
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
