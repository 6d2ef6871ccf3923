"""What ended long ago is forgotten, in small portions: nobody waits for it."""

import asyncio

import asyncpg

from homeostat_kit import logs
from homeostat_kit.kafka.bus import first_of
from homeostat_kit.postgres import Pool, affected, queries

_EVERY_SECONDS = 3_600.0
# Between portions others have the database.
_BREATH_SECONDS = 0.2
# Rows of one statement: some milliseconds.
_PORTION = 200

_AWAY = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)

_SQL = queries("homeostat_monitor", "tending.sql")
_log = logs.get_logger("homeostat_monitor.retention")


class Retention:
    """Any number of instances may run one. Ages are told by the database's clock."""

    def __init__(
        self, pool: Pool, *, alert_days: int, delivery_days: int, portion: int = _PORTION
    ) -> None:
        """``alert_days``: of alerts that ended, with their events and acknowledgements;
        ``delivery_days``: of notifications, mutes and lookings-into that ended."""
        self._pool = pool
        self._portion = portion
        self._days = {
            "drop_alerts": alert_days,
            "drop_deepening": delivery_days,
            "drop_notifications": delivery_days,
            "drop_mutes": delivery_days,
        }

    async def run(self, stop: asyncio.Event) -> None:
        """Forgets until ``stop``."""
        while not stop.is_set():
            try:
                await self.forget(stop)
            except _AWAY as error:
                _log.warning("retention_waits", error=repr(error))
            await first_of(stop, timeout=_EVERY_SECONDS)

    async def forget(self, stop: asyncio.Event) -> int:
        """All that is old enough by now; how many rows of the four kinds it was."""
        total = 0
        for name, days in self._days.items():
            done = self._portion
            while done == self._portion and not stop.is_set():
                done = affected(await self._pool.execute(_SQL[name], days, self._portion))
                total += done
                if done == self._portion:
                    await first_of(stop, timeout=_BREATH_SECONDS)
        if total:
            _log.info("forgotten", rows=total)
        return total
