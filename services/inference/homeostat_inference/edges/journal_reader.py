"""Reading a journal, from the process that writes it or from another one."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from homeostat_inference.edges.journal_format import Record


@dataclass(frozen=True, slots=True)
class Segment:
    """One file of the journal, as it was when it was looked at."""

    start: int
    # Behind its last record; of the newest one, as far as may be read.
    end: int
    path: Path
    # Seconds since the Unix epoch; None while it is being written.
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
        raise NotImplementedError

    def segments(self) -> list[Segment]:
        """What is there, oldest first; the newest one may still be written."""
        raise NotImplementedError

    @property
    def start(self) -> int:
        """The oldest position that is there; the end if there is nothing."""
        raise NotImplementedError

    @property
    def end(self) -> int:
        """Everything before may be read."""
        raise NotImplementedError

    def read(self, position: int, max_bytes: int) -> Chunk:
        """Records from ``position`` on, of one segment, at least one if there is one. A chunk
        without records whose ``after`` is ``position`` says that there is nothing more so far."""
        raise NotImplementedError

    def recycle(self, segment: Segment) -> None:
        """Forgets the oldest segment; its file is left to the writer to be written again.
        ValueError if it isn't the oldest, or is the newest."""
