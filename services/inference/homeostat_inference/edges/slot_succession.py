"""Replacing a slot's process: a fresh one prepares itself while the present one still answers."""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from homeostat_inference.edges.nursery import NurseryDied
from homeostat_inference.edges.slot_process import SlotProcess
from homeostat_inference.edges.slot_watch import START_SECONDS
from homeostat_kit.logs import get_logger

# So long after a replacement, done or failed, there is no other: what models need is not less in a
# fresh process.
_REPLACE_SECONDS = 60.0
log = get_logger("homeostat_inference.slots")


class Replaced(Protocol):
    """Whose process it is."""

    name: str
    process: SlotProcess | None
    # The server leaves: nobody follows.
    is_leaving: bool
    # It takes more memory than it may, and a fresh process does not help.
    is_swollen: bool

    def let_go(self, why: str, *, is_followed: bool) -> None:
        """Asks the present process to answer what it has, and to end."""


class Succession:
    """Who follows the present process of a slot."""

    def __init__(
        self, slot: Replaced, spawn: Callable[[], Awaitable[SlotProcess]], *, may_overlap: bool
    ) -> None:
        """``may_overlap``: the next one listens before the one before has gone."""
        self._slot = slot
        self._spawn = spawn
        self._may_overlap = may_overlap
        # Prepares itself while the one before is still there.
        self.successor: SlotProcess | None = None
        self.task: asyncio.Task[None] | None = None
        self._replaced_at = -_REPLACE_SECONDS

    @property
    def is_recent(self) -> bool:
        """Whether another one would help no more than the last."""
        return time.monotonic() - self._replaced_at < _REPLACE_SECONDS

    @property
    def is_under_way(self) -> bool:
        """Whether one is being prepared."""
        return self.task is not None and not self.task.done()

    def take(self) -> SlotProcess | None:
        """Whoever is prepared; it is the present one from here on."""
        successor, self.successor = self.successor, None
        return successor

    def give_up(self) -> None:
        """Nobody is to follow."""
        if self.successor is not None:
            self.successor.child.send_signal(signal.SIGKILL)

    async def replace(self, why: str) -> None:
        """``why`` the present one is let go."""
        slot = self._slot
        before = slot.process
        successor = await self._raised() if self._may_overlap else None
        self._replaced_at = time.monotonic()
        if self._may_overlap and successor is None:
            # The present one goes on: it is all there is.
            slot.is_swollen = True
            return
        if slot.process is not before or slot.is_leaving or before is None:
            # It died in the meantime; the next one is on its way already.
            if successor is not None:
                _dismiss(successor)
            return
        self.successor = successor
        slot.let_go(why, is_followed=successor is not None)

    async def _raised(self) -> SlotProcess | None:
        """One that is prepared; None if it can't be had."""
        try:
            successor = await self._spawn()
        except (OSError, NurseryDied) as error:
            log.error("successor_failed", slot=self._slot.name, reason=repr(error))
            return None
        if await successor.gets_ready(START_SECONDS):
            return successor
        reason = "it ended, or was not ready in time"
        log.error("successor_failed", slot=self._slot.name, reason=reason)
        _dismiss(successor)
        return None


def _dismiss(process: SlotProcess) -> None:
    process.child.send_signal(signal.SIGKILL)
    process.end()
