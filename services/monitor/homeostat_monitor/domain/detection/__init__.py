"""Detectors: fed with closed windows in order, they say when the world left the reference.

Two modes. In i.i.d. mode windows are short panes and the detector looks at sliding spans of several
lengths under one budget of false alarms. In time-ordered mode windows are hours or days, and what a
window may look like comes from contiguous blocks of the reference and from the calendar.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

from homeostat_monitor.domain.judges import Finding
from homeostat_monitor.domain.windows.window import Window


class Mode(StrEnum):
    """How a version's inputs are judged. The names are stored."""

    IID = "iid"
    TIME_ORDERED = "time_ordered"


class Detector(Protocol):
    """One version's detector of one segment; it remembers. The same windows in other portions give
    the same findings and, in the end, the same state, bit for bit."""

    @property
    def name(self) -> str:
        """Under which its state is stored: "multiscale", "ordered", ..."""
        ...

    def feed(self, windows: Sequence[Window]) -> list[list[Finding]]:
        """Closed windows, oldest first; per window one finding for every thing that was judged."""
        ...

    def to_bytes(self) -> bytes:
        """The whole state (domain/state.py); never a pickle."""
        ...

    def restore(self, state: bytes) -> None:
        """Goes on from a stored state; CorruptState where it cannot be trusted."""
        ...
