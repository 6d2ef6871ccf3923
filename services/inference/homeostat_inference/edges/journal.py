"""The journal as one process sees it that both writes and relays it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from homeostat_inference.edges.journal_format import Record
from homeostat_inference.edges.journal_reader import JournalReader, Segment
from homeostat_inference.edges.journal_writer import JournalInUse, JournalWriter

__all__ = ["Journal", "JournalInUse", "Record", "Segment"]


class Journal(JournalWriter):
    """Writer and reader in one; what the reader has forgotten does not count to the quota."""

    def __init__(self, folder: Path, **fields: Any) -> None:
        super().__init__(folder, start=self._oldest_start, on_commit=self._tell_growth, **fields)
        self._reader = JournalReader(folder, lambda: self.end)
        self._forgotten = 0
        self.on_growth: Callable[[], None] = lambda: None

    def _oldest_start(self) -> int:
        return max(self._first, self._forgotten)

    def _tell_growth(self, end: int) -> None:
        self.on_growth()

    @property
    def segments(self) -> list[Segment]:
        """Oldest first."""
        return self._reader.segments()

    def read(self, position: int, max_bytes: int) -> tuple[list[Record], int]:
        """Records from ``position`` on, and where to go on."""
        chunk = self._reader.read(position, max_bytes)
        return chunk.records, chunk.after

    def drop(self, segment: Segment) -> None:
        """Forgets the oldest segment."""
        self._reader.recycle(segment)
        self._forgotten = segment.end
