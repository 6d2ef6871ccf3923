"""Segment files, made before they are needed.

A file whose blocks are already written lets fdatasync leave the file system's own journal alone,
which halves its time. So the next segment is filled with zeros ahead of time, or is an old one that
the reader has done with.
"""

import os
import threading
import time
from contextlib import suppress
from pathlib import Path

from homeostat_inference.edges.journal_format import SPARE_FOLDER, SUFFIX, TERMINATOR
from homeostat_kit.logs import get_logger

log = get_logger("homeostat_inference.journal")
_CHUNK = bytes(1 << 20)
_AGAIN_SECONDS = 1.0


class FilesAhead:
    """Has the next file ready. `begin` is for who writes, the rest for the thread beside it."""

    def __init__(self, folder: Path, segment_bytes: int) -> None:
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._ahead = folder / "next"
        self._ready = -1
        self._lock = threading.Lock()
        self._retired: list[int] = []
        self._try_again_at = 0.0
        self._has_told = False
        self.wanted = threading.Event()

    @property
    def is_ready(self) -> bool:
        """Whether nothing is to be done soon: all is there, or the disk failed just now."""
        return not self.wanted.is_set() or time.monotonic() < self._try_again_at

    def begin(self, path: Path) -> int:
        """An empty segment under this name, opened; OSError if it can't be had."""
        with self._lock:
            if self._ready >= 0:
                self._ahead.rename(path)
                file, self._ready = self._ready, -1
            else:
                file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        self.wanted.set()
        return file

    def retire(self, file: int) -> None:
        """The file is not written any longer; it is synced and closed beside the answers."""
        self._retired.append(file)

    def close_retired(self) -> None:
        """Syncs and closes."""
        while self._retired:
            file = self._retired.pop()
            try:
                os.fdatasync(file)
            except OSError as error:
                log.error("journal_not_synced", reason=str(error))
            os.close(file)

    def prepare(self) -> None:
        """Makes the next file if there is none; a full disk is told of once and tried again."""
        if not self.wanted.is_set() or time.monotonic() < self._try_again_at:
            return
        try:
            file = self._made()
        except OSError as error:
            self._try_again_at = time.monotonic() + _AGAIN_SECONDS
            if not self._has_told:
                log.warning("journal_file_not_prepared", reason=str(error))
            self._has_told = True
            with suppress(OSError):
                self._ahead.unlink(missing_ok=True)
            return
        self._has_told = False
        with self._lock:
            self._ready = file
        self.wanted.clear()

    def _made(self) -> int:
        file = self._old_one()
        if file is None:
            file = self._new_one()
        try:
            sync_folder(self._folder)
        except OSError:
            os.close(file)
            raise
        return file

    def _old_one(self) -> int | None:
        for spare in sorted((self._folder / SPARE_FOLDER).glob(f"*{SUFFIX}")):
            if spare.stat().st_size != self._segment_bytes:
                spare.unlink()
                continue
            spare.rename(self._ahead)
            file = os.open(self._ahead, os.O_RDWR)
            try:
                os.pwrite(file, TERMINATOR, 0)
                os.fsync(file)
            except OSError:
                os.close(file)
                raise
            return file
        return None

    def _new_one(self) -> int:
        file = os.open(self._ahead, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            at = 0
            while at < self._segment_bytes:
                at += os.pwrite(file, _CHUNK[: self._segment_bytes - at], at)
            os.fsync(file)
        except OSError:
            os.close(file)
            raise
        return file

    def close(self) -> None:
        """Lets go of everything."""
        self.close_retired()
        with self._lock:
            if self._ready >= 0:
                os.close(self._ready)
                self._ready = -1


def sync_folder(folder: Path) -> None:
    """Makes names durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
