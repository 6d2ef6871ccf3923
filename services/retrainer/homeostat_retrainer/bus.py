"""What the retrainer hears: alerts, versions, and how much truth has come."""

from collections.abc import Callable, Sequence

import numpy as np

from homeostat.events.v1.alert_pb2 import Alert
from homeostat.events.v1.column_pb2 import ARM_SHADOW
from homeostat.events.v1.joined_block_pb2 import JoinedBlock
from homeostat.events.v1.version_changed_pb2 import VersionChanged
from homeostat.topics import ALERTS, JOINED, VERSIONS
from homeostat_kit.kafka import Batch, Bus, Received, Unreadable
from homeostat_kit.kafka.dead_letters import DeadLetters
from homeostat_kit.offsets import advance_offsets
from homeostat_kit.postgres import Connection, Pool, retrying
from homeostat_kit.watermarks import Watermarks
from homeostat_retrainer import store
from homeostat_retrainer.domain.memory import Memory, Wanted
from homeostat_retrainer.domain.policy import Policy
from homeostat_retrainer.hearing import KnowsVersions, Lengths, sort_out
from homeostat_retrainer.messages import alert_seen, is_heard, safe_traceparent
from homeostat_retrainer.metrics import Metrics


class Ears:
    """Applies batches: offsets, memory, due runs and events in one transaction."""

    def __init__(
        self,
        pool: Pool,
        bus: Bus,
        registry: KnowsVersions,
        policy: Policy,
        metrics: Metrics,
        wake: Callable[[], None],
    ) -> None:
        self._pool = pool
        self._bus = bus
        self._registry = registry
        self._policy = policy
        self._metrics = metrics
        self._wake = wake
        # Of the present life of the broker.
        self._dead_letters: tuple[str, DeadLetters] | None = None

    async def handle(self, batch: Batch) -> None:
        """One batch. PeerAway where the registry is needed and does not answer."""
        # Asked before the transaction, which must not wait for others.
        heard = await sort_out(batch.records, self._registry, await self._newest(batch))
        await self._bury(batch, heard.unreadable)

        async def work(connection: Connection) -> int:
            await advance_offsets(connection, batch)
            memory, marks = await store.load(connection)
            memory.waiting.enter(batch.epoch)
            wanted = [
                run
                for record, message in heard.records
                for run in apply(record, message, memory, marks, heard.lengths, self._policy)
            ]
            await store.save(connection, memory, marks)
            return await store.want(connection, wanted)

        due = await retrying(self._pool, work)
        self._metrics.due(due)
        if due:
            self._wake()

    async def _newest(self, batch: Batch) -> dict[str, int]:
        """Which versions were heard of; read only where an alert came, which is rare."""
        if not any(isinstance(each, Alert) and is_heard(each) for _, each in batch.records):
            return {}
        memory, _ = await retrying(self._pool, store.load)
        return {name: state.newest_version for name, state in memory.models.items()}

    async def _bury(self, batch: Batch, unreadable: Sequence[Unreadable]) -> None:
        """Says in the dead-letter topic which records were none, before their offsets pass."""
        if not unreadable:
            return
        if self._dead_letters is None or self._dead_letters[0] != batch.epoch:
            topics = {each.name: each for each in (ALERTS, VERSIONS, JOINED)}
            self._dead_letters = (batch.epoch, DeadLetters(self._bus, topics, batch.epoch))
        await self._dead_letters[1].tell(unreadable)


def apply(
    record: Received,
    message: object,
    memory: Memory,
    marks: Watermarks,
    lengths: Lengths,
    policy: Policy,
) -> list[Wanted]:
    """One event's effect on what is remembered, and the runs that it makes due."""
    if isinstance(message, Alert):
        alert = alert_seen(message, record.header("traceparent"))
        return [] if alert is None else memory.alert(alert, policy)
    if isinstance(message, VersionChanged):
        return _changed(message, memory, lengths, policy)
    if isinstance(message, JoinedBlock):
        return _joined(record, message, memory, marks, policy)
    raise TypeError(f"nobody asked for a {type(message).__name__}")


def _changed(
    message: VersionChanged, memory: Memory, lengths: Lengths, policy: Policy
) -> list[Wanted]:
    champion = None
    if message.HasField("champion_version"):
        place = (message.model_name, message.champion_version)
        champion = (message.champion_version, lengths.get(place))
    return memory.version_changed(
        message.model_name, message.version, message.revision, champion, policy
    )


def _joined(
    record: Received, block: JoinedBlock, memory: Memory, marks: Watermarks, policy: Policy
) -> list[Wanted]:
    if block.row_count and block.arm != ARM_SHADOW:
        first = np.frombuffer(block.revisions, dtype="<u4") == 1
        known_at = np.frombuffer(block.known_at_us, dtype="<i8")
        if first.any():
            memory.truths_joined(
                block.model_name,
                int(known_at[first].max()),
                int(first.sum()),
                safe_traceparent(record.header("traceparent")),
            )
    if not block.HasField("watermark"):
        return []
    marks.observe(JOINED, record.partition, block.watermark)
    reached = marks.current(JOINED, JOINED.partitions)
    return [] if reached is None else memory.mark(reached, policy)
