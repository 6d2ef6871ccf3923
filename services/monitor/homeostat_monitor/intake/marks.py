"""Marks as polls bring them: what they move, and what they stand before."""

from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message

from homeostat.topics import Topic
from homeostat_kit.kafka import Batch, Received
from homeostat_monitor.domain.errors import UnreadableBlock
from homeostat_monitor.intake.blocks import check_time
from homeostat_monitor.store.transaction import StoreTransaction


async def observe_marks(tx: StoreTransaction, topic: Topic, batch: Batch) -> bool:
    """Every value that the topic's watermark takes on the way is judged by itself; whether it has
    moved."""
    observed = [(record.partition, each) for record, each in batch.records if _is_mark(each)]
    if not observed:
        return False
    marks, current = await tx.watermarks(topic.name, batch.epoch)
    passed: list[int] = []
    for partition, message in observed:
        marks.observe(topic, partition, message.watermark)
        reached = marks.current(topic, topic.partitions)
        if reached is not None and (current is None or reached > current):
            current = reached
            passed.append(reached)
    await tx.save_watermarks(topic.name, batch.epoch, marks, current, passed)
    return bool(passed)


async def passed_us(
    tx: StoreTransaction, topic: Topic, batch: Batch, name: Callable[[Received, Any], bytes]
) -> dict[bytes, int]:
    """By its name, the mark that stands before the first copy of each block on its partition.

    The topic's own watermark may be less, as long as other partitions are behind; but how far they
    are depends on polls, and what was promised on a block's own partition does not.
    """
    marks = await tx.seen_watermarks(topic.name, batch.epoch)
    passed: dict[bytes, int] = {}
    for record, message in batch.records:
        if _is_mark(message):
            marks.observe(topic, record.partition, message.watermark)
        elif message.row_count:
            at_us = marks.current(topic, (record.partition,))
            if at_us is not None:
                passed.setdefault(name(record, message), at_us)
    return passed


def _is_mark(message: Message) -> bool:
    """A mark of a time that can be: one beyond the ages would close every window for ever."""
    if not message.HasField("watermark"):
        return False
    try:
        check_time(message.watermark.watermark_us)  # type: ignore[attr-defined]
    except UnreadableBlock:
        return False
    return True
