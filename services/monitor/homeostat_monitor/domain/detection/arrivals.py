"""How many rows the calendar expects: counts per slot, by hour of the week and hour of the day.

Counts are overdispersed: their variance is the mean plus ``dispersion`` times its square (negative
binomial, e.g. Cameron and Trivedi, "Regression Analysis of Count Data", NB2). The dispersion is
estimated by moments within the phases.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from homeostat_monitor.domain.detection.calendar import DAY_US, WEEK_US
from homeostat_monitor.domain.errors import CorruptState
from homeostat_monitor.domain.windows.window import HOUR_US

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_DAYS = 7
# Weeks of which a phase must have been seen before it says how the next will be.
_FEWEST_WEEKS = 2
# Then a phase ages: its sums are halved.
_MOST_WEEKS = 8
# No traffic is steadier than to a tenth; and an estimate of few weeks is on the low side.
_LEAST_DISPERSION = 0.01
_MARGIN = 1.25
# Days of the week stand for one another where none has less than this part of the mean one; days
# with fewer rows in a phase are light by chance.
_ALIKE = 0.25
_FEWEST_ROWS_OF_A_PHASE = 16.0
_ONE_OF_TWENTY = 0.95
# Fewer independent deviations than this say too little of the dispersion.
_FEWEST_FREEDOM = 7
# A twentieth of usual traffic is no burst at any hour.
_NO_BURST = 0.05
# Longer silences are looked at for so long only.
_MOST_GAP_US = 2 * WEEK_US


@dataclass(frozen=True, slots=True)
class Expected:
    """Rows of a span: mean, and dispersion of the negative binomial distribution."""

    rows: float
    dispersion: float
    # Fewer are no burst even where none at all are expected.
    no_burst: float = 0.0


@dataclass(frozen=True, slots=True)
class Clock:
    """Slots of one length, and the phases of a week that they fall into."""

    length_us: int

    @property
    def phase_us(self) -> int:
        """An hour, or a slot where that is longer; a week where slots do not divide it."""
        longest = max(self.length_us, HOUR_US)
        return WEEK_US if WEEK_US % longest else longest

    @property
    def phases(self) -> int:
        return WEEK_US // self.phase_us

    @property
    def slots_of_a_phase(self) -> int:
        return max(self.phase_us // self.length_us, 1)

    @property
    def has_days(self) -> bool:
        """Whether a day has phases of its own."""
        return not DAY_US % self.phase_us

    def spans(self, start_us: int, end_us: int) -> Iterator[tuple[int, int]]:
        """(phase, slots in it) of a span of whole slots, in order of time."""
        at = start_us
        end = min(end_us, start_us + _MOST_GAP_US)
        while at < end:
            until = min(at - at % self.phase_us + self.phase_us, end)
            yield at % WEEK_US // self.phase_us, max((until - at) // self.length_us, 1)
            at = until


class Tally:
    """Rows per slot by phase of the week: how many slots, their sum, their sum of squares."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.sums: Ints = np.zeros((3, clock.phases), dtype=np.int64)

    def add(self, phase: int, rows: int, slots: int) -> None:
        """So many slots that had ``rows`` rows together."""
        if self.sums[0, phase] >= _MOST_WEEKS * self._clock.slots_of_a_phase:
            self.sums[:, phase] //= 2
        each, rest = divmod(rows, slots)
        squares = (slots - rest) * each**2 + rest * (each + 1) ** 2
        self.sums[:, phase] += (slots, rows, squares)

    def weekly(self) -> "Habit":
        """By phase of the week, seen in two weeks."""
        return _habit(self.sums, _FEWEST_WEEKS, self._clock.slots_of_a_phase)

    def daily(self) -> "Habit":
        """By phase of the day, of days of a whole week at least that are alike: the phases of a
        weekday that is closed say nothing of the others, nor they of it."""
        if not self._clock.has_days:
            return _unknown(self._clock.phases)
        by_day = self.sums.reshape(3, _DAYS, -1)
        found = _habit(by_day.sum(axis=1), _DAYS, self._clock.slots_of_a_phase)
        whole_days = by_day.sum(axis=2, keepdims=True)
        is_alike = _are_alike(by_day) & _are_alike(whole_days)
        means = np.where(is_alike, found.means, np.nan)
        return Habit(np.tile(means, _DAYS), found.dispersion, np.tile(found.uncertainty, _DAYS))


@dataclass(frozen=True, slots=True)
class Habit:
    """Rows of a slot by phase of the week."""

    # NaN where it is not known.
    means: Floats
    # Of slots around the means.
    dispersion: float
    # Relative variance of the means themselves.
    uncertainty: Floats

    def of(self, spans: Sequence[tuple[int, int]]) -> Expected | None:
        """Of (phase, slots); None where a phase is not known."""
        phases = np.array([phase for phase, _ in spans], dtype=np.intp)
        rows = self.means[phases] * np.array([slots for _, slots in spans])
        total = float(rows.sum())
        if not np.isfinite(total):
            return None
        shares = rows / total if total > 0 else np.zeros(len(rows))
        # Means off the same way are the worse case: their errors add up, not their squares.
        unsure = float((shares * np.sqrt(self.uncertainty[phases])).sum()) ** 2
        slots = sum(count for _, count in spans)
        no_burst = _NO_BURST * slots * float(np.nanmean(self.means))
        return Expected(total, self.dispersion + unsure * (1 + self.dispersion), no_burst)


def _unknown(phases: int) -> Habit:
    return Habit(np.full(phases, np.nan), np.nan, np.full(phases, np.nan))


def _are_alike(by_day: Ints) -> NDArray[np.bool_]:
    """Per column, shape [3, days, columns]: no day is much lighter than the mean one."""
    slots, rows, _ = by_day.astype(np.float64)
    rate = rows / np.maximum(slots, 1)
    is_thin = rows.mean(axis=0) < _FEWEST_ROWS_OF_A_PHASE
    is_alike: NDArray[np.bool_] = rate.min(axis=0) >= _ALIKE * rate.mean(axis=0)
    found: NDArray[np.bool_] = (is_alike | is_thin) & (slots > 0).all(axis=0)
    return found


def _habit(sums: Ints, times: int, slots_of_a_phase: int) -> Habit:
    """Of phases that were seen so many times."""
    slots, rows, squares = sums.astype(np.float64)
    known = slots >= times * slots_of_a_phase
    if not known.any() or (slots[known] - 1).sum() < _FEWEST_FREEDOM:
        return _unknown(len(slots))
    slots, rows, squares = slots[known], rows[known], squares[known]
    mean = rows / slots
    variance = np.maximum(squares - slots * mean**2, 0.0) / (slots - 1)
    weight = float((mean**2).sum())
    raw = float((variance - mean).sum()) / weight if weight else 0.0
    dispersion = max(_MARGIN * raw, _LEAST_DISPERSION)
    means, uncertainty = np.full(len(known), np.nan), np.full(len(known), np.nan)
    means[known] = mean
    # Slots of one hour are one hour's luck: they count once.
    uncertainty[known] = 1 / np.maximum(rows, 1) + dispersion * slots_of_a_phase / slots
    return Habit(means, dispersion, uncertainty)


class Arrivals:
    """What live traffic was like; until that is known, the reference's shape at live scale.

    A reference is often a sample, and a version may serve a part of the traffic: how many rows it
    has says nothing of how many will come, only when they come.
    """

    def __init__(self, clock: Clock, reference_times_us: Ints) -> None:
        self.clock = clock
        self._shape, self._knows_weeks = _shape(clock, reference_times_us)
        self._live = Tally(clock)
        # Slots seen, their rows, and what the shape says of them.
        self._scale: Floats = np.zeros(3)

    def expected(self, start_us: int, end_us: int) -> Expected | None:
        """Rows of a span of whole slots; None where nothing is known of part of it."""
        spans = list(self.clock.spans(start_us, end_us))
        for habit in self._habits():
            expected = habit.of(spans)
            if expected is not None:
                return expected
        return None

    def learn(self, start_us: int, end_us: int, rows: int) -> None:
        """A span had so many rows, spread evenly."""
        spans = list(self.clock.spans(start_us, end_us))
        slots_left, rows_left = sum(slots for _, slots in spans), rows
        for phase, slots in spans:
            part = rows_left * slots // slots_left
            self._live.add(phase, part, slots)
            slots_left, rows_left = slots_left - slots, rows_left - part
            if self._shape is not None:
                self._scale += (slots, part, slots * self._shape.means[phase])

    def forget(self) -> None:
        """A new level: learned afresh."""
        self._live.sums[...] = 0
        self._scale[...] = 0

    def arrays(self) -> Mapping[str, NDArray[np.int64] | Floats]:
        """The whole state."""
        return {"live": self._live.sums, "scale": self._scale}

    def restore(self, arrays: Mapping[str, NDArray[np.int64] | Floats]) -> None:
        """Goes on from ``arrays``; CorruptState where they are of another form."""
        for name, mine in self.arrays().items():
            stored = arrays[name]
            is_alike = stored.shape == mine.shape and stored.dtype == mine.dtype
            if not is_alike or not (stored >= 0).all():
                raise CorruptState(f"the arrivals' {name} are of another form")
        self._live.sums[...] = arrays["live"]
        self._scale[...] = arrays["scale"]

    def _habits(self) -> Iterator[Habit]:
        """From what says most to what says least."""
        yield self._no_steadier(self._live.weekly())
        scaled = self._scaled()
        if self._knows_weeks and scaled is not None:
            yield scaled
        yield self._no_steadier(self._live.daily())
        if scaled is not None:
            yield scaled

    def _no_steadier(self, habit: Habit) -> Habit:
        """Two weeks alike may be luck, and the hours of one week share theirs: traffic is no
        steadier than the reference showed it."""
        if self._shape is None:
            return habit
        return replace(habit, dispersion=float(np.fmax(habit.dispersion, self._shape.dispersion)))

    def _scaled(self) -> Habit | None:
        """The reference's shape at live scale; None before a day of live rows."""
        slots, rows, shaped = self._scale.tolist()
        day = max(DAY_US // self.clock.length_us, _DAYS)
        if self._shape is None or slots < day or shaped <= 0:
            return None
        unsure = self._shape.uncertainty + 1 / max(rows, 1)
        return Habit(self._shape.means * (rows / shaped), self._shape.dispersion, unsure)


def _shape(clock: Clock, times_us: Ints) -> tuple[Habit | None, bool]:
    """Of a reference of a week or more, and whether it knows weekdays from one another: slots
    without rows count. None of a shorter one: it does not know the days of a week."""
    if not len(times_us) or int(times_us.max() - times_us.min()) < WEEK_US:
        return None, False
    first, last = int(times_us.min()) // clock.length_us, int(times_us.max()) // clock.length_us
    whole = Tally(clock)
    starts, rows = np.unique(times_us // clock.length_us, return_counts=True)
    at = first
    # The first and the last slot may be cut off.
    for start, count in zip(starts[1:-1].tolist(), rows[1:-1].tolist(), strict=True):
        _add(whole, clock, at + 1, start, 0)
        _add(whole, clock, start, start + 1, count)
        at = start
    _add(whole, clock, at + 1, last, 0)
    counts = np.zeros(max(last - first - 1, 0))
    counts[starts[1:-1] - first - 1] = rows[1:-1]
    for habit, knows_weeks in ((whole.weekly(), True), (whole.daily(), False)):
        if np.isfinite(habit.means).all():
            return _lasting(habit, clock, first + 1, counts), knows_weeks
    return None, False


def _lasting(habit: Habit, clock: Clock, first: int, counts: Floats) -> Habit:
    """Where busy and idle times last for many slots, these count for few when their dispersion is
    estimated: then it may be as large as an estimate of few would be too low by in one of 20."""
    from scipy.special import chdtri  # noqa: PLC0415 - not at start

    phases = (first + np.arange(len(counts))) * clock.length_us % WEEK_US // clock.phase_us
    means = habit.means[phases]
    off = np.where(means > 0, counts / np.maximum(means, 1e-9) - 1, 0.0)
    # Chance of single rows is no part of what lasts.
    alike = float((off[1:] * off[:-1]).mean()) / habit.dispersion if len(off) > 1 else 0.0
    alike = min(max(alike, 0.0), 1 - 1 / max(len(off), 2))
    count = max(len(off) * (1 - alike) / (1 + alike), 2.0)
    margin = count / float(chdtri(count, _ONE_OF_TWENTY))
    return replace(habit, dispersion=habit.dispersion * max(margin / _MARGIN, 1.0))


def _add(tally: Tally, clock: Clock, first: int, until: int, rows: int) -> None:
    for phase, slots in clock.spans(first * clock.length_us, until * clock.length_us):
        tally.add(phase, rows, slots)
