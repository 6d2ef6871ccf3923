"""Polling past what the client library cannot parse, such as a header name that is not UTF-8."""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import CorruptRecordException

from homeostat_kit import logs
from homeostat_kit.kafka.records import Place

# What aiokafka raises while it takes a batch of records apart, again and again for the same one.
_UNPARSABLE = (UnicodeDecodeError, CorruptRecordException)
# Long enough for one fetch.
_PROBE_MS = 300

_log = logs.get_logger("homeostat_kit.kafka")


@dataclass(frozen=True, slots=True)
class Unparsable:
    """Stands in for a record that was never seen, only its place is known."""

    topic: str
    partition: int
    offset: int
    reason: str
    key: None = None
    value: bytes = b""
    headers: tuple[()] = field(default=())


class CarefulPolls:
    """Replaces a consumer's ``getmany``.

    aiokafka raises for one such record in every poll, and forgets what it had drained of the other
    partitions in that poll. So: go back to what was handled, look at the partitions one by one, and
    in the one that raises at the records one by one; the record that cannot be parsed is reported
    and stepped over. As batches are parsed from their beginning, the rest of its batch shares its
    fate; a batch is of one producer.
    """

    def __init__(self, consumer: Any, handled: Callable[[], Mapping[Place, int]]) -> None:
        """``handled``: where reading has to go on, for every partition assigned."""
        self._consumer = consumer
        self._getmany = consumer.getmany
        self._handled = handled
        self._suspects: deque[Place] = deque()
        self._found: Place | None = None
        consumer.getmany = self.getmany

    async def getmany(self, *, timeout_ms: int, max_records: int | None) -> dict[Any, Any]:
        """As the consumer's own, for all partitions."""
        try:
            if self._found is not None:
                return await self._step(self._found)
            if self._suspects:
                return await self._probe(max_records)
            polled: dict[Any, Any] = await self._getmany(
                timeout_ms=timeout_ms, max_records=max_records
            )
            return polled
        except asyncio.CancelledError:
            raise
        except _UNPARSABLE as error:
            _log.warning("records_unparsable", error=type(error).__name__)
            self._go_back()
            self._suspects.extend(self._handled())
            return {}
        except BaseException:
            self._go_back()
            raise

    def _go_back(self) -> None:
        for place, offset in self._handled().items():
            self._consumer.seek(TopicPartition(*place), offset)

    async def _probe(self, max_records: int | None) -> dict[Any, Any]:
        """One suspect, whole: most turn out to be innocent."""
        place = self._suspects.popleft()
        try:
            polled: dict[Any, Any] = await self._getmany(
                TopicPartition(*place), timeout_ms=_PROBE_MS, max_records=max_records
            )
            return polled
        except _UNPARSABLE:
            self._go_back()
            self._suspects.clear()
            self._found = place
            return {}

    async def _step(self, place: Place) -> dict[Any, Any]:
        """One record of the partition that was found; the one that raises is stepped over."""
        partition = TopicPartition(*place)
        try:
            polled: dict[Any, Any] = await self._getmany(
                partition, timeout_ms=_PROBE_MS, max_records=1
            )
            if not polled:
                self._found = None
            return polled
        except _UNPARSABLE as error:
            offset = await self._consumer.position(partition)
            self._consumer.seek(partition, offset + 1)
            self._found = None
            return {partition: [Unparsable(*place, offset, _reason(error))]}


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "a header's name in its batch is not UTF-8"
    return "its batch is corrupt"
