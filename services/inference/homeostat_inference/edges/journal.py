"""The journal: what was answered, on disk before the answer goes out.

Segment files of records (length, CRC-32, kind, payload). One thread writes: it takes everything
that waits, appends it, makes it durable once, and then tells those who wait. A record's position is
its offset in the concatenation of all segments ever written.
"""

import fcntl
import os
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from homeostat_inference.app.ports import Chain, Done, Kind
from homeostat_inference.domain.errors import NotKept
from homeostat_kit.logs import get_logger

log = get_logger("homeostat_inference.journal")
_HEAD = struct.Struct("<IIB")
_SUFFIX = ".journal"
# A length beyond this is damage, not a record.
MAX_RECORD_BYTES = 1 << 30
# How long records that must be kept wait for space before they are tried again.
_RETRY_SECONDS = 0.2
_LATE_SYNC_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Record:
    """One record and where it stands."""

    position: int
    after: int
    kind: int
    payload: bytes


@dataclass(slots=True)
class Segment:
    """One file of the journal."""

    start: int
    path: Path
    bytes: int
    closed_at: float | None = None

    @property
    def end(self) -> int:
        """The position behind its last record."""
        return self.start + self.bytes


@dataclass(frozen=True, slots=True)
class _Entry:
    frame: bytes
    done: Done | None
    chain: Chain | None
    must: bool


def frame(kind: int, payload: bytes) -> bytes:
    """A record as it stands in the file."""
    crc = zlib.crc32(payload, zlib.crc32(bytes([kind])))
    return _HEAD.pack(len(payload), crc, kind) + payload


def parse(data: bytes, position: int, at: int = 0) -> Iterator[Record]:
    """The whole, undamaged records at the head of ``data``, which begins at ``position``."""
    while at + _HEAD.size <= len(data):
        length, crc, kind = _HEAD.unpack_from(data, at)
        start = at + _HEAD.size
        end = start + length
        if end > len(data) or kind == 0 or length > MAX_RECORD_BYTES:
            return
        payload = data[start:end]
        if zlib.crc32(payload, zlib.crc32(bytes([kind]))) != crc:
            return
        yield Record(position + at, position + end, kind, payload)
        at = end


class JournalInUse(Exception):
    """Two processes were given one journal folder."""


class DamagedJournal(Exception):
    """A segment that is not the last one holds a record that can't be read."""


class Journal:
    """Appends in order, in groups. Use as a context manager; one process per folder."""

    def __init__(
        self,
        folder: Path,
        *,
        segment_bytes: int,
        quota_bytes: int,
        is_durable: bool,
        on_growth: Callable[[], None] = lambda: None,
    ) -> None:
        """``is_durable``: fdatasync before anybody hears that a record is kept.
        ``on_growth`` is called, from the writing thread, after the journal grew."""
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._quota_bytes = quota_bytes
        self._is_durable = is_durable
        self.on_growth = on_growth
        # Called if the writing thread dies of a bug: nothing can be answered any longer.
        self.on_failure: Callable[[], None] = lambda: None
        self.segments: list[Segment] = []
        self.groups_count = 0
        self.records_count = 0
        self.refused_count = 0
        # Taken and neither kept nor refused so far.
        self.unsettled_count = 0
        self._pending: list[_Entry] = []
        self._owed: list[_Entry] = []
        self._changed = threading.Condition()
        self._is_closing = False
        self._file = -1
        self._lock_file = -1
        self._synced_at = 0.0

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock_file = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock_file)
            raise JournalInUse(f"another process writes the journal in {self._folder}") from None
        self.segments = _found(self._folder)
        if self.segments:
            _cut_torn_tail(self.segments[-1])
            self._file = os.open(self.segments[-1].path, os.O_WRONLY | os.O_APPEND)
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join(timeout=5.0)
        if self._file >= 0:
            os.close(self._file)
        os.close(self._lock_file)

    @property
    def start(self) -> int:
        """The oldest position that is still there."""
        return self.segments[0].start if self.segments else 0

    @property
    def end(self) -> int:
        """The position behind the last record; everything before may be read."""
        return self.segments[-1].end if self.segments else 0

    @property
    def size_bytes(self) -> int:
        """The size of all segments."""
        return sum(each.bytes for each in self.segments)

    def append(
        self,
        kind: Kind,
        payload: bytes,
        *,
        done: Done | None = None,
        chain: Chain | None = None,
        must: bool = False,
    ) -> None:
        """Takes the record; returns at once. ``must``: tried again until it is kept."""
        entry = _Entry(frame(kind, payload), done, chain, must)
        with self._changed:
            self._pending.append(entry)
            self.unsettled_count += 1
            self._changed.notify()

    def read(self, position: int, max_bytes: int) -> list[Record]:
        """Records from ``position`` on, of one segment, at least one if there is one."""
        for segment in list(self.segments):
            if segment.start <= position < segment.end:
                return _read(segment, position, max_bytes)
        return []

    def read_behind_damage(self, position: int, max_bytes: int) -> list[Record]:
        """Records from the segment behind the one that holds ``position``."""
        for segment in list(self.segments):
            if segment.start <= position < segment.end:
                return self.read(segment.end, max_bytes)
        return []

    def drop(self, segment: Segment) -> None:
        """Forgets the oldest segment."""
        if segment is not self.segments[0] or len(self.segments) == 1:
            raise ValueError(
                "only the oldest segment can be dropped, and not the one being written"
            )
        segment.path.unlink(missing_ok=True)
        self.segments.pop(0)

    def _run(self) -> None:
        try:
            self._loop()
        except Exception:
            log.exception("journal_failed")
            self.on_failure()

    def _loop(self) -> None:
        while True:
            with self._changed:
                while not self._pending and not self._is_closing:
                    if not self._changed.wait(_RETRY_SECONDS if self._owed else None):
                        break
                group, self._pending = self._pending, []
                before = len(self._owed) + len(group)
                if not before and self._is_closing:
                    return
                is_last = self._is_closing
            error = self._pay_owed()
            if error is None:
                self._keep(group)
            else:
                self._lose(group, error)
            with self._changed:
                self.unsettled_count -= before - len(self._owed)
            if is_last and self._owed:
                return

    def _pay_owed(self) -> Exception | None:
        """What must be kept, alone: neither does the quota hold it up, nor does it heap up."""
        owed = [each for each in self._owed if not _is_refused(each)]
        error = self._written(owed) if owed else None
        self._owed = [] if error is None else owed
        if error is None and owed:
            _tell(owed, None)
            self.on_growth()
        return error

    def _keep(self, group: list[_Entry]) -> None:
        lost = [each for each in group if _is_refused(each)]
        if lost:
            group = [each for each in group if not _is_refused(each)]
            _tell(lost, NotKept("a record before this one could not be kept; try again"))
        error = self._written(group) if group else None
        if error is None:
            for each in group:
                if each.chain is not None:
                    each.chain.has_kept = True
            _tell(group, None)
            if group:
                self.on_growth()
            self._sync_late()
            return
        self._lose(group, error)

    def _lose(self, group: list[_Entry], error: Exception) -> None:
        self.refused_count += len(group)
        for each in group:
            if each.chain is not None and not each.must:
                each.chain.is_broken = True
        self._owed += [each for each in group if each.must and not _is_refused(each)]
        _tell([each for each in group if not each.must], error)

    def _written(self, group: list[_Entry]) -> Exception | None:
        data = b"".join(each.frame for each in group)
        if self.size_bytes + len(data) > self._quota_bytes and not all(each.must for each in group):
            return NotKept(
                f"the journal holds {self.size_bytes} bytes and may hold {self._quota_bytes}: "
                "the broker or the ledger is away; try again later"
            )
        try:
            segment = self._segment_for(len(data))
            self._write(segment, data)
        except OSError as error:
            return NotKept(f"the journal could not be written: {error.strerror}; try again later")
        self.groups_count += 1
        self.records_count += len(group)
        return None

    def _write(self, segment: Segment, data: bytes) -> None:
        """All of it or nothing: a short write (a full disk raises nothing) is cut off again."""
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._file, view) :]
            if self._is_durable:
                os.fdatasync(self._file)
        except OSError:
            os.ftruncate(self._file, segment.bytes)
            raise
        segment.bytes += len(data)

    def _sync_late(self) -> None:
        """Without durable answers, a loss of power may cost this long of them, and no more."""
        now = time.monotonic()
        if not self._is_durable and now - self._synced_at > _LATE_SYNC_SECONDS and self._file >= 0:
            os.fdatasync(self._file)
            self._synced_at = now

    def _segment_for(self, incoming: int) -> Segment:
        last = self.segments[-1] if self.segments else None
        if last is not None and (last.bytes == 0 or last.bytes + incoming <= self._segment_bytes):
            return last
        start = self.end
        path = self._folder / f"{start:020d}{_SUFFIX}"
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_TRUNC, 0o600)
        _sync_folder(self._folder)
        if last is not None:
            last.closed_at = time.time()
            if not self._is_durable:
                os.fdatasync(self._file)
            os.close(self._file)
        self._file = file
        self.segments.append(Segment(start, path, 0))
        return self.segments[-1]


def _is_refused(entry: _Entry) -> bool:
    return entry.chain is not None and entry.chain.refuses(entry.must)


def _tell(entries: list[_Entry], error: Exception | None) -> None:
    for each in entries:
        if each.done is None:
            continue
        try:
            each.done(error)
        except Exception:
            # One caller's answer must not end the thread that everybody's answers wait for.
            log.exception("answer_failed")


def _found(folder: Path) -> list[Segment]:
    paths = sorted(folder.glob(f"*{_SUFFIX}"))
    segments = [Segment(int(each.stem), each, each.stat().st_size) for each in paths]
    for each in segments[:-1]:
        each.closed_at = each.path.stat().st_mtime
    return segments


def _cut_torn_tail(segment: Segment) -> None:
    """Cuts what was being written when the process died; it was never answered."""
    end = segment.start
    for record in parse(segment.path.read_bytes(), segment.start):
        end = record.after
    if end < segment.end:
        os.truncate(segment.path, end - segment.start)
        segment.bytes = end - segment.start


def _read(segment: Segment, position: int, max_bytes: int) -> list[Record]:
    with segment.path.open("rb") as file:
        file.seek(position - segment.start)
        data = file.read(min(max_bytes, segment.end - position))
        records = list(parse(data, position))
        if not records and position < segment.end:
            file.seek(position - segment.start)
            records = list(parse(file.read(segment.end - position), position))
    if not records:
        raise DamagedJournal(f"{segment.path.name} can't be read at {position - segment.start}")
    return records


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
