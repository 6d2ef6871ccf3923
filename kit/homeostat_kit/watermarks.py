"""Up to which event time everything was read, by the marks of every source on every partition."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

from homeostat.events.v1.column_pb2 import Watermark
from homeostat.topics import Topic


@dataclass(slots=True)
class _Partition:
    open: dict[str, int] = field(default_factory=dict)
    closed: dict[str, int] = field(default_factory=dict)
    # The greatest value it ever had: a promise is not taken back when a new source turns up.
    floor_us: int | None = None

    def observe(self, mark: Watermark) -> None:
        source, at_us = mark.source_id, mark.watermark_us
        if mark.is_closed:
            self._close(source, at_us)
        elif source in self.closed:
            self._reopen(source, at_us)
        else:
            self.open[source] = max(at_us, self.open.get(source, at_us))
        self._raise_floor()

    def _close(self, source: str, at_us: int) -> None:
        last_us = max(at_us, self.open.get(source, at_us))
        if source in self.closed:
            self.closed[source] = max(last_us, self.closed[source])
        elif self.open.get(source, at_us) <= at_us:
            self.open.pop(source, None)
            self.closed[source] = last_us

    def _reopen(self, source: str, at_us: int) -> None:
        # A mark at or before the closing one is that one's predecessor, read again.
        if at_us > self.closed[source]:
            del self.closed[source]
            self.open[source] = at_us

    def _raise_floor(self) -> None:
        marks = self.open.values() or self.closed.values()
        # Without an open source nothing is held back: the last promise of any of them counts.
        reached = min(self.open.values()) if self.open else max(marks)
        self.floor_us = reached if self.floor_us is None else max(reached, self.floor_us)


class Watermarks:
    """The marks seen so far. Marks may come twice and late; what ``current`` says never falls."""

    def __init__(self) -> None:
        self._partitions: dict[tuple[str, int], _Partition] = {}

    def observe(self, topic: Topic | str, partition: int, mark: Watermark) -> None:
        """Takes one source's promise on one partition."""
        self._partitions.setdefault((_name(topic), partition), _Partition()).observe(mark)

    def current(self, topic: Topic | str, partitions: int | Iterable[int]) -> int | None:
        """Least over the partitions (a count, or their numbers), in microseconds UTC; None until
        each of them has a mark.
        """
        numbers = range(partitions) if isinstance(partitions, int) else partitions
        reached: list[int] = []
        for number in numbers:
            seen = self._partitions.get((_name(topic), number))
            if seen is None or seen.floor_us is None:
                return None
            reached.append(seen.floor_us)
        return min(reached, default=None)

    def begin_anew(self) -> None:
        """A new life of the broker: sources are those that send their marks there. What ``current``
        says stays: it was promised."""
        for each in self._partitions.values():
            each.open.clear()
            each.closed.clear()

    def to_json(self) -> str:
        """The whole state; ``from_json`` gives it back."""
        return json.dumps(
            [
                {
                    "topic": topic,
                    "partition": number,
                    "open": seen.open,
                    "closed": seen.closed,
                    "floor_us": seen.floor_us,
                }
                for (topic, number), seen in sorted(self._partitions.items())
            ]
        )

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The state that ``to_json`` wrote."""
        marks = cls()
        for each in json.loads(text):
            marks._partitions[each["topic"], each["partition"]] = _Partition(
                each["open"], each["closed"], each["floor_us"]
            )
        return marks


def _name(topic: Topic | str) -> str:
    return topic if isinstance(topic, str) else topic.name
