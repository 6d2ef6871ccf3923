"""The FastStream subscriber under ``consume``; half a second of imports, loaded when needed."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from faststream import AckPolicy
from faststream.kafka import KafkaBroker, TopicPartition
from faststream.kafka.message import FAKE_CONSUMER, KafkaMessage

from homeostat_kit.kafka.records import MAX_RECORD_BYTES, Place

# FastStream sleeps as long again after a poll that gave nothing: half of what a record may wait.
_POLL_MS = 10


async def subscriber(
    bootstrap_servers: str,
    client_id: str,
    places: Iterable[Place],
    handle: Callable[[Sequence[Any]], Awaitable[None]],
    *,
    max_records: int,
    fetch_wait_ms: int,
    finish_seconds: float,
) -> Any:
    """Assigned to ``places`` by hand, in no group, not started yet; ``handle`` must not raise."""
    broker = KafkaBroker(
        bootstrap_servers,
        client_id=client_id,
        consumer_only=True,
        apply_types=False,
        logger=None,
        graceful_timeout=finish_seconds,
    )
    made = broker.subscriber(
        partitions=[TopicPartition(topic, number, declare=False) for topic, number in places],
        batch=True,
        batch_timeout_ms=_POLL_MS,
        max_records=max_records,
        ack_policy=AckPolicy.MANUAL,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=fetch_wait_ms,
        max_partition_fetch_bytes=MAX_RECORD_BYTES // 4,
        parser=_parse,
        decoder=_records_of,
    )
    made(handle)
    await broker.connect()
    return made


async def _parse(records: tuple[Any, ...]) -> KafkaMessage:
    """Takes the records as they are: FastStream's own parser drops a whole batch for one header
    that is not UTF-8.
    """
    return KafkaMessage(
        body=list(records),
        raw_message=records,
        headers={},
        message_id="batch",
        consumer=FAKE_CONSUMER,
    )


async def _records_of(message: KafkaMessage) -> Any:
    return message.body
