"""What the retrainer hears: alerts, versions, and how much truth has come."""

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np

from homeostat.events.v1.alert_pb2 import Alert
from homeostat.events.v1.column_pb2 import ARM_SHADOW
from homeostat.events.v1.joined_block_pb2 import JoinedBlock
from homeostat.events.v1.version_changed_pb2 import VersionChanged
from homeostat.topics import JOINED
from homeostat_kit.kafka import Batch, Received
from homeostat_kit.offsets import advance_offsets
from homeostat_kit.postgres import Connection, Pool, retrying
from homeostat_kit.watermarks import Watermarks
from homeostat_retrainer import store
from homeostat_retrainer.domain.memory import Memory, Wanted
from homeostat_retrainer.domain.policy import Policy
from homeostat_retrainer.messages import performance_alert
from homeostat_retrainer.metrics import Metrics

# (model, version) to W
Lengths = Mapping[tuple[str, int], int]


class KnowsVersions(Protocol):
    """What hearing needs of the registry."""

    async def reference_rows(self, model_name: str, version: int) -> int | None:
        """W that a version brought by a person sets; None where a run made the version."""
        ...


class Ears:
    """Applies batches: offsets, memory, due runs and events in one transaction."""

    def __init__(
        self,
        pool: Pool,
        registry: KnowsVersions,
        policy: Policy,
        metrics: Metrics,
        wake: Callable[[], None],
    ) -> None:
        self._pool = pool
        self._registry = registry
        self._policy = policy
        self._metrics = metrics
        self._wake = wake

    async def handle(self, batch: Batch) -> None:
        """One batch. PeerAway where the registry is needed and does not answer."""
        lengths = await self._lengths(batch)

        async def work(connection: Connection) -> int:
            await advance_offsets(connection, batch)
            memory, marks = await store.load(connection)
            memory.waiting.enter(batch.epoch)
            wanted = [
                run
                for record, message in batch.records
                for run in apply(record, message, memory, marks, lengths, self._policy)
            ]
            await store.save(connection, memory, marks)
            return await store.want(connection, wanted)

        due = await retrying(self._pool, work)
        self._metrics.due(due)
        if due:
            self._wake()

    async def _lengths(self, batch: Batch) -> Lengths:
        """Asked before the transaction, which must not wait for others."""
        found: dict[tuple[str, int], int] = {}
        for _, message in batch.records:
            if isinstance(message, VersionChanged) and _brings_champion(message):
                place = (message.model_name, message.champion_version)
                rows = await self._registry.reference_rows(*place)
                if rows is not None:
                    found[place] = rows
        return found


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
        alert = performance_alert(message, record.header("traceparent"))
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
            memory.truths_joined(block.model_name, int(known_at[first].max()), int(first.sum()))
    if not block.HasField("watermark"):
        return []
    marks.observe(JOINED, record.partition, block.watermark)
    reached = marks.current(JOINED, JOINED.partitions)
    return [] if reached is None else memory.mark(reached, policy)


def _brings_champion(message: VersionChanged) -> bool:
    """A promotion or roll-back; one by a run keeps W."""
    return message.HasField("champion_version") and not message.run_id
