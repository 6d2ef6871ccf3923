"""Writing the journal: what was answered, on disk before the answer goes out."""

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from homeostat_inference.app.ports import Chain, Done, Kind


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
        default that of the oldest file. ``on_commit`` is called with `end` after it grew, from
        whichever thread committed, before anybody hears that the records are kept."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        """Takes the lock (JournalInUse if another process has it) and cuts a torn tail."""
        raise NotImplementedError

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Commits what waits, syncs, lets go of the lock."""

    @property
    def start(self) -> int:
        """The oldest position that counts towards the quota."""
        raise NotImplementedError

    @property
    def end(self) -> int:
        """The position behind the last record that is kept; readers may read up to it."""
        raise NotImplementedError

    @property
    def size_bytes(self) -> int:
        """What counts towards the quota."""
        raise NotImplementedError

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

    def commit(self) -> None:
        """Writes everything taken so far, all of it or nothing, and calls each ``done``: with None,
        or with NotKept. Returns when what this thread appended has been told of. Raises nothing."""
