"""Writing the journal: what was answered, on disk before the answer goes out."""

import fcntl
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from homeostat_inference.app.ports import Chain, Done, Kind
from homeostat_inference.app.records import pack_mark
from homeostat_inference.domain.errors import NotKept
from homeostat_inference.edges.journal_files import FilesAhead, sync_folder
from homeostat_inference.edges.journal_format import (
    TERMINATOR,
    end_of_records,
    found_starts,
    frame,
    segment_path,
)
from homeostat_kit.logs import get_logger

log = get_logger("homeostat_inference.journal")
# How often is looked for what nobody has committed, and synced where answers don't wait for it.
_TICK_SECONDS = 0.1


class JournalInUse(Exception):
    """Two processes were given one journal folder."""


@dataclass(frozen=True, slots=True)
class _Entry:
    kind: Kind
    payload: bytes
    done: Done | None
    chain: Chain | None
    must: bool

    @property
    def is_refused(self) -> bool:
        return self.chain is not None and self.chain.refuses(self.must)


_Told = list[tuple[Done, Exception | None]]


class JournalWriter:
    """The one writer of a folder (it holds a lock on it). Use as a context manager.

    There is no journal thread: whoever has appended calls `commit`, and of several threads that do
    so at once, one writes and syncs for all. A small thread of its own makes the next segment's
    file ahead of time, syncs late where answers don't wait for it, and commits what nobody has.
    """

    def __init__(
        self,
        folder: Path,
        *,
        segment_bytes: int,
        quota_bytes: int,
        is_durable: bool,
        start: Callable[[], int] | None = None,
        on_commit: Callable[[int], None] = lambda end: None,
    ) -> None:
        """``is_durable``: fdatasync before anybody hears that a record is kept; otherwise within
        0.1 s after it. ``start``: the oldest position that is still needed, for the quota; by
        default the oldest that was there at the beginning. ``on_commit`` is called with `end` after
        it grew, from whichever thread committed, before anybody hears that records are kept."""
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._quota_bytes = quota_bytes
        self._is_durable = is_durable
        self._first = 0
        self._oldest = start or (lambda: self._first)
        self.on_commit = on_commit
        self.groups_count = 0
        self.records_count = 0
        self.refused_count = 0
        # Files given up because they could not be written any longer.
        self.abandoned_count = 0
        # What a crash had left unfinished, cut when the journal was opened.
        self.cut_bytes = 0
        self._taken: deque[_Entry] = deque()
        self._owed: list[_Entry] = []
        self._in_commit = 0
        self._committing = threading.Lock()
        self._end = 0
        # The segment being written: no file until the first record comes.
        self._file = -1
        self._used = 0
        self._capacity = 0
        self._is_unsynced = False
        self._files = FilesAhead(folder, segment_bytes)
        self._is_closing = threading.Event()
        self._lock_file = -1

    def __enter__(self) -> Self:
        """Takes the lock (JournalInUse if another process has it) and cuts a torn tail."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock_file = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock_file)
            self._lock_file = -1
            raise JournalInUse(f"another process writes the journal in {self._folder}") from None
        self._recover()
        self._files.wanted.set()
        self._thread = threading.Thread(target=self._look_after, name="journal", daemon=True)
        self._thread.start()
        return self

    def _recover(self) -> None:
        """Goes on behind the last whole record, in a file of its own, and says where that is."""
        starts = found_starts(self._folder)
        if not starts:
            return
        self._first = starts[0]
        path = segment_path(self._folder, starts[-1])
        data = path.read_bytes()
        self._end, torn_bytes = end_of_records(data, starts[-1])
        if torn_bytes:
            self.cut_bytes = torn_bytes
            log.warning("journal_tail_cut", bytes=torn_bytes, position=self._end)
        used = self._end - starts[-1]
        if used:
            os.truncate(path, used)
        else:
            path.unlink()
        # Also behind a file that holds nothing: blocks in those before it may be open.
        self.append(Kind.BEGIN, pack_mark(time.time_ns() // 1000), must=True)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Commits what waits, syncs, lets go of the lock."""
        self.commit()
        self._is_closing.set()
        self._thread.join(timeout=5.0)
        self._sync_late()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        self._files.close()
        with self._committing:
            os.close(self._lock_file)
            self._lock_file = -1

    @property
    def start(self) -> int:
        """The oldest position that counts towards the quota."""
        return self._oldest()

    @property
    def end(self) -> int:
        """The position behind the last record that is kept; readers may read up to it."""
        return self._end

    @property
    def size_bytes(self) -> int:
        """What counts towards the quota."""
        return self._end - self._oldest()

    @property
    def unsettled_count(self) -> int:
        """Records taken and neither kept nor refused so far."""
        return len(self._taken) + self._in_commit + len(self._owed)

    def append(
        self,
        kind: Kind,
        payload: bytes,
        *,
        done: Done | None = None,
        chain: Chain | None = None,
        must: bool = False,
    ) -> None:
        """Takes the record; nothing is written before `commit`. ``must``: owed until it is kept,
        whatever the quota says, and tried before anything else."""
        self._taken.append(_Entry(kind, payload, done, chain, must))

    def commit(self) -> None:
        """Writes everything taken so far, all of it or nothing, and calls each ``done``: with None,
        or with NotKept. When it returns, what this thread appended was kept or refused, and its
        ``done`` was called or is being called by another thread. Raises nothing."""
        with self._committing:
            group = self._drained()
            if not group and not self._owed:
                return
            self._in_commit = len(group)
            told: _Told = []
            try:
                self._settle(group, told)
            except Exception:
                # A bug must not leave callers without an answer.
                log.exception("journal_failed")
                self._lose_rest(group, told)
            self._in_commit = 0
        _tell(told)

    def _drained(self) -> list[_Entry]:
        group: list[_Entry] = []
        taken = self._taken
        while taken:
            group.append(taken.popleft())
        return group

    def _settle(self, group: list[_Entry], told: _Told) -> None:
        if self._lock_file < 0:
            # The folder is another process's: what is there is not to be touched.
            self._lose(group, NotKept("the journal is not open in this process; try again"), told)
            return
        error = self._pay_owed(told)
        if error is None:
            self._keep(group, told)
        else:
            self._lose(group, error, told)

    def _pay_owed(self, told: _Told) -> Exception | None:
        """What must be kept, alone: neither does the quota hold it up, nor does it heap up."""
        if not self._owed:
            return None
        owed = [each for each in self._owed if not each.is_refused]
        error = self._written(owed) if owed else None
        self._owed = [] if error is None else owed
        if error is None:
            told.extend((each.done, None) for each in owed if each.done)
        return error

    def _keep(self, group: list[_Entry], told: _Told) -> None:
        lost = [each for each in group if each.is_refused]
        if lost:
            group = [each for each in group if not each.is_refused]
            reason = NotKept("a record before this one could not be kept; try again")
            told.extend((each.done, reason) for each in lost if each.done)
        error = self._written(group) if group else None
        if error is not None:
            self._lose(group, error, told)
            return
        for each in group:
            if each.chain is not None:
                each.chain.has_kept = True
            if each.done is not None:
                told.append((each.done, None))

    def _lose(self, group: list[_Entry], error: Exception, told: _Told) -> None:
        self.refused_count += len(group)
        for each in group:
            if each.must:
                continue
            if each.chain is not None:
                each.chain.is_broken = True
            if each.done is not None:
                told.append((each.done, error))
        self._owed += [each for each in group if each.must and not each.is_refused]

    def _lose_rest(self, group: list[_Entry], told: _Told) -> None:
        """After a bug: of the whole group, those that nobody has been told of."""
        heard = {id(done) for done, _ in told}
        rest = [each for each in group if each.done is None or id(each.done) not in heard]
        self._lose(rest, NotKept("the journal failed; try again later"), told)

    def _written(self, group: list[_Entry]) -> Exception | None:
        frames: list[bytes] = []
        position = self._end
        for each in group:
            framed = frame(each.kind, each.payload, position)
            frames.append(framed)
            position += len(framed)
        size = position - self._end
        held = self.size_bytes
        if held + size > self._quota_bytes and not all(each.must for each in group):
            return NotKept(
                f"the journal holds {held} bytes and may hold {self._quota_bytes}: "
                "the broker or the ledger is away; try again later"
            )
        frames.append(TERMINATOR)
        try:
            self._put(b"".join(frames), size)
        except OSError as error:
            return NotKept(f"the journal could not be written: {error.strerror}; try again later")
        self.groups_count += 1
        self.records_count += len(group)
        try:
            self.on_commit(self._end)
        except Exception:
            # They are kept; who reads them looks again by itself.
            log.exception("journal_not_announced")
        return None

    def _put(self, data: bytes, size: int) -> None:
        """All of it or nothing: a short write (a full disk raises nothing) is cut off again."""
        if self._file < 0 or (self._used and self._used + len(data) > self._capacity):
            self._begin_segment()
        try:
            _write_all(self._file, data, self._used)
        except OSError:
            self._cut()
            raise
        if self._is_durable:
            try:
                os.fdatasync(self._file)
            except OSError:
                # Which of its pages are on disk now, nobody knows: nothing is added to it again.
                self._abandon()
                raise
        self._is_unsynced = not self._is_durable
        self._used += size
        self._end += size

    def _cut(self) -> None:
        """What stands behind the last kept record is no record any longer."""
        try:
            os.ftruncate(self._file, self._used)
            if self._is_durable:
                os.fdatasync(self._file)
            # Its blocks are gone; the next record begins another file.
            self._capacity = self._used
        except OSError:
            self._abandon()

    def _abandon(self) -> None:
        """Gives up the file: the next one begins where its kept records end, and so readers go no
        further in this one."""
        self.abandoned_count += 1
        log.error("journal_file_abandoned", position=self._end)
        file, self._file = self._file, -1
        try:
            os.ftruncate(file, self._used)
        except OSError as error:
            log.error("journal_file_not_cut", reason=str(error), position=self._end)
        self._files.retire(file)

    def _begin_segment(self) -> None:
        file = self._files.begin(segment_path(self._folder, self._end))
        if self._file >= 0:
            self._files.retire(self._file)
        self._file, self._used, self._capacity = file, 0, self._segment_bytes
        try:
            sync_folder(self._folder)
        except OSError:
            # A file without a durable name keeps nothing.
            self._abandon()
            raise

    def _look_after(self) -> None:
        while not self._is_closing.wait(_TICK_SECONDS if self._files.is_ready else 0.001):
            try:
                self._files.prepare()
                self._files.close_retired()
                if self._taken or self._owed:
                    self.commit()
                self._sync_late()
            except Exception:
                log.exception("journal_not_looked_after")

    def _sync_late(self) -> None:
        """Without durable answers, a loss of power may cost this long of them, and no more."""
        file = self._file
        if not self._is_unsynced or file < 0:
            return
        self._is_unsynced = False
        try:
            # The file is not closed under our hands: only this thread closes what was retired.
            os.fdatasync(file)
        except OSError as error:
            log.error("journal_not_synced", reason=str(error))
            with self._committing:
                if self._file == file:
                    self._abandon()


def _write_all(file: int, data: bytes, at: int) -> None:
    written = os.pwrite(file, data, at)
    view = memoryview(data)
    while written < len(data):
        written += os.pwrite(file, view[written:], at + written)


def _tell(told: _Told) -> None:
    for done, error in told:
        try:
            done(error)
        except Exception:
            # One caller's answer must not cost the others theirs.
            log.exception("answer_failed")
