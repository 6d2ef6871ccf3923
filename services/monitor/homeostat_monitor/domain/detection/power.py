"""What the budget buys: the smallest change of each feature that would be seen in time.

A change is taken for seen where the test that sees it best, over the span that does at its last
look within the wanted events, exceeds its level though the sample falls short by chance as far as
nine in ten do. Nothing is simulated; the same arithmetic as the detector's own.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from homeostat_monitor.domain.detection.plan import SCALES, Plan, plan_of
from homeostat_monitor.domain.detection.tails import log_mean, log_tail
from homeostat_monitor.domain.windows.bins import CategoryBins, NumberBins
from homeostat_monitor.domain.windows.layout import SCORE
from homeostat_monitor.domain.windows.reference import ReferenceCounts

Floats = NDArray[np.float64]

# Of the look that sees it best; with the looks and tests beside it nine in ten samples are seen.
_SHORTFALL = 1.1
# The last look at a span may lie so much of it back: looks come in steps of a quarter. And a span
# is up to a sixteenth longer than wanted.
_STRIDE = 1 / 4
_LONGER = 1 + 1 / 16
# One deviation of a normal feature moves its mean mid-rank by this much per deviation of shift, in
# mid-rank deviations: sqrt(3 / pi), Wilcoxon's efficiency; ten bins keep the most of it.
_RANKS_PER_SHIFT = math.sqrt(3 / math.pi) * 0.98
_STEPS = 40
# Of a span's rows so many must be changed ones.
_LEAST = 0.2


@dataclass(frozen=True, slots=True)
class PowerLine:
    """What would be seen of one feature, with probability 0.9, within so many events.

    None: no change of the kind would be seen in that time, or the kind does not apply.
    """

    feature: str
    within_events: int
    # Smallest shift of the mean, in deviations of the reference; numbers and scores. It holds for
    # a feature that is spread like a bell; one that leans or has frequent values is seen earlier.
    shift: float | None
    # Smallest share of nulls, over the reference's own share.
    null_rate: float | None
    # Smallest share of texts that the reference never had.
    unseen_rate: float | None


def power_lines(
    counts: ReferenceCounts, level_per_look: float, within_events: int
) -> Sequence[PowerLine]:
    """One line per feature and one for the scores (named as in the layout)."""
    plan = plan_of(counts)
    level = math.log(level_per_look)
    changed = {scale: min(scale, within_events - _STRIDE * scale) / scale for scale in SCALES}
    looks = [(scale, share / _LONGER, level) for scale, share in changed.items() if share >= _LEAST]
    return [_line(plan, counts, number, looks, within_events) for number in range(len(plan.names))]


def _line(
    plan: Plan,
    counts: ReferenceCounts,
    number: int,
    looks: Sequence[tuple[int, float, float]],
    within_events: int,
) -> PowerLine:
    bins, name = counts.layout.bins[number], plan.names[number]
    nulls = plan.cells.bins + number
    shift = null_rate = unseen = None
    if isinstance(bins, NumberBins):
        shift = _smallest(lambda size: any(_sees_shift(plan, number, size, *at) for at in looks), 4)
    if name != SCORE:
        base = plan.cells.reference[nulls] / max(plan.cells.rows[nulls], 1.0)
        found = _smallest(lambda rate: any(_sees_rate(plan, nulls, rate, *at) for at in looks), 1)
        null_rate = None if found is None or found <= base else found - base
    if isinstance(bins, CategoryBins):
        cell = int(plan.cells.starts[number]) + bins.unseen
        unseen = _smallest(lambda rate: any(_sees_rate(plan, cell, rate, *at) for at in looks), 1)
    return PowerLine(name, within_events, shift, null_rate, unseen)


def _smallest(sees: Callable[[float], bool], most: float) -> float | None:
    """By halving; None where not even ``most`` is seen."""
    low, high = 0.0, float(most)
    if not sees(high):
        return None
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if sees(middle) else (middle, high)
    return high


def _sees_shift(
    plan: Plan, number: int, size: float, span: int, changed: float, level: float
) -> bool:
    """``changed``: the share of the span's rows that are."""
    trend = plan.trends
    n = trend.rows[number]
    if not np.isfinite(trend.share[number]) or trend.variance[number] <= 0:
        return False
    present = n / max(plan.cells.rows[plan.cells.bins + number], 1.0)
    m = span * min(present, 1.0)
    effective = m * n / (m + n)
    # The tail of a bell is not reached by mid-ranks: a great shift moves them less than in line.
    moved = math.sqrt(3.0) * math.erf(
        size * _RANKS_PER_SHIFT / math.sqrt(3.0) * math.sqrt(math.pi) / 2
    )
    z = changed * moved * math.sqrt(effective) - _SHORTFALL
    if z <= 0:
        return False
    arguments = (z * math.sqrt(effective), effective, effective)
    deviation, variance, rows = (np.array([each]) for each in arguments)
    worst = np.array([abs(trend.skew[number])])
    log_p = log_mean(deviation, variance, rows, worst, trend.kurt[[number]])
    return bool(log_p[0] < level + trend.share[number])


def _sees_rate(plan: Plan, cell: int, rate: float, span: int, changed: float, level: float) -> bool:
    cells = plan.cells
    if not np.isfinite(cells.share_more[cell]):
        return False
    r, n, m = cells.reference[cell], cells.rows[cell], float(span)
    rate = changed * rate + (1 - changed) * min(r / n, rate)
    # What nine in ten samples have at least: binomial, by its normal approximation.
    fewest = math.floor(m * rate - _SHORTFALL * math.sqrt(m * rate * (1 - rate)))
    if fewest <= m * r / n:
        return False
    k, of, held, rows = (np.array([float(each)]) for each in (fewest, m, r, n))
    log_p = float(log_tail(k, of, held, rows, np.array([True]))[0])
    if cells.is_unseen[cell]:
        log_p /= 1 + m / n
    return log_p < level + float(cells.share_more[cell])
