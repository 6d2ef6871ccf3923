"""When each watermark of the predictions was written, and when each alert was there."""

import asyncio
import time
from bisect import bisect_left
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiokafka import AIOKafkaConsumer, TopicPartition

from homeostat.events.v1.alert_pb2 import Alert
from homeostat.events.v1.prediction_block_pb2 import PredictionBlock
from homeostat.topics import ALERTS, PREDICTIONS
from homeostat_kit.kafka import Batch, Bus, consume
from homeostat_kit.kafka.consumer import from_the_start

# A mark is no longer than this; rows are.
_MARK_BYTES = 256
_WAIT_MS = 2000


@dataclass(frozen=True, slots=True)
class Seen:
    """An alert as a live reader of the topic got it, in seconds since 1970."""

    at: float
    alert: Alert


@asynccontextmanager
async def reading_alerts(bus: Bus) -> AsyncIterator[list[Seen]]:
    """Alerts as they come."""
    seen: list[Seen] = []
    stop = asyncio.Event()

    async def handle(batch: Batch) -> None:
        now = time.time()
        seen.extend(Seen(now, message) for _, message in batch.records)

    task = asyncio.create_task(
        consume(bus, (ALERTS,), offsets=from_the_start, handle=handle, stop=stop)
    )
    try:
        yield seen
    finally:
        stop.set()
        await task


@dataclass(slots=True)
class Marks:
    """Marks of each partition in their order, and when they were sent (seconds since 1970)."""

    marks: dict[int, list[int]] = field(default_factory=dict)
    sent_at: dict[int, list[float]] = field(default_factory=dict)

    def reached_at(self, mark_us: int) -> float | None:
        """When the last partition was promised so much; None if one never was."""
        found = []
        for partition, marks in self.marks.items():
            place = bisect_left(marks, mark_us)
            if place == len(marks):
                return None
            found.append(self.sent_at[partition][place])
        return max(found, default=None)


async def read_marks(kafka: str) -> Marks:
    """All of the topic, by the time that the sender gave them: read when nothing is sent any more,
    that reading costs the measured nothing."""
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka, auto_offset_reset="earliest")
    await consumer.start()
    try:
        places = [TopicPartition(PREDICTIONS.name, each) for each in range(PREDICTIONS.partitions)]
        consumer.assign(places)
        ends = await consumer.end_offsets(places)
        found = Marks({each.partition: [] for each in places}, {e.partition: [] for e in places})
        left = {each for each in places if ends[each]}
        while left:
            for place, records in (await consumer.getmany(*left, timeout_ms=_WAIT_MS)).items():
                _note(found, place.partition, [e.value for e in records])
                if records and records[-1].offset + 1 >= ends[place]:
                    left.discard(place)
    finally:
        await consumer.stop()
    return found


def _note(found: Marks, partition: int, values: list[bytes]) -> None:
    for value in values:
        if len(value) > _MARK_BYTES:
            continue
        block = PredictionBlock.FromString(value)
        if block.HasField("watermark") and not block.row_count:
            found.marks[partition].append(block.watermark.watermark_us)
            found.sent_at[partition].append(block.produced_at.ToMicroseconds() / 1e6)
