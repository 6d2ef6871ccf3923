"""Are more numbers outside of the reference's range than the reference explains?"""

import numpy as np
from numpy.typing import NDArray

from homeostat_monitor.domain.judges import Rule
from homeostat_monitor.domain.judges.rate_judge import RateJudge
from homeostat_monitor.domain.judges.rates import ALPHA, explained_rates
from homeostat_monitor.domain.reference import ReferenceCounts
from homeostat_monitor.domain.sums import Counts, Layout

Floats = NDArray[np.float64]

# The next value of n + 1 like ones is the least or the greatest with a chance of 2 / (n + 1);
# one deviation more, for the two ends are two values.
_EXPECTED_OUTSIDE = 4


def outside(layout: Layout, name: str, sums: Counts) -> tuple[int, int]:
    """Rows with a number that the reference's range does not hold, and rows with any number."""
    return layout.out_of_range(name, sums), int(layout.histogram(name, sums).sum())


def out_of_range_judge(counts: ReferenceCounts, level: float = ALPHA) -> RateJudge:
    """The explained rate: each block against the range of all the others. A stream that wanders
    leaves its range; one that does not must not."""
    rates = {}
    for name, values in counts.numbers():
        present = int(np.isfinite(values).sum())
        expected = min(_EXPECTED_OUTSIDE / (present + 1), 1.0)
        shares = (
            (rows, outside_elsewhere(values, rows)) for rows in counts.block_sizes(counts.rows)
        )
        rates[name] = explained_rates(0.0, expected, shares)
    return RateJudge(Rule.OUT_OF_RANGE, "out_of_range_rate", outside, rates, level)


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
