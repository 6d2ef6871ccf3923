"""Pairs of features: do they still depend on each other as in the reference?"""

from dataclasses import dataclass

import numpy as np

from homeostat_monitor.domain.diagnosis.since import Products
from homeostat_monitor.domain.windows.layout import Counts, Layout
from homeostat_monitor.domain.windows.window import Window

# Fewer rows of both say nothing of a dependence.
_FEWEST_ROWS = 10
# A correlation of scores of exactly 1 has no Fisher transform.
_NEARLY_ONE = 0.999


@dataclass(frozen=True, slots=True)
class Dependence:
    """The correlation of a pair's scores before and since the change."""

    number: int
    features: tuple[str, str]
    before: float
    after: float
    # Deviations of chance by which they differ (Fisher 1921).
    deviates: float

    @property
    def excess(self) -> float:
        """As of a feature: what chance does not explain."""
        return max(self.deviates**2 - 1.0, 0.0)

    @property
    def is_weaker(self) -> bool:
        """A few rows of few values often go together perfectly; that is no fault."""
        return bool(self.after * np.sign(self.before) < abs(self.before))

    @property
    def p_value(self) -> float:
        from scipy.special import ndtr  # noqa: PLC0415 - scipy takes a while to import: not at start

        return float(2 * ndtr(-abs(self.deviates)))


def dependences(
    layout: Layout, before: Counts, after: Counts, dispersion: float
) -> list[Dependence]:
    """Every watched pair that enough rows have both features of."""
    found = []
    for number, features in enumerate(layout.extras.pairs):
        was, now = (_correlation(layout, number, sums) for sums in (before, after))
        if was is None or now is None:
            continue
        known, seen = (float(layout.pair(number, each)[0]) for each in (before, after))
        # Scores are clipped and tied: as for ranks, 1.06 over the rows (Fieller et al. 1957).
        spread = np.sqrt(1.06 * dispersion * (1 / (known - 3) + 1 / (seen - 3)))
        deviates = float((np.arctanh(now) - np.arctanh(was)) / spread)
        found.append(Dependence(number, features, was, now, deviates))
    return found


def _correlation(layout: Layout, number: int, sums: Counts) -> float | None:
    rows, products = (float(each) for each in layout.pair(number, sums))
    if rows < _FEWEST_ROWS:
        return None
    (a, spread_a), (b, spread_b) = (
        _scores(layout, name, sums) for name in layout.extras.pairs[number]
    )
    if spread_a * spread_b == 0:
        return None
    correlation = (products / rows - a * b) / (spread_a * spread_b)
    return float(np.clip(correlation, -_NEARLY_ONE, _NEARLY_ONE))


def _scores(layout: Layout, name: str, sums: Counts) -> tuple[float, float]:
    """Mean and deviation of a feature's score over its present values."""
    values = np.array(layout.extras.scores[name], dtype=np.float64)
    counts = layout.histogram(name, sums).astype(np.float64)
    shares = counts / max(counts.sum(), 1.0)
    mean = float(shares @ values)
    return mean, float(np.sqrt(max(shares @ values**2 - mean**2, 0.0)))


def products_of(
    case_layout: Layout, pair: Dependence, before: Counts, windows: list[Window]
) -> Products:
    """The pair's history, for the change in its mean product."""
    each = [case_layout.pair(pair.number, window.sums) for window in windows]
    rows, total = (float(value) for value in case_layout.pair(pair.number, before))
    spreads = [_scores(case_layout, name, before)[1] for name in pair.features]
    return Products(
        np.array([float(rows) for rows, _ in each]),
        np.array([float(sums) for _, sums in each]),
        total / max(rows, 1.0),
        max(spreads[0] ** 2 * spreads[1] ** 2, 1e-12),
    )
