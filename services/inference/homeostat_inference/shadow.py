"""The shadow process: reads in the workers' journals what they answered, and keeps in its own what
other versions make of it. It answers nobody, and takes only time that nobody else wants."""

import asyncio
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import uvloop

from homeostat.events.v1.prediction_block_pb2 import PredictionBlock
from homeostat_inference.app.plan import ServingPlan
from homeostat_inference.app.ports import Kind
from homeostat_inference.app.records import pack_mark
from homeostat_inference.app.shadowing import Due, Lag, Tail, due_versions, least_promise
from homeostat_inference.app.whole import pack_whole
from homeostat_inference.edges.board import Board
from homeostat_inference.edges.board_layout import Word
from homeostat_inference.edges.board_runs import BoardRuns
from homeostat_inference.edges.control import Control, Leave, Message, Ready, TellPlan
from homeostat_inference.edges.journal_reader import JournalReader
from homeostat_inference.edges.journal_writer import JournalWriter
from homeostat_inference.edges.memory import bound_memory
from homeostat_inference.edges.shadow_models import STUCK_NS, ShadowModels, run_options
from homeostat_inference.edges.shadow_positions import (
    Position,
    load_positions,
    positions_file,
    save_positions,
)
from homeostat_inference.edges.versions import VersionCache
from homeostat_inference.settings import InferenceSettings
from homeostat_kit.clock import SystemClock
from homeostat_kit.logs import get_logger

SLOT = "shadow"
_CHUNK_BYTES = 1024 * 1024
# Work between two looks at what the keeper says and at what is due.
_TURN_SECONDS = 0.02
_BUSY_POLL_SECONDS, _IDLE_POLL_SECONDS = 0.005, 0.05
_BUSY_FOR_SECONDS = 0.5
# Promises by the clock are spelt out so often; a quiet journal's stands on the board.
_MARK_SECONDS = 0.25
_WATCH_SECONDS = 0.025
_DRAIN_SECONDS = 2.0
_LOWEST_PRIORITY = 19
log = get_logger("homeostat_inference.shadow")


def run_shadow(settings: InferenceSettings, told: Mapping[str, Any], given: Sequence[int]) -> int:
    """The life of a forked process. ``given``: control socket, own board, what wakes the relay, and
    the boards of all workers in the order of their slots."""
    control, board, bell, *workers = given
    _yield_to_everybody()
    bound_memory(settings.worker_memory_bytes)
    boards = {f"worker-{slot}": Board.open(each) for slot, each in enumerate(workers)}
    shadow = Shadow(settings, Board.open(board), bell, boards, mark_us=told.get("mark_us"))
    uvloop.run(shadow.run(socket.socket(fileno=control)))
    return 0


def _yield_to_everybody() -> None:
    """Threads started later inherit it."""
    os.nice(_LOWEST_PRIORITY)
    try:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    except OSError as error:
        log.warning("shadow_not_idle_class", reason=str(error))


class Shadow:
    """Holds the parts together; `run` is its whole life."""

    def __init__(
        self,
        settings: InferenceSettings,
        board: Board,
        bell: int,
        boards: Mapping[str, Board],
        *,
        mark_us: int | None,
    ) -> None:
        """``mark_us``: what callers have promised, and all journals have kept, before now."""
        self._settings = settings
        self._board = board
        self._bell = bell
        self._boards = boards
        self._clock = SystemClock()
        self._lag = Lag(round(settings.shadow_lag_seconds * 1e6), settings.shadow_lag_rows)
        self._runs = BoardRuns(board, run_options, limit_ns=STUCK_NS)
        self._readers = {
            slot: JournalReader(_journal_folder(settings, slot), _committed_on(each))
            for slot, each in boards.items()
        }
        self._positions_file = positions_file(settings.data_folder)
        self._saved: dict[str, Position] = {}
        self._marked_us: int | None = None
        self._marked_at = 0.0
        self._grew_at = 0.0
        self._mark_us = mark_us
        self._is_leaving = False
        self._is_over = threading.Event()

    async def run(self, control: socket.socket) -> None:
        """Follows the journals until the keeper says that it is enough, or is gone."""
        self._control = await Control.over(control)
        self._models = ShadowModels(
            cache=VersionCache(self._settings.data_folder / "versions"),
            board=self._board,
            runs=self._runs,
            clock=self._clock,
            run_limit_seconds=self._settings.run_limit_seconds,
            tell=self._control.send,
        )
        self._tails = self._begin()
        first = await self._control.receive()
        if first is None:
            return
        # Before anything is loaded, which may never end.
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        self._obey(first)
        with self._open_journal() as self._journal:
            words = self._board.words
            words[Word.COMMITTED_END] = self._journal.end
            words[Word.PROCESS_ID] = os.getpid()
            words[Word.IS_WRITING] = 1
            self._control.send(Ready(0, 0))
            hearing = asyncio.create_task(self._hear(), name="control")
            await self._follow()
            hearing.cancel()
            self._is_over.set()
        self._end()

    def _begin(self) -> list[Tail]:
        """Where the last life ended; without one, where the journals end now."""
        known = load_positions(self._positions_file)
        tails = []
        for slot, reader in self._readers.items():
            position = known.get(slot)
            if position is None:
                tails.append(Tail(slot, reader.end, self._mark_us))
            else:
                tails.append(Tail(slot, position.floor, position.promised_us))
        return tails

    def _end(self) -> None:
        """What is answered while no model has shadows is no backlog of the next life."""
        self._board.words[Word.IS_WRITING] = 0
        if not self._models.has_shadows:
            self._positions_file.unlink(missing_ok=True)

    def _open_journal(self) -> JournalWriter:
        board = self._board
        return JournalWriter(
            _journal_folder(self._settings, SLOT),
            segment_bytes=self._settings.journal_segment_bytes,
            quota_bytes=self._settings.journal_quota_bytes,
            # Nobody waits for these rows, and a sync would make the workers' syncs wait.
            is_durable=False,
            start=lambda: board.words[Word.JOURNAL_START],
            on_commit=lambda end: board.note_committed(end, self._bell),
        )

    async def _hear(self) -> None:
        while (message := await self._control.receive()) is not None:
            self._obey(message)
        self._is_leaving = True

    def _obey(self, message: Message) -> None:
        match message:
            case TellPlan(plan):
                self._models.take(ServingPlan.from_json(plan))
            case Leave():
                self._is_leaving = True

    async def _follow(self) -> None:
        while not self._is_leaving:
            if self._turn():
                self._grew_at = time.monotonic()
                await asyncio.sleep(0)
            else:
                is_busy = time.monotonic() - self._grew_at < _BUSY_FOR_SECONDS
                await asyncio.sleep(_BUSY_POLL_SECONDS if is_busy else _IDLE_POLL_SECONDS)
        deadline = time.monotonic() + _DRAIN_SECONDS
        while self._turn() and time.monotonic() < deadline:  # noqa: ASYNC110 - work, no waiting
            await asyncio.sleep(0)

    def _turn(self) -> bool:
        """Reads, works for a moment, keeps what was made; False if there was nothing to do."""
        words = self._board.words
        has_read = sum(self._read(each) for each in self._tails) > 0
        has_worked = self._work(time.monotonic() + _TURN_SECONDS)
        self._mark_by_clock()
        self._journal.commit()
        if self._marked_us is not None:
            # Behind the commit: whoever sees it sees every row before it.
            words[Word.LAST_MARK_US] = self._marked_us
        words[Word.JOURNAL_REFUSED] = self._journal.refused_count
        words[Word.DISK_ERRORS] = self._journal.abandoned_count
        words[Word.JOURNAL_CUT_BYTES] = self._journal.cut_bytes
        words[Word.ROWS_IN_HAND] = sum(each.rows for each in self._tails)
        self._save()
        return has_read or has_worked

    def _read(self, tail: Tail) -> bool:
        reader = self._readers[tail.slot]
        before = tail.next
        while not self._lag.is_full(self._tails):
            chunk = reader.read(tail.next, _CHUNK_BYTES)
            if chunk.lost_bytes:
                log.error("journal_not_read", slot=tail.slot, bytes=chunk.lost_bytes)
            if chunk.after == tail.next:
                break
            tail.feed(chunk.records, chunk.after, self._is_due, self._note_damage)
        return tail.next != before

    def _is_due(self, block: PredictionBlock) -> bool:
        return bool(due_versions(self._models.plan, block))

    def _note_damage(self, error: Exception) -> None:
        log.error("journal_record_unreadable", reason=repr(error))

    def _work(self, until: float) -> bool:
        """Takes what is due, the oldest first."""
        has_worked = False
        while time.monotonic() < until:
            for tail in self._tails:
                while (mark := tail.pass_mark()) is not None:
                    if mark.is_callers:
                        self._mark(Kind.CALLER_MARK)
            ready = [(each.first, each) for each in self._tails if each.first is not None]
            if not ready:
                return has_worked
            due, tail = min(ready, key=lambda each: each[0].block.produced_at.ToMicroseconds())
            has_worked = True
            self._repeat(due, self._lag.is_over(self._tails, due, self._clock.now_us()))
            tail.drop_first()
        return has_worked

    def _repeat(self, due: Due, is_late: bool) -> None:
        for version in due_versions(self._models.plan, due.block):
            made = None if is_late else self._models.repeat(due.block, version)
            if made is None:
                self._board.words[Word.SHADOW_SKIPPED_ROWS] += due.rows
                continue
            self._journal.append(
                Kind.BLOCK,
                pack_whole(made, due.traceparent),
                done=lambda error: self._kept(due.rows, error),
            )

    def _kept(self, rows: int, error: Exception | None) -> None:
        words = self._board.words
        if error is None:
            words[Word.ROWS] += rows
        else:
            words[Word.SHADOW_SKIPPED_ROWS] += rows

    def _mark_by_clock(self) -> None:
        if time.monotonic() - self._marked_at >= _MARK_SECONDS:
            self._mark(Kind.CLOCK_MARK)

    def _mark(self, kind: Kind) -> None:
        """Says what all journals have promised whose rows before it are repeated, or given up."""
        promised_us = least_promise(each for each in self._tails if self._counts(each))
        if promised_us is None or (self._marked_us is not None and promised_us <= self._marked_us):
            return
        self._marked_us = promised_us
        self._marked_at = time.monotonic()
        self._journal.append(kind, pack_mark(promised_us))

    def _counts(self, tail: Tail) -> bool:
        """A journal that nobody writes and that has been read to its end promises nothing more."""
        is_done = tail.is_empty and tail.floor >= self._readers[tail.slot].end
        return not is_done or self._boards[tail.slot].committed_end is not None

    def _save(self) -> None:
        now = {each.slot: Position(each.floor, each.promised_us) for each in self._tails}
        if now == self._saved:
            return
        try:
            save_positions(self._positions_file, now)
        except OSError as error:
            # An older position only means that something is done again, under the same ids.
            log.warning("shadow_positions_not_saved", reason=str(error))
        self._saved = now

    def _watch(self) -> None:
        while not self._is_over.wait(_WATCH_SECONDS):
            self._board.words[Word.HEARTBEAT_NS] = time.monotonic_ns()
            self._models.end_overdue()


def _journal_folder(settings: InferenceSettings, slot: str) -> Path:
    return settings.data_folder / slot / "journal"


def _committed_on(board: Board) -> Callable[[], int | None]:
    return lambda: board.committed_end
