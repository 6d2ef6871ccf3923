"""Reading topics: whole batches to one handler, from offsets that the handler's own store keeps."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any, Protocol

from aiokafka import TopicPartition as ClientPartition

from homeostat.topics import Topic
from homeostat_kit import logs
from homeostat_kit.kafka.bus import BrokerAway, Bus, first_of
from homeostat_kit.kafka.dead_letters import DeadLetters
from homeostat_kit.kafka.polling import CarefulPolls, Unparsable
from homeostat_kit.kafka.producer import close_within
from homeostat_kit.kafka.records import (
    Batch,
    Place,
    Received,
    Unreadable,
    read,
    received,
)

# The embedded broker answers a fetch only when its time is up (real Kafka at once when there is
# data): short while records come, and less costly when none came for a while.
_BUSY_WAIT_MS = 8
_IDLE_WAIT_MS = 100
_IDLE_AFTER_SECONDS = 1.0
_START_SECONDS = 10.0
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0
# What is in hand at a stop may take this long to end.
_FINISH_SECONDS = 5.0
_STOP_SECONDS = 7.0

# The world is away; any other failure of a handler is worth its traceback.
_EXPECTED = (BrokerAway, OSError, TimeoutError)

Handler = Callable[[Batch], Awaitable[None]]

_log = logs.get_logger("homeostat_kit.kafka")


class OffsetReader(Protocol):
    """Gives the next offsets stored for an epoch, by (topic, partition); absent ones are 0."""

    def __call__(self, epoch: str) -> Awaitable[Mapping[Place, int]]: ...


async def from_the_start(epoch: str) -> Mapping[Place, int]:
    """The OffsetReader of those who store none and read everything each time."""
    return {}


async def consume(
    bus: Bus,
    topics: Sequence[Topic],
    *,
    offsets: OffsetReader,
    handle: Handler,
    stop: asyncio.Event,
    max_records: int = 500,
    partitions: Callable[[Topic], Iterable[int]] | None = None,
) -> None:
    """Reads ``topics`` and gives ``handle`` one batch at a time, until ``stop``.

    ``partitions`` says which of a topic's are read, by default all; it is asked at the start.

    When ``handle`` raises, reading goes back to the stored offsets and tries again after 0.1 to
    5 s. In a new epoch of the broker it goes on from that epoch's stored offsets: at first from 0.
    A broker that is away is waited for.
    """
    pause = _Pause()
    while await bus.wait_ready(stop):
        reader = _Reader(bus, topics, offsets, handle, stop, max_records, partitions)
        try:
            await reader.run()
            pause.reset()
        except Exception as error:
            # Not being able to read at all is the world's fault or a bug; both are tried again.
            _log.warning("reading_interrupted", topics=reader.names, error=repr(error))
            await first_of(stop, timeout=pause.next())


class _Pause:
    """Back-off: doubles from 0.1 to 5 s."""

    def __init__(self) -> None:
        self._seconds = _FIRST_PAUSE_SECONDS

    def reset(self) -> None:
        self._seconds = _FIRST_PAUSE_SECONDS

    def next(self) -> float:
        now, self._seconds = self._seconds, min(2 * self._seconds, _LONGEST_PAUSE_SECONDS)
        return now


class _Reader:
    """Reads in one generation of the bus; ends when that has passed or on stop."""

    def __init__(
        self,
        bus: Bus,
        topics: Sequence[Topic],
        offsets: OffsetReader,
        handle: Handler,
        stop: asyncio.Event,
        max_records: int,
        partitions: Callable[[Topic], Iterable[int]] | None,
    ) -> None:
        self._partitions = partitions or (lambda topic: range(topic.partitions))
        self._bus = bus
        self._topics = {each.name: each for each in topics}
        self._offsets = offsets
        self._handle = handle
        self._stop = stop
        self._max_records = max_records
        self._changed = bus.changes()
        self._epoch = bus.epoch
        self._leaving = asyncio.Event()
        self._stored: dict[Place, int] = {}
        self._consumer: Any = None
        self._connections: frozenset[Any] = frozenset()
        self._dead_letters = DeadLetters(bus, self._topics, self._epoch)
        self._pause = _Pause()
        self._has_read = False

    @property
    def names(self) -> list[str]:
        return list(self._topics)

    async def run(self) -> None:
        await self._read_stored()
        subscriber = await self._subscriber()
        try:
            async with asyncio.timeout(_START_SECONDS):
                await subscriber.start()
                # No await between start and seek: the poll loop has not run yet.
                self._consumer = subscriber.consumer
                CarefulPolls(self._consumer, lambda: self._stored)
                self._seek()
            await self._until_over()
        finally:
            self._leaving.set()
            await close_within(subscriber.stop, _STOP_SECONDS)
            if self._consumer is not None:
                await close_within(self._consumer._client.close)

    async def _until_over(self) -> None:
        while not self._is_over():
            self._has_read = False
            await first_of(self._stop, self._changed, self._leaving, timeout=_IDLE_AFTER_SECONDS)
            if not self._has_read:
                self._consumer._fetcher._fetch_max_wait_ms = _IDLE_WAIT_MS

    def _is_over(self) -> bool:
        return self._stop.is_set() or self._changed.is_set() or self._leaving.is_set()

    async def _subscriber(self) -> Any:
        module = await asyncio.to_thread(import_module, "homeostat_kit.kafka.subscription")
        return await module.subscriber(
            self._bus.bootstrap_servers,
            self._bus.client_id,
            list(self._stored),
            self._on_records,
            max_records=self._max_records,
            fetch_wait_ms=_BUSY_WAIT_MS,
            finish_seconds=_FINISH_SECONDS,
        )

    async def _read_stored(self) -> None:
        stored = await self._offsets(self._epoch)
        self._stored = {
            (each.name, number): stored.get((each.name, number), 0)
            for each in self._topics.values()
            for number in self._partitions(each)
        }

    def _seek(self) -> None:
        for place, offset in self._stored.items():
            self._consumer.seek(ClientPartition(*place), offset)

    async def _on_records(self, records: Sequence[Any]) -> None:
        if self._is_over():
            return
        self._has_read = True
        self._consumer._fetcher._fetch_max_wait_ms = _BUSY_WAIT_MS
        try:
            if not await self._is_same_life():
                self._leaving.set()
                return
            batch = await self._batch(records)
            await self._handle(batch)
        except Exception as error:
            await self._go_back(error)
        else:
            self._stored.update(batch.next_offsets)
            self._dead_letters.forget()
            self._pause.reset()

    async def _is_same_life(self) -> bool:
        """Whether what was fetched comes from the epoch that we read.

        A reconnected client reads from a new broker at offsets of the old one without an error. The
        same connections lead to the same broker; after any other was made, the broker is asked.
        """
        now = frozenset(self._consumer._client._conns.values())
        if now and now <= self._connections:
            return True
        if await self._bus.confirm() != self._epoch:
            return False
        self._connections = now
        return True

    async def _batch(self, records: Sequence[Any]) -> Batch:
        readable: list[tuple[Received, Any]] = []
        unreadable: list[Unreadable] = []
        next_offsets: dict[Place, int] = {}
        for raw in records:
            record = received(raw)
            message = self._message(raw, record)
            if isinstance(message, Unreadable):
                unreadable.append(message)
            else:
                readable.append((record, message))
            self._note_gap(record, next_offsets)
            next_offsets[record.topic, record.partition] = record.offset + 1
        await self._dead_letters.tell(unreadable)
        return Batch(
            self._epoch,
            readable,
            unreadable,
            {place: self._stored[place] for place in next_offsets},
            next_offsets,
        )

    def _message(self, raw: Any, record: Received) -> Any:
        if isinstance(raw, Unparsable):
            return Unreadable(record, raw.reason)
        return read(self._topics[record.topic], record)

    def _note_gap(self, record: Received, next_offsets: dict[Place, int]) -> None:
        """Retention or a transaction's marks; not passed over in silence, whatever it was."""
        place = (record.topic, record.partition)
        expected = next_offsets.get(place, self._stored[place])
        if record.offset != expected:
            _log.warning(
                "offsets_missing",
                topic=record.topic,
                partition=record.partition,
                expected=expected,
                found=record.offset,
            )

    async def _go_back(self, error: Exception) -> None:
        seconds = self._pause.next()
        log = _log.warning if isinstance(error, _EXPECTED) else _log.exception
        log("batch_failed", topics=self.names, error=repr(error), again_in_seconds=seconds)
        while True:
            await first_of(self._stop, self._changed, self._leaving, timeout=seconds)
            if self._is_over():
                return
            try:
                await self._read_stored()
            except Exception as again:
                seconds = self._pause.next()
                _log.warning("offsets_not_read", error=repr(again), again_in_seconds=seconds)
            else:
                self._seek()
                return
