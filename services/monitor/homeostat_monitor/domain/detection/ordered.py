"""The detector of time-ordered streams: what contiguous blocks of the reference explain."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from homeostat_monitor.domain.detection import Detector
from homeostat_monitor.domain.judges import Finding, Judge
from homeostat_monitor.domain.judges.covariate import covariate_judge
from homeostat_monitor.domain.judges.missing import missing_values_judge
from homeostat_monitor.domain.judges.prediction import prediction_judge
from homeostat_monitor.domain.judges.unseen import unseen_values_judge
from homeostat_monitor.domain.reference import ReferenceCounts
from homeostat_monitor.domain.state import pack, unpack
from homeostat_monitor.domain.sums import Layout
from homeostat_monitor.domain.windows import Window

_FORM = "ordered-1"


@dataclass(slots=True)
class OrderedDetector:
    """Judges of windows of hours or days."""

    layout: Layout
    judges: tuple[Judge, ...]
    segment: str = ""
    name: str = "ordered"

    @property
    def remarks(self) -> tuple[str, ...]:
        """What could not be calibrated as it should, one sentence each."""
        return tuple(remark for judge in self.judges for remark in judge.remarks)

    def feed(self, windows: Sequence[Window]) -> list[list[Finding]]:
        """Closed windows, oldest first; per window its findings."""
        return [self._judged(each) for each in windows]

    def _judged(self, window: Window) -> list[Finding]:
        found = [each for judge in self.judges for each in judge.judge(self.layout, window)]
        return [replace(each, segment=self.segment) for each in found]

    def to_bytes(self) -> bytes:
        """The whole state."""
        return pack(_FORM, {"layout": self.layout.fingerprint}, {})

    def restore(self, state: bytes) -> None:
        """Goes on from a stored state; CorruptState where it cannot be trusted."""
        unpack(_FORM, state)


def ordered(
    counts: ReferenceCounts, *, length_us: int, level_per_look: float, segment: str = ""
) -> Detector:
    """All judges of time-ordered windows of ``length_us``, calibrated on the reference."""
    return OrderedDetector(
        counts.layout,
        (
            missing_values_judge(counts),
            unseen_values_judge(counts),
            covariate_judge(counts),
            prediction_judge(counts),
        ),
        segment,
    )
