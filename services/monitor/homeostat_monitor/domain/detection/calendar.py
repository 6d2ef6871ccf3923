"""What windows of a calendar's phase looked like, and the prior period: bounded sums that age.

Learned from the reference and, feature by feature, from windows in which the feature was no breach.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from homeostat_monitor.domain.errors import CorruptState
from homeostat_monitor.domain.judges import Past
from homeostat_monitor.domain.judges.distance import PERIOD
from homeostat_monitor.domain.windows.layout import Counts, Layout
from homeostat_monitor.domain.windows.window import HOUR_US, Window

Ints = NDArray[np.int64]

DAY_US = 24 * HOUR_US
WEEK_US = 7 * DAY_US
# A phase that has seen so many windows is halved: weeks ago count less and less.
_MOST_OF_A_PHASE = 8
# Fewer windows of a phase than this are an accident, not a habit.
_FEWEST_OF_A_PHASE = 2


def period_windows(length_us: int) -> int:
    """How many windows the prior period has: a day of short ones, seven of long ones."""
    return max(PERIOD, min(DAY_US // length_us, 24))


@dataclass(frozen=True, slots=True)
class Phases:
    """How windows of one length divide a cycle."""

    cycle_us: int
    length_us: int

    @property
    def count(self) -> int:
        """0 where windows are as long as the cycle or do not divide it: no phases then."""
        if self.length_us >= self.cycle_us or self.cycle_us % self.length_us:
            return 0
        return self.cycle_us // self.length_us

    def of(self, start_us: int) -> int:
        """The phase of the window that starts then."""
        return start_us % self.cycle_us // self.length_us


class Cycle:
    """Sums by phase of one cycle."""

    def __init__(self, phases: Phases, layout: Layout) -> None:
        self._phases = phases
        self.sums: Counts = np.zeros((phases.count, _width(layout)), dtype=np.int64)
        self.windows: Ints = np.zeros((phases.count, len(layout.names)), dtype=np.int64)

    def past(self, at: int, start_us: int) -> Counts | None:
        """What the phase looked like, where it is known of that feature."""
        if not self._phases.count:
            return None
        phase = self._phases.of(start_us)
        seen = int(self.windows[phase, at])
        return self.sums[phase] if seen >= _FEWEST_OF_A_PHASE else None

    def learn(self, at: int, places: NDArray[np.intp], window: Window) -> None:
        """One feature of one more window of its phase."""
        if not self._phases.count:
            return
        phase = self._phases.of(window.start_us)
        if self.windows[phase, at] >= _MOST_OF_A_PHASE:
            self.sums[phase, places] //= 2
            self.windows[phase, at] //= 2
        self.sums[phase, places] += window.sums[places]
        self.windows[phase, at] += 1


class Calendar:
    """Same weekday and hour, same hour of day, prior period, of every feature and the scores."""

    def __init__(self, layout: Layout, length_us: int) -> None:
        self._layout = layout
        self._length_us = length_us
        self._week = Cycle(Phases(WEEK_US, length_us), layout)
        self._day = Cycle(Phases(DAY_US, length_us), layout)
        self._places = {name: _places(layout, name) for name in layout.names}
        names = len(layout.names)
        self._prior: Counts = np.zeros((period_windows(length_us), _width(layout)), dtype=np.int64)
        self._learned: Ints = np.zeros(names, dtype=np.int64)
        self._ends_us: Ints = np.zeros(names, dtype=np.int64)

    def pasts(self, name: str, window: Window) -> Iterator[Past]:
        """All that is known to compare one feature of this window with."""
        at = self._layout.names.index(name)
        for cycle in (self._week, self._day):
            sums = cycle.past(at, window.start_us)
            if sums is not None:
                yield Past(self._filled(sums))
        if self._learned[at]:
            gap = max(window.start_us - int(self._ends_us[at]), 0)
            yield Past(self._filled(self._prior.sum(axis=0)), lag=gap // self._length_us + 1)

    def learn(self, name: str, window: Window) -> None:
        """What this feature was like in this window is normal."""
        at, places = self._layout.names.index(name), self._places[name]
        self._week.learn(at, places, window)
        self._day.learn(at, places, window)
        self._prior[self._learned[at] % len(self._prior), places] = window.sums[places]
        self._learned[at] += 1
        self._ends_us[at] = window.end_us

    def arrays(self) -> Mapping[str, Counts]:
        """The whole state."""
        return {
            "week": self._week.sums,
            "week_windows": self._week.windows,
            "day": self._day.sums,
            "day_windows": self._day.windows,
            "prior": self._prior,
            "learned": self._learned,
            "ends_us": self._ends_us,
        }

    def restore(self, arrays: Mapping[str, Counts]) -> None:
        """Goes on from ``arrays``; CorruptState where they are of another form."""
        mine = self.arrays()
        for name, each in mine.items():
            stored = arrays[name]
            is_alike = stored.shape == each.shape and stored.dtype == each.dtype
            if not is_alike or (stored < _least(name)).any():
                raise CorruptState(f"the calendar's {name} are of another form")
        for name, each in mine.items():
            each[...] = arrays[name]

    def _filled(self, sums: Counts) -> Counts:
        """With the places that a row of sums has beyond the histograms."""
        return np.concatenate([sums, np.zeros(self._layout.width - len(sums), dtype=np.int64)])


def _width(layout: Layout) -> int:
    """Only histograms and moments are kept."""
    return layout.pairs_start


def _places(layout: Layout, name: str) -> NDArray[np.intp]:
    """Where one feature's histogram, nulls and moments are."""
    at = layout.names.index(name)
    found = np.arange(layout.starts[at], layout.starts[at] + layout.bins[at].width + 1)
    if name in layout.extras.scales:
        moments = layout.moments_start + 2 * list(layout.extras.scales).index(name)
        found = np.append(found, [moments, moments + 1])
    return found


def _least(name: str) -> int:
    """Moments and times may be negative."""
    return 0 if name in ("week_windows", "day_windows", "learned") else np.iinfo(np.int64).min
