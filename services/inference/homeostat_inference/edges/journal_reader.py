"""Reading a journal, from the process that writes it or from another one."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from homeostat_inference.edges.journal_format import (
    HEAD,
    SPARE_FOLDER,
    Record,
    end_of_records,
    found_starts,
    parse,
    segment_path,
)
from homeostat_kit.logs import get_logger

log = get_logger("homeostat_inference.journal")
# Files left for the writer; more only take space.
_SPARES = 2
# Within this time a folder may change twice and bear the same time.
_SAME_TIME_NS = 100_000_000


@dataclass(frozen=True, slots=True)
class Segment:
    """One file of the journal, as it was when it was looked at."""

    start: int
    # Behind its last record; of the newest one, as far as may be read.
    end: int
    path: Path
    # Seconds since the Unix epoch; None while it may still be written.
    closed_at: float | None


@dataclass(frozen=True, slots=True)
class Chunk:
    """Records in order, and where to go on reading."""

    records: list[Record]
    # Behind the last record, or behind the gap or the damage that stood at the position asked for.
    after: int
    # What could not be read on the way: damaged, or forgotten by now.
    lost_bytes: int = 0


class JournalReader:
    """Any number of readers may read one folder; exactly one of them may `recycle`."""

    def __init__(self, folder: Path, committed: Callable[[], int | None]) -> None:
        """``committed``: up to where records are kept, as the living writer tells; None if there
        is no writer: then the newest file is read up to its last whole record. A folder that does
        not exist is an empty journal."""
        self._folder = folder
        self._committed = committed
        # The last file that was scanned for its end: its start, size and time, and the end.
        self._scanned: tuple[tuple[int, int, int], int] | None = None
        # When the folder had changed last as its segments were listed, and where they begin.
        self._listed: tuple[int, list[int]] | None = None

    def segments(self) -> list[Segment]:
        """What is there, oldest first; the newest one may still be written."""
        has_writer = self._committed() is not None
        spans = self._spans()
        found = []
        for index, (start, end) in enumerate(spans):
            path = segment_path(self._folder, start)
            is_open = has_writer and index == len(spans) - 1
            try:
                found.append(Segment(start, end, path, None if is_open else path.stat().st_mtime))
            except FileNotFoundError:
                continue
        return found

    @property
    def start(self) -> int:
        """The oldest position that is there; the end if there is nothing."""
        starts = self._starts()
        return starts[0] if starts else self._committed() or 0

    @property
    def end(self) -> int:
        """Everything before may be read."""
        spans = self._spans()
        return spans[-1][1] if spans else self._committed() or 0

    def read(self, position: int, max_bytes: int) -> Chunk:
        """Records from ``position`` on, of one segment, at least one if there is one. A chunk
        without records whose ``after`` is ``position`` says that there is nothing more so far."""
        for start, end in self._spans():
            if position < start:
                # What stood there was forgotten, or its file is gone.
                chunk = self._read(start, start, end, max_bytes)
                return Chunk(chunk.records, chunk.after, start - position + chunk.lost_bytes)
            if position < end:
                return self._read(start, position, end, max_bytes)
        return Chunk([], position)

    def recycle(self, segment: Segment, *, is_over: bool = False) -> None:
        """Forgets the oldest segment; its file is left to the writer to be written again.
        ValueError if it isn't the oldest, or is the newest. ``is_over``: there will be no writer;
        then the file is removed, even if it is the newest one."""
        starts = found_starts(self._folder)
        if not starts or segment.start != starts[0] or (len(starts) < 2 and not is_over):
            raise ValueError("only the oldest segment can be forgotten, and not the newest one")
        if is_over:
            segment.path.unlink()
            return
        spare = self._folder / SPARE_FOLDER
        spare.mkdir(exist_ok=True)
        if len(list(spare.iterdir())) < _SPARES:
            segment.path.rename(spare / segment.path.name)
        else:
            segment.path.unlink()

    def _spans(self) -> list[tuple[int, int]]:
        # Asked first: what is committed later may stand in a file that is not listed yet.
        committed = self._committed()
        starts = self._starts()
        if not starts:
            return []
        newest = starts[-1]
        end = self._scanned_end(newest) if committed is None else max(newest, committed)
        ends = [min(each, end) for each in starts[1:]]
        return list(zip(starts, [*ends, end], strict=True))

    def _starts(self) -> list[int]:
        """Asking a folder whether it has changed costs less than listing it."""
        try:
            changed_ns = self._folder.stat().st_mtime_ns
        except FileNotFoundError:
            return []
        listed = self._listed
        if listed is not None and listed[0] == changed_ns:
            return listed[1]
        now_ns = time.time_ns()
        starts = found_starts(self._folder)
        self._listed = (changed_ns, starts) if now_ns - changed_ns > _SAME_TIME_NS else None
        return starts

    def _scanned_end(self, start: int) -> int:
        path = segment_path(self._folder, start)
        try:
            status = path.stat()
            key = start, status.st_size, status.st_mtime_ns
            if self._scanned is None or self._scanned[0] != key:
                self._scanned = key, end_of_records(path.read_bytes(), start)[0]
        except FileNotFoundError:
            return start
        return self._scanned[1]

    def _read(self, start: int, position: int, end: int, max_bytes: int) -> Chunk:
        try:
            records = self._records(start, position, min(end, position + max_bytes))
            if not records:
                # One that is larger alone, or damage.
                after = position + self._record_bytes(start, position)
                records = self._records(start, position, min(end, after))
        except FileNotFoundError:
            records = []
        if records:
            return Chunk(records, records[-1].after)
        if position < end:
            log.error("journal_damaged", position=position, bytes=end - position)
        return Chunk([], end, end - position)

    def _record_bytes(self, start: int, position: int) -> int:
        file = os.open(segment_path(self._folder, start), os.O_RDONLY)
        try:
            head = os.pread(file, HEAD.size, position - start)
        finally:
            os.close(file)
        return HEAD.size + (HEAD.unpack(head)[0] if len(head) == HEAD.size else 0)

    def _records(self, start: int, position: int, end: int) -> list[Record]:
        file = os.open(segment_path(self._folder, start), os.O_RDONLY)
        try:
            return list(parse(os.pread(file, end - position, position - start), position))
        finally:
            os.close(file)
