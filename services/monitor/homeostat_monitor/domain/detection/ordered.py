"""The detector of time-ordered streams: what contiguous blocks of the reference explain, and what
the calendar does.

A window is a breach of a rule where it is unlike the reference's blocks and neither the same phase
of the calendar nor the prior period looked like it. The prior period excuses a season, which comes
by small steps, and not a break: what breaks is not learned, so the past stays what it was before.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from homeostat_monitor.domain.detection import Detector
from homeostat_monitor.domain.detection.calendar import Calendar, period_windows
from homeostat_monitor.domain.errors import CorruptState
from homeostat_monitor.domain.judges import Finding, Judge
from homeostat_monitor.domain.judges.companions import companion_judge
from homeostat_monitor.domain.judges.correlation import correlation_judge
from homeostat_monitor.domain.judges.covariate import covariate_judge
from homeostat_monitor.domain.judges.missing import missing_values_judge
from homeostat_monitor.domain.judges.outside import out_of_range_judge
from homeostat_monitor.domain.judges.prediction import prediction_judge
from homeostat_monitor.domain.judges.rates import ALPHA
from homeostat_monitor.domain.judges.stuck import stuck_judge
from homeostat_monitor.domain.judges.unseen import unseen_values_judge
from homeostat_monitor.domain.state import pack, unpack, unreadable
from homeostat_monitor.domain.windows.layout import SCORE, Layout
from homeostat_monitor.domain.windows.reference import ReferenceCounts
from homeostat_monitor.domain.windows.window import Window

_FORM = "ordered-1"
# Judges that have a level: missing, unseen, out of range, stuck, companions.
_LEVELLED = 5


class OrderedDetector:
    """Judges of windows of hours or days, and the calendar that excuses what they find."""

    def __init__(
        self, layout: Layout, judges: Sequence[Judge], calendar: Calendar, segment: str = ""
    ) -> None:
        self._layout = layout
        self._judges = tuple(judges)
        self._calendar = calendar
        self._segment = segment
        self._until_us: int | None = None

    @property
    def name(self) -> str:
        return "ordered"

    @property
    def remarks(self) -> tuple[str, ...]:
        """What could not be calibrated as it should, one sentence each."""
        return tuple(remark for judge in self._judges for remark in judge.remarks)

    def feed(self, windows: Sequence[Window]) -> list[list[Finding]]:
        """Closed windows, oldest first; per window its findings. One that was fed already (by its
        end) is judged again, and not learned twice."""
        return [self._fed(each) for each in windows]

    def _fed(self, window: Window) -> list[Finding]:
        found = [
            self._excused(judge, each, window)
            for judge in self._judges
            for each in judge.judge(self._layout, window)
        ]
        if self._until_us is None or window.end_us > self._until_us:
            self._learn(window, found)
            self._until_us = window.end_us
        return [replace(each, segment=self._segment) for each in found]

    def _excused(self, judge: Judge, finding: Finding, window: Window) -> Finding:
        if not finding.is_breach:
            return finding
        name = finding.feature or SCORE
        for past in self._calendar.pasts(name, window):
            other = judge.against(self._layout, window, name, past)
            if other is not None and not other.is_breach:
                return other
        return finding

    def _learn(self, window: Window, found: Sequence[Finding]) -> None:
        broken = {
            each.feature or SCORE for each in found if each.is_breach and not each.other_feature
        }
        for name in self._layout.names:
            if name not in broken:
                self._calendar.learn(name, window)

    def to_bytes(self) -> bytes:
        """The whole state."""
        values = {"layout": self._layout.fingerprint, "until_us": self._until_us}
        return pack(_FORM, values, self._calendar.arrays())

    def restore(self, state: bytes) -> None:
        """Goes on from a stored state; CorruptState where it cannot be trusted."""
        stored = unpack(_FORM, state)
        if stored.values.get("layout") != self._layout.fingerprint:
            raise CorruptState("the state is of another reference")
        with unreadable("the calendar's state"):
            self._calendar.restore(stored.arrays)
            self._until_us = stored.values["until_us"]


def ordered(
    counts: ReferenceCounts, *, length_us: int, level_per_look: float, segment: str = ""
) -> Detector:
    """All judges of time-ordered windows of ``length_us``, calibrated on the reference.

    ``level_per_look``: chance of a false finding in one window; the tests that have a level share
    it or take a stricter one, distances are bounded by what blocks of the reference show.
    """
    level = min(level_per_look / _LEVELLED, ALPHA)
    period = period_windows(length_us)
    judges: tuple[Judge, ...] = (
        missing_values_judge(counts, level),
        unseen_values_judge(counts, level),
        out_of_range_judge(counts, level),
        stuck_judge(counts, length_us, level),
        covariate_judge(counts, period),
        correlation_judge(counts),
        companion_judge(counts, level),
        prediction_judge(counts, period),
    )
    return OrderedDetector(counts.layout, judges, _calendar(counts, length_us), segment)


def _calendar(counts: ReferenceCounts, length_us: int) -> Calendar:
    """What the reference's own windows were like, in the order of time."""
    calendar = Calendar(counts.layout, length_us)
    starts, groups = np.unique(counts.event_times_us // length_us, return_inverse=True)
    sums = counts.grouped(groups.astype(np.intp), len(starts))
    # Scores of rows that are not honest were left out: that they lack is no habit.
    counts.layout.nulls(SCORE, sums)[...] = 0
    for start, each in zip((starts * length_us).tolist(), sums, strict=True):
        window = Window(start, start + length_us, each)
        for name in counts.layout.names:
            calendar.learn(name, window)
    return calendar
