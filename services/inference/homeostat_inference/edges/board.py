"""The board: what a worker tells without being asked, readable by others and after its death.

A file in memory with a fixed layout of 64-bit words. One process writes each word; a word is
written in one piece, so a reader needs no lock. What takes several words (which rows are running)
has a state word that is set last and cleared first.
"""

import enum
import json
import mmap
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

from homeostat_inference.domain.fingerprints import (
    Layout,
    Part,
    fingerprints,
    layout_of,
    packed,
)
from homeostat_inference.domain.schema import Schema
from homeostat_inference.domain.tensors import Array

_MAGIC = 0x6472_616F_6268
_VERSION = 1
_WORD = 8

# Runs that are watched at once; more than that many threads run unseen.
RUN_AREAS = 16
_RUN_WORDS = 16
_NAME_BYTES = 1024
_LAYOUT_BYTES = 32 * 1024
# Larger batches are not kept: who crashed is then known by version only.
_DATA_BYTES = 256 * 1024
_RUN_BYTES = _RUN_WORDS * _WORD + _NAME_BYTES + _LAYOUT_BYTES + _DATA_BYTES

# Versions that are counted one by one.
MODEL_AREAS = 64
# Batch rows 1, 2, 4 ... 4096 and more.
BATCH_BUCKETS = 14
_MODEL_WORDS = 8 + BATCH_BUCKETS
_MODEL_BYTES = _MODEL_WORDS * _WORD + _NAME_BYTES

# Of versions that were swapped out the oldest are forgotten.
_REMEMBERED_SCHEMAS = 256
_HEAD_WORDS = 128
_MODELS_AT = _HEAD_WORDS * _WORD
_RUNS_AT = _MODELS_AT + MODEL_AREAS * _MODEL_BYTES
BOARD_BYTES = _RUNS_AT + RUN_AREAS * _RUN_BYTES


class Word(enum.IntEnum):
    """Words of the head."""

    MAGIC = 0
    VERSION = 1
    SIZE = 2
    # Written by the keeper. The oldest position that the journal still needs, for its quota.
    JOURNAL_START = 8
    # 1 while the relay sleeps until it is woken.
    IS_RELAY_IDLE = 9
    # Written by the worker. 0 until it has opened its journal.
    IS_WRITING = 16
    COMMITTED_END = 17
    HEARTBEAT_NS = 18
    PROCESS_ID = 19
    REQUESTS = 24
    ROWS = 25
    REFUSED = 26
    FAILED = 27
    RUNS = 28
    RUN_NS = 29
    BATCH_ROWS_MAX = 30
    ROWS_IN_HAND = 31
    FETCHING = 32
    JOURNAL_RECORDS = 33
    JOURNAL_GROUPS = 34
    JOURNAL_REFUSED = 35
    JOURNAL_UNSETTLED = 36
    LAST_MARK_US = 37
    LOADS = 38
    QUEUE_NS = 39
    SAMPLED_OUT = 40
    SHED = 41
    OVERDUE = 42
    HELD_BACK = 43
    IS_REFUSING = 44
    # Files of the journal given up because they could not be written any longer.
    DISK_ERRORS = 45
    # Written by the shadow process: rows that a shadow was to repeat and did not.
    SHADOW_SKIPPED_ROWS = 46
    # Left unfinished by the life before, and cut.
    JOURNAL_CUT_BYTES = 47


class _Run(enum.IntEnum):
    """Words of a run's area."""

    STATE = 0
    STARTED_NS = 1
    DEADLINE_NS = 2
    ROWS = 3
    VERSION = 4
    NAME_BYTES = 5
    LAYOUT_BYTES = 6
    # 0 if the rows were too large to be kept.
    DATA_BYTES = 7
    # Rises with each run, so that a reader sees that it read two.
    SEQUENCE = 8


_IDLE, _RUNNING = 0, 1


@dataclass(frozen=True, slots=True)
class RunningNow:
    """A run as the board shows it."""

    model_name: str
    version: int
    started_ns: int
    # Until when it has to have ended, whoever waits for it.
    deadline_ns: int
    rows: int
    sequence: int
    area: int


@dataclass(frozen=True, slots=True)
class ModelCounts:
    """What one version has run, in one life of a worker."""

    model_name: str
    version: int
    runs: int
    rows: int
    run_seconds: float
    # Runs by their rows: up to 1, 2, 4, ... and more.
    batch_rows: tuple[int, ...]


class Board:
    """One slot's board; made by the keeper, opened by the worker through its descriptor."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._map = mmap.mmap(descriptor, BOARD_BYTES)
        self._bytes = memoryview(self._map)
        self.words = self._bytes.cast("Q")

    @classmethod
    def create(cls, name: str) -> Self:
        """An empty one. It lies in memory: no disk that is full can stop its writer."""
        descriptor = os.memfd_create(f"homeostat-{name}", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, BOARD_BYTES)
        board = cls(descriptor)
        board.words[Word.SIZE] = BOARD_BYTES
        board.words[Word.VERSION] = _VERSION
        board.words[Word.MAGIC] = _MAGIC
        return board

    @classmethod
    def open(cls, descriptor: int) -> Self:
        """One that another process made; ValueError if it is laid out differently."""
        board = cls(descriptor)
        found = tuple(board.words[each] for each in (Word.MAGIC, Word.VERSION, Word.SIZE))
        if found != (_MAGIC, _VERSION, BOARD_BYTES):
            raise ValueError(f"expected a board of version {_VERSION}, got {found}")
        return board

    def close(self) -> None:
        """Lets go of the memory."""
        self.words.release()
        self._bytes.release()
        self._map.close()
        os.close(self.descriptor)

    def get(self, word: Word) -> int:
        """What was written last."""
        return self.words[word]

    def set(self, word: Word, value: int) -> None:
        """``value`` is not negative."""
        self.words[word] = value

    @property
    def committed_end(self) -> int | None:
        """Up to where the journal may be read; None while nobody has it open for writing."""
        return self.words[Word.COMMITTED_END] if self.words[Word.IS_WRITING] else None

    def note_committed(self, end: int, bell: int) -> None:
        """The journal is kept up to there; rings where its relay sleeps."""
        self.words[Word.COMMITTED_END] = end
        if self.words[Word.IS_RELAY_IDLE]:
            self.words[Word.IS_RELAY_IDLE] = 0
            os.eventfd_write(bell, 1)

    def begin_life(self) -> None:
        """By the keeper, before a worker takes the slot: nothing of the last one remains."""
        for at in range(Word.IS_WRITING, _HEAD_WORDS):
            self.words[at] = 0
        for area in range(MODEL_AREAS):
            for at in range(_MODEL_WORDS):
                self.words[_model_at(area) // _WORD + at] = 0
        for area in range(RUN_AREAS):
            self.words[_run_at(area) // _WORD + _Run.STATE] = _IDLE

    def running(self) -> list[RunningNow]:
        """What runs now, or ran when the worker died."""
        found = (self._running(area) for area in range(RUN_AREAS))
        return [each for each in found if each is not None]

    def _running(self, area: int) -> RunningNow | None:
        at = _run_at(area) // _WORD
        words = self.words
        if words[at + _Run.STATE] != _RUNNING:
            return None
        sequence = words[at + _Run.SEQUENCE]
        name = self._text(_run_at(area) + _RUN_WORDS * _WORD, words[at + _Run.NAME_BYTES])
        found = RunningNow(
            name,
            words[at + _Run.VERSION],
            words[at + _Run.STARTED_NS],
            words[at + _Run.DEADLINE_NS],
            words[at + _Run.ROWS],
            sequence,
            area,
        )
        is_torn = words[at + _Run.STATE] != _RUNNING or words[at + _Run.SEQUENCE] != sequence
        return None if is_torn else found

    def fingerprints(self, run: RunningNow) -> list[str]:
        """One per row of a dead worker's run; nothing if the rows were too large to be kept."""
        at = _run_at(run.area)
        words, first = self.words, at // _WORD
        layout_at = at + _RUN_WORDS * _WORD + _NAME_BYTES
        data_at = layout_at + _LAYOUT_BYTES
        size = min(words[first + _Run.DATA_BYTES], _DATA_BYTES)
        try:
            told = json.loads(self._text(layout_at, words[first + _Run.LAYOUT_BYTES]))
            layout = tuple(Part(int(row_bytes), int(texts)) for row_bytes, texts in told)
        except (ValueError, TypeError):
            return []
        if not size:
            return []
        return fingerprints(layout, run.rows, bytes(self._bytes[data_at : data_at + size]))

    def models(self) -> list[ModelCounts]:
        """What each version has run in this life."""
        return [each for each in map(self._model, range(MODEL_AREAS)) if each is not None]

    def _model(self, area: int) -> ModelCounts | None:
        at = _model_at(area) // _WORD
        words = self.words
        if not words[at]:
            return None
        name = self._text(_model_at(area) + _MODEL_WORDS * _WORD, words[at + 1])
        return ModelCounts(
            name,
            words[at + 2],
            words[at + 3],
            words[at + 4],
            words[at + 5] / 1e9,
            tuple(words[at + 8 : at + 8 + BATCH_BUCKETS]),
        )

    def _text(self, at: int, size: int) -> str:
        return bytes(self._bytes[at : at + min(size, _LAYOUT_BYTES)]).decode(errors="replace")

    def write_text(self, at: int, text: str, limit: int) -> int:
        """Bytes taken, at most ``limit``."""
        data = text.encode()[:limit]
        self._bytes[at : at + len(data)] = data
        return len(data)

    def write_bytes(self, at: int, data: bytes) -> None:
        """As they are."""
        self._bytes[at : at + len(data)] = data


def _run_at(area: int) -> int:
    return _RUNS_AT + area * _RUN_BYTES


def _model_at(area: int) -> int:
    return _MODELS_AT + area * _MODEL_BYTES


@dataclass(slots=True)
class _Known:
    """A version that this worker has run: where it is counted, how its rows lie."""

    layout: Layout
    layout_text: str
    name: str
    # Of the counters' words; None if all areas are taken.
    counted_at: int | None


class Watched:
    """One area and what ends its run early."""

    __slots__ = ("at", "deadline_ns", "is_overdue", "known", "options", "rows", "started_ns")

    def __init__(self, at: int, options: Any) -> None:
        self.at = at
        self.options = options
        self.known: _Known | None = None
        self.deadline_ns = 0
        self.started_ns = 0
        self.rows = 0
        self.is_overdue = False


class BoardRuns:
    """Shows every run on the board, and ends those that are overdue (app.ports.RunWatch)."""

    def __init__(self, board: Board, new_options: Callable[[], Any], *, limit_ns: int) -> None:
        """``new_options``: makes what the session takes. ``limit_ns``: no run may last longer."""
        self._board = board
        self._new_options = new_options
        self._limit_ns = limit_ns
        self._known: dict[int, tuple[Schema, _Known]] = {}
        self._adding = threading.Lock()
        self._ending = threading.Lock()
        self._free = deque(Watched(_run_at(area), new_options()) for area in range(RUN_AREAS))
        self._all = tuple(self._free)

    def enter(
        self, schema: Schema, deadline_ns: int, arrays: Sequence[Array], rows: int
    ) -> Watched:
        """Takes an area; more runs than areas go unseen by the keeper, and are not ended. The
        keeper sees the limit only: callers' deadlines must not make a version look harmful."""
        now_ns = time.monotonic_ns()
        limit_ns = now_ns + self._limit_ns
        run = self._enter(schema, limit_ns, arrays, rows, now_ns)
        run.deadline_ns = min(deadline_ns, limit_ns)
        return run

    @contextmanager
    def loading(self, schema: Schema, seconds: float) -> Iterator[Watched]:
        """A version is being loaded or warmed, which has so much time: on the board, a run without
        rows."""
        now_ns = time.monotonic_ns()
        run = self._enter(schema, now_ns + round(seconds * 1e9), (), 0, now_ns)
        try:
            yield run
        finally:
            self.exit(run)

    def _enter(
        self, schema: Schema, deadline_ns: int, arrays: Sequence[Array], rows: int, now_ns: int
    ) -> Watched:
        try:
            run = self._free.pop()
        except IndexError:
            return Watched(-1, self._new_options())
        known = self._known.get(id(schema), (None, None))[1] or self._know(schema)
        board, words, at = self._board, self._board.words, run.at // _WORD
        if run.known is not known:
            self._write_head(run, known, schema.version)
        is_kept = 0 < rows * schema.input_row_bytes <= _DATA_BYTES
        data = packed(known.layout, arrays) if is_kept else b""
        if 0 < len(data) <= _DATA_BYTES:
            board.write_bytes(run.at + _RUN_WORDS * _WORD + _NAME_BYTES + _LAYOUT_BYTES, data)
            words[at + 7] = len(data)
        else:
            words[at + 7] = 0
        run.is_overdue = False
        run.started_ns = now_ns
        run.rows = rows
        run.deadline_ns = deadline_ns
        words[at + 1] = now_ns
        words[at + 2] = deadline_ns
        words[at + 3] = rows
        words[at + 8] += 1
        words[at] = _RUNNING
        return run

    def exit(self, run: Any) -> None:
        """Frees the area, and counts."""
        if run.at < 0:
            return
        words = self._board.words
        words[run.at // _WORD] = _IDLE
        counted_at = run.known.counted_at
        if counted_at is not None and run.rows:
            words[counted_at + 3] += 1
            words[counted_at + 4] += run.rows
            words[counted_at + 5] += time.monotonic_ns() - run.started_ns
            bucket = min((max(run.rows, 1) - 1).bit_length(), BATCH_BUCKETS - 1)
            words[counted_at + 8 + bucket] += 1
        with self._ending:
            run.deadline_ns = 0
            if run.is_overdue:
                run.options = self._new_options()
        self._free.append(run)

    def held_back(self, schema: Schema, arrays: Sequence[Array], held: frozenset[str]) -> list[int]:
        """Rows whose fingerprints are among these."""
        layout = layout_of(schema)
        names = fingerprints(layout, len(arrays[0]), packed(layout, arrays))
        found = [row for row, each in enumerate(names) if each in held]
        self._board.words[Word.HELD_BACK] += len(found)
        return found

    def end_overdue(self, now_ns: int) -> int:
        """Tells runs beyond their deadline to end; how many. Called now and then by a thread."""
        count = 0
        for run in self._all:
            # A run that ends in this very moment must not hand its end on to the next.
            with self._ending:
                if 0 < run.deadline_ns < now_ns and not run.is_overdue:
                    run.is_overdue = True
                    run.options.terminate = True
                    count += 1
        return count

    def _know(self, schema: Schema) -> _Known:
        with self._adding:
            layout = layout_of(schema)
            text = json.dumps([[each.row_bytes, each.texts] for each in layout])
            known = _Known(layout, text, schema.model_name, self._count_at(schema))
            # The schema is kept too, so that no other gets its id.
            self._known[id(schema)] = (schema, known)
            if len(self._known) > _REMEMBERED_SCHEMAS:
                del self._known[next(iter(self._known))]
            return known

    def _count_at(self, schema: Schema) -> int | None:
        words = self._board.words
        for area, each in enumerate(map(self._board._model, range(MODEL_AREAS))):
            at = _model_at(area)
            if each is None:
                size = self._board.write_text(
                    at + _MODEL_WORDS * _WORD, schema.model_name, _NAME_BYTES
                )
                words[at // _WORD + 1] = size
                words[at // _WORD + 2] = schema.version
                words[at // _WORD] = 1
                return at // _WORD
            if (each.model_name, each.version) == (schema.model_name, schema.version):
                return at // _WORD
        return None

    def _write_head(self, run: Watched, known: _Known, version: int) -> None:
        board, words, at = self._board, self._board.words, run.at // _WORD
        name_at = run.at + _RUN_WORDS * _WORD
        words[at + _Run.NAME_BYTES] = board.write_text(name_at, known.name, _NAME_BYTES)
        fits = len(known.layout_text) <= _LAYOUT_BYTES
        words[at + _Run.LAYOUT_BYTES] = board.write_text(
            name_at + _NAME_BYTES, known.layout_text if fits else "", _LAYOUT_BYTES
        )
        words[at + _Run.VERSION] = version
        run.known = known
