"""When a journal may forget: what was sent, is settled by the ledger, and older than a tail."""

import asyncio
import time
from collections.abc import Callable, Collection

from google.protobuf.message import DecodeError

from homeostat.events.v1.outcome_block_pb2 import OutcomeBlock
from homeostat_inference.app.ports import Kind
from homeostat_inference.edges.archive import AskFate
from homeostat_inference.edges.journal_reader import JournalReader, Segment
from homeostat_inference.edges.relay_hooks import Hooks, Tail
from homeostat_kit.logs import get_logger

_CHUNK_BYTES = 2 * 1024 * 1024
# Smaller segments (a writer that ended soon) would make many files of the tail.
_SMALL_BYTES = 64 * 1024
# A segment that was sent and is not archived after so long is told of.
_HELD_SECONDS = 300.0
log = get_logger("homeostat_inference.relay")


class Forgetting:
    """Removes the oldest segments of one journal that nobody needs any longer."""

    def __init__(
        self,
        slot: str,
        reader: JournalReader,
        tail: Tail,
        ask_fate: AskFate,
        hooks: Hooks,
        *,
        is_sent: Callable[[Segment], bool],
        skipped_blocks: Collection[bytes],
    ) -> None:
        """``skipped_blocks``: those that the ledger will never see."""
        self._slot = slot
        self._reader = reader
        self._tail = tail
        self._ask_fate = ask_fate
        self._hooks = hooks
        self._is_sent = is_sent
        self._skipped_blocks = skipped_blocks
        # Blocks that the ledger can't read.
        self.set_aside_count = 0
        # Start of the oldest segment and since when only the archive holds it up.
        self._held_since: tuple[int, float] | None = None
        self._held_told_at = 0.0
        self._known_blocks: tuple[int, list[bytes]] | None = None

    @property
    def held_seconds(self) -> float:
        """For how long the oldest segment has been kept only because it is not archived."""
        return 0.0 if self._held_since is None else time.monotonic() - self._held_since[1]

    async def forget(self) -> int:
        """Drops what was acknowledged, is settled by the ledger, and is not in the tail; returns
        how many segments."""
        dropped = 0
        segments = await asyncio.to_thread(self._reader.segments)
        is_over = self._hooks.is_over
        while len(segments) > (0 if is_over else 1) and self._is_old(segments):
            segment = segments[0]
            if self._hooks.is_held(segment):
                return dropped
            if not await self._is_settled(segment):
                self._note_held(segment, segments[-1].end)
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
                slot=self._slot,
                count=len(fate.set_aside),
                first=fate.set_aside[0].hex(),
            )
        return fate.is_settled

    def _note_held(self, segment: Segment, end: int) -> None:
        """Says now and then that the journal can't forget: it is on its way to its quota."""
        now = time.monotonic()
        if self._held_since is None or self._held_since[0] != segment.start:
            self._held_since = segment.start, now
            self._held_told_at = now
        if now - self._held_told_at >= _HELD_SECONDS:
            self._held_told_at = now
            log.warning(
                "journal_not_archived",
                slot=self._slot,
                held_seconds=round(self.held_seconds),
                segment=segment.path.name,
                journal_bytes=end - segment.start,
            )

    def _is_old(self, segments: list[Segment]) -> bool:
        segment, end = segments[0], segments[-1].end
        age = time.time() - (segment.closed_at or time.time())
        is_crowded = end - segment.start > self._tail.crowded_bytes
        by_age_alone = self._hooks.is_over or segment.end - segment.start < _SMALL_BYTES
        is_in_tail = (end - segment.end < self._tail.bytes and not by_age_alone) or (
            age < self._tail.seconds and not is_crowded
        )
        return self._is_sent(segment) and not is_in_tail

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
