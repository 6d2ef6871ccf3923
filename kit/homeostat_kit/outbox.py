"""Events committed with the state they tell of, and the relay that carries them to the broker."""

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import asyncpg
from google.protobuf.message import Message

from homeostat import cloudevents
from homeostat.topics import Topic
from homeostat.topics import topic as topic_named
from homeostat_kit import logs
from homeostat_kit.kafka.bus import BrokerAway, Bus, first_of
from homeostat_kit.kafka.records import Outgoing, Place, require_fit
from homeostat_kit.postgres import Connection, Pool, queries

_SQL = queries("homeostat_kit")

# Sent rows that are kept, to be sent again to a broker that has lost them.
_RETAINED_ROWS = 100_000
_RETAINED_BYTES = 256 * 1024 * 1024
_BATCH_ROWS = 500
# Whoever commits calls wake(); this is for those who could not.
_IDLE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 2.0
_TRIM_EVERY_ROWS = 5_000
_LOCK_RETRY_SECONDS = 1.0
# What is unsent at a stop is sent after the next start.
_FINISH_SECONDS = 1.0

_log = logs.get_logger("homeostat_kit.outbox")


@dataclass(frozen=True, slots=True)
class Event:
    """One fact to tell, with what its CloudEvents headers need."""

    topic: Topic
    key: bytes
    message: Message
    event_id: str
    occurred_at_us: int
    # For marks, which go to every partition; None: the key's hash decides.
    partition: int | None = None
    traceparent: str | None = None


async def put(
    connection: Connection,
    *,
    topic: Topic,
    key: bytes,
    message: Message,
    event_id: str,
    occurred_at_us: int,
    partition: int | None = None,
    traceparent: str | None = None,
) -> None:
    """Puts one event into the outbox, in the caller's transaction; ``relay.wake()`` after that.

    Put late in the transaction: from here on to its end no other one of this database can put.
    """
    event = Event(topic, key, message, event_id, occurred_at_us, partition, traceparent)
    await put_many(connection, [event])


async def put_many(connection: Connection, events: Sequence[Event]) -> None:
    """Like ``put`` for several, which keep their order."""
    if not events:
        return
    values = [each.message.SerializeToString() for each in events]
    for each, value in zip(events, values, strict=True):
        require_fit(each.topic.name, value)
    await connection.execute(_SQL["lock_outbox"])
    await connection.execute(
        _SQL["put_outbox"],
        [each.topic.name for each in events],
        [each.partition for each in events],
        [each.key for each in events],
        values,
        [each.event_id for each in events],
        [each.occurred_at_us for each in events],
        [each.traceparent for each in events],
    )


class OutboxRelay:
    """Sends what stands in the outbox in the order of its commits, each at least once in each epoch
    of the broker. One relay sends at a time per database; others wait for their turn.
    """

    def __init__(
        self,
        pool: Pool,
        bus: Bus,
        source: str,
        *,
        retained_rows: int = _RETAINED_ROWS,
        retained_bytes: int = _RETAINED_BYTES,
    ) -> None:
        """``source`` is the CloudEvents source, for example "homeostat/ledger".

        Of what was sent the newest events stay within both bounds, and the newest marks.
        """
        self._pool = pool
        self._bus = bus
        self._source = source
        self._retained_rows = retained_rows
        self._retained_bytes = retained_bytes
        self._woken = asyncio.Event()
        self._epoch = ""
        self._sent_since_trim = 0
        self._pause_seconds = 0.0

    def wake(self) -> None:
        """There is something to send; cheap, and never lost while the relay runs."""
        self._woken.set()

    async def unsent_count(self) -> int:
        """Events that this epoch of the broker has not acknowledged."""
        epoch = self._bus.epoch
        if epoch and epoch == self._epoch:
            return int(await self._pool.fetchval(_SQL["count_unsent"]))
        return int(await self._pool.fetchval(_SQL["count_unsent_in_epoch"], epoch))

    async def produced_positions(self) -> dict[Place, int]:
        """Next offsets after what was acknowledged in this epoch, by (topic, partition)."""
        rows = await self._pool.fetch(_SQL["read_outbox_positions"], self._bus.epoch)
        return {(row["topic"], row["partition"]): row["next_offset"] for row in rows}

    async def run(self, stop: asyncio.Event) -> None:
        """Relays until ``stop``; outages of broker and database are waited out."""
        while await self._bus.wait_ready(stop):
            try:
                async with self._pool.acquire() as connection:
                    await self._run_on(connection, stop)
            except (BrokerAway, TimeoutError, OSError, *_DATABASE_ERRORS) as error:
                await self._back_off(stop, error)

    async def _back_off(self, stop: asyncio.Event, error: BaseException) -> None:
        self._pause_seconds = min(max(0.1, 2 * self._pause_seconds), _LONGEST_PAUSE_SECONDS)
        _log.warning("relay_interrupted", source=self._source, error=repr(error))
        await first_of(stop, timeout=self._pause_seconds)

    async def _run_on(self, connection: Connection, stop: asyncio.Event) -> None:
        """On one connection, which holds the relay's lock as long as it lives."""
        while not await connection.fetchval(_SQL["try_lock_relay"]):
            await first_of(stop, timeout=_LOCK_RETRY_SECONDS)
            if stop.is_set():
                return
        try:
            # Another relay may have sent to another epoch since we last held the lock.
            self._epoch = ""
            while not stop.is_set():
                self._woken.clear()
                await self._adopt_epoch(connection)
                if not await self._send_some(connection, stop):
                    await first_of(stop, self._woken, self._bus.changes(), timeout=_IDLE_SECONDS)
        finally:
            # A connection that is lost has lost its locks.
            with suppress(TimeoutError, OSError, *_DATABASE_ERRORS):
                await connection.fetchval(_SQL["unlock_relay"])

    async def _adopt_epoch(self, connection: Connection) -> None:
        epoch = self._bus.epoch
        if epoch == self._epoch:
            return
        async with connection.transaction():
            lost = await connection.execute(_SQL["forget_sent_elsewhere"], epoch)
            await connection.execute(_SQL["trim_positions"], epoch)
        self._epoch = epoch
        _log.info("relay_epoch", source=self._source, epoch=epoch, sent_again=lost)

    async def _send_some(self, connection: Connection, stop: asyncio.Event) -> int:
        rows = await connection.fetch(_SQL["next_outbox"], _BATCH_ROWS)
        if not rows:
            return 0
        acknowledged = await self._unless(
            stop, self._bus.produce_many([*map(self._outgoing, rows)], epoch=self._epoch)
        )
        if acknowledged is None:
            return 0
        await self._mark(connection, rows, acknowledged)
        self._pause_seconds = 0.0
        self._sent_since_trim += len(rows)
        if self._sent_since_trim >= min(_TRIM_EVERY_ROWS, self._retained_rows):
            self._sent_since_trim = 0
            await self._trim(connection)
        return len(rows)

    async def _trim(self, connection: Connection) -> None:
        await connection.execute(
            _SQL["trim_outbox"], self._epoch, self._retained_rows, self._retained_bytes
        )
        await connection.execute(_SQL["trim_marks"], self._epoch)

    async def _unless(
        self, stop: asyncio.Event, sending: Coroutine[Any, Any, list[tuple[int, int]]]
    ) -> list[tuple[int, int]] | None:
        """What the broker acknowledged; None if it did not within a moment after ``stop``."""
        task = asyncio.create_task(sending)
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([task, stopped], return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait([task], timeout=_FINISH_SECONDS)
            return task.result() if task.done() else None
        finally:
            stopped.cancel()
            task.cancel()

    def _outgoing(self, row: Any) -> Outgoing:
        headers = cloudevents.headers(
            topic_named(row["topic"]),
            event_id=row["event_id"],
            source=self._source,
            occurred_at_us=row["occurred_at_us"],
            traceparent=row["traceparent"],
        )
        return Outgoing(row["topic"], row["key"], row["value"], headers, row["partition"])

    async def _mark(
        self, connection: Connection, rows: Sequence[Any], acknowledged: Sequence[tuple[int, int]]
    ) -> None:
        ends: dict[Place, int] = {}
        for row, (partition, offset) in zip(rows, acknowledged, strict=True):
            place = (row["topic"], partition)
            ends[place] = max(offset + 1, ends.get(place, 0))
        async with connection.transaction():
            await connection.execute(
                _SQL["mark_outbox_sent"],
                self._epoch,
                [row["id"] for row in rows],
                [partition for partition, _ in acknowledged],
                [offset for _, offset in acknowledged],
            )
            await connection.execute(
                _SQL["raise_outbox_positions"],
                self._epoch,
                [topic for topic, _ in ends],
                [partition for _, partition in ends],
                list(ends.values()),
            )


_DATABASE_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
