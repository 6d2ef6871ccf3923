"""Playing the past through the code that judges live traffic, in memory."""

from collections.abc import Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from homeostat.topics import JOINED, PREDICTIONS
from homeostat_monitor.app.hearing import VersionNews, hear_version
from homeostat_monitor.app.judging import judge_model
from homeostat_monitor.app.keeping import InHand
from homeostat_monitor.app.memory.transaction import MemoryTransaction
from homeostat_monitor.app.portions import Portion, columns_of, losses_of, segments_of
from homeostat_monitor.app.taking import TakenRows, take_losses, take_predictions
from homeostat_monitor.domain.alerts.alert import Alert, Subject
from homeostat_monitor.domain.windows.sums import Rows
from homeostat_monitor.ports import (
    BLOCK_ID_BYTES,
    ID_BYTES,
    BlockOfLosses,
    BlockSegments,
    KnownVersion,
)

HOUR_US = 3_600_000_000

Answer = TypeVar("Answer")
Ints = NDArray[np.int64]


def in_memory(work: Coroutine[Any, Any, Answer]) -> Answer:
    """What the work gives: in memory nothing waits, so no event loop is needed."""
    try:
        work.send(None)
    except StopIteration as done:
        answer: Answer = done.value
        return answer
    work.close()
    raise RuntimeError("what is played in memory waited for something")


@dataclass(frozen=True, slots=True)
class Marks:
    """The watermarks at which live traffic was judged: those that are remembered, and before
    them every full hour."""

    recorded: Mapping[str, Ints]

    def between(self, topic: str, after_us: int, to_us: int) -> list[int]:
        """Values of a topic's watermark in (after_us, to_us], ascending."""
        recorded = self.recorded.get(topic, np.empty(0, dtype=np.int64))
        first = int(recorded[0]) if len(recorded) else to_us + 1
        begin = (after_us // HOUR_US + 1) * HOUR_US
        hours = range(begin, min(first, to_us + 1), HOUR_US)
        return [*hours, *recorded[(recorded > after_us) & (recorded <= to_us)].tolist()]

    def with_also(self, marks: Mapping[str, int | None]) -> "Marks":
        """And these, one per topic."""
        wanted = {name: [each] for name, each in marks.items() if each is not None}
        empty = np.empty(0, dtype=np.int64)
        also = {
            name: np.union1d(self.recorded.get(name, empty), np.array(each, dtype=np.int64))
            for name, each in wanted.items()
        }
        return Marks({**self.recorded, **also})


@dataclass(frozen=True, slots=True)
class Promotion:
    """When a version took over."""

    version: int
    at_us: int


class _PastTransaction(MemoryTransaction):
    """Rows of segments are known by their true ids, whatever blocks they are played in."""

    def __init__(self) -> None:
        super().__init__()
        # Per block which of its rows are in which segment, and until when that is asked for.
        self._members: dict[bytes, tuple[dict[str, set[int]], int]] = {}
        # Masks are asked for by every row of a block, also by those that are in no segment.
        self._width = 0

    def know(self, portion: Portion, masks: Mapping[str, NDArray[np.bool_]]) -> None:
        """Of rows whose truth is still to come."""
        if not masks:
            return
        numbers = _row_numbers(portion.prediction_ids)
        self._width = max(self._width, int(numbers.max(initial=0)) + 1)
        inside = np.isfinite(portion.losses) & np.logical_or.reduce([*masks.values()])
        for row in np.flatnonzero(inside).tolist():
            block, number = _block(portion.prediction_ids[row]), int(numbers[row])
            known_at = int(portion.known_at_us[row])
            names, until = self._members.get(block, ({}, known_at))
            for name, mask in masks.items():
                if mask[row]:
                    names.setdefault(name, set()).add(number)
            self._members[block] = (names, max(until, known_at))

    async def add_block_segments(
        self, blocks: Sequence[BlockSegments], forget_after_us: Sequence[int]
    ) -> None:
        """Known already."""

    async def block_segments(self, block_ids: Sequence[bytes]) -> dict[bytes, BlockSegments]:
        found = {}
        for each in block_ids:
            if each in self._members:
                names = self._members[each][0]
                masks = np.zeros((len(names), self._width), dtype=bool)
                for mask, rows in zip(masks, names.values(), strict=True):
                    mask[list(rows)] = True
                found[each] = BlockSegments(each, tuple(names), masks)
        return found

    async def drop_losses(self, subject: Subject, before_us: int) -> None:
        await super().drop_losses(subject, before_us)
        for each in [each for each, (_, until) in self._members.items() if until < before_us]:
            del self._members[each]


@dataclass(slots=True)
class Player:
    """Plays one model's past under one policy. ``known`` says what its versions are; rows of
    versions that are not in it are left out."""

    model_name: str
    marks: Marks
    known: dict[Subject, KnownVersion]
    # By time.
    promotions: Sequence[Promotion] = ()
    tx: _PastTransaction = field(default_factory=_PastTransaction)
    rows: int = 0
    truths: int = 0
    _in_hand: InHand = field(default_factory=InHand)
    # The first row's event time.
    _begun_us: int | None = None
    _heard: int = 0
    _blocks: int = 0

    @property
    def alerts(self) -> list[Alert]:
        """As they stand, the oldest first."""
        return sorted(self.tx.alerts.values(), key=lambda each: (each.opened_at, each.alert_id))

    def wanted(self, portion: Portion) -> list[Subject]:
        """Versions that must be known before the portion is played."""
        last = int(portion.event_times_us[-1]) if len(portion) else -(2**63)
        numbers = {int(each) for each in np.unique(portion.versions)}
        numbers |= {each.version for each in self.promotions if each.at_us <= last}
        subjects = [Subject(self.model_name, each) for each in sorted(numbers)]
        return [each for each in subjects if each not in self.known]

    def play(self, portion: Portion) -> None:
        """Takes the rows in, and judges at every mark up to the last one's event time."""
        in_memory(self._play(portion))

    def finish(self, until: Mapping[str, int]) -> None:
        """Judges at the marks up to these, per topic: no row follows."""
        in_memory(self._finish(until))

    async def _finish(self, until: Mapping[str, int]) -> None:
        await self.tx.add_models([self.model_name])
        await self._reach(until)

    async def _play(self, portion: Portion) -> None:
        await self.tx.add_models([self.model_name])
        if self._begun_us is None and len(portion):
            self._begun_us = int(portion.event_times_us[0])
        for part, promotion in _parts(portion, self.promotions[self._heard :]):
            if len(part):
                await self._take(part)
                await self._reach(_both(int(part.event_times_us[-1])))
            if promotion is not None:
                await self._reach(_both(promotion.at_us))
                await self._promote(promotion)

    async def _promote(self, promotion: Promotion) -> None:
        self._heard += 1
        subject = Subject(self.model_name, promotion.version)
        news = VersionNews(subject, self._heard, promotion.version, promotion.at_us)
        await hear_version(news, tx=self.tx)

    async def _take(self, portion: Portion) -> None:
        taken: list[TakenRows] = []
        losses: list[BlockOfLosses] = []
        for number in np.unique(portion.versions).tolist():
            version = self.known.get(Subject(self.model_name, number))
            if version is None:
                continue
            part = portion.only(np.flatnonzero(portion.versions == number))
            each = self._taken(part, version)
            self.tx.know(part, each.segments)
            taken.append(each)
            truths = losses_of(part, version.subject, each.block_ids[0])
            if len(truths.losses):
                losses.append(truths)
        self.rows += await take_predictions(taken, tx=self.tx)
        if losses:
            self.truths += await take_losses(losses, tx=self.tx)

    def _taken(self, portion: Portion, version: KnownVersion) -> TakenRows:
        self._blocks += 1
        rows, profile = len(portion), version.profile
        places = np.zeros(rows, dtype=np.intp)
        columns = () if profile is None else columns_of(portion, profile)
        return TakenRows(
            subject=version.subject,
            profile=profile,
            block_ids=[self._blocks.to_bytes(BLOCK_ID_BYTES, "big")],
            block_of=places,
            partitions=np.zeros(rows, dtype=np.int32),
            event_times_us=portion.event_times_us,
            rows=Rows(places, 1, columns, portion.said[0]),
            segments={} if profile is None else segments_of(portion, profile),
        )

    async def _reach(self, until: Mapping[str, int]) -> None:
        """Judges at one mark after the other up to these, as live traffic does that keeps up."""
        marks: dict[int, list[str]] = {}
        for topic, to_us in until.items():
            reached = await self.tx.current_us(topic)
            after_us = self._begun_us if reached is None else reached
            if after_us is not None:
                for mark in self.marks.between(topic, after_us, to_us):
                    marks.setdefault(mark, []).append(topic)
        for mark in sorted(marks):
            for topic in marks[mark]:
                self.tx.reach(topic, [mark])
            await self._judge()

    async def _judge(self) -> None:
        while True:
            judged = await judge_model(
                self.model_name, self.known, tx=self.tx, in_hand=self._in_hand
            )
            self._in_hand.put(judged.keepers)
            if not judged.is_full:
                return


def _both(at_us: int) -> dict[str, int]:
    """Every row before that time was taken in, and its truth with it."""
    return {PREDICTIONS.name: at_us, JOINED.name: at_us}


def _parts(
    portion: Portion, promotions: Sequence[Promotion]
) -> Iterator[tuple[Portion, Promotion | None]]:
    """Rows up to each promotion that comes before the last of them, and the rest."""
    begin = 0
    last = int(portion.event_times_us[-1]) if len(portion) else -(2**63)
    for each in promotions:
        if each.at_us > last:
            break
        end = int(np.searchsorted(portion.event_times_us, each.at_us))
        yield portion.only(slice(begin, end)), each
        begin = end
    yield portion.only(slice(begin, None)), None


def _block(prediction_id: bytes) -> bytes:
    return prediction_id.ljust(ID_BYTES, b"\x00")[:BLOCK_ID_BYTES]


def _row_numbers(ids: NDArray[np.bytes_]) -> NDArray[np.uint32]:
    raw = np.frombuffer(np.ascontiguousarray(ids).tobytes(), dtype=np.uint8).reshape(-1, ID_BYTES)
    return raw[:, BLOCK_ID_BYTES:].copy().view("<u4").ravel()
