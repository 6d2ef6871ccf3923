"""Promises that callers make: one for the whole server, kept in each of its journals."""

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from homeostat_inference.app.ports import Done, Journal, Kind
from homeostat_inference.app.records import pack_mark
from homeostat_inference.app.truth import CallerMarks
from homeostat_inference.domain.errors import NotKept
from homeostat_inference.edges.keeper_api import kept
from homeostat_inference.edges.marks_file import MarkFile
from homeostat_inference.edges.slots import WorkerSlot

_MARK_SECONDS = 8.0


@dataclass(slots=True)
class CallersPromises:
    """Makes them one after the other."""

    marks: CallerMarks
    file: MarkFile
    journal: Journal
    slots: Sequence[WorkerSlot]
    # The last one, or the one that is just being made: whoever starts now begins with it.
    asked_us: int | None
    # Held while the keeper's journal takes a promise; by whoever appends what it may concern, too.
    promising: threading.Lock = field(default_factory=threading.Lock)
    # The last one that every journal has: nothing earlier comes behind what stands in any of them.
    kept_us: int | None = field(init=False)
    _making: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        self.kept_us = self.asked_us

    def standing_us(self) -> int | None:
        """What holds for every journal: it is spelled out in each, but a relay of this life may
        begin behind that place. None where promises are made by the clock."""
        return self.kept_us if self.marks.is_explicit else None

    async def advance(self, mark_us: int, latest_us: int) -> None:
        """Answers once every journal has it. InvalidInput or WrongMode if it can't be made, NotKept
        if a journal does not take it."""
        async with self._making:
            self.marks.judge(mark_us, latest_us)
            self.asked_us = mark_us
            try:
                async with asyncio.timeout(_MARK_SECONDS):
                    errors = await asyncio.gather(
                        *(each.marks.mark(mark_us) for each in self.slots)
                    )
            except TimeoutError:
                raise NotKept("a worker is being restarted; try again") from None
            for error in errors:
                if error:
                    raise NotKept(error)
            before = self.marks.mark_us
            try:
                await kept(lambda done: self._keep(mark_us, done))
            except NotKept:
                self.marks.mark_us = before
                raise
            self.kept_us = mark_us

    def _keep(self, mark_us: int, done: Done) -> None:
        try:
            self.file.keep(mark_us)
        except OSError as error:
            done(NotKept(f"the promise could not be written: {error.strerror}; try again later"))
            return
        with self.promising:
            # Nothing earlier is appended from here on.
            self.marks.mark_us = mark_us
            self.journal.append(Kind.CALLER_MARK, pack_mark(mark_us), done=done)
        self.journal.commit()
