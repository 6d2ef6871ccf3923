"""The board: what a worker tells without being asked, readable by others and after its death.

A file in memory with a fixed layout of 64-bit words. One process writes each word; a word is
written in one piece, so a reader needs no lock. What takes several words (which rows are running)
has a state word that is set last and cleared first.
"""

import json
import mmap
import os
from dataclasses import dataclass
from typing import Self

from homeostat_inference.domain.fingerprints import Part, fingerprints
from homeostat_inference.edges.board_layout import (
    BATCH_BUCKETS,
    BOARD_BYTES,
    DATA_BYTES,
    HEAD_WORDS,
    IDLE,
    LAYOUT_BYTES,
    MAGIC,
    MODEL_AREAS,
    MODEL_WORDS,
    NAME_BYTES,
    RUN_AREAS,
    RUN_WORDS,
    RUNNING,
    VERSION,
    WORD,
    RunWord,
    Word,
    model_at,
    run_at,
)


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
        board.words[Word.VERSION] = VERSION
        board.words[Word.MAGIC] = MAGIC
        return board

    @classmethod
    def open(cls, descriptor: int) -> Self:
        """One that another process made; ValueError if it is laid out differently."""
        board = cls(descriptor)
        found = tuple(board.words[each] for each in (Word.MAGIC, Word.VERSION, Word.SIZE))
        if found != (MAGIC, VERSION, BOARD_BYTES):
            raise ValueError(f"expected a board of version {VERSION}, got {found}")
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
        for at in range(Word.IS_WRITING, HEAD_WORDS):
            self.words[at] = 0
        for area in range(MODEL_AREAS):
            for at in range(MODEL_WORDS):
                self.words[model_at(area) // WORD + at] = 0
        for area in range(RUN_AREAS):
            self.words[run_at(area) // WORD + RunWord.STATE] = IDLE

    def running(self) -> list[RunningNow]:
        """What runs now, or ran when the worker died."""
        found = (self._running(area) for area in range(RUN_AREAS))
        return [each for each in found if each is not None]

    def _running(self, area: int) -> RunningNow | None:
        at = run_at(area) // WORD
        words = self.words
        if words[at + RunWord.STATE] != RUNNING:
            return None
        sequence = words[at + RunWord.SEQUENCE]
        name = self._text(run_at(area) + RUN_WORDS * WORD, words[at + RunWord.NAME_BYTES])
        found = RunningNow(
            name,
            words[at + RunWord.VERSION],
            words[at + RunWord.STARTED_NS],
            words[at + RunWord.DEADLINE_NS],
            words[at + RunWord.ROWS],
            sequence,
            area,
        )
        is_torn = words[at + RunWord.STATE] != RUNNING or words[at + RunWord.SEQUENCE] != sequence
        return None if is_torn else found

    def fingerprints(self, run: RunningNow) -> list[str]:
        """One per row of a dead worker's run; nothing if the rows were too large to be kept."""
        at = run_at(run.area)
        words, first = self.words, at // WORD
        layout_at = at + RUN_WORDS * WORD + NAME_BYTES
        data_at = layout_at + LAYOUT_BYTES
        size = min(words[first + RunWord.DATA_BYTES], DATA_BYTES)
        try:
            told = json.loads(self._text(layout_at, words[first + RunWord.LAYOUT_BYTES]))
            layout = tuple(Part(int(row_bytes), int(texts)) for row_bytes, texts in told)
        except (ValueError, TypeError):
            return []
        if not size:
            return []
        return fingerprints(layout, run.rows, bytes(self._bytes[data_at : data_at + size]))

    def models(self) -> list[ModelCounts]:
        """What each version has run in this life."""
        return [each for each in map(self.model, range(MODEL_AREAS)) if each is not None]

    def model(self, area: int) -> ModelCounts | None:
        """What is counted in an area; None where nothing is."""
        at = model_at(area) // WORD
        words = self.words
        if not words[at]:
            return None
        name = self._text(model_at(area) + MODEL_WORDS * WORD, words[at + 1])
        return ModelCounts(
            name,
            words[at + 2],
            words[at + 3],
            words[at + 4],
            words[at + 5] / 1e9,
            tuple(words[at + 8 : at + 8 + BATCH_BUCKETS]),
        )

    def _text(self, at: int, size: int) -> str:
        return bytes(self._bytes[at : at + min(size, LAYOUT_BYTES)]).decode(errors="replace")

    def write_text(self, at: int, text: str, limit: int) -> int:
        """Bytes taken, at most ``limit``."""
        data = text.encode()[:limit]
        self._bytes[at : at + len(data)] = data
        return len(data)

    def write_bytes(self, at: int, data: bytes) -> None:
        """As they are."""
        self._bytes[at : at + len(data)] = data
