"""Records as they come and go, and the reading of their values."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError, Message

from homeostat.topics import Topic

Headers = Mapping[str, bytes] | Iterable[tuple[str, bytes]]
# A request's rows stay together in one block, so a record may be large.
MAX_RECORD_BYTES = 16 * 1024 * 1024
# Room for key and headers.
_ROOM_BYTES = 64 * 1024

# (topic, partition)
Place = tuple[str, int]


class RecordTooLarge(ValueError):
    """More than 16 MiB in one record: no broker of ours takes it, however often it is tried."""


@dataclass(frozen=True, slots=True)
class Received:
    """One record as the broker gave it. Header values may be any bytes; of two with one name, the
    last counts.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes
    headers: dict[str, bytes]

    def header(self, name: str) -> str | None:
        """A header as text; None where it is absent or is not UTF-8."""
        try:
            return self.headers[name].decode()
        except (KeyError, UnicodeDecodeError):
            return None


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A record that is not what its topic promises; the reason carries none of its values."""

    received: Received
    reason: str


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One record to produce; without a partition the key's hash decides."""

    topic: str
    key: bytes | None
    value: bytes
    headers: Headers = ()
    partition: int | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """What one poll gave, in order of offsets within each partition. ``records`` may be empty when
    all of it was unreadable: the offsets must be stored all the same.
    """

    epoch: str
    records: list[tuple[Received, Any]]
    # Already in the dead-letter topic.
    unreadable: list[Unreadable]
    # Where the stored offsets are believed to stand before this batch, and where they go.
    from_offsets: dict[Place, int]
    next_offsets: dict[Place, int]


def received(record: Any) -> Received:
    """From aiokafka's record."""
    return Received(
        record.topic,
        record.partition,
        record.offset,
        record.key,
        record.value or b"",
        {name: value or b"" for name, value in record.headers},
    )


def read(topic: Topic, record: Received) -> Message | Unreadable:
    """The record's message, or why it is none."""
    if not record.value:
        return Unreadable(record, "the value is empty")
    declared = record.headers.get("ce_type")
    if declared is not None and declared != topic.ce_type.encode():
        return Unreadable(record, f"the header ce_type is not {topic.ce_type}")
    message = topic.message()
    try:
        message.ParseFromString(record.value)
    except DecodeError:
        return Unreadable(record, f"the value is no {topic.message.DESCRIPTOR.full_name}")
    return message


def header_list(headers: Headers) -> list[tuple[str, bytes]]:
    """As aiokafka wants them."""
    return list(headers.items() if isinstance(headers, Mapping) else headers)


def require_fit(topic: str, value: bytes) -> None:
    """RecordTooLarge if the record could never be produced."""
    if len(value) > MAX_RECORD_BYTES - _ROOM_BYTES:
        raise RecordTooLarge(
            f"a record of {len(value)} bytes for {topic} exceeds {MAX_RECORD_BYTES}"
        )
