"""The i.i.d. mode: sliding spans of several row counts under one budget of false alarms."""

from collections.abc import Sequence

from homeostat_monitor.domain.detection import Detector
from homeostat_monitor.domain.judges import Finding
from homeostat_monitor.domain.reference import ReferenceCounts
from homeostat_monitor.domain.state import pack, unpack
from homeostat_monitor.domain.windows import Window

_FORM = "multiscale-0"


class MultiScale:
    """Fed with panes; sees nothing yet."""

    name = "multiscale"

    def __init__(self, counts: ReferenceCounts, level_per_look: float, segment: str) -> None:
        self._layout = counts.layout
        self._level = level_per_look
        self._segment = segment

    def feed(self, windows: Sequence[Window]) -> list[list[Finding]]:
        """Per pane nothing."""
        return [[] for _ in windows]

    def to_bytes(self) -> bytes:
        """Nothing to remember."""
        return pack(_FORM, {}, {})

    def restore(self, state: bytes) -> None:
        """CorruptState where the bytes are not a state of this form."""
        unpack(_FORM, state)


def multiscale(counts: ReferenceCounts, *, level_per_look: float, segment: str = "") -> Detector:
    """A fresh detector; ``level_per_look`` as the budget says (Budget.level_per_look)."""
    return MultiScale(counts, level_per_look, segment)
