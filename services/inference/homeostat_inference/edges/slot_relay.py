"""The relay of one journal: what it holds, to the broker, in order and at least once."""

import asyncio
import json
import struct
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf.message import DecodeError

from homeostat import cloudevents
from homeostat.events.v1.outcome_block_pb2 import OutcomeBlock
from homeostat.events.v1.version_activated_pb2 import VersionActivated
from homeostat.ids import event_id
from homeostat.topics import ACTIVATIONS, OUTCOMES, PREDICTIONS, Topic
from homeostat_inference.app.assembly import Assembled, Assembler, Event, Mark, Sealed
from homeostat_inference.app.ports import Kind
from homeostat_inference.app.whole import Whole
from homeostat_inference.edges.archive import AskFate
from homeostat_inference.edges.journal_format import Record
from homeostat_inference.edges.journal_reader import JournalReader, Segment
from homeostat_inference.edges.promises import SOURCE, Promises
from homeostat_kit.kafka import BrokerAway, Bus, Outgoing, RecordTooLarge
from homeostat_kit.kafka.records import require_fit
from homeostat_kit.logs import get_logger

_CHUNK_BYTES = 2 * 1024 * 1024
# What a broker does not acknowledge in time is sent again in smaller pieces.
_SMALLEST_CHUNK_BYTES = 64 * 1024
# A journal that grew lately is looked at so often: what completes a block comes every 20 ms.
_LOOK_SECONDS = 0.02
_BUSY_SECONDS = 0.5
# One that did not wakes the relay by itself; but the epoch may have changed.
_IDLE_SECONDS = 0.25
_LONGEST_PAUSE_SECONDS = 2.0
# Smaller segments (a writer that ended soon) would make many files of the tail.
_SMALL_BYTES = 64 * 1024
# A segment that was sent and is not archived after so long is told of.
_HELD_SECONDS = 300.0

Positions = dict[tuple[str, int], int]
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
class Hooks:
    """What a relay is told by whoever knows the journal's writer."""

    # Whether somebody may still write this journal.
    has_writer: Callable[[], bool]
    # Told whether the relay sleeps until it is woken.
    set_idle: Callable[[bool], None] = lambda is_idle: None
    # Told the oldest position that is still there, after something was forgotten.
    forgot: Callable[[int], None] = lambda start: None
    # A promise that the journal need not spell out: it holds for all that stands in it when it is
    # asked for.
    standing_mark_us: Callable[[], int | None] = lambda: None
    # Whether a segment has to wait for another reader.
    is_held: Callable[[Segment], bool] = lambda segment: False
    # Nobody will write this journal again: nothing of it need be left.
    is_over: bool = False


@dataclass(frozen=True, slots=True)
class _Step:
    """Records that may be under way together, and the mark that stands behind them."""

    outgoing: list[Outgoing]
    mark_us: int | None = None


class SlotRelay:
    """Sends from the last acknowledged position on; to a new broker, all that is retained."""

    def __init__(
        self,
        slot: str,
        reader: JournalReader,
        bus: Bus,
        promises: Promises,
        *,
        state_file: Path,
        tail: Tail,
        ask_fate: AskFate,
        hooks: Hooks,
    ) -> None:
        """``state_file`` keeps the position."""
        self.slot = slot
        self._reader = reader
        self._bus = bus
        self._promises = promises
        self._state_file = state_file
        self._tail = tail
        self._ask_fate = ask_fate
        self._hooks = hooks
        self._sent = _load(state_file)
        self._last_span = (0, 0)
        # Why the journal can't be read now.
        self.trouble = ""
        self._bound_position()
        self._chunk_bytes = _CHUNK_BYTES
        self._assembler = Assembler()
        self._next = self._sent.position
        self._grew = asyncio.Event()
        self._grew_at = 0.0
        self._saved_at = 0.0
        self.records_count = 0
        self.resent_epochs_count = 0
        # Records that no broker takes, however often they are sent.
        self.skipped_count = 0
        # Records that can't be made into a message.
        self.unreadable_count = 0
        # Blocks that the ledger can't read, and bytes of the journal that we can't.
        self.set_aside_count = 0
        self.damaged_bytes = 0
        self._skipped_blocks: set[bytes] = set()
        # Start of the oldest segment and since when only the archive holds it up.
        self._held_since: tuple[int, float] | None = None
        self._held_told_at = 0.0
        self._known_blocks: tuple[int, list[bytes]] | None = None
        # A promise that holds for all that stood before this position when it was made.
        self._standing: tuple[int, int] | None = None
        promises.count(slot)

    def wake(self) -> None:
        """The journal grew."""
        self._grew.set()

    @property
    def epoch(self) -> str:
        """The life of the broker that the positions belong to."""
        return self._sent.epoch

    @property
    def produced(self) -> Positions:
        """Next offsets by (topic, partition), as the broker acknowledged them."""
        return dict(self._sent.produced)

    @property
    def end(self) -> int:
        """Behind the last record that is kept."""
        return self._span()[1]

    @property
    def size_bytes(self) -> int:
        """What the journal holds."""
        start, end = self._span()
        return max(0, end - start)

    @property
    def unsent_bytes(self) -> int:
        """What the broker has not acknowledged."""
        start, end = self._span()
        if self._bus.epoch != self._sent.epoch:
            return max(0, end - start)
        return max(0, end - max(start, self._sent.position))

    @property
    def is_all_sent(self) -> bool:
        """Nothing in the journal waits for the broker of the last life, or for its block's end."""
        return bool(self._sent.epoch) and self._sent.position == self._span()[1]

    @property
    def held_seconds(self) -> float:
        """For how long the oldest segment has been kept only because it is not archived."""
        return 0.0 if self._held_since is None else time.monotonic() - self._held_since[1]

    def _span(self) -> tuple[int, int]:
        """Where the journal begins and ends; as it was, while that can't be read."""
        try:
            self._last_span = self._reader.start, self._reader.end
        except OSError as error:
            self.trouble = str(error)
        return self._last_span

    def _bound_position(self) -> None:
        """What was acknowledged may have been lost since, with all else that was not on disk: the
        next records stand where it stood, and nobody has sent those."""
        end = self._span()[1]
        if self._sent.position > end and not self.trouble:
            lost_bytes = self._sent.position - end
            log.warning("journal_shorter_than_sent", slot=self.slot, bytes=lost_bytes)
            self._sent.position = end

    async def run(self, stop: asyncio.Event) -> None:
        """Relays until ``stop`` is set and nothing is left, or the broker fails while leaving."""
        pause = 0.1
        while True:
            try:
                has_more = await self._advance()
                pause, self.trouble = 0.1, ""
                if has_more:
                    continue
                await self._stand()
                if stop.is_set():
                    self._save()
                    return
                await self._rest(stop)
            except (BrokerAway, OSError) as error:
                self._note_failure(error)
                if stop.is_set():
                    return
                await wait_for((stop,), pause)
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    def _note_failure(self, error: Exception) -> None:
        log.warning("relay_interrupted", slot=self.slot, reason=str(error))
        self._forget_unacknowledged()
        if isinstance(error, OSError):
            self.trouble = str(error)
        else:
            self._chunk_bytes = max(self._chunk_bytes // 2, _SMALLEST_CHUNK_BYTES)

    async def _rest(self, stop: asyncio.Event) -> None:
        """Until there may be more to send: a busy journal is looked at, a quiet one wakes us."""
        if time.monotonic() - self._grew_at < _BUSY_SECONDS:
            await wait_for((stop,), _LOOK_SECONDS)
            return
        self._grew.clear()
        self._hooks.set_idle(True)
        # What was committed before that could be seen wakes nobody.
        if self._next >= self._reader.end or not self._bus.epoch:
            await wait_for((self._grew, stop), _IDLE_SECONDS)
        self._hooks.set_idle(False)

    async def _stand(self) -> None:
        """Nothing waits: then a journal without a writer holds up no promise."""
        if not self._sent.epoch or self._bus.epoch != self._sent.epoch:
            return
        self._note_standing()
        if self._reader.end > self._next:
            return
        if self._standing is not None:
            await self._pass_standing(self._sent.epoch)
        elif not self._hooks.has_writer():
            await self._promises.release(self.slot)

    def _note_standing(self) -> None:
        """In a journal that never comes to rest, too, a promise holds for what stood before it."""
        if self._standing is None:
            mark_us = self._hooks.standing_mark_us()
            self._standing = None if mark_us is None else (mark_us, self._reader.end)

    async def _pass_standing(self, epoch: str) -> None:
        if self._standing is not None and self._standing[1] <= self._next:
            (mark_us, _), self._standing = self._standing, None
            await self._promises.passed(self.slot, mark_us, epoch)

    async def _advance(self) -> bool:
        """Sends one chunk; False if there was nothing to send, or nobody to send it to."""
        epoch = self._bus.epoch
        if not epoch:
            return False
        if epoch != self._sent.epoch:
            self._begin_anew(epoch)
        if self._next >= self._reader.end:
            return False
        self._note_standing()
        steps, after = await asyncio.to_thread(self._prepare)
        if after == self._next:
            return False
        self._grew_at = time.monotonic()
        for step in steps:
            await self._take(step, epoch)
        if self._bus.epoch == epoch:
            self._next = after
            self._chunk_bytes = min(self._chunk_bytes * 2, _CHUNK_BYTES)
            needed = self._assembler.needed_from
            self._sent.position = after if needed is None else needed
            self._save_sometimes()
            await self._pass_standing(epoch)
        return True

    async def _take(self, step: _Step, epoch: str) -> None:
        if step.outgoing:
            acknowledged = await self._bus.produce_many(step.outgoing, epoch=epoch)
            self._note(step, acknowledged)
        if step.mark_us is not None:
            await self._promises.passed(self.slot, step.mark_us, epoch)

    def _begin_anew(self, epoch: str) -> None:
        log.info("relay_epoch", slot=self.slot, epoch=epoch, before=self._sent.epoch)
        self.resent_epochs_count += bool(self._sent.epoch)
        self._sent = Sent(epoch, self._reader.start)
        self._standing = None
        self._promises.begin(self.slot, epoch)
        self._forget_unacknowledged()
        self._save()

    def _forget_unacknowledged(self) -> None:
        self._assembler = Assembler()
        self._next = self._sent.position

    def _prepare(self) -> tuple[list[_Step], int]:
        """The next chunk of the journal as steps; each is sent after the one before was acked."""
        chunk = self._reader.read(self._next, self._chunk_bytes)
        self.damaged_bytes += chunk.lost_bytes
        made = [each for record in chunk.records for each in self._fed(record)]
        last_clock_mark = max(
            (at for at, each in enumerate(made) if isinstance(each, Mark) and not each.is_callers),
            default=-1,
        )
        steps: list[_Step] = []
        outgoing: list[Outgoing] = []
        for at, each in enumerate(made):
            if isinstance(each, Mark):
                # Of promises by the clock only the last of a chunk says something.
                if each.is_callers or at == last_clock_mark:
                    steps.append(_Step(outgoing, each.mark_us))
                    outgoing = []
            elif isinstance(each, Sealed | Whole | Event):
                outgoing.extend(self._readable(each))
        return [*steps, _Step(outgoing)], chunk.after

    def _fed(self, record: Record) -> list[Assembled]:
        try:
            return self._assembler.feed(record.position, record.kind, record.payload)
        except (ValueError, struct.error, DecodeError) as error:
            log.error("record_unreadable", slot=self.slot, reason=repr(error))
            self.unreadable_count += 1
            return []

    def _readable(self, made: Sealed | Whole | Event) -> list[Outgoing]:
        """Nothing of a record that its checksum let through and that is damaged all the same."""
        try:
            return self._if_it_fits(outgoing_of(made))
        except (ValueError, struct.error, DecodeError) as error:
            log.error("record_unreadable", slot=self.slot, reason=repr(error))
            self.unreadable_count += 1
            if not isinstance(made, Event):
                self._skipped_blocks.add(made.block_id)
            return []

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

    def _note(self, step: _Step, acknowledged: list[tuple[int, int]]) -> None:
        self.records_count += len(acknowledged)
        for each, (partition, offset) in zip(step.outgoing, acknowledged, strict=True):
            self.note_produced(each.topic, partition, offset)

    def note_produced(self, topic: str, partition: int, offset: int) -> None:
        """The broker has acknowledged this."""
        key = topic, partition
        produced = self._sent.produced
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
            "produced": [[topic, part, at] for (topic, part), at in sent.produced.items()],
        }
        fresh = self._state_file.with_suffix(".new")
        try:
            fresh.write_text(json.dumps(state))
            fresh.replace(self._state_file)
        except OSError as error:
            # An older position only means that something is sent again.
            log.warning("relay_position_not_saved", slot=self.slot, reason=str(error))

    async def forget_archived(self) -> int:
        """Drops the oldest segments that nobody needs any longer; returns how many.

        Needed is what was not acknowledged, what the ledger has not settled, and the tail.
        """
        dropped = 0
        segments = await asyncio.to_thread(self._reader.segments)
        is_over = self._hooks.is_over
        while len(segments) > (0 if is_over else 1) and self._is_old(segments):
            segment = segments[0]
            if self._hooks.is_held(segment):
                return dropped
            if not await self._is_settled(segment):
                self._note_held(segment)
                return dropped
            await asyncio.to_thread(self._reader.recycle, segment, is_over=is_over)
            segments = segments[1:]
            if segments:
                self._hooks.forgot(segments[0].start)
            dropped += 1
        self._held_since = None
        return dropped

    async def _is_settled(self, segment: Segment) -> bool:
        if self._known_blocks is None or self._known_blocks[0] != segment.start:
            found = await asyncio.to_thread(self._block_ids, segment)
            self._known_blocks = (segment.start, found)
        due = [each for each in self._known_blocks[1] if each not in self._skipped_blocks]
        fate = await self._ask_fate(due)
        if fate.is_settled and fate.set_aside:
            self.set_aside_count += len(fate.set_aside)
            log.error(
                "blocks_set_aside",
                slot=self.slot,
                count=len(fate.set_aside),
                first=fate.set_aside[0].hex(),
            )
        return fate.is_settled

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
                slot=self.slot,
                held_seconds=round(self.held_seconds),
                segment=segment.path.name,
                journal_bytes=self.size_bytes,
            )

    def _is_old(self, segments: list[Segment]) -> bool:
        segment, end = segments[0], segments[-1].end
        age = time.time() - (segment.closed_at or time.time())
        is_crowded = end - segment.start > self._tail.crowded_bytes
        by_age_alone = self._hooks.is_over or segment.end - segment.start < _SMALL_BYTES
        is_in_tail = (end - segment.end < self._tail.bytes and not by_age_alone) or (
            age < self._tail.seconds and not is_crowded
        )
        is_sent = self._bus.epoch == self._sent.epoch and segment.end <= self._sent.position
        return is_sent and not is_in_tail

    def _block_ids(self, segment: Segment) -> list[bytes]:
        found: dict[bytes, None] = {}
        position = segment.start
        while position < segment.end:
            chunk = self._reader.read(position, _CHUNK_BYTES)
            if chunk.after == position:
                break
            for record in chunk.records:
                if record.kind in (Kind.ROWS, Kind.BLOCK):
                    found[record.payload[:16]] = None
                elif record.kind == Kind.OUTCOMES:
                    found.update(_id_of_outcomes(record.payload))
            position = chunk.after
        return list(found)


def _id_of_outcomes(message: bytes) -> dict[bytes, None]:
    """Nothing if it can't be read: then it was not sent either, which was counted."""
    try:
        return {OutcomeBlock.FromString(message).block_id: None}
    except DecodeError:
        return {}


def outgoing_of(made: Sealed | Whole | Event) -> Outgoing:
    """The message and its headers."""
    if isinstance(made, Sealed | Whole):
        headers = _headers(PREDICTIONS, made.block_id.hex(), made.sealed_at_us, made.traceparent)
        value = made.message if isinstance(made, Whole) else made.block().SerializeToString()
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


def _load(state_file: Path) -> Sent:
    try:
        state = json.loads(state_file.read_text())
        produced = {(topic, part): at for topic, part, at in state["produced"]}
        return Sent(str(state["epoch"]), int(state["position"]), produced)
    except (OSError, ValueError, KeyError, TypeError):
        # Without a position everything that is retained is sent again.
        return Sent("", 0)


async def wait_for(events: Iterable[asyncio.Event], seconds: float) -> None:
    """Until one of them is set, or the time is over."""
    waits = [asyncio.ensure_future(each.wait()) for each in events]
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in waits:
            each.cancel()
