"""Telling of records that could not be read: in the dead-letter topic and in the log."""

from collections.abc import Mapping, Sequence

from homeostat.ids import event_id
from homeostat.topics import Topic
from homeostat_kit import logs
from homeostat_kit.kafka.bus import Bus
from homeostat_kit.kafka.records import Outgoing, Unreadable

_log = logs.get_logger("homeostat_kit.kafka")


class DeadLetters:
    """The unreadable records of one epoch, each told once by this process."""

    def __init__(self, bus: Bus, topics: Mapping[str, Topic], epoch: str) -> None:
        self._bus = bus
        self._topics = topics
        self._epoch = epoch
        self._told: set[tuple[str, int, int]] = set()

    async def tell(self, unreadable: Sequence[Unreadable]) -> None:
        """Returns when the broker has all of them; BrokerAway if it does not take them.

        To be called before the offsets are stored: a crash between the two repeats by the same id.
        """
        fresh = [each for each in unreadable if _place(each) not in self._told]
        if not fresh:
            return
        await self._bus.produce_many([self._letter(each) for each in fresh])
        for each in fresh:
            topic, partition, offset = _place(each)
            self._told.add((topic, partition, offset))
            _log.warning(
                "record_dead_lettered",
                topic=topic,
                partition=partition,
                offset=offset,
                reason=each.reason,
            )

    def forget(self) -> None:
        """The offsets behind them are stored: they are not read again."""
        self._told.clear()

    def _letter(self, unreadable: Unreadable) -> Outgoing:
        """Where it was and why, and none of its values."""
        record = unreadable.received
        place = (self._epoch, record.topic, str(record.partition), str(record.offset))
        headers = {
            "ce_specversion": "1.0",
            "ce_id": event_id("dead-letter", *place),
            "ce_source": f"homeostat/{self._bus.client_id}",
            "ce_type": "homeostat.DeadLetter.v1",
            "reason": unreadable.reason,
            "original_epoch": self._epoch,
            "original_topic": record.topic,
            "original_partition": str(record.partition),
            "original_offset": str(record.offset),
            "original_bytes": str(len(record.value)),
        }
        return Outgoing(
            self._topics[record.topic].dead_letter,
            None,
            b"",
            {name: value.encode() for name, value in headers.items()},
            partition=0,
        )


def _place(unreadable: Unreadable) -> tuple[str, int, int]:
    record = unreadable.received
    return record.topic, record.partition, record.offset
