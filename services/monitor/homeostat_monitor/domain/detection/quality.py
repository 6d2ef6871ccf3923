"""Data quality in both modes: do as many rows come as the calendar expects, and each but once?

Windows are of event time: rows that come late fall into the windows in which they happened, so a
backlog that drains looks like the traffic that it was.
"""

from collections.abc import Sequence
from dataclasses import replace

from homeostat_monitor.domain.detection.arrivals import Arrivals, Clock, Expected
from homeostat_monitor.domain.detection.calendar import DAY_US
from homeostat_monitor.domain.detection.duplicates import Duplicates, duplicates
from homeostat_monitor.domain.errors import CorruptState
from homeostat_monitor.domain.judges import Finding, Rule
from homeostat_monitor.domain.state import pack, unpack, unreadable
from homeostat_monitor.domain.windows.reference import ReferenceCounts
from homeostat_monitor.domain.windows.window import Window

# The statistics of arrivals.
TIMES_FEWER = "times_fewer_rows"
TIMES_MORE = "times_more_rows"
_FORM = "quality-1"
# Too few rows (or none), too many, and duplicates each have a part of the level. Looks at a silence
# happen where no window is judged, and more rarely than windows would have been (looks.py).
_PARTS = 3
# Less than twice or half as many rows is no news, whatever its significance.
_LEAST_FACTOR = 2.0
# A shorter pause is no news, however regular the traffic was.
_LEAST_SILENCE_US = 60_000_000
# The most that chance explains is no breach by the last digit of a quotient.
_NO_ROUNDING = 1 + 1e-9
# After so many windows off the same way, and at least a day, a level is the new one.
_FEWEST_OF_A_LEVEL = 7


class QualityDetector:
    """Arrival rate and duplicates of all rows or of a segment."""

    def __init__(
        self, arrivals: Arrivals, copies: Duplicates | None, level: float, segment: str = ""
    ) -> None:
        self._arrivals = arrivals
        self._copies = copies
        self._level = level
        self._segment = segment
        self._until_us: int | None = None
        # Since when windows are off, and how many.
        self._off_since_us: int | None = None
        self._off = 0

    @property
    def name(self) -> str:
        return "quality"

    @property
    def until_us(self) -> int | None:
        """The end of the last window that was fed; None: there was none yet."""
        return self._until_us

    def feed(self, windows: Sequence[Window]) -> list[list[Finding]]:
        """Closed windows, oldest first; per window its findings. Windows without rows do not come:
        the time between two is taken as silence."""
        return [self._fed(each) for each in windows]

    def overdue(self, now_us: int) -> Finding | None:
        """A breach where rows should have come since the last window and none did.

        ``now_us``: until when event times are known to be complete, a watermark. Changes nothing.
        """
        return self._silence(now_us - now_us % self._arrivals.clock.length_us)

    def _fed(self, window: Window) -> list[Finding]:
        found = [] if self._copies is None else [self._copies.judge(window)]
        if self._until_us is None or window.start_us >= self._until_us:
            found.append(self._arrived(window))
        return [replace(each, segment=self._segment) for each in found if each is not None]

    def _arrived(self, window: Window) -> Finding | None:
        silence = self._silence(window.start_us)
        if self._until_us is not None and window.start_us > self._until_us:
            # Also where it was told of: what comes back every week is a habit.
            self._arrivals.learn(self._until_us, window.start_us, 0)
        expected = self._arrivals.expected(window.start_us, window.end_us)
        found = None if expected is None else self._finding(expected, window.rows)
        self._until_us = window.end_us
        if found is None or not found.is_breach:
            self._off, self._off_since_us = 0, None
            self._arrivals.learn(window.start_us, window.end_us, window.rows)
        else:
            self._is_off(window)
        return silence or found

    def _is_off(self, window: Window) -> None:
        self._off += 1
        if self._off_since_us is None:
            self._off_since_us = window.start_us
        lasted_us = window.end_us - self._off_since_us
        if self._off >= _FEWEST_OF_A_LEVEL and lasted_us >= DAY_US:
            self._arrivals.forget()
            self._off, self._off_since_us = 0, None

    def _silence(self, until_us: int) -> Finding | None:
        if self._until_us is None or until_us - self._until_us < _LEAST_SILENCE_US:
            return None
        expected = self._arrivals.expected(self._until_us, until_us)
        found = None if expected is None else self._finding(expected, 0)
        if found is None or not found.is_breach:
            return None
        return replace(found, since_us=self._until_us, segment=self._segment)

    def _finding(self, expected: Expected, rows: int) -> Finding:
        """How many times fewer or more rows than expected; chance may make some of it."""
        is_fewer = rows < expected.rows
        if not is_fewer:
            expected = replace(expected, rows=max(expected.rows, expected.no_burst, 1.0))
        p_value = _tail(rows, expected, is_fewer=is_fewer)
        ratio = (rows + 0.5) / (expected.rows + 0.5)
        factor = 1 / ratio if is_fewer else ratio
        explained = _explained(expected, self._level, is_fewer=is_fewer)
        threshold = max(_LEAST_FACTOR, explained * _NO_ROUNDING)
        return Finding(
            Rule.ARRIVAL_RATE,
            "",
            TIMES_FEWER if is_fewer else TIMES_MORE,
            factor,
            1.0,
            threshold,
            is_breach=factor > threshold,
            p_value=p_value,
        )

    def to_bytes(self) -> bytes:
        """The whole state."""
        values = {
            "length_us": self._arrivals.clock.length_us,
            "until_us": self._until_us,
            "off_since_us": self._off_since_us,
            "off": self._off,
        }
        return pack(_FORM, values, self._arrivals.arrays())

    def restore(self, state: bytes) -> None:
        """Goes on from a stored state; CorruptState where it cannot be trusted."""
        stored = unpack(_FORM, state)
        if stored.values.get("length_us") != self._arrivals.clock.length_us:
            raise CorruptState("the state is of windows of another length")
        with unreadable("the arrivals' state"):
            self._arrivals.restore(stored.arrays)
            self._until_us = stored.values["until_us"]
            self._off_since_us = stored.values["off_since_us"]
            self._off = stored.values["off"]


def _tail(rows: int, expected: Expected, *, is_fewer: bool) -> float:
    """P(X <= rows) or P(X >= rows) of the negative binomial distribution."""
    from scipy.special import betainc  # noqa: PLC0415 - not at start

    shape = 1 / expected.dispersion
    success = shape / (shape + expected.rows)
    if is_fewer:
        return float(betainc(shape, rows + 1, success))
    return float(betainc(rows, shape, 1 - success)) if rows else 1.0


def _explained(expected: Expected, level: float, *, is_fewer: bool) -> float:
    """The greatest factor that chance explains."""
    if is_fewer:
        if _tail(0, expected, is_fewer=True) > level:
            return 2 * expected.rows + 1  # what no row at all is
        low, high = 0, int(expected.rows)
        while low < high:
            middle = (low + high + 1) // 2
            below = _tail(middle, expected, is_fewer=True) <= level
            low, high = (middle, high) if below else (low, middle - 1)
        return (expected.rows + 0.5) / (low + 1.5)
    low = int(expected.rows)
    high = low + 1
    while _tail(high, expected, is_fewer=False) > level:
        high *= 2
    while low < high:
        middle = (low + high) // 2
        above = _tail(middle, expected, is_fewer=False) <= level
        low, high = (low, middle) if above else (middle + 1, high)
    return (low - 0.5) / (expected.rows + 0.5)


def quality(
    counts: ReferenceCounts, *, length_us: int, level_per_look: float, segment: str = ""
) -> QualityDetector:
    """Calibrated on the reference's event times and on its own duplicates.

    ``length_us``: of a window or pane; ``level_per_look``: of a false finding.
    """
    arrivals = Arrivals(Clock(length_us), counts.event_times_us)
    level = level_per_look / _PARTS
    return QualityDetector(arrivals, duplicates(counts, level), level, segment)
