"""What the journal has promised survives a loss of power, at any moment.

A stand-in for the module `os` notes what was synced: the bytes of a file when it was synced, and
the names in a folder when the folder was. A loss of power leaves of everything else whatever it
likes: each sector is old or new, by chance.
"""

import os
import random
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from homeostat_inference.app.ports import Kind
from homeostat_inference.edges import journal_files, journal_writer
from homeostat_inference.edges.journal_format import SPARE_FOLDER
from homeostat_inference.edges.journal_reader import JournalReader
from homeostat_inference.edges.journal_writer import JournalWriter

SECTOR_BYTES = 512
SEGMENT_BYTES = 16 * 1024


class Disk:
    """Stands in for `os`: everything happens, and what was synced is known."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        # Done once, when records are on their way and not yet synced.
        self.before_next_sync: Callable[[], None] | None = None
        # By inode: the bytes that are sure to be there.
        self._synced: dict[int, bytes] = {}
        # By folder: name to inode, as it was synced.
        self._names: dict[int, dict[str, int]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def fsync(self, descriptor: int) -> None:
        """Remembers instead of waiting."""
        status = os.fstat(descriptor)
        with self._lock:
            interrupt, self.before_next_sync = self.before_next_sync, None
            if interrupt is not None:
                interrupt()
            if os.path.isdir(f"/proc/self/fd/{descriptor}"):  # noqa: PTH112 - a descriptor
                found = os.scandir(descriptor)
                self._names[status.st_ino] = {
                    each.name: each.inode() for each in found if each.is_file()
                }
            else:
                self._synced[status.st_ino] = os.pread(descriptor, status.st_size, 0)

    fdatasync = fsync

    def after_power_loss(self, folder: Path, into: Path, chance: random.Random) -> None:
        """What is found in ``folder`` afterwards, put into another folder."""
        into.mkdir()
        with self._lock:
            names = self._names.get(folder.stat().st_ino, {})
            now = {each.inode(): Path(each.path) for each in os.scandir(folder) if each.is_file()}
            for name, inode in names.items():
                old = self._synced.get(inode, b"")
                new = now[inode].read_bytes() if inode in now else old
                (into / name).write_bytes(_mixed(old, new, chance))
        # Files that may be written again survive or not: nothing depends on them.
        (into / SPARE_FOLDER).mkdir()
        for each in (folder / SPARE_FOLDER).glob("*") if chance.random() < 0.5 else ():
            with suppress(FileNotFoundError):  # just taken by the writer
                shutil.copy(each, into / SPARE_FOLDER)
        # What survived is on the disk.
        for each in [*(each for each in into.iterdir() if each.is_file()), into]:
            descriptor = os.open(each, os.O_RDONLY)
            self.fsync(descriptor)
            os.close(descriptor)


def _mixed(old: bytes, new: bytes, chance: random.Random) -> bytes:
    """Sector by sector, what was synced or what came after; and a length of either."""
    if old == new:
        return old
    parts = []
    for at in range(0, max(len(old), len(new)), SECTOR_BYTES):
        one, other = old[at : at + SECTOR_BYTES], new[at : at + SECTOR_BYTES]
        parts.append(chance.choice((one or bytes(len(other)), other or bytes(len(one)))))
    return b"".join(parts)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """Under the journal, for one test."""
    disk = Disk()
    monkeypatch.setattr(journal_writer, "os", disk)
    monkeypatch.setattr(journal_files, "os", disk)
    yield disk


class Life:
    """A journal between two losses of power."""

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self.folder = folder
        self._chance = chance
        self.writer = JournalWriter(
            folder, segment_bytes=SEGMENT_BYTES, quota_bytes=1 << 30, is_durable=True
        )
        self.promised: list[bytes] = []
        self.taken: set[bytes] = set()

    def work(self, groups: int) -> None:
        """Records in groups; what was said to be kept is remembered in order."""
        for _ in range(groups):
            for _ in range(self._chance.choice((1, 1, 2, 7))):
                self._append()
            self.writer.commit()

    def work_until(self, disk: Disk, power_goes: Callable[[], None]) -> list[bytes]:
        """The last group of this life, in the middle of which power goes; what was promised by
        then."""
        promised: list[bytes] = []

        def interrupt() -> None:
            promised.extend(self.promised)
            power_goes()

        for _ in range(self._chance.choice((1, 3, 8))):
            self._append()
        disk.before_next_sync = interrupt
        self.writer.commit()
        return promised

    def _append(self) -> None:
        payload = self._chance.randbytes(self._chance.choice((9, 200, 700, 3000)))
        self.taken.add(payload)

        def done(error: Exception | None) -> None:
            assert error is None
            self.promised.append(payload)

        self.writer.append(Kind.ROWS, payload, done=done)

    def forget_some(self) -> None:
        """The oldest segment's file goes back to the writer, who writes it again."""
        reader = JournalReader(self.folder, lambda: self.writer.end)
        segments = reader.segments()
        if len(segments) > 2:
            kept = {each.payload for each in _read(self.folder, segments[0].end, self.writer.end)}
            reader.recycle(segments[0])
            self.promised = [each for each in self.promised if each in kept]


def _read(folder: Path, position: int, end: int | None) -> Iterator[Any]:
    reader = JournalReader(folder, lambda: end)
    while (chunk := reader.read(position, 1 << 20)).after != position:
        # A segment that was forgotten may come back under its old name, half written over.
        yield from chunk.records
        position = chunk.after


@pytest.mark.parametrize("seed", range(40))
def test_what_was_kept_is_there_after_each_of_three_losses_of_power(
    seed: int, disk: Disk, tmp_path: Path
) -> None:
    chance = random.Random(seed)
    before: list[bytes] = []
    taken: set[bytes] = set()
    folder = tmp_path / "0"
    for number in range(1, 4):
        life = Life(folder, chance)
        with life.writer:
            life.promised = before
            for _ in range(chance.randrange(1, 5)):
                life.work(chance.randrange(1, 12))
                life.forget_some()
            folder = tmp_path / str(number)
            promised = life.work_until(
                disk, partial(disk.after_power_loss, life.folder, folder, chance)
            )
        taken |= life.taken
        found = _found(folder)
        assert [each for each in found if each in set(promised)] == promised
        assert set(found) <= taken
        before = [each for each in found if each in taken]


def _found(folder: Path) -> list[bytes]:
    with JournalWriter(
        folder, segment_bytes=SEGMENT_BYTES, quota_bytes=1 << 30, is_durable=True
    ) as writer:
        start = JournalReader(folder, lambda: writer.end).start
        records = list(_read(folder, start, writer.end))
    return [each.payload for each in records if each.kind == Kind.ROWS]
