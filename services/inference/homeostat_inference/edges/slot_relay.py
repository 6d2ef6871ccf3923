"""The relay of one journal: what it holds, to the broker, in order and at least once."""

import asyncio
import time
from pathlib import Path

from homeostat_inference.edges.archive import AskFate
from homeostat_inference.edges.events import wait_for
from homeostat_inference.edges.forgetting import Forgetting
from homeostat_inference.edges.journal_reader import JournalReader, Segment
from homeostat_inference.edges.promises import Promises
from homeostat_inference.edges.relay_hooks import Hooks, Tail
from homeostat_inference.edges.relay_position import Positions, Sent
from homeostat_inference.edges.relay_steps import Step, Steps
from homeostat_kit.kafka import BrokerAway, Bus
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
log = get_logger("homeostat_inference.relay")


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
        self._hooks = hooks
        self._sent = Sent.load(state_file)
        self._last_span = (0, 0)
        # Why the journal can't be read now.
        self.trouble = ""
        self._bound_position()
        self._chunk_bytes = _CHUNK_BYTES
        self.steps = Steps(slot)
        self.forgetting = Forgetting(
            slot,
            reader,
            tail,
            ask_fate,
            hooks,
            is_sent=self._is_sent,
            skipped_blocks=self.steps.skipped_blocks,
        )
        self._next = self._sent.position
        self._grew = asyncio.Event()
        self._grew_at = 0.0
        self._saved_at = 0.0
        self.records_count = 0
        self.resent_epochs_count = 0
        # Bytes of the journal that can't be read.
        self.damaged_bytes = 0
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

    def _is_sent(self, segment: Segment) -> bool:
        return self._bus.epoch == self._sent.epoch and segment.end <= self._sent.position

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
            needed = self.steps.needed_from
            self._sent.position = after if needed is None else needed
            self._save_sometimes()
            await self._pass_standing(epoch)
        return True

    async def _take(self, step: Step, epoch: str) -> None:
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
        self.steps.begin_anew()
        self._next = self._sent.position

    def _prepare(self) -> tuple[list[Step], int]:
        """The next chunk of the journal as steps, and where it ends."""
        chunk = self._reader.read(self._next, self._chunk_bytes)
        self.damaged_bytes += chunk.lost_bytes
        return self.steps.of(chunk.records), chunk.after

    def _note(self, step: Step, acknowledged: list[tuple[int, int]]) -> None:
        self.records_count += len(acknowledged)
        for each, (partition, offset) in zip(step.outgoing, acknowledged, strict=True):
            self._sent.note_produced(each.topic, partition, offset)

    def _save_sometimes(self) -> None:
        if time.monotonic() - self._saved_at > 1.0:
            self._save()

    def _save(self) -> None:
        self._saved_at = time.monotonic()
        self._sent.save(self._state_file, slot=self.slot)
