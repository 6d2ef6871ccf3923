"""All journals of a server: the keeper's own, the workers', the shadow's, and those that nobody
writes any longer; each is sent, and forgotten, by a relay of its own."""

import asyncio
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from homeostat_inference.edges.archive import AskFate
from homeostat_inference.edges.events import wait_for
from homeostat_inference.edges.journal_format import found_starts
from homeostat_inference.edges.journal_reader import JournalReader
from homeostat_inference.edges.journal_writer import JournalWriter
from homeostat_inference.edges.promises import Promises
from homeostat_inference.edges.relay_hooks import Hooks, Tail
from homeostat_inference.edges.relay_position import Positions
from homeostat_inference.edges.slot_relay import SlotRelay
from homeostat_kit.kafka import Bus
from homeostat_kit.logs import get_logger

KEEPER_SLOT = "keeper"
_FORGET_SECONDS = 5.0
log = get_logger("homeostat_inference.journals")


@dataclass(frozen=True, slots=True)
class JournalRules:
    """What all journals have in common."""

    segment_bytes: int
    quota_bytes: int
    is_durable: bool
    tail: Tail


@dataclass(slots=True)
class Journals:
    """Keeps the relays by the names of their journals."""

    folder: Path
    rules: JournalRules
    bus: Bus
    ask_fate: AskFate
    server_name: str
    relays: dict[str, SlotRelay] = field(default_factory=dict)
    promises: Promises = field(init=False)
    _marks_produced: Positions = field(default_factory=dict)
    _marks_epoch: str = ""
    _own_start: int = 0

    def __post_init__(self) -> None:
        self.promises = Promises(self.bus, self.server_name, self._note_marks)

    def open_own(self, loop: asyncio.AbstractEventLoop) -> JournalWriter:
        """The keeper's own; JournalInUse, once it is entered, if another server has the folder."""

        def wake() -> None:
            if KEEPER_SLOT in self.relays:
                self.relays[KEEPER_SLOT].wake()

        def kept_more(end: int) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(wake)

        return self._writer(KEEPER_SLOT, kept_more, lambda: self._own_start)

    def add_own(self, journal: JournalWriter, standing_mark_us: Callable[[], int | None]) -> None:
        """Sends the keeper's own journal too."""
        self._own_start = self.start(KEEPER_SLOT)
        hooks = Hooks(
            has_writer=lambda: True,
            forgot=self._forgot_of_own,
            standing_mark_us=standing_mark_us,
        )
        self.add(KEEPER_SLOT, lambda: journal.end, hooks)

    def _forgot_of_own(self, start: int) -> None:
        self._own_start = start

    def _writer(
        self, name: str, on_commit: Callable[[int], None], start: Callable[[], int] | None
    ) -> JournalWriter:
        return JournalWriter(
            self._folder_of(name),
            segment_bytes=self.rules.segment_bytes,
            quota_bytes=self.rules.quota_bytes,
            is_durable=self.rules.is_durable,
            start=start,
            on_commit=on_commit,
        )

    def _folder_of(self, name: str) -> Path:
        return self.folder / name / "journal"

    def start(self, name: str) -> int:
        """The oldest position that is still there."""
        return JournalReader(self._folder_of(name), lambda: None).start

    def add(self, name: str, committed: Callable[[], int | None], hooks: Hooks) -> None:
        """A journal, with how far it may be read while somebody writes it."""
        (self.folder / name).mkdir(parents=True, exist_ok=True)
        self.relays[name] = SlotRelay(
            name,
            JournalReader(self._folder_of(name), committed),
            self.bus,
            self.promises,
            state_file=self.folder / name / "relay.json",
            tail=self.rules.tail,
            ask_fate=self.ask_fate,
            hooks=hooks,
        )

    def add_left_over(self) -> None:
        """Journals of workers that there are no more, once all others were added."""
        found = (each.parent.name for each in self.folder.glob("*/journal") if each.is_dir())
        for name in sorted(set(found) - set(self.relays)):
            if not found_starts(self._folder_of(name)):
                # All of it was sent and archived in an earlier life.
                shutil.rmtree(self.folder / name, ignore_errors=True)
                continue
            self.add(name, lambda: None, Hooks(has_writer=lambda: False, is_over=True))
            if not self.relays[name].is_all_sent:
                self._end_blocks(name)

    def _end_blocks(self, name: str) -> None:
        """Whoever opens a journal for writing ends the blocks that the one before left open."""
        try:
            with self._writer(name, lambda end: None, None):
                log.info("journal_left_over", slot=name)
        except OSError as error:
            # What can be read of it is sent all the same.
            log.error("journal_not_ended", slot=name, reason=str(error))

    async def forget(self, stop: asyncio.Event) -> None:
        """Removes what nobody needs any longer, again and again."""
        while not stop.is_set():
            await wait_for((stop,), _FORGET_SECONDS)
            for name, relay in self.relays.items():
                try:
                    dropped = await relay.forgetting.forget()
                except OSError as error:
                    # A file that can't be removed now may be later; serving does not need it.
                    log.error("journal_not_forgotten", slot=name, reason=str(error))
                    continue
                if dropped:
                    log.info("journal_forgot", slot=name, segments=dropped)

    @property
    def unsent_bytes(self) -> int:
        """What the broker has not acknowledged."""
        return sum(each.unsent_bytes for each in self.relays.values())

    def produced(self, epoch: str) -> Positions:
        """Next offsets by (topic, partition), as this life of the broker acknowledged them."""
        found: Positions = {}
        positions = [each.produced for each in self.relays.values() if each.epoch == epoch]
        if self._marks_epoch == epoch:
            positions.append(self._marks_produced)
        for each in positions:
            for place, at in each.items():
                found[place] = max(at, found.get(place, 0))
        return found

    def _note_marks(self, acknowledged: list[tuple[str, int, int]]) -> None:
        if self._marks_epoch != self.promises.epoch:
            self._marks_epoch, self._marks_produced = self.promises.epoch, {}
        for topic, partition, offset in acknowledged:
            key = topic, partition
            self._marks_produced[key] = max(self._marks_produced.get(key, 0), offset + 1)
