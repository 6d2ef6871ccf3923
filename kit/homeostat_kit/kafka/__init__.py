"""Kafka: producing with deadlines, reading with our own offsets over every life of a broker."""

from homeostat_kit.kafka.bus import BrokerAway, Bus
from homeostat_kit.kafka.consumer import Handler, OffsetReader, consume, from_the_start
from homeostat_kit.kafka.records import (
    Batch,
    Headers,
    Outgoing,
    Received,
    RecordTooLarge,
    Unreadable,
)

__all__ = [
    "Batch",
    "BrokerAway",
    "Bus",
    "Handler",
    "Headers",
    "OffsetReader",
    "Outgoing",
    "Received",
    "RecordTooLarge",
    "Unreadable",
    "consume",
    "from_the_start",
]
