"""Promises about time: the journals' marks become one promise of the whole server.

Each journal says, mark by mark, that nothing earlier follows in it. The server's promise is the
least of what all journals have promised whose records before it the broker has acknowledged.
"""

import asyncio
import time
from collections.abc import Callable

from homeostat import cloudevents
from homeostat.events.v1.column_pb2 import Watermark
from homeostat.events.v1.outcome_block_pb2 import OutcomeBlock
from homeostat.events.v1.prediction_block_pb2 import PredictionBlock
from homeostat.ids import event_id
from homeostat.topics import OUTCOMES, PREDICTIONS
from homeostat_inference.domain.blocks import timestamp
from homeostat_kit.kafka import Bus, Outgoing

SOURCE = "homeostat/inference"


class Promises:
    """Who counts, how far each is, and what was promised last, in one life of the broker."""

    def __init__(
        self, bus: Bus, source_id: str, note: Callable[[list[tuple[str, int, int]]], None]
    ):
        """``source_id``: whose promises these are. ``note`` hears (topic, partition, offset) of
        what was acknowledged."""
        self._bus = bus
        self._source_id = source_id
        self._note = note
        self._epoch = ""
        self._marks: dict[str, int | None] = {}
        self._promising = asyncio.Lock()
        self.promised_us: int | None = None

    @property
    def epoch(self) -> str:
        """The life of the broker that was promised to last."""
        return self._epoch

    def count(self, slot: str) -> None:
        """From now on nothing is promised without this journal."""
        self._marks.setdefault(slot, None)

    def begin(self, slot: str, epoch: str) -> None:
        """The journal is sent anew, to a broker that has nothing of it."""
        self._turn_to(epoch)
        self._marks[slot] = None

    async def release(self, slot: str) -> None:
        """The journal was sent to its end and nobody writes it: it counts no longer."""
        if slot in self._marks:
            del self._marks[slot]
            await self._promise()

    async def passed(self, slot: str, mark_us: int, epoch: str) -> None:
        """Everything before this mark in the journal was acknowledged. BrokerAway if what follows
        from it could not be told; then the same has to be said again."""
        self._turn_to(epoch)
        if epoch != self._epoch:
            # Of a life that is over, or not seen yet: it says nothing about this one.
            return
        before = self._marks.get(slot)
        self._marks[slot] = mark_us if before is None else max(before, mark_us)
        await self._promise()

    def _turn_to(self, epoch: str) -> None:
        if epoch != self._epoch and epoch == self._bus.epoch:
            self._epoch = epoch
            self._marks = dict.fromkeys(self._marks)
            self.promised_us = None

    async def _promise(self) -> None:
        async with self._promising:
            epoch, mark_us = self._epoch, self._least()
            if mark_us is None or (self.promised_us is not None and mark_us <= self.promised_us):
                return
            outgoing = marks(self._source_id, mark_us)
            acknowledged = await self._bus.produce_many(outgoing, epoch=epoch)
            if epoch != self._epoch:
                # The next life of the broker has begun: its offsets are others.
                return
            self.promised_us = mark_us
            self._note(
                [
                    (each.topic, partition, offset)
                    for each, (partition, offset) in zip(outgoing, acknowledged, strict=True)
                ]
            )

    def _least(self) -> int | None:
        found = list(self._marks.values())
        known = [each for each in found if each is not None]
        return min(known) if known and len(known) == len(found) else None


def marks(source_id: str, mark_us: int) -> list[Outgoing]:
    """The promise, for every partition of both topics."""
    mark = Watermark(source_id=source_id, watermark_us=mark_us)
    now_us = time.time_ns() // 1000
    made: list[Outgoing] = []
    for topic, message in (
        (PREDICTIONS, PredictionBlock(watermark=mark, produced_at=timestamp(now_us))),
        (OUTCOMES, OutcomeBlock(watermark=mark, produced_at=timestamp(now_us))),
    ):
        value = message.SerializeToString()
        for partition in range(topic.partitions):
            headers = cloudevents.headers(
                topic,
                event_id=event_id("mark", source_id, mark_us, topic.name, partition),
                source=SOURCE,
                occurred_at_us=now_us,
                traceparent=None,
            )
            made.append(Outgoing(topic.name, source_id.encode(), value, headers, partition))
    return made
