"""Do rows come more than once? From the sketch of whole rows, against the reference's own rate.

Rows alike share one of the sketch's buckets. Of n different rows the pairs that share one are
n (n - 1) / 2 over the number of buckets, by chance some more; a row that comes twice adds a pair
that chance does not.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from homeostat_monitor.domain.judges import Finding, Rule
from homeostat_monitor.domain.windows.layout import BUCKETS, Counts, Layout
from homeostat_monitor.domain.windows.reference import ReferenceCounts
from homeostat_monitor.domain.windows.window import Window

Floats = NDArray[np.float64]

# Fewer rows are not judged.
_FEWEST_ROWS = 25
# Where rows are that often alike by nature, one more copy is no news.
_MOST_ALIKE = 0.02
_FEWEST_BLOCKS = 4
_MARGIN_OVER_WORST = 1.25
_CALIBRATION_LEVEL = 1e-3


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Extra copies per row, against what the reference shows in blocks and chance may add."""

    layout: Layout
    # Probability that two rows near in time are alike by nature, and at most.
    typical: float
    alike: float
    level: float

    def judge(self, window: Window) -> Finding | None:
        """One finding under no feature; None where the window has too few rows."""
        rows = window.rows
        if rows < _FEWEST_ROWS:
            return None
        observed = float(extra_copies(self.layout.sketch(window.sums)[None, :])[0])
        threshold = self.alike * (rows - 1) / 2 + chance(rows, self.level)
        typical = self.typical * (rows - 1) / 2
        return Finding(
            Rule.DUPLICATES,
            "",
            "extra_copies_per_row",
            observed,
            typical,
            threshold,
            is_breach=observed > threshold,
        )


def duplicates(counts: ReferenceCounts, level: float) -> Duplicates | None:
    """None where there is no sketch, or rows are often alike by nature."""
    layout = counts.layout
    if not layout.extras.has_sketch or not counts.rows:
        return None
    sketches = [(each.rows, layout.sketch(each.sums)) for each in counts.blocks()]
    known = [_alike(rows, each) for rows, each in sketches if len(each) >= _FEWEST_BLOCKS]
    whole = float(_alike(counts.rows, layout.sketch(counts.sums)[None, :])[0])
    # Of the largest blocks: rows that repeat at once do so within any of them, others do not.
    most = max(_MARGIN_OVER_WORST * float(known[-1].max()) if known else 0.0, whole)
    if most > _MOST_ALIKE:
        return None
    return Duplicates(layout, whole, most, level)


def _alike(rows: int, sketches: Counts) -> Floats:
    """How often two rows of a block are alike at least: what chance makes of different rows is
    taken off, or it would be taken for their nature."""
    beyond = np.maximum(extra_copies(sketches) - chance(rows, _CALIBRATION_LEVEL), 0.0)
    alike: Floats = 2 * beyond / max(rows - 1, 1)
    return alike


def extra_copies(sketches: Counts) -> Floats:
    """Per row of buckets: pairs that share one beyond those of different rows, over the rows."""
    each = sketches.astype(np.float64)
    rows = each.sum(axis=1)
    pairs = (each * (each - 1)).sum(axis=1) / 2
    found: Floats = (pairs - rows * (rows - 1) / (2 * BUCKETS)) / np.maximum(rows, 1)
    return found


@lru_cache(maxsize=4096)
def chance(rows: int, level: float) -> float:
    """Extra copies per row that so many different rows seem to have with that chance.

    A gamma distribution with the first three moments of the pairs that share a bucket, which are
    exact: pairs are independent two by two, but three rows in one bucket are three pairs at once.
    Poisson's and the chi-squared distribution have tails that are too light by several times.
    """
    from scipy.special import gammainccinv  # noqa: PLC0415 - not at start

    rows = max(rows, 2)
    pairs, share = rows * (rows - 1) / 2, 1 / BUCKETS
    variance = pairs * share * (1 - share)
    third = variance * (1 - 2 * share + 2 * (rows - 2) * share)
    shape, scale = 4 * variance**3 / third**2, third / (2 * variance)
    # Whole pairs: half a one more.
    upper = scale * (float(gammainccinv(shape, level)) - shape) + 0.5
    return upper / rows
