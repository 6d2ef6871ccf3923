"""The connection to the broker: which life of it this is, its topics, and producing."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from homeostat.topics import Topic
from homeostat_kit import logs
from homeostat_kit.kafka.producer import OneLifeProducer, close_within, start_producer
from homeostat_kit.kafka.records import Headers, Outgoing, Place, require_fit
from homeostat_kit.kafka.topic_creation import create_topics

# How soon a new life of the broker is seen.
_WATCH_SECONDS = 0.5
_ASK_SECONDS = 2.0
_START_SECONDS = 1.0
# After a gap this long readers start anew: aiokafka's own recovery is not to be relied upon.
_GAP_SECONDS = 3.0
_PRODUCE_SECONDS = 5.0

_AWAY = (KafkaError, OSError, TimeoutError)

_log = logs.get_logger("homeostat_kit.kafka")


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
        self._producer: OneLifeProducer | None = None
        self._starting_producer = asyncio.Lock()
        self._produced: dict[Place, int] = {}
        self._watcher: asyncio.Task[None] | None = None
        self._away_since: float | None = None

    @property
    def epoch(self) -> str:
        """The broker's cluster id, "" before it was seen. An offset belongs to the epoch that was
        read here *before* producing: then it never claims a newer one.
        """
        return self._epoch

    @property
    def generation(self) -> int:
        """Rises whenever readers must begin anew: a new epoch, or the same after a long gap."""
        return self._generation

    @property
    def away_seconds(self) -> float | None:
        """For how long the broker has not answered; None while it does."""
        return None if self._away_since is None else _now() - self._away_since

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
        """Creates what is missing of the topics and their dead-letter topics, now and in each new
        life of the broker before anybody hears of that life. Does not wait for an absent broker.
        """
        self._topics.update({each.name: each for each in topics})
        try:
            async with self._asking, asyncio.timeout(_PRODUCE_SECONDS):
                await create_topics(await self._connected_admin(), self._topics)
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

    async def produce_many(
        self, outgoing: Sequence[Outgoing], *, epoch: str | None = None
    ) -> list[tuple[int, int]]:
        """(partition, offset) of each, in order. Records of one partition keep their order.

        ``epoch``: the life of the broker that the records were chosen for; no other gets them.
        BrokerAway says nothing about which of them arrived: send all of them again.
        """
        for each in outgoing:
            require_fit(each.topic, each.value)
        if epoch is None:
            epoch = self._epoch
        elif epoch != self._epoch:
            raise BrokerAway("the broker's epoch has changed")
        try:
            async with asyncio.timeout(_PRODUCE_SECONDS):
                producer = await self._living_producer()
                if epoch and epoch != self._epoch:
                    # Whoever noted the old one must see the new one first.
                    raise BrokerAway("the broker's epoch has changed")
                acknowledged = await producer.send(outgoing)
        except _AWAY as error:
            # What it still holds would be sent behind what is now sent again.
            await self._drop_producer()
            raise BrokerAway(f"{len(outgoing)} records were not acknowledged") from error
        if producer is self._producer:
            for each in acknowledged:
                self._note_produced(each.topic, each.partition, each.offset + 1)
        return [(each.partition, each.offset) for each in acknowledged]

    @property
    def is_idempotent(self) -> bool | None:
        """Whether the broker drops what a producer repeats; None while there is no producer."""
        return None if self._producer is None else self._producer.is_idempotent

    def produced_positions(self) -> dict[Place, int]:
        """Next offsets of what this process produced in this epoch, by (topic, partition)."""
        return dict(self._produced)

    def _note_produced(self, topic: str, partition: int, next_offset: int) -> None:
        place = (topic, partition)
        self._produced[place] = max(next_offset, self._produced.get(place, 0))

    async def _living_producer(self) -> OneLifeProducer:
        """Only ever connected to a life of the broker that was seen and has its topics."""
        async with self._starting_producer:
            if self._producer is not None and not self._producer.is_over:
                return self._producer
            await self._drop_producer()
            await self._look()
            self._producer = await start_producer(
                self.bootstrap_servers, client_id=self.client_id, timeout_seconds=_PRODUCE_SECONDS
            )
            return self._producer

    async def _drop_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.close()

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
                        await create_topics(admin, self._topics)
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


async def first_of(*events: asyncio.Event, timeout: float | None = None) -> None:
    """Returns when one of the events is set, or after ``timeout`` seconds."""
    waits = [asyncio.ensure_future(each.wait()) for each in events]
    try:
        await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in waits:
            each.cancel()


def _now() -> float:
    return asyncio.get_running_loop().time()
