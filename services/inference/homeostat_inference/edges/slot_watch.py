"""Looks at a slot's process: whether it starts, lives and leaves in time, and what it weighs."""

import asyncio
import os
import time
from enum import Enum
from pathlib import Path
from typing import Protocol

from homeostat_inference.edges.board import Board
from homeostat_inference.edges.board_layout import Word
from homeostat_inference.edges.nursery import Child

_LOOK_SECONDS = 0.1
# So many times what it may take, a process is not asked to leave: it is ended.
_KILL_FACTOR = 1.5
# A worker without a sign of life for so long is killed; its machine may be busy.
_SILENCE_SECONDS = 10.0
# So long after its deadline a run must have ended.
_OVERDUE_SECONDS = 1.0
START_SECONDS = 120.0
# For answering what it has and for closing its journal.
_LEAVE_SECONDS = 6.0
STARTING, READY, LEAVING, DEAD = "starting", "ready", "leaving", "dead"


class Blame(Enum):
    """Whether what runs in a process is why it is killed."""

    NOBODY = "nobody"
    THE_RUN = "the run that does not end"
    THE_WEIGHT = "runs that were under way while it swelled"


class Watched(Protocol):
    """Whose process it is."""

    state: str
    # Since when it has been LEAVING.
    left_at: float
    memory_bytes: int
    # It takes more memory than it may, and a fresh process does not help.
    is_swollen: bool

    def recycle(self, why: str) -> None:
        """Has it replaced by a fresh one."""

    def kill(self, why: str, blame: Blame = Blame.NOBODY) -> None:
        """At once."""


class SlotWatch:
    """Watches one process after the other."""

    def __init__(self, slot: Watched, board: Board, memory_bytes: int) -> None:
        """``memory_bytes``: a process that takes more is replaced, and killed where it takes far
        more."""
        self._slot = slot
        self._board = board
        self._memory_limit = memory_bytes

    async def watch(self, child: Child) -> None:
        """Until it is cancelled."""
        began = time.monotonic()
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            self._look(time.monotonic_ns(), began)
            self.weigh(_resident_bytes(child.pid))

    def weigh(self, memory_bytes: int) -> None:
        """Messages that are still coming in count too, and no process can refuse those: whoever
        sends them may not be known yet. So it is not asked to end where it grows fast."""
        slot = self._slot
        slot.memory_bytes = memory_bytes
        why = f"it held {memory_bytes >> 20} MiB, {self._memory_limit >> 20} MiB are allowed"
        if memory_bytes > self._memory_limit * _KILL_FACTOR:
            slot.kill(why, Blame.THE_WEIGHT)
        elif memory_bytes <= self._memory_limit:
            slot.is_swollen = False
        elif slot.state == READY:
            slot.recycle(why)

    def _look(self, now_ns: int, began: float) -> None:
        slot = self._slot
        if slot.state == STARTING and time.monotonic() - began > START_SECONDS:
            slot.kill(f"it was not ready after {START_SECONDS:.0f} s")
        if slot.state == LEAVING and time.monotonic() - slot.left_at > _LEAVE_SECONDS:
            slot.kill(f"it did not leave within {_LEAVE_SECONDS:.0f} s")
        silent_ns = now_ns - (self._board.get(Word.HEARTBEAT_NS) or now_ns)
        if silent_ns > _SILENCE_SECONDS * 1e9:
            slot.kill(f"it showed no sign of life for {silent_ns / 1e9:.0f} s")
        for run in self._board.running():
            if run.deadline_ns and now_ns - run.deadline_ns > _OVERDUE_SECONDS * 1e9:
                why = f"a run did not end {_OVERDUE_SECONDS:.0f} s after its deadline"
                slot.kill(why, Blame.THE_RUN)


def _resident_bytes(process_id: int) -> int:
    try:
        pages = int(Path(f"/proc/{process_id}/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGESIZE")
