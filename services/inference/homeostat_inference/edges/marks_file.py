"""The last promise of a caller, where the next life of the server finds it without reading
journals."""

import os
import struct
import zlib
from pathlib import Path

_ENTRY = struct.Struct("<QqI")


class MarkFile:
    """Two places that are written in turn: whatever tears one of them leaves the other."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        found = [each for each in (self._read(0), self._read(1)) if each is not None]
        self._number, self.mark_us = max(found) if found else (0, None)

    def keep(self, mark_us: int) -> None:
        """Durably; OSError if the disk does not take it."""
        number = self._number + 1
        data = struct.pack("<Qq", number, mark_us)
        entry = data + struct.pack("<I", zlib.crc32(data))
        if os.pwrite(self._file, entry, number % 2 * _ENTRY.size) != len(entry):
            raise OSError("the promise was written in part")
        os.fdatasync(self._file)
        self._number, self.mark_us = number, mark_us

    def close(self) -> None:
        """Nothing is left to be done."""
        os.close(self._file)

    def _read(self, place: int) -> tuple[int, int | None] | None:
        data = os.pread(self._file, _ENTRY.size, place * _ENTRY.size)
        if len(data) != _ENTRY.size or zlib.crc32(data[:16]) != _ENTRY.unpack(data)[2]:
            return None
        number, mark_us, _ = _ENTRY.unpack(data)
        return number, mark_us
