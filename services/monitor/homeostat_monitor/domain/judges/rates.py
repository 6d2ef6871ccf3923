"""Is a rate of rows higher than the reference explains? Exact, by the binomial distribution."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc

Floats = NDArray[np.float64]

# Chance of one false alert per window over all features of a rule, if nobody asks for less.
ALPHA = 1e-4
# Fewer blocks than this say too little of the worst one.
_FEWEST_BLOCKS = 4
_MARGIN_OVER_WORST = 1.25
_DEVIATIONS = 3.0


@dataclass(frozen=True, slots=True)
class ExplainedRates:
    """The highest rate that the reference explains, by the row count of the window."""

    typical: float
    expected: float
    rows: tuple[int, ...]
    rates: tuple[float, ...]

    def at(self, rows: int) -> float:
        """For a window of so many rows: short windows vary more."""
        if not self.rows:
            return min(self.expected, 1.0)
        place = max(int(np.searchsorted(self.rows, rows, side="right")) - 1, 0)
        return self.rates[place]


def explained_rates(
    typical: float, expected: float, blocks: Iterable[tuple[int, Floats]]
) -> ExplainedRates:
    """What is expected overall, or what contiguous blocks of the reference show, with a margin:
    rates that come in bursts do so again. ``blocks``: rates of blocks by their row count."""
    sizes: list[int] = []
    highest: list[float] = []
    for rows, rates in blocks:
        if len(rates) < _FEWEST_BLOCKS:
            continue
        natural = max(
            _MARGIN_OVER_WORST * float(rates.max()),
            float(rates.mean() + _DEVIATIONS * rates.std()),
        )
        sizes.append(rows)
        highest.append(min(max(expected, natural), 1.0))
    return ExplainedRates(typical, expected, tuple(sizes), tuple(highest))


def critical_count(rows: int, rate: float, tests: int, level: float = ALPHA) -> int:
    """The least count whose chance at ``rate`` is below the level shared by so many tests."""
    if rate >= 1.0:
        return rows + 1
    level /= max(tests, 1)
    low, high = 0, rows + 1
    while low < high:
        middle = (low + high) // 2
        if chance_of_at_least(middle, rows, rate) < level:
            high = middle
        else:
            low = middle + 1
    return low


def rate_after(past_rate: float, natural: float) -> float:
    """What a rate may be where it was ``past_rate`` before, in a stream whose blocks show up to
    ``natural``: no rarer than usual, and as much more as blocks of the reference are apart."""
    return min(_MARGIN_OVER_WORST * past_rate + natural, 1.0)


def chance_of_at_least(count: int, rows: int, rate: float) -> float:
    """P(X >= count) for X ~ Binomial(rows, rate), exact to rounding."""
    if count <= 0:
        return 1.0
    if count > rows or rate <= 0.0:
        return 0.0
    if rate >= 1.0:
        return 1.0
    return float(betainc(count, rows - count + 1, rate))
