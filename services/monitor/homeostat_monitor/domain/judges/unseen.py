"""Do more texts come that the reference never had than it leads to expect?"""

import numpy as np
from numpy.typing import NDArray

from homeostat_monitor.domain.judges import Rule
from homeostat_monitor.domain.judges.rate_judge import RateJudge
from homeostat_monitor.domain.judges.rates import ALPHA, explained_rates
from homeostat_monitor.domain.windows.layout import Counts, Layout
from homeostat_monitor.domain.windows.reference import ReferenceCounts

Floats = NDArray[np.float64]


def unseen(layout: Layout, name: str, sums: Counts) -> tuple[int, int]:
    """Rows with a text that the reference never had, and rows with any text."""
    return int(layout.unseen(name, sums)), int(layout.histogram(name, sums).sum())


def unseen_values_judge(counts: ReferenceCounts, level: float = ALPHA) -> RateJudge:
    """The explained rate: Good-Turing over the whole, and each block against all the others."""
    rates = {}
    for name, codes, present in counts.categories():
        typical, expected = good_turing(np.bincount(codes[present]))
        shares = (
            (rows, unseen_elsewhere(codes, present, rows))
            for rows in counts.block_sizes(counts.rows)
        )
        rates[name] = explained_rates(typical, expected, shares)
    return RateJudge(Rule.UNSEEN_VALUES, "unseen_rate", unseen, rates, level)


def good_turing(value_counts: NDArray[np.int64]) -> tuple[float, float]:
    """The probability that the next value is one never seen, estimated as the share of values
    seen once; and its upper bound, two deviations higher. Not 1/n: a column where every second
    value is new will go on like that."""
    total = int(value_counts.sum())
    once = int((value_counts == 1).sum())
    bound = (once + 2 * np.sqrt(once) + 1) / (total + 2)
    return once / max(total, 1), float(min(bound, 1.0))


def unseen_elsewhere(codes: NDArray[np.int64], present: NDArray[np.bool_], rows: int) -> Floats:
    """Per whole block of so many rows: the share of its values that no other block has."""
    whole = len(codes) // rows
    if not whole:
        return np.empty(0)
    blocks = np.arange(len(codes)) // rows
    kept, at = codes[present], blocks[present]
    kinds = int(codes.max()) + 1
    first = np.full(kinds, np.iinfo(np.int64).max)
    last = np.full(kinds, -1)
    np.minimum.at(first, kept, at)
    np.maximum.at(last, kept, at)
    alone = first[kept] == last[kept]
    own = np.bincount(at[alone], minlength=whole + 1)[:whole]
    values = np.bincount(at, minlength=whole + 1)[:whole]
    shares: Floats = own / np.maximum(values, 1)
    return shares
