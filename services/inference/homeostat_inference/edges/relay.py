"""The relay: what the journal holds, to the broker, in order and at least once."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from homeostat import cloudevents
from homeostat.events.v1.column_pb2 import Watermark
from homeostat.events.v1.outcome_block_pb2 import OutcomeBlock
from homeostat.events.v1.prediction_block_pb2 import PredictionBlock
from homeostat.events.v1.version_activated_pb2 import VersionActivated
from homeostat.ids import event_id
from homeostat.topics import ACTIVATIONS, OUTCOMES, PREDICTIONS, Topic
from homeostat_inference.app.assembly import Assembler, Event, Mark, Sealed
from homeostat_inference.app.ports import Kind
from homeostat_inference.domain.blocks import timestamp
from homeostat_inference.edges.journal import Journal, Record, Segment
from homeostat_kit.kafka import BrokerAway, Bus, Outgoing, RecordTooLarge
from homeostat_kit.kafka.records import require_fit
from homeostat_kit.logs import get_logger

SOURCE = "homeostat/inference"
_CHUNK_BYTES = 2 * 1024 * 1024
# Without growth of the journal the relay looks again after this long: the epoch may have changed.
_IDLE_SECONDS = 0.25
_LONGEST_PAUSE_SECONDS = 2.0
# A segment that was sent and is not archived after so long is told of.
_HELD_SECONDS = 300.0

Positions = dict[tuple[str, int], int]
AreArchived = Callable[[Sequence[bytes]], Awaitable[bool]]
log = get_logger("homeostat_inference.relay")


@dataclass(frozen=True, slots=True)
class Tail:
    """How much is kept after it was archived, for a broker that comes back empty."""

    bytes: int
    seconds: float
    # Of a journal larger than this, age alone keeps nothing: it must not reach its quota.
    crowded_bytes: int


@dataclass(slots=True)
class Sent:
    """How far the relay is in one life of the broker."""

    epoch: str
    # Everything before was acknowledged.
    position: int
    produced: Positions = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Step:
    """Records that may be under way together, or the marks of one promise."""

    outgoing: list[Outgoing]


class Relay:
    """Sends from the last acknowledged position on; to a new broker, all that is retained."""

    def __init__(
        self,
        journal: Journal,
        bus: Bus,
        *,
        state_file: Path,
        source_id: str,
        tail: Tail,
        are_archived: AreArchived,
    ) -> None:
        """``source_id``: whose promises the marks are. ``state_file`` keeps the position."""
        self._journal = journal
        self._bus = bus
        self._state_file = state_file
        self._source_id = source_id
        self._tail = tail
        self._are_archived = are_archived
        self._sent = _load(state_file, journal)
        self._assembler = Assembler()
        self._next = self._sent.position
        self._grew = asyncio.Event()
        # Whether it waits for the journal to grow; only then it needs to be woken.
        self.is_idle = False
        self._saved_at = 0.0
        self._mark_us = _load_mark(state_file)
        self.records_count = 0
        self.resent_epochs_count = 0
        # Records that no broker takes, however often they are sent.
        self.skipped_count = 0
        self._skipped_blocks: set[bytes] = set()
        # Start of the oldest segment and since when only the archive holds it up.
        self._held_since: tuple[int, float] | None = None
        self._held_told_at = 0.0

    def wake(self) -> None:
        """The journal grew."""
        self._grew.set()

    def recover(self) -> int | None:
        """The caller's last mark. To be called before anything is appended."""
        assembler = Assembler()
        for record in self._records(self._sent.position):
            for made in assembler.feed(record.position, record.kind, record.payload):
                if isinstance(made, Mark) and made.is_callers:
                    self._mark_us = max(made.mark_us, self._mark_us or 0)
        self._journal.commit()
        return self._mark_us

    def _records(self, position: int) -> Iterator[Record]:
        while position < self._journal.end:
            records, position = self._journal.read(position, _CHUNK_BYTES)
            yield from records

    @property
    def epoch(self) -> str:
        """The life of the broker that the positions belong to."""
        return self._sent.epoch

    @property
    def produced(self) -> Positions:
        """Next offsets by (topic, partition), as the broker acknowledged them."""
        return dict(self._sent.produced)

    @property
    def unsent_bytes(self) -> int:
        """What the broker has not acknowledged."""
        if self._bus.epoch != self._sent.epoch:
            return self._journal.end - self._journal.start
        return self._journal.end - self._sent.position

    async def run(self, stop: asyncio.Event) -> None:
        """Relays until ``stop`` is set and nothing is left, or the broker fails while leaving."""
        pause = 0.1
        while True:
            try:
                if await self._advance():
                    pause = 0.1
                    continue
            except BrokerAway as error:
                log.warning("relay_interrupted", reason=str(error))
                self._forget_unacknowledged()
                if stop.is_set():
                    return
                await _wait(stop, pause)
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
                continue
            if stop.is_set():
                self._save()
                return
            self._grew.clear()
            self.is_idle = True
            if self._next >= self._journal.end or not self._bus.epoch:
                await _wait(self._grew, _IDLE_SECONDS, stop)
            self.is_idle = False

    async def _advance(self) -> bool:
        """Sends one chunk; False if there was nothing to send, or nobody to send it to."""
        epoch = self._bus.epoch
        if not epoch:
            return False
        if epoch != self._sent.epoch:
            self._begin_anew(epoch)
        if self._next >= self._journal.end:
            return False
        steps, after = await asyncio.to_thread(self._prepare)
        for step in steps:
            acknowledged = await self._bus.produce_many(step.outgoing, epoch=epoch)
            self._note(step, acknowledged)
        if self._bus.epoch == epoch:
            self._next = after
            needed = self._assembler.needed_from
            self._sent.position = after if needed is None else needed
            self._save_sometimes()
        return True

    def _begin_anew(self, epoch: str) -> None:
        log.info("relay_epoch", epoch=epoch, before=self._sent.epoch)
        self.resent_epochs_count += bool(self._sent.epoch)
        self._sent = Sent(epoch, self._journal.start)
        self._forget_unacknowledged()
        self._save()

    def _forget_unacknowledged(self) -> None:
        self._assembler = Assembler()
        self._next = self._sent.position

    def _prepare(self) -> tuple[list[_Step], int]:
        """The next chunk of the journal as steps; each is sent after the one before was acked."""
        records, after = self._journal.read(self._next, _CHUNK_BYTES)
        if not records:
            return [], after
        made = [
            each
            for record in records
            for each in self._assembler.feed(record.position, record.kind, record.payload)
        ]
        clock_marks = [
            at for at, each in enumerate(made) if isinstance(each, Mark) and not each.is_callers
        ]
        steps = [_Step([])]
        for at, each in enumerate(made):
            if isinstance(each, Mark):
                # Of promises by the clock only the last of a chunk says something.
                if each.is_callers or at == clock_marks[-1]:
                    steps += [_Step(self._marks(each.mark_us)), _Step([])]
                    if each.is_callers:
                        self._mark_us = each.mark_us
            else:
                steps[-1].outgoing.extend(self._if_it_fits(_outgoing(each)))
        return [each for each in steps if each.outgoing], after

    def _if_it_fits(self, outgoing: Outgoing) -> list[Outgoing]:
        """Nothing of a record that no broker takes: it must not hold up all that follows."""
        try:
            require_fit(outgoing.topic, outgoing.value)
        except RecordTooLarge as error:
            key = outgoing.key or b""
            log.error("record_skipped", key=key.hex(), reason=str(error))
            self.skipped_count += 1
            self._skipped_blocks.add(key)
            return []
        return [outgoing]

    def _marks(self, mark_us: int) -> list[Outgoing]:
        mark = Watermark(source_id=self._source_id, watermark_us=mark_us)
        now_us = time.time_ns() // 1000
        made: list[Outgoing] = []
        for topic, message in (
            (PREDICTIONS, PredictionBlock(watermark=mark, produced_at=timestamp(now_us))),
            (OUTCOMES, OutcomeBlock(watermark=mark, produced_at=timestamp(now_us))),
        ):
            for partition in range(topic.partitions):
                name = event_id("mark", self._source_id, mark_us, topic.name, partition)
                headers = _headers(topic, name, now_us)
                value = message.SerializeToString()
                made.append(
                    Outgoing(topic.name, self._source_id.encode(), value, headers, partition)
                )
        return made

    def _note(self, step: _Step, acknowledged: list[tuple[int, int]]) -> None:
        produced = self._sent.produced
        self.records_count += len(acknowledged)
        for each, (partition, offset) in zip(step.outgoing, acknowledged, strict=True):
            key = each.topic, partition
            produced[key] = max(produced.get(key, 0), offset + 1)

    def _save_sometimes(self) -> None:
        if time.monotonic() - self._saved_at > 1.0:
            self._save()

    def _save(self) -> None:
        self._saved_at = time.monotonic()
        sent = self._sent
        state = {
            "epoch": sent.epoch,
            "position": sent.position,
            "mark_us": self._mark_us,
            "produced": [[topic, part, at] for (topic, part), at in sent.produced.items()],
        }
        fresh = self._state_file.with_suffix(".new")
        try:
            fresh.write_text(json.dumps(state))
            fresh.replace(self._state_file)
        except OSError as error:
            # An older position only means that something is sent again.
            log.warning("relay_position_not_saved", reason=str(error))

    async def forget_archived(self) -> int:
        """Drops the oldest segments that nobody needs any longer; returns how many.

        Needed is what was not acknowledged, what the ledger has not archived, and the tail.
        """
        dropped = 0
        while len(self._journal.segments) > 1 and self._is_old(self._journal.segments[0]):
            segment = self._journal.segments[0]
            block_ids = await asyncio.to_thread(self._block_ids, segment)
            due = [each for each in block_ids if each not in self._skipped_blocks]
            if not await self._are_archived(due):
                self._note_held(segment)
                return dropped
            self._journal.drop(segment)
            dropped += 1
        self._held_since = None
        return dropped

    @property
    def held_seconds(self) -> float:
        """For how long the oldest segment has been kept only because it is not archived."""
        return 0.0 if self._held_since is None else time.monotonic() - self._held_since[1]

    def _note_held(self, segment: Segment) -> None:
        """Says now and then that the journal can't forget: it is on its way to its quota."""
        now = time.monotonic()
        if self._held_since is None or self._held_since[0] != segment.start:
            self._held_since = segment.start, now
            self._held_told_at = now
        if now - self._held_told_at >= _HELD_SECONDS:
            self._held_told_at = now
            log.warning(
                "journal_not_archived",
                held_seconds=round(self.held_seconds),
                segment=segment.path.name,
                journal_bytes=self._journal.size_bytes,
            )

    def _is_old(self, segment: Segment) -> bool:
        age = time.time() - (segment.closed_at or time.time())
        is_crowded = self._journal.size_bytes > self._tail.crowded_bytes
        is_in_tail = self._journal.end - segment.end < self._tail.bytes or (
            age < self._tail.seconds and not is_crowded
        )
        is_sent = self._bus.epoch == self._sent.epoch and segment.end <= self._sent.position
        return is_sent and not is_in_tail

    def _block_ids(self, segment: Segment) -> list[bytes]:
        found: dict[bytes, None] = {}
        position = segment.start
        while position < segment.end:
            records, position = self._journal.read(position, _CHUNK_BYTES)
            for record in records:
                if record.kind == Kind.ROWS:
                    found[record.payload[:16]] = None
                elif record.kind == Kind.OUTCOMES:
                    found[OutcomeBlock.FromString(record.payload).block_id] = None
        return list(found)


def _outgoing(made: Sealed | Event) -> Outgoing:
    if isinstance(made, Sealed):
        headers = _headers(PREDICTIONS, made.block_id.hex(), made.sealed_at_us, made.traceparent)
        value = made.block().SerializeToString()
        return Outgoing(PREDICTIONS.name, made.block_id, value, headers)
    if made.kind == Kind.OUTCOMES:
        block = OutcomeBlock.FromString(made.message)
        headers = _headers(OUTCOMES, block.block_id.hex(), block.produced_at.ToMicroseconds())
        return Outgoing(OUTCOMES.name, block.block_id, made.message, headers)
    activated = VersionActivated.FromString(made.message)
    name = event_id(
        activated.model_name, activated.version, activated.revision, activated.worker_id,
        activated.error,
    )  # fmt: skip
    headers = _headers(ACTIVATIONS, name, activated.occurred_at.ToMicroseconds())
    return Outgoing(ACTIVATIONS.name, activated.model_name.encode(), made.message, headers)


def _headers(topic: Topic, name: str, at_us: int, traceparent: str = "") -> list[tuple[str, bytes]]:
    return cloudevents.headers(
        topic, event_id=name, source=SOURCE, occurred_at_us=at_us, traceparent=traceparent or None
    )


def _load(state_file: Path, journal: Journal) -> Sent:
    state = _state(state_file)
    position = min(max(int(state.get("position", 0)), journal.start), journal.end)
    produced = {(topic, part): at for topic, part, at in state.get("produced", [])}
    return Sent(str(state.get("epoch", "")), position, produced)


def _load_mark(state_file: Path) -> int | None:
    mark_us = _state(state_file).get("mark_us")
    return None if mark_us is None else int(mark_us)


def _state(state_file: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(state_file.read_text()))
    except (OSError, ValueError):
        # Without a position everything that is retained is sent again.
        return {}


async def _wait(event: asyncio.Event, seconds: float, other: asyncio.Event | None = None) -> None:
    waits = [asyncio.ensure_future(each.wait()) for each in (event, other) if each is not None]
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in waits:
            each.cancel()
