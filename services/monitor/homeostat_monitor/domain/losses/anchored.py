"""Has a mean risen above a known sample's? Looked at after every value, under a budget.

A mixture of Shiryaev-Roberts statistics of betting factors 1 + stake (value - mean), which is an
e-detector (Shin, Ramdas, Rinaldo 2023; Waudby-Smith, Ramdas 2024): with values in 0..1 whose mean
is not above the reference's, its expectation after n values is at most n. So that it reaches n on
average no sooner than after n values, however often it is looked at.
"""

import math
from dataclasses import astuple, dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from homeostat_monitor.domain.errors import CorruptState

Floats = NDArray[np.float64]

# Rises that are staked on, in deviations of one value: from a tenth to one, each 1.6 times the
# one before. Between two neighbours at most a twentieth of the power is lost.
_STEPS = 0.1 * 1.6 ** np.arange(6)
# A stake may cost at most so much of what is there with one value.
_MOST_STAKED = 0.9
# How far the reference's mean may be off, in its own deviations: one sample of 2,000 is further.
_DOUBT = 3.3
# Values per block when it is asked how much they hang together: so many, twice, four times ...
_BLOCK = 50
_FEWEST_BLOCKS = 10
_SURELY = 4.0
# Nine in ten walks of a wealth's logarithm pass their end though chance is so many deviations
# against them there: some passed it before and fell back (the inverse Gaussian distribution).
_SHORTFALL = 1.1
# Numbers of a Sample.
_KNOWN = 4


@dataclass(frozen=True, slots=True)
class Sample:
    """A reference: how many values in 0..1, their mean, variance, and how much they hang
    together: 1 if one says nothing of the next, n if the mean varies as of n times fewer."""

    rows: int
    mean: float
    variance: float
    clumping: float = 1.0


def sample_of(values: Floats) -> Sample:
    """Of values in 0..1 in their order, at least one. Half a value is added at either end: a
    perfect past of 100 rows does not say that the next can't be wrong."""
    rows = len(values)
    mean = (float(values.sum()) + 0.5) / (rows + 1)
    variance = float(np.square(values - mean).sum() + 0.25) / (rows + 1)
    return Sample(rows, mean, variance, _clumping(values))


def _clumping(values: Floats) -> float:
    """Variance of means of blocks over what independent values would show, of the blocks that show
    most of it; 1 unless it is surely more. What lasts for days shows in long blocks only."""
    variance = float(values.var())
    if variance <= 0.0:
        return 1.0
    most, size = 1.0, _BLOCK
    while (blocks := len(values) // size) >= _FEWEST_BLOCKS:
        means = values[: blocks * size].reshape(blocks, size).mean(axis=1)
        ratio = float(means.var(ddof=1)) * size / variance
        if ratio > 1.0 + _SURELY * math.sqrt(2.0 / (blocks - 1)):
            most = max(most, ratio)
        size *= 2
    return most


class Anchored:
    """One-sided: rises only. What was fed before resolves the reference's own uncertainty, but
    never moves the mean further than that, nor below the reference's."""

    __slots__ = (
        "_floor",
        "_kept",
        "_most",
        "_power",
        "_seen",
        "_stakes",
        "_state",
        "_threshold",
        "reference",
    )

    def __init__(self, reference: Sample, *, rows_per_false_alarm: float) -> None:
        """``rows_per_false_alarm``: values between two false alarms, on average, at the least."""
        self.reference = reference
        deviation = math.sqrt(reference.variance)
        self._floor = reference.mean
        off = _DOUBT * math.sqrt(reference.variance * reference.clumping / (reference.rows + 1))
        self._most = min(reference.mean + off, 1.0)
        self._stakes = np.minimum(_STEPS / deviation, _MOST_STAKED / self._most)
        self._power = 1.0 / max(reference.clumping, 1.0)
        self.allow(rows_per_false_alarm)
        # Rows and sum of the reference and of all values.
        self._seen = [reference.rows + 1.0, (reference.rows + 1.0) * reference.mean]
        # Values since it began anew.
        self._kept = 0
        # Per stake, over all starts: the wealth, wealth times start, wealth times sum since start.
        self._state = np.zeros((3, len(_STEPS)))

    def update(self, value: float) -> bool:
        """Takes one finite value in 0..1; whether the mean has risen."""
        seen, state = self._seen, self._state
        mean = min(max(self._floor, seen[1] / seen[0]), self._most)
        seen[0] += 1.0
        seen[1] += value
        factor = 1.0 + self._stakes * (value - mean)
        if self._power < 1.0:
            factor **= self._power
        state[0] += 1.0
        state[1] += self._kept
        state *= factor
        state[2] += value * state[0]
        self._kept += 1
        return value > mean and bool(state[0].sum() >= self._threshold)

    def allow(self, rows_per_false_alarm: float) -> None:
        """From now on so many values between two false alarms, on average, at the least."""
        self._threshold = rows_per_false_alarm * len(_STEPS)

    @property
    def evidence(self) -> float:
        """Where 1 and more is a detection."""
        return float(self._state[0].sum()) / self._threshold

    @property
    def rows(self) -> int:
        """Values since the change, by the weight of all starts."""
        wealth = float(self._state[0].sum())
        if wealth <= 0.0:
            return 0
        return max(round(self._kept - float(self._state[1].sum()) / wealth), 1)

    @property
    def mean(self) -> float:
        """Their mean."""
        wealth = float(self._state[0].sum())
        if wealth <= 0.0:
            return 0.0
        rows = max(self._kept - float(self._state[1].sum()) / wealth, 1.0)
        return min(float(self._state[2].sum()) / wealth / rows, 1.0)

    def sees(self, values: Floats, shares: Floats, rows: int) -> bool:
        """Whether it would have told, with probability 0.9, of so many rows that have these values
        in these shares: the stakes' wealth begun with the first of them, and what starts before
        that had not lost yet."""
        mean = float(values @ shares)
        # What is fed moves what is believed of the reference: here as it stands halfway.
        known, fed = self.reference.rows + 1.0, rows / 2
        believed = min((known * self.reference.mean + fed * mean) / (known + fed), self._most)
        logs = self._power * np.log1p(self._stakes[:, None] * (values - believed))
        growth = logs @ shares
        # Of rows that hang together a sum of so many varies as much more as they do.
        variance = np.maximum(logs**2 @ shares - growth**2, 0.0) / self._power
        # Where nothing has risen a start's wealth shrinks by half its stake's variance per row.
        shrinking = np.square(self._stakes) * self.reference.variance * self._power / 2
        begun = np.log1p(1.0 / shrinking)
        reached = begun + rows * growth - _SHORTFALL * np.sqrt(rows * variance)
        return bool(np.logaddexp.reduce(reached) >= math.log(self._threshold))

    def clear(self) -> None:
        """Begins anew; what is known of the reference stays."""
        self._state[:] = 0.0
        self._kept = 0

    def dump(self) -> Floats:
        """Reference and all that was fed, as one row of numbers."""
        known = [float(each) for each in astuple(self.reference)]
        counts = [self._threshold, float(self._kept)]
        return np.concatenate([known, self._seen, counts, self._state.ravel()])

    @classmethod
    def loaded(cls, stored: Floats) -> Self:
        """The opposite of dump, with the budget that it had; CorruptState where it can't have been
        written."""
        if stored.shape != (_KNOWN + 4 + 3 * len(_STEPS),) or not np.isfinite(stored).all():
            raise CorruptState("the state of an anchored test has another form")
        rows, mean, variance, clumping = stored[:_KNOWN].tolist()
        if rows < 0 or not 0.0 <= mean <= 1.0 or variance <= 0.0:
            raise CorruptState("the reference of an anchored test is none")
        test = cls(Sample(int(rows), mean, variance, clumping), rows_per_false_alarm=1.0)
        test._seen = stored[_KNOWN : _KNOWN + 2].tolist()
        test._threshold, kept = stored[_KNOWN + 2 : _KNOWN + 4].tolist()
        test._kept = int(kept)
        test._state = stored[_KNOWN + 4 :].reshape(test._state.shape).astype(np.float64)
        return test


def dumped(test: Anchored | None) -> Floats:
    """As ``loaded`` takes it."""
    return np.empty(0) if test is None else test.dump()


def loaded(stored: Floats) -> Anchored | None:
    """None where there was none."""
    return Anchored.loaded(stored) if len(stored) else None
