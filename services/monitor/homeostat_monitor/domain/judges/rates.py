"""Is a rate of rows higher than the reference explains? Exact, by the binomial distribution."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc

Floats = NDArray[np.float64]

# Chance of one false alert per window over all features of a rule.
_ALPHA = 1e-4
_MARGIN_OVER_WORST = 1.25
_DEVIATIONS = 3.0


def explained_rate(expected: float, block_rates: Sequence[Floats]) -> float:
    """The highest rate that the reference explains: what is expected of it overall, or what its
    own contiguous blocks show, with a margin. ``block_rates``: by growing block size; the largest
    with enough blocks counts, since small blocks show chance more than movement."""
    useful = [rates for rates in block_rates if len(rates) >= 7]
    if not useful:
        return min(expected, 1.0)
    rates = useful[-1]
    natural = max(
        _MARGIN_OVER_WORST * float(rates.max()), float(rates.mean() + _DEVIATIONS * rates.std())
    )
    return min(max(expected, natural), 1.0)


def critical_count(rows: int, rate: float, tests: int) -> int:
    """The least count whose chance at ``rate`` is below the level shared by so many tests."""
    if rate >= 1.0:
        return rows + 1
    level = _ALPHA / max(tests, 1)
    low, high = 0, rows + 1
    while low < high:
        middle = (low + high) // 2
        if chance_of_at_least(middle, rows, rate) < level:
            high = middle
        else:
            low = middle + 1
    return low


def chance_of_at_least(count: int, rows: int, rate: float) -> float:
    """P(X >= count) for X ~ Binomial(rows, rate), exact to rounding."""
    if count <= 0:
        return 1.0
    if count > rows or rate <= 0.0:
        return 0.0
    if rate >= 1.0:
        return 1.0
    return float(betainc(count, rows - count + 1, rate))
