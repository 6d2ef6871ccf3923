"""Does a feature that used to move stand still?"""

import numpy as np
from numpy.typing import NDArray

from homeostat_monitor.domain.judges import Rule
from homeostat_monitor.domain.judges.distance import FEWEST_VALUES
from homeostat_monitor.domain.judges.rate_judge import RateJudge
from homeostat_monitor.domain.judges.rates import ALPHA, ExplainedRates, explained_rates
from homeostat_monitor.domain.windows.layout import Counts, Layout
from homeostat_monitor.domain.windows.reference import ReferenceCounts

# Less than this is a distribution that leans, which another judge sees.
_STUCK = 0.98


def still(layout: Layout, name: str, sums: Counts) -> tuple[int, int]:
    """Rows that had one and the same value, and rows with any: of numbers all or none of them,
    by their variance; of texts those of the most frequent one."""
    shares = _still_rows(layout, name, sums[None, :])
    return int(shares[0]), int(layout.histogram(name, sums).sum())


def stuck_judge(counts: ReferenceCounts, length_us: int, level: float = ALPHA) -> RateJudge:
    """The explained rate: blocks of the reference. What has stood still for a block of the
    reference may do so again, for as long; what has for one of its windows of ``length_us``, as a
    weekday does for each day, may do so in any."""
    blocks = list(counts.blocks())
    whole = counts.sums[None, :]
    windows, rows_of = np.unique(counts.event_times_us // length_us, return_inverse=True)
    own = counts.grouped(rows_of.astype(np.intp), len(windows))
    rates = {}
    for name in counts.features:
        if _shares(counts.layout, name, own, FEWEST_VALUES).max(initial=0.0) >= _STUCK:
            rates[name] = ExplainedRates(1.0, 1.0, (), ())
            continue
        typical = float(_shares(counts.layout, name, whole, 1).max(initial=0.0))
        shares = (
            (each.rows, _shares(counts.layout, name, each.sums, FEWEST_VALUES)) for each in blocks
        )
        rates[name] = explained_rates(typical, typical, shares)
    return RateJudge(
        Rule.STUCK,
        "still_share",
        still,
        rates,
        level,
        least_rate=_STUCK,
        fewest=FEWEST_VALUES,
        has_past=False,
    )


def _still_rows(layout: Layout, name: str, sums: Counts) -> NDArray[np.int64]:
    histograms = layout.histogram(name, sums)
    moments = layout.moments(name, sums)
    if moments is None:
        fullest: NDArray[np.int64] = histograms.max(axis=1, initial=0)
        return fullest
    present = histograms.sum(axis=1)
    first, squares = (each.astype(np.float64) for each in moments)
    # In whole steps: a value that moves by less than a step of 1/256 deviation stands still.
    spread = present * squares - first * first
    return np.where(spread < np.maximum(present, 1), present, 0)


def _shares(layout: Layout, name: str, sums: Counts, fewest: int) -> NDArray[np.float64]:
    present = layout.histogram(name, sums).sum(axis=1)
    full = present >= fewest
    shares: NDArray[np.float64] = _still_rows(layout, name, sums)[full] / present[full]
    return shares
