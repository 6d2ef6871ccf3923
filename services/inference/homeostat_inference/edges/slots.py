"""One slot of the server: the process that has it, and what is known of it after its death.

A slot is a worker's, or the shadow's.
"""

import asyncio
import os
import signal
import time
from collections.abc import Coroutine
from functools import partial
from typing import Any

from homeostat_inference.app.supervising import Restarts
from homeostat_inference.edges.board import Board
from homeostat_inference.edges.board_layout import Word
from homeostat_inference.edges.control import (
    Applied,
    Failed,
    Garbled,
    Leave,
    Marked,
    Message,
    Ready,
    Take,
    TellPlan,
)
from homeostat_inference.edges.events import wait_for
from homeostat_inference.edges.nursery import Nursery
from homeostat_inference.edges.slot_counts import SlotCounts
from homeostat_inference.edges.slot_end import End, end_of
from homeostat_inference.edges.slot_marks import SlotMarks
from homeostat_inference.edges.slot_orders import Orders
from homeostat_inference.edges.slot_process import SlotProcess, Told
from homeostat_inference.edges.slot_succession import Succession
from homeostat_inference.edges.slot_watch import (
    DEAD,
    LEAVING,
    READY,
    STARTING,
    Blame,
    SlotWatch,
)
from homeostat_kit.logs import get_logger

# After so many starts in a row that failed nobody waits for the next one.
_FAILED_STARTS = 2
log = get_logger("homeostat_inference.slots")


class WorkerSlot:
    """Keeps one process alive."""

    def __init__(
        self,
        name: str,
        index: int,
        nursery: Nursery,
        orders: Orders,
        *,
        memory_bytes: int,
        may_overlap: bool,
    ) -> None:
        """``name``: as its journal is called. ``memory_bytes``: a process that takes more is
        replaced, and killed where it takes far more. ``may_overlap``: it is replaced by one that
        listens before it has gone."""
        self.name = name
        self.index = index
        self.board = Board.create(name)
        # The worker rings it when the relay sleeps and the journal grew.
        self.bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.state = DEAD
        self.process_id = 0
        self.started_at_us = 0
        self.restart_count = 0
        self.crash_count = 0
        self.failed_loads_count = 0
        self.last_end = ""
        self.memory_bytes = 0
        self.told = Told()
        self.restarts = Restarts()
        self._nursery = nursery
        self._orders = orders
        self.counts = SlotCounts(self.board)
        self._watch = SlotWatch(self, self.board, memory_bytes)
        # Has callers' promises kept in this journal.
        self.marks = SlotMarks(self.send_present)
        self._succession = Succession(
            self, partial(self._spawn, is_successor=True), may_overlap=may_overlap
        )
        self.process: SlotProcess | None = None
        self._killed_for = ""
        self._blames: set[Blame] = set()
        # Since when the present process has been LEAVING.
        self.left_at = 0.0
        # Processes in a row that ended before they were ready.
        self._failed_starts = 0
        # It takes more memory than it may, and a fresh process does not help.
        self.is_swollen = False
        self.is_leaving = False
        self._is_wanted = asyncio.Event()
        self._is_wanted.set()

    @property
    def has_process(self) -> bool:
        """Whether somebody may write its journal now."""
        return self.state != DEAD

    @property
    def is_wanted(self) -> bool:
        """Whether there is to be a process."""
        return self._is_wanted.is_set()

    @property
    def is_ready(self) -> bool:
        """Whether its worker answers."""
        return self.state == READY

    @property
    def is_failing(self) -> bool:
        """Its processes end again and again, or never get ready."""
        return self.restarts.is_looping or self._failed_starts >= _FAILED_STARTS

    @property
    def has_writer(self) -> bool:
        """Whether somebody writes its journal, or will soon."""
        is_written = self.board.committed_end is not None
        return is_written or (self.is_wanted and not self.is_failing)

    def send(self, message: Message) -> None:
        """Nothing if there is no worker; the next one gets plan and health anyway."""
        for each in (self.process, self._succession.successor):
            if each is not None:
                each.control.send(message)

    def send_present(self, message: Message) -> None:
        """Whoever is to follow has no journal yet: nothing to it."""
        if self.process is not None:
            self.process.control.send(message)

    async def live(self, stop: asyncio.Event) -> None:
        """One worker after the other, until ``stop``."""
        while not stop.is_set() and not self.is_leaving:
            await wait_for((self._is_wanted, stop))
            if stop.is_set():
                return
            if not self.is_wanted:
                continue
            try:
                self.counts.begin_life()
                process = self._succession.take() or await self._spawn()
                end = await self._one_life(process)
            except OSError as error:
                end = End(f"no worker could be started: {error}", is_crash=True, blamed=[])
            self.state = DEAD
            if self.is_leaving:
                return
            self.last_end = end.reason
            self.restart_count += 1
            pause = self.restarts.pause(time.monotonic()) if end.is_crash else 0.0
            if pause:
                log.error("worker_restart_waits", slot=self.name, seconds=pause)
                await wait_for((stop,), pause)

    def want(self, is_wanted: bool) -> None:
        """Whether there is to be a process: the shadow's is not always."""
        if is_wanted:
            self._is_wanted.set()
        else:
            self._is_wanted.clear()
            self.let_go()

    async def _spawn(self, *, is_successor: bool = False) -> SlotProcess:
        """A process that prepares itself for the slot."""
        process = await SlotProcess.fork(
            self._nursery,
            {**self._orders.assignment(), "is_successor": is_successor},
            [self.board.descriptor, self.bell, *self._orders.given()],
        )
        self._tell(process)
        process.hearing = self._beside(self._hear(process), "hear", process)
        return process

    def _tell(self, process: SlotProcess) -> None:
        process.tell(TellPlan(self._orders.plan().to_json()), self._orders.health())

    def _beside(
        self, work: Coroutine[Any, Any, None], what: str, process: SlotProcess | None = None
    ) -> "asyncio.Task[None]":
        """Work that nobody waits for: if it fails, so does the process that it is about."""

        def ended(task: "asyncio.Task[None]") -> None:
            if task.cancelled() or task.exception() is None:
                return
            log.error(f"{what}_failed", slot=self.name, exc_info=task.exception())
            if process is not None and not process.is_over:
                if process is self.process:
                    self._killed_for = f"the keeper failed on it ({task.exception()!r})"
                process.child.send_signal(signal.SIGKILL)

        task = asyncio.create_task(work, name=f"{what}-{self.name}")
        task.add_done_callback(ended)
        return task

    async def _one_life(self, process: SlotProcess) -> End:
        self._begin(process)
        # A successor may have missed what was published while it was born.
        self._tell(process)
        process.control.send(Take(self._orders.mark_us()))
        self._orders.heard(self, Applied(self.told.plan_number, self.told.is_complete))
        watching = self._beside(self._watch.watch(process.child), "watch", process)
        try:
            status = await process.child.ended
        finally:
            watching.cancel()
            process.end()
        return self._bury(status)

    def _begin(self, process: SlotProcess) -> None:
        self.process, self.process_id = process, process.child.pid
        self.told = process.told
        self.state = STARTING
        self.started_at_us = time.time_ns() // 1000
        self._killed_for = ""
        self._blames.clear()
        self.marks.may_ask.clear()

    def _bury(self, status: int) -> End:
        """Reads what the dead one left."""
        was_starting = self.state == STARTING
        end = end_of(
            self.board,
            status,
            was_leaving=self.state == LEAVING,
            killed_for=self._killed_for,
            blames=self._blames,
        )
        self.board.set(Word.IS_WRITING, 0)
        self.state = DEAD
        self.process = None
        self.marks.lost()
        if end.is_crash:
            self.crash_count += 1
            self._failed_starts += was_starting
            log.error("worker_died", slot=self.name, pid=self.process_id, reason=end.reason)
            self._orders.crashed(self, end.blamed, end.reason)
        else:
            log.info("worker_left", slot=self.name, pid=self.process_id)
        return end

    async def _hear(self, process: SlotProcess) -> None:
        try:
            while (message := await process.control.receive()) is not None:
                process.note(message)
                if process is self.process:
                    self._orders.heard(self, message)
                    self._heed(message)
        except Garbled as error:
            self._killed_for = f"it said what nobody understands ({error})"
            process.child.send_signal(signal.SIGKILL)

    def _heed(self, message: Message) -> None:
        if isinstance(message, Ready):
            if self.state == STARTING:
                self.state = READY
                self._failed_starts = 0
            self.marks.may_ask.set()
        elif isinstance(message, Failed):
            self.failed_loads_count += 1
        elif isinstance(message, Marked):
            self.marks.heard(message)

    def leave(self) -> None:
        """The server leaves: no worker follows this one."""
        self.is_leaving = True
        self._succession.give_up()
        self.let_go()

    def recycle(self, why: str) -> None:
        """A fresh process prepares itself; then the present one answers what it has, and ends."""
        if self._succession.is_recent:
            self.is_swollen = True
        elif not self._succession.is_under_way:
            log.warning("worker_recycled", slot=self.name, reason=why)
            self._succession.task = self._beside(self._succession.replace(why), "replace")

    def let_go(self, why: str = "", *, is_followed: bool = False) -> None:
        """Asks the present process to answer what it has, and to end."""
        self._killed_for = why or self._killed_for
        if self.state in (STARTING, READY) and self.process is not None:
            self.state = LEAVING
            self.left_at = time.monotonic()
            self.process.control.send(Leave(is_followed))

    def kill(self, why: str, blame: Blame = Blame.NOBODY) -> None:
        """At once."""
        if self.process is not None:
            self._killed_for = why
            self._blames |= {blame} - {Blame.NOBODY}
            self.process.child.send_signal(signal.SIGKILL)
