"""Are more numbers outside of the reference's range than the reference explains?"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc

from homeostat_monitor.domain.judges import Finding, Past, Rule
from homeostat_monitor.domain.judges.rate_judge import RateJudge
from homeostat_monitor.domain.judges.rates import ALPHA, explained_rates
from homeostat_monitor.domain.windows.layout import Counts, Layout
from homeostat_monitor.domain.windows.reference import ReferenceCounts
from homeostat_monitor.domain.windows.window import Window

Floats = NDArray[np.float64]

# The next value of n + 1 like ones is the least or the greatest with a chance of 2 / (n + 1);
# one deviation more, for the two ends are two values.
_EXPECTED_OUTSIDE = 4
_REACH_BLOCKS = 20
# Chance that the blocks of a feature that does not wander are taken for those of one that does.
_WANDERING_LEVEL = 1e-4
# A few values far away make little of a mean, but much of a deviation: twice that of any block is
# more than it was, and of bursts, whose blocks differ more than that, as much again.
_LEAST_FACTOR = 2.0
# The span of means that are spread evenly, and as far again on either side.
_LEAST_FAR = 3.0
_MOST_FACTOR = 100.0


@dataclass(frozen=True, slots=True)
class Reach:
    """How far a feature that wanders may get: from where to where means of windows may be, how far
    the blocks' means are apart, and the greatest deviation of a window."""

    low: float
    high: float
    spread: float
    deviation: float

    def holds(self, middle: tuple[float, float], past: tuple[float, float] | None = None) -> bool:
        """Whether a window of this mean and deviation is within reach, or within reach of a past
        with that mean and deviation."""
        low, high, deviation = self.low, self.high, self.deviation
        if past is not None:
            low, high = past[0] - self.spread, past[0] + self.spread
            deviation = max(deviation, _LEAST_FACTOR * past[1])
        return low <= middle[0] <= high and middle[1] <= deviation


def outside(layout: Layout, name: str, sums: Counts) -> tuple[int, int]:
    """Rows with a number that the reference's range does not hold, and rows with any number."""
    return layout.out_of_range(name, sums), int(layout.histogram(name, sums).sum())


@dataclass(frozen=True, slots=True)
class OutOfRangeJudge:
    """Exact binomial test of the rate of numbers out of range; of a feature that wanders, also
    how far its mean is.

    Where blocks of n rows each differ, the next of N + 1 sets a record on either side with a
    chance of 2 / (N + 1), and may lie beyond it as a whole: records of such a feature are no news.
    """

    rates: RateJudge
    # Of features that wander.
    reach: Mapping[str, Reach]
    rule: Rule = Rule.OUT_OF_RANGE
    remarks: Sequence[str] = ()

    def judge(self, layout: Layout, window: Window) -> list[Finding]:
        """A finding per number feature with any value."""
        found = self.rates.judge(layout, window)
        return [self._reached(layout, window, each, None) for each in found]

    def against(self, layout: Layout, window: Window, name: str, past: Past) -> Finding | None:
        """The same of one feature from where the past was."""
        found = self.rates.against(layout, window, name, past)
        return None if found is None else self._reached(layout, window, found, past)

    def _reached(
        self, layout: Layout, window: Window, finding: Finding, past: Past | None
    ) -> Finding:
        name = finding.feature
        reach, middle = self.reach.get(name), layout.mean_and_deviation(name, window.sums)
        if not finding.is_breach or reach is None or middle is None:
            return finding
        before = None if past is None else layout.mean_and_deviation(name, past.sums)
        if not reach.holds(middle, before):
            return finding
        return replace(finding, threshold=finding.observed, is_breach=False)


def out_of_range_judge(counts: ReferenceCounts, level: float = ALPHA) -> OutOfRangeJudge:
    """The explained rate: each block against the range of all the others. A stream that wanders
    leaves its range; one that does not must not."""
    rates, reach = {}, {}
    for name, values in counts.numbers():
        present = int(np.isfinite(values).sum())
        expected = min(_EXPECTED_OUTSIDE / (present + 1), 1.0)
        far = _reach(values)
        if far is not None:
            reach[name] = far
        # How far out they are says more than how many, where that is known.
        sizes = counts.block_sizes(counts.rows if far is None else 0)
        shares = ((rows, outside_elsewhere(values, rows)) for rows in sizes)
        rates[name] = explained_rates(0.0, expected, shares)
    judge = RateJudge(Rule.OUT_OF_RANGE, "out_of_range_rate", outside, rates, level)
    return OutOfRangeJudge(judge, reach)


def _reach(values: Floats) -> Reach | None:
    """None of a feature whose blocks' means differ no more than those of rows in random order:
    one-way analysis of variance, by its chi-squared limit."""
    parts = [part[np.isfinite(part)] for part in np.array_split(values, _REACH_BLOCKS)]
    parts = [part for part in parts if len(part) > 1]
    known = np.concatenate(parts) if parts else np.empty(0)
    # Squares of huge numbers are none: nothing is known of these.
    with np.errstate(over="ignore", invalid="ignore"):
        variance = float(known.var()) if len(known) else 0.0
    if len(parts) < _REACH_BLOCKS / 2 or not 0 < variance < math.inf:
        return None
    means = np.array([part.mean() for part in parts])
    sizes = np.array([len(part) for part in parts])
    between = float((sizes * (means - known.mean()) ** 2).sum()) / variance
    if chdtrc(len(parts) - 1, between) > _WANDERING_LEVEL:
        return None
    middle = float(np.median(means))
    far = _next_of(np.abs(means - middle), _LEAST_FAR)
    deviation = _next_of(np.array([part.std() for part in parts]), _LEAST_FACTOR)
    return Reach(middle - far, middle + far, float(np.ptp(means)), deviation)


def _next_of(sizes: Floats, least: float) -> float:
    """How large the next block's may be: the largest, and as many times more as the largest is
    more than usual. Of bursts, whose blocks differ by more than that, the worst is yet to come."""
    most, usual = float(sizes.max()), float(np.median(sizes))
    return most * float(np.clip(most / max(usual, most / _MOST_FACTOR), least, _MOST_FACTOR))


def outside_elsewhere(values: Floats, rows: int) -> Floats:
    """Per whole block of so many rows: the share of its numbers outside of all others' range."""
    whole = len(values) // rows
    if whole < 2:
        return np.empty(0)
    blocks = values[: whole * rows].reshape(whole, rows)
    known = np.isfinite(blocks)
    least = np.where(known, blocks, np.inf).min(axis=1)
    greatest = np.where(known, blocks, -np.inf).max(axis=1)
    lows, highs = _least_of_others(least), -_least_of_others(-greatest)
    out = known & ((blocks < lows[:, None]) | (blocks > highs[:, None]))
    shares: Floats = out.sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    return shares


def _least_of_others(values: Floats) -> Floats:
    first, second = np.partition(values, 1)[:2]
    others: Floats = np.where(values == first, second, first)
    # Where two blocks share the least, each still has it among the others.
    return others if (values == first).sum() == 1 else np.full(len(values), first)
