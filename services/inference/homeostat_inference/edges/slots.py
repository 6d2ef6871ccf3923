"""One slot of the server: the process that has it, and what is known of it after its death.

A slot is a worker's, or the shadow's.
"""

import asyncio
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from homeostat_inference.app.plan import ServingPlan
from homeostat_inference.app.supervising import DeadRun, Restarts, end_reason
from homeostat_inference.edges.board import BATCH_BUCKETS, Board, ModelCounts, Word
from homeostat_inference.edges.control import (
    Applied,
    AskMark,
    Control,
    Dropped,
    Failed,
    Garbled,
    Leave,
    Loaded,
    Marked,
    Message,
    Prepared,
    Ready,
    Take,
    TellHealth,
    TellPlan,
)
from homeostat_inference.edges.nursery import Child, Nursery, NurseryDied
from homeostat_kit.logs import get_logger

_LOOK_SECONDS = 0.1
# So many times what it may take, a process is not asked to leave: it is ended.
_KILL_FACTOR = 1.5
# A run that had only just begun is not what filled the memory.
_BLAMED_NS = 50_000_000
# A worker without a sign of life for so long is killed; its machine may be busy.
_SILENCE_SECONDS = 10.0
# So long after its deadline a run must have ended.
_OVERDUE_SECONDS = 1.0
_START_SECONDS = 120.0
# After so many starts in a row that failed nobody waits for the next one.
_FAILED_STARTS = 2
# So long after a replacement, done or failed, there is no other: what models need is not less in a
# fresh process.
_REPLACE_SECONDS = 60.0
# For answering what it has and for closing its journal.
_LEAVE_SECONDS = 6.0
# Counters that go on from one life to the next.
COUNTERS = (
    Word.REQUESTS,
    Word.ROWS,
    Word.REFUSED,
    Word.FAILED,
    Word.RUNS,
    Word.RUN_NS,
    Word.JOURNAL_RECORDS,
    Word.JOURNAL_GROUPS,
    Word.JOURNAL_REFUSED,
    Word.LOADS,
    Word.QUEUE_NS,
    Word.SAMPLED_OUT,
    Word.SHED,
    Word.OVERDUE,
    Word.HELD_BACK,
    Word.DISK_ERRORS,
    Word.SHADOW_SKIPPED_ROWS,
    Word.JOURNAL_CUT_BYTES,
)
STARTING, READY, LEAVING, DEAD = "starting", "ready", "leaving", "dead"
log = get_logger("homeostat_inference.slots")


@dataclass(frozen=True, slots=True)
class Orders:
    """What a slot asks of whoever runs the server."""

    # What callers have promised.
    mark_us: Callable[[], int | None]
    # What the nursery is told for a new process, and what it is given besides its own.
    assignment: Callable[[], dict[str, Any]]
    given: Callable[[], list[int]]
    plan: Callable[[], ServingPlan]
    health: Callable[[], TellHealth]
    # Called with what a worker said, before the slot itself heeds it.
    heard: Callable[["WorkerSlot", Message], None]
    # Called after a worker's end that nobody wanted: what ran, and the reason.
    crashed: Callable[["WorkerSlot", list[DeadRun], str], None]


@dataclass(slots=True)
class Told:
    """What the present worker has said so far."""

    port: int = 0
    plan_number: int = -1
    is_complete: bool = False
    loaded: dict[tuple[str, int], Loaded] = field(default_factory=dict)
    failed: dict[tuple[str, int], str] = field(default_factory=dict)


class _Process:
    """A process that the slot has, or is to have."""

    def __init__(self, child: Child, control: Control) -> None:
        self.child = child
        self.control = control
        self.told = Told()
        self.prepared = asyncio.Event()
        self.hearing: asyncio.Task[None] | None = None
        self.is_over = False
        self._told_plan: TellPlan | None = None
        self._told_health: TellHealth | None = None

    def tell(self, plan: TellPlan, health: TellHealth) -> None:
        """What it is to serve, and how the server is; nothing if it knows."""
        if plan != self._told_plan:
            self._told_plan = plan
            self.control.send(plan)
        if health != self._told_health:
            self._told_health = health
            self.control.send(health)

    def note(self, message: Message) -> None:
        """Remembers what it said."""
        match message:
            case Prepared():
                self.prepared.set()
            case Ready(port, _):
                self.told.port = port
            case Loaded(model_name, version):
                self.told.loaded[model_name, version] = message
                self.told.failed.pop((model_name, version), None)
            case Dropped(model_name, version):
                self.told.loaded.pop((model_name, version), None)
            case Failed(model_name, version, error):
                self.told.failed[model_name, version] = error
            case Applied(number, is_complete):
                self.told.plan_number = number
                self.told.is_complete = is_complete
            case _:
                pass

    async def gets_ready(self, seconds: float) -> bool:
        """Waits until it is prepared; False if it ended before, or takes longer."""
        preparing = asyncio.ensure_future(self.prepared.wait())
        await asyncio.wait(
            (preparing, self.child.ended), timeout=seconds, return_when=asyncio.FIRST_COMPLETED
        )
        preparing.cancel()
        return self.prepared.is_set() and not self.child.ended.done()

    def end(self) -> None:
        """It has ended, or is to be forgotten."""
        self.is_over = True
        if self.hearing is not None:
            self.hearing.cancel()
        self.control.close()
        os.close(self.child.descriptor)


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
        self._memory_limit = memory_bytes
        self._may_overlap = may_overlap
        self._process: _Process | None = None
        # Prepares itself while the one before is still there.
        self._successor: _Process | None = None
        self._replacing: asyncio.Task[None] | None = None
        self._killed_for = ""
        self._is_overweight = False
        self._is_hung = False
        # Processes in a row that ended before they were ready.
        self._failed_starts = 0
        self._replaced_at = -_REPLACE_SECONDS
        # It takes more memory than it may, and a fresh process does not help.
        self.is_swollen = False
        self._is_leaving = False
        self._totals: Counter[Word] = Counter()
        self._models: dict[tuple[str, int], ModelCounts] = {}
        self._marks: dict[int, asyncio.Future[str]] = {}
        self._mark_number = 0
        self._became_ready = asyncio.Event()
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

    def count(self, word: Word) -> int:
        """A counter over all lives of the slot's workers."""
        return self._totals[word] + self.board.get(word)

    def models(self) -> dict[tuple[str, int], ModelCounts]:
        """What each version has run, over all lives."""
        found = dict(self._models)
        for each in self.board.models():
            key = (each.model_name, each.version)
            found[key] = _sum(found[key], each) if key in found else each
        return found

    def send(self, message: Message) -> None:
        """Nothing if there is no worker; the next one gets plan and health anyway."""
        for each in (self._process, self._successor):
            if each is not None:
                each.control.send(message)

    async def live(self, stop: asyncio.Event) -> None:
        """One worker after the other, until ``stop``."""
        while not stop.is_set() and not self._is_leaving:
            if not await self._wanted(stop):
                return
            try:
                self._clear_board()
                process, self._successor = self._successor or await self._spawn(), None
                reason, is_crash = await self._one_life(process)
            except OSError as error:
                reason, is_crash = f"no worker could be started: {error}", True
            self.state = DEAD
            if self._is_leaving:
                return
            self.last_end = reason
            self.restart_count += 1
            pause = self.restarts.pause(time.monotonic()) if is_crash else 0.0
            if pause:
                log.error("worker_restart_waits", slot=self.name, seconds=pause)
                try:
                    async with asyncio.timeout(pause):
                        await stop.wait()
                except TimeoutError:
                    continue

    def want(self, is_wanted: bool) -> None:
        """Whether there is to be a process: the shadow's is not always."""
        if is_wanted:
            self._is_wanted.set()
        else:
            self._is_wanted.clear()
            self._let_go()

    async def _wanted(self, stop: asyncio.Event) -> bool:
        """Waits until a process is wanted; False if ``stop`` came first."""
        waits = [asyncio.ensure_future(each.wait()) for each in (self._is_wanted, stop)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()
        return self._is_wanted.is_set() and not stop.is_set()

    async def _spawn(self, *, is_successor: bool = False) -> "_Process":
        """A process that prepares itself for the slot."""
        ours, theirs = socket.socketpair()
        try:
            child = await self._nursery.fork(
                {**self._orders.assignment(), "is_successor": is_successor},
                [theirs.fileno(), self.board.descriptor, self.bell, *self._orders.given()],
            )
        except (OSError, NurseryDied):
            ours.close()
            raise
        finally:
            theirs.close()
        process = _Process(child, await Control.over(ours))
        self._tell(process)
        process.hearing = self._beside(self._hear(process), "hear", process)
        return process

    def _tell(self, process: "_Process") -> None:
        process.tell(TellPlan(self._orders.plan().to_json()), self._orders.health())

    def _beside(
        self, work: Coroutine[Any, Any, None], what: str, process: "_Process | None" = None
    ) -> "asyncio.Task[None]":
        """Work that nobody waits for: if it fails, so does the process that it is about."""

        def ended(task: "asyncio.Task[None]") -> None:
            if task.cancelled() or task.exception() is None:
                return
            log.error(f"{what}_failed", slot=self.name, exc_info=task.exception())
            if process is not None and not process.is_over:
                if process is self._process:
                    self._killed_for = f"the keeper failed on it ({task.exception()!r})"
                process.child.send_signal(signal.SIGKILL)

        task = asyncio.create_task(work, name=f"{what}-{self.name}")
        task.add_done_callback(ended)
        return task

    async def _one_life(self, process: "_Process") -> tuple[str, bool]:
        self._begin(process)
        # A successor may have missed what was published while it was born.
        self._tell(process)
        process.control.send(Take(self._orders.mark_us()))
        self._orders.heard(self, Applied(self.told.plan_number, self.told.is_complete))
        watching = self._beside(self._watch(process.child), "watch", process)
        try:
            status = await process.child.ended
        finally:
            watching.cancel()
            process.end()
        return self._bury(process, status)

    def _clear_board(self) -> None:
        for word in COUNTERS:
            self._totals[word] += self.board.get(word)
        self._models = self.models()
        self.board.begin_life()

    def _begin(self, process: "_Process") -> None:
        self._process, self.process_id = process, process.child.pid
        self.told = process.told
        self.state = STARTING
        self.started_at_us = time.time_ns() // 1000
        self._killed_for = ""
        self._is_overweight = self._is_hung = False
        self._became_ready.clear()

    def _bury(self, process: "_Process", status: int) -> tuple[str, bool]:
        """Reads what the dead one left; how it ended, and whether that was a crash."""
        runs = [
            DeadRun(each.model_name, each.version, each.rows, tuple(self.board.fingerprints(each)))
            for each in self.board.running()
            if not self._is_overweight or time.monotonic_ns() - each.started_ns > _BLAMED_NS
        ]
        self.board.set(Word.IS_WRITING, 0)
        was_starting, was_leaving = self.state == STARTING, self.state == LEAVING
        self.state = DEAD
        self._process = None
        self._became_ready.clear()
        for each in self._marks.values():
            if not each.done():
                each.set_exception(ConnectionError("the worker ended"))
        self._marks.clear()
        is_crash = not (was_leaving and status == 0)
        reason = end_reason(status, runs if is_crash else [], self._killed_for)
        if is_crash:
            self.crash_count += 1
            self._failed_starts += was_starting
            log.error("worker_died", slot=self.name, pid=self.process_id, reason=reason)
            self._orders.crashed(self, runs if self._is_blamed(status) else [], reason)
        else:
            log.info("worker_left", slot=self.name, pid=self.process_id)
            reason = self._killed_for or reason
        return reason, is_crash

    def _is_blamed(self, status: int) -> bool:
        """Whether what ran may have ended it. Whoever kills it from outside (an operator, a system
        short of memory) or because it starts or leaves too slowly, says nothing of what ran."""
        if self._killed_for:
            return self._is_hung or self._is_overweight
        return status & 0x7F not in (signal.SIGKILL, signal.SIGTERM)

    async def _hear(self, process: "_Process") -> None:
        try:
            while (message := await process.control.receive()) is not None:
                process.note(message)
                if process is self._process:
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
            self._became_ready.set()
        elif isinstance(message, Failed):
            self.failed_loads_count += 1
        elif isinstance(message, Marked):
            waiting = self._marks.pop(message.number, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(message.error)

    async def mark(self, mark_us: int) -> str:
        """Has a caller's promise kept in this journal; why it was not, or nothing. While there is
        no worker it waits for the next one."""
        while True:
            await self._became_ready.wait()
            self._mark_number += 1
            number = self._mark_number
            waiting: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            self._marks[number] = waiting
            if self._process is not None:
                # Whoever is to follow it has no journal yet.
                self._process.control.send(AskMark(number, mark_us))
            try:
                return await waiting
            except ConnectionError:
                # Its end was told of: the next one is waited for.
                continue
            finally:
                self._marks.pop(number, None)

    def leave(self) -> None:
        """The server leaves: no worker follows this one."""
        self._is_leaving = True
        if self._successor is not None:
            self._successor.child.send_signal(signal.SIGKILL)
        self._let_go()

    def recycle(self, why: str) -> None:
        """A fresh process prepares itself; then the present one answers what it has, and ends."""
        if time.monotonic() - self._replaced_at < _REPLACE_SECONDS:
            self.is_swollen = True
        elif self._replacing is None or self._replacing.done():
            log.warning("worker_recycled", slot=self.name, reason=why)
            self._replacing = self._beside(self._replace(why), "replace")

    async def _replace(self, why: str) -> None:
        before = self._process
        successor = await self._raise_successor() if self._may_overlap else None
        self._replaced_at = time.monotonic()
        if self._may_overlap and successor is None:
            # The present one goes on: it is all there is.
            self.is_swollen = True
            return
        if self._process is not before or self._is_leaving or before is None:
            # It died in the meantime; the next one is on its way already.
            if successor is not None:
                successor.child.send_signal(signal.SIGKILL)
                successor.end()
            return
        self._successor = successor
        self._killed_for = why
        self._let_go(is_followed=successor is not None)

    async def _raise_successor(self) -> "_Process | None":
        """One that is prepared; None if it can't be had."""
        try:
            successor = await self._spawn(is_successor=True)
        except (OSError, NurseryDied) as error:
            log.error("successor_failed", slot=self.name, reason=repr(error))
            return None
        if await successor.gets_ready(_START_SECONDS):
            return successor
        log.error("successor_failed", slot=self.name, reason="it ended, or was not ready in time")
        successor.child.send_signal(signal.SIGKILL)
        successor.end()
        return None

    def _let_go(self, *, is_followed: bool = False) -> None:
        if self.state in (STARTING, READY) and self._process is not None:
            self.state = LEAVING
            self._left_at = time.monotonic()
            self._process.control.send(Leave(is_followed))

    _left_at = 0.0

    def kill(self, why: str) -> None:
        """At once."""
        if self._process is not None:
            self._killed_for = why
            self._process.child.send_signal(signal.SIGKILL)

    async def _watch(self, child: Child) -> None:
        began = time.monotonic()
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            self._look(time.monotonic_ns(), began)
            self._weigh(_resident_bytes(child.pid))

    def _weigh(self, memory_bytes: int) -> None:
        """Messages that are still coming in count too, and no process can refuse those: whoever
        sends them may not be known yet. So it is not asked to end where it grows fast."""
        self.memory_bytes = memory_bytes
        why = f"it held {memory_bytes >> 20} MiB, {self._memory_limit >> 20} MiB are allowed"
        if memory_bytes > self._memory_limit * _KILL_FACTOR:
            self._is_overweight = True
            self.kill(why)
        elif memory_bytes <= self._memory_limit:
            self.is_swollen = False
        elif self.state == READY:
            self.recycle(why)

    def _look(self, now_ns: int, began: float) -> None:
        if self.state == STARTING and time.monotonic() - began > _START_SECONDS:
            self.kill(f"it was not ready after {_START_SECONDS:.0f} s")
        if self.state == LEAVING and time.monotonic() - self._left_at > _LEAVE_SECONDS:
            self.kill(f"it did not leave within {_LEAVE_SECONDS:.0f} s")
        silent_ns = now_ns - (self.board.get(Word.HEARTBEAT_NS) or now_ns)
        if silent_ns > _SILENCE_SECONDS * 1e9:
            self.kill(f"it showed no sign of life for {silent_ns / 1e9:.0f} s")
        for run in self.board.running():
            if run.deadline_ns and now_ns - run.deadline_ns > _OVERDUE_SECONDS * 1e9:
                self._is_hung = True
                self.kill(f"a run did not end {_OVERDUE_SECONDS:.0f} s after its deadline")


def _resident_bytes(process_id: int) -> int:
    try:
        pages = int(Path(f"/proc/{process_id}/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGESIZE")


def _sum(one: ModelCounts, other: ModelCounts) -> ModelCounts:
    return ModelCounts(
        one.model_name,
        one.version,
        one.runs + other.runs,
        one.rows + other.rows,
        one.run_seconds + other.run_seconds,
        tuple(one.batch_rows[at] + other.batch_rows[at] for at in range(BATCH_BUCKETS)),
    )
