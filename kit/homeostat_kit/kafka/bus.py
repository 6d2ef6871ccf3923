"""The connection to the broker: which life of it this is, its topics, and producing."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from homeostat.topics import Topic
from homeostat_kit import logs
from homeostat_kit.kafka.records import Headers, Outgoing, Place, header_list

# How soon a new life of the broker is seen.
_WATCH_SECONDS = 0.5
_ASK_SECONDS = 2.0
_START_SECONDS = 1.0
# After a gap this long readers start anew: aiokafka's own recovery is not to be relied upon.
_GAP_SECONDS = 3.0
_PRODUCE_SECONDS = 5.0
_CLOSE_SECONDS = 0.5
# A request's rows stay together in one block, so a record may be large.
MAX_RECORD_BYTES = 16 * 1024 * 1024
# What one request carries per partition; pipelining lives from it.
_BATCH_BYTES = 1024 * 1024

# Where there are so many brokers.
_REPLICAS = 3

_AWAY = (KafkaError, OSError, TimeoutError)

_log = logs.get_logger("homeostat_kit.kafka")


class RecordTooLarge(ValueError):
    """More than 16 MiB in one record: no broker of ours takes it, however often it is tried."""


class BrokerAway(Exception):
    """The broker did not acknowledge in time. The record may or may not be there: send it again."""


class Bus:
    """One service's connection to the broker, an async context manager.

    Entering waits a second at most for the broker: a service serves without it, and ``epoch`` is ""
    until it was seen for the first time.
    """

    def __init__(self, bootstrap_servers: str, *, client_id: str) -> None:
        self.bootstrap_servers = bootstrap_servers
        self.client_id = client_id
        self._epoch = ""
        self._generation = 0
        self._changed = asyncio.Event()
        self._topics: dict[str, Topic] = {}
        self._admin: Any = None
        self._asking = asyncio.Lock()
        self._producer: Any = None
        self._starting_producer = asyncio.Lock()
        self._produced: dict[Place, int] = {}
        self._watcher: asyncio.Task[None] | None = None
        self._away_since: float | None = None

    @property
    def epoch(self) -> str:
        """The broker's cluster id, "" before it was seen. An offset belongs to the epoch that was read
        here *before* producing: then it never claims a newer one.
        """
        return self._epoch

    @property
    def generation(self) -> int:
        """Rises whenever readers must begin anew: a new epoch, or the same after a long gap."""
        return self._generation

    async def __aenter__(self) -> "Bus":
        self._watcher = asyncio.create_task(self._watch(), name="broker-watch")
        with suppress(TimeoutError):
            async with asyncio.timeout(_START_SECONDS):
                await self._changed.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
            with suppress(asyncio.CancelledError):
                await self._watcher
        await self._drop_producer()
        await self._drop_admin()

    async def wait_ready(self, stop: asyncio.Event) -> bool:
        """True once the broker was seen; False if ``stop`` was set first."""
        while not self._epoch and not stop.is_set():
            await first_of(stop, self._changed)
        return not stop.is_set()

    def changes(self) -> asyncio.Event:
        """An event that is set at the next rise of ``generation``."""
        return self._changed

    async def confirm(self) -> str:
        """Asks the broker now, and gives the epoch; raises BrokerAway if it does not answer."""
        try:
            await self._look()
        except _AWAY as error:
            raise BrokerAway("the broker does not say which life of it this is") from error
        return self._epoch

    async def ensure_topics(self, topics: Sequence[Topic]) -> None:
        """Creates what is missing of the topics and their dead-letter topics, now and in each new life
        of the broker before anybody hears of that life. Waits for nothing if the broker is away.
        """
        self._topics.update({each.name: each for each in topics})
        try:
            async with self._asking, asyncio.timeout(_PRODUCE_SECONDS):
                await self._create_topics(await self._connected_admin())
        except _AWAY as error:
            _log.warning("topics_not_created_yet", error=repr(error))
            await self._drop_admin()

    async def produce(
        self,
        topic: Topic | str,
        key: bytes | None,
        value: bytes,
        headers: Headers = (),
        partition: int | None = None,
    ) -> int:
        """Offset of the record once all replicas have it; BrokerAway if that takes over 5 s."""
        name = topic if isinstance(topic, str) else topic.name
        ((_, offset),) = await self.produce_many([Outgoing(name, key, value, headers, partition)])
        return offset

    async def produce_many(self, outgoing: Sequence[Outgoing]) -> list[tuple[int, int]]:
        """(partition, offset) of each, in order. Records of one partition keep their order.

        BrokerAway says nothing about which of them arrived: send all of them again.
        """
        for each in outgoing:
            require_fit(each.topic, each.value)
        epoch = self._epoch
        producer: Any = None
        pending: list[asyncio.Future[Any]] = []
        try:
            async with asyncio.timeout(_PRODUCE_SECONDS):
                producer = await self._started_producer()
                for each in outgoing:
                    pending.append(await _send(producer, each))
                acknowledged = await asyncio.gather(*pending)
        except BaseException as error:
            for future in pending:
                future.cancel()
            if isinstance(error, _AWAY):
                if producer is self._producer:
                    await self._drop_producer()
                raise BrokerAway(f"{len(outgoing)} records were not acknowledged") from error
            raise
        if epoch == self._epoch:
            for each in acknowledged:
                self._note_produced(each.topic, each.partition, each.offset + 1)
        return [(each.partition, each.offset) for each in acknowledged]

    def produced_positions(self) -> dict[Place, int]:
        """Next offsets of what this process produced in this epoch, by (topic, partition)."""
        return dict(self._produced)

    def _note_produced(self, topic: str, partition: int, next_offset: int) -> None:
        place = (topic, partition)
        self._produced[place] = max(next_offset, self._produced.get(place, 0))

    async def _started_producer(self) -> Any:
        async with self._starting_producer:
            if self._producer is None:
                producer = AIOKafkaProducer(
                    bootstrap_servers=self.bootstrap_servers,
                    client_id=self.client_id,
                    acks="all",
                    max_batch_size=_BATCH_BYTES,
                    max_request_size=MAX_RECORD_BYTES,
                    request_timeout_ms=int(_PRODUCE_SECONDS * 1000),
                )
                try:
                    await producer.start()
                except BaseException:
                    await _abandon(producer)
                    raise
                self._producer = producer
        return self._producer

    async def _drop_producer(self) -> None:
        """What it still holds is not sent: whoever waited for it was told so."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await _abandon(producer)

    async def _watch(self) -> None:
        while True:
            try:
                await self._look()
            except _AWAY as error:
                await self._note_away(error)
            await asyncio.sleep(_WATCH_SECONDS)

    async def _look(self) -> None:
        async with self._asking:
            try:
                async with asyncio.timeout(_ASK_SECONDS):
                    admin = await self._connected_admin()
                    cluster = (await admin.describe_cluster())["cluster_id"]
                if cluster != self._epoch and self._topics:
                    async with asyncio.timeout(_PRODUCE_SECONDS):
                        await self._create_topics(admin)
            except BaseException:
                await self._drop_admin()
                raise
            await self._note_seen(cluster)

    async def _note_seen(self, cluster: str) -> None:
        is_new = cluster != self._epoch
        gap = 0.0 if self._away_since is None else _now() - self._away_since
        if self._away_since is not None:
            _log.info("broker_back", gap_seconds=round(gap, 1))
        self._away_since = None
        if not is_new and gap < _GAP_SECONDS:
            return
        if is_new:
            _log.info("broker_epoch", epoch=cluster, previous=self._epoch)
            self._produced.clear()
        await self._drop_producer()
        self._epoch = cluster
        self._generation += 1
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _note_away(self, error: BaseException) -> None:
        if self._away_since is None:
            self._away_since = _now()
            _log.warning("broker_away", error=repr(error))

    async def _connected_admin(self) -> Any:
        if self._admin is None:
            admin = AIOKafkaAdminClient(
                bootstrap_servers=self.bootstrap_servers,
                client_id=self.client_id,
                request_timeout_ms=int(_ASK_SECONDS * 1000),
            )
            try:
                await admin.start()
            except BaseException:
                await close_within(admin.close)
                raise
            self._admin = admin
        return self._admin

    async def _drop_admin(self) -> None:
        admin, self._admin = self._admin, None
        if admin is not None:
            await close_within(admin.close)

    async def _create_topics(self, admin: Any) -> None:
        if not self._topics:
            return
        brokers = len((await admin.describe_cluster())["brokers"])
        replicas = max(1, min(_REPLICAS, brokers))
        wanted = [
            new
            for topic in self._topics.values()
            for new in (
                _new_topic(topic.name, topic.partitions, replicas, topic.retention_seconds),
                _new_topic(topic.dead_letter, 1, replicas, topic.retention_seconds),
            )
        ]
        response = await admin.create_topics(wanted)
        for name, code, *_ in response.topic_errors:
            error = for_code(code)
            if code and error is not TopicAlreadyExistsError:
                raise error(f"creating {name}")


def require_fit(topic: str, value: bytes) -> None:
    """RecordTooLarge if the record could never be produced."""
    # Room for key and headers.
    if len(value) > MAX_RECORD_BYTES - 65_536:
        raise RecordTooLarge(
            f"a record of {len(value)} bytes for {topic} exceeds {MAX_RECORD_BYTES}"
        )


async def first_of(*events: asyncio.Event, timeout: float | None = None) -> None:
    """Returns when one of the events is set, or after ``timeout`` seconds."""
    waits = [asyncio.ensure_future(each.wait()) for each in events]
    try:
        await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in waits:
            each.cancel()


async def _send(producer: Any, record: Outgoing) -> "asyncio.Future[Any]":
    sent: asyncio.Future[Any] = await producer.send(
        record.topic,
        value=record.value,
        key=record.key,
        partition=record.partition,
        headers=header_list(record.headers),
    )
    return sent


def _new_topic(name: str, partitions: int, replicas: int, retention_seconds: int | None) -> Any:
    retention_ms = -1 if retention_seconds is None else retention_seconds * 1000
    return NewTopic(
        name,
        partitions,
        replicas,
        topic_configs={
            "retention.ms": str(retention_ms),
            "max.message.bytes": str(MAX_RECORD_BYTES),
        },
    )


async def _abandon(producer: Any) -> None:
    """Ends a producer without waiting for what it holds: its own stop may hang for ever."""
    sender = producer._sender
    task = None if sender is None else sender.sender_task
    if task is not None:
        producer._message_accumulator.fail_all(KafkaError("abandoned"))
        task.cancel()
    await close_within(producer.client.close)
    await close_within(producer.stop)


async def close_within(close: Any, seconds: float = _CLOSE_SECONDS) -> None:
    """Closes something of aiokafka's in a task of its own: that may hang, may fail, and may raise the
    CancelledError of a task that it has cancelled itself.
    """
    closing = asyncio.ensure_future(close())
    done, _ = await asyncio.wait([closing], timeout=seconds)
    if not done:
        closing.cancel()
    elif not closing.cancelled() and closing.exception() is not None:
        _log.debug("close_failed", error=repr(closing.exception()))


def _now() -> float:
    return asyncio.get_running_loop().time()
