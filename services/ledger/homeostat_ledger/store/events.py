"""What goes into the outbox."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp
from numpy.typing import NDArray

from homeostat.events.v1.column_pb2 import Arm, Task, Watermark
from homeostat.events.v1.joined_block_pb2 import JoinedBlock
from homeostat.ids import event_id
from homeostat.topics import JOINED
from homeostat_kit.outbox import Event
from homeostat_ledger.domain.joins import Joined

_SOURCE_ID = "ledger"


def joined_event(joined: Joined, now_us: int, traceparent: str | None) -> Event:
    """News of one model."""
    is_corrected = bool((joined.revisions > 1).any())
    message = JoinedBlock(
        model_name=joined.model_name,
        version=joined.version,
        arm=Arm.ValueType(joined.arm),
        task=Task.ValueType(joined.task),
        row_count=len(joined.truths),
        prediction_ids=joined.prediction_ids,
        event_times_us=_packed(joined.event_times_us, "<i8"),
        known_at_us=_packed(joined.known_at_us, "<i8"),
        scores=_packed(joined.scores, "<f8"),
        decisions=_packed(joined.decisions, "<f8"),
        truths=_packed(joined.truths, "<f8"),
        losses=_packed(joined.losses, "<f8"),
        revisions=_packed(joined.revisions, "<u4"),
        previous_truths=_packed(joined.previous, "<f8") if is_corrected else b"",
        contexts=joined.contexts,
        produced_at=_timestamp(now_us),
    )
    key = joined.model_name.encode()
    identity = event_id("joined", key, joined.version, joined.arm, joined.content_key)
    return Event(JOINED, key, message, identity, now_us, traceparent=traceparent)


def mark_events(watermark_us: int, now_us: int) -> Iterable[Event]:
    """Everything known before this has been joined; on every partition."""
    message = JoinedBlock(
        watermark=Watermark(source_id=_SOURCE_ID, watermark_us=watermark_us),
        produced_at=_timestamp(now_us),
    )
    for partition in range(JOINED.partitions):
        identity = event_id("joined-mark", watermark_us, partition)
        yield Event(JOINED, b"", message, identity, now_us, partition=partition)


def _packed(values: NDArray[Any], kind: str) -> bytes:
    return np.ascontiguousarray(values, dtype=kind).tobytes()


def _timestamp(at_us: int) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromDatetime(datetime.fromtimestamp(at_us / 1e6, UTC))
    return timestamp
