"""Are more numbers outside of the reference's range than the reference explains?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from homeostat_monitor.domain.judges import Finding, Past, Rule
from homeostat_monitor.domain.judges.rate_judge import RateJudge
from homeostat_monitor.domain.judges.rates import ALPHA, critical_count, explained_rates
from homeostat_monitor.domain.layout import Counts, Layout
from homeostat_monitor.domain.reference import ReferenceCounts
from homeostat_monitor.domain.windows import Window

Floats = NDArray[np.float64]

# The next value of n + 1 like ones is the least or the greatest with a chance of 2 / (n + 1);
# one deviation more, for the two ends are two values.
_EXPECTED_OUTSIDE = 4
_REACH_BLOCKS = 20


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
    # Feature that wanders -> the least and greatest mean that the way it wanders explains.
    reach: Mapping[str, tuple[float, float]]
    rule: Rule = Rule.OUT_OF_RANGE
    remarks: Sequence[str] = ()

    def judge(self, layout: Layout, window: Window) -> list[Finding]:
        """A finding per number feature with any value."""
        return [self._reached(layout, window, each) for each in self.rates.judge(layout, window)]

    def against(self, layout: Layout, window: Window, name: str, past: Past) -> Finding | None:
        """The same of one feature where the past had a rate of its own."""
        found = self.rates.against(layout, window, name, past)
        return None if found is None else self._reached(layout, window, found)

    def _reached(self, layout: Layout, window: Window, finding: Finding) -> Finding:
        reach = self.reach.get(finding.feature)
        middle = layout.mean_and_deviation(finding.feature, window.sums)
        if not finding.is_breach or reach is None or middle is None:
            return finding
        if not reach[0] <= middle[0] <= reach[1]:
            return finding
        return replace(finding, threshold=finding.observed, is_breach=False)


def out_of_range_judge(counts: ReferenceCounts, level: float = ALPHA) -> OutOfRangeJudge:
    """The explained rate: each block against the range of all the others. A stream that wanders
    leaves its range; one that does not must not."""
    rates, reach = {}, {}
    for name, values in counts.numbers():
        present = int(np.isfinite(values).sum())
        expected = min(_EXPECTED_OUTSIDE / (present + 1), 1.0)
        shares = [
            (rows, outside_elsewhere(values, rows)) for rows in counts.block_sizes(counts.rows)
        ]
        rates[name] = explained_rates(0.0, expected, shares)
        if any(_wanders(found, rows, expected) for rows, found in shares):
            reach[name] = _reach(values)
    judge = RateJudge(Rule.OUT_OF_RANGE, "out_of_range_rate", outside, rates, level)
    return OutOfRangeJudge(judge, reach)


def _wanders(shares: Floats, rows: int, expected: float) -> bool:
    """Is more of some block outside of all others' range than of exchangeable rows?"""
    if not len(shares):
        return False
    limit = critical_count(rows, expected, len(shares))
    return bool(shares.max() * rows >= limit)


def _reach(values: Floats) -> tuple[float, float]:
    """The means of blocks, and as far again on either side: a block is a twentieth of the
    reference, so the reference is at most that short a piece of how the feature wanders."""
    parts = np.array_split(values, _REACH_BLOCKS)
    means = np.array([part[np.isfinite(part)].mean() for part in parts if np.isfinite(part).any()])
    spread = float(np.ptp(means))
    return float(means.min()) - spread, float(means.max()) + spread


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
