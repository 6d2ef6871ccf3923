"""Runs on the board: shown while they last, counted when they end, ended when they are overdue."""

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from homeostat_inference.domain.fingerprints import Layout, fingerprints, layout_of, packed
from homeostat_inference.domain.schema import Schema
from homeostat_inference.domain.tensors import Array
from homeostat_inference.edges.board import Board
from homeostat_inference.edges.board_layout import (
    BATCH_BUCKETS,
    DATA_BYTES,
    IDLE,
    LAYOUT_BYTES,
    MODEL_AREAS,
    MODEL_WORDS,
    NAME_BYTES,
    RUN_AREAS,
    RUN_WORDS,
    RUNNING,
    WORD,
    RunWord,
    Word,
    model_at,
    run_at,
)

# Of versions that were swapped out the oldest are forgotten.
_REMEMBERED_SCHEMAS = 256


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
        self._free = deque(Watched(run_at(area), new_options()) for area in range(RUN_AREAS))
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
        board, words, at = self._board, self._board.words, run.at // WORD
        if run.known is not known:
            self._write_head(run, known, schema.version)
        is_kept = 0 < rows * schema.input_row_bytes <= DATA_BYTES
        data = packed(known.layout, arrays) if is_kept else b""
        if 0 < len(data) <= DATA_BYTES:
            board.write_bytes(run.at + RUN_WORDS * WORD + NAME_BYTES + LAYOUT_BYTES, data)
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
        words[at] = RUNNING
        return run

    def exit(self, run: Any) -> None:
        """Frees the area, and counts."""
        if run.at < 0:
            return
        words = self._board.words
        words[run.at // WORD] = IDLE
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
        for area, each in enumerate(map(self._board.model, range(MODEL_AREAS))):
            at = model_at(area)
            if each is None:
                size = self._board.write_text(
                    at + MODEL_WORDS * WORD, schema.model_name, NAME_BYTES
                )
                words[at // WORD + 1] = size
                words[at // WORD + 2] = schema.version
                words[at // WORD] = 1
                return at // WORD
            if (each.model_name, each.version) == (schema.model_name, schema.version):
                return at // WORD
        return None

    def _write_head(self, run: Watched, known: _Known, version: int) -> None:
        board, words, at = self._board, self._board.words, run.at // WORD
        name_at = run.at + RUN_WORDS * WORD
        words[at + RunWord.NAME_BYTES] = board.write_text(name_at, known.name, NAME_BYTES)
        fits = len(known.layout_text) <= LAYOUT_BYTES
        words[at + RunWord.LAYOUT_BYTES] = board.write_text(
            name_at + NAME_BYTES, known.layout_text if fits else "", LAYOUT_BYTES
        )
        words[at + RunWord.VERSION] = version
        run.known = known
