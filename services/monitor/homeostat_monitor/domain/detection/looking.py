"""One look: a span's sums against the reference, all tests of all features at once.

Every test gives the logarithm of a p-value, compared with what the test may spend. What is tested,
per feature: each bin, nulls, unseen texts and numbers out of range exactly (Fisher); the histogram
as a whole (Pearson's chi-squared of two samples, thin bins pooled); mean and spread of mid-ranks
(Wilcoxon's and Mood's statistics on binned values, which see a shift or a change of spread in the
fewest rows); and per pair of dependent features the mean product of mid-ranks.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from homeostat_monitor.domain.detection.plan import Plan, Trends
from homeostat_monitor.domain.detection.tails import log_chi2, log_fewer, log_mean, log_more

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Places = NDArray[np.intp]

# Bins that the span should hold fewer rows of are pooled: the approximation fails on them.
_THIN = 8.0
# Below three deviations nothing is significant at any level that is used.
_REMARKABLE = 9.0


@dataclass(frozen=True, slots=True)
class Cellwise:
    """The remarkable cells: of which look, which cell, too many or too few, and how unlikely."""

    look: Places
    cell: Places
    is_more: NDArray[np.bool_]
    log_p: Floats
    excess: Floats


@dataclass(frozen=True, slots=True)
class Looked:
    """Logarithms of p-values, and ``excess``: by how much they are below what may be spent
    (above 0: a breach). [looks, features] or [looks, pairs]."""

    cells: Cellwise
    # Of shape, shift and spread, whichever exceeds most.
    log_p: Floats
    excess: Floats
    pair_log_p: Floats
    pair_excess: Floats

    def is_quiet(self) -> bool:
        """No test breaches."""
        worst = max(each.max(initial=-1.0) for each in (self.excess, self.pair_excess))
        return bool(worst <= 0 and self.cells.excess.max(initial=-1.0) <= 0)


class Looker:
    """Knows the columns of a span's row: rows, cells, sums of scores, pairs, moments."""

    def __init__(self, plan: Plan) -> None:
        cells, features = plan.cells, len(plan.names)
        self.plan = plan
        self._taken = np.concatenate([[0], cells.at])
        self._cells = slice(1, 1 + len(cells.at))
        self._bins = slice(1, 1 + cells.bins)
        self._nulls = slice(1 + cells.bins, 1 + len(cells.at))
        start = 1 + len(cells.at)
        self._scores = slice(start, start + 4 * features)
        self._pairs = slice(start + 4 * features, start + 4 * features + len(plan.pair_at))
        self._moments = slice(self._pairs.stop, self._pairs.stop + len(plan.moment_at))
        self.width = self._moments.stop
        self._feature_of = cells.feature[: cells.bins]
        self._features = features

    def row_of(self, sums: Ints) -> Ints:
        """Rows of a layout ([panes, layout]) to rows of spans ([panes, width]); additive."""
        found = np.empty((len(sums), self.width), dtype=np.int64)
        found[:, : self._cells.stop] = sums[:, self._taken]
        # Whole numbers below 2**53: exact in floats, where products are fast.
        found[:, self._scores] = found[:, self._bins].astype(np.float64) @ self.plan.weights
        found[:, self._pairs] = sums[:, self.plan.pair_at]
        found[:, self._moments] = sums[:, self.plan.moment_at]
        return found

    def look(self, spans: Ints, log_level: Floats) -> Looked:
        """Spans ([looks, width]) and the logarithm of what each look may spend."""
        sums = spans[:, : self._pairs.stop].astype(np.float64)
        present = sums[:, :1] - sums[:, self._nulls]
        counts = sums[:, self._cells]
        of = np.empty_like(counts)
        of[:, : self.plan.cells.bins] = present[:, self._feature_of]
        of[:, self.plan.cells.bins :] = sums[:, :1]
        surplus = counts * self.plan.cells.rows - of * self.plan.cells.reference
        terms = self._terms(counts, of, surplus)
        levels = log_level[:, None]
        log_p, excess = self._features_of(sums, present, counts, terms, of, levels)
        pair_log_p = self._pair(sums)
        return Looked(
            cells=self._remarkable(counts, of, surplus, terms, log_level),
            log_p=log_p,
            excess=excess,
            pair_log_p=pair_log_p,
            pair_excess=self.plan.correlation.share + levels - pair_log_p,
        )

    def counts(self, span: Ints) -> tuple[Ints, Ints]:
        """Of one span's row: rows of each cell, and the rows that each could have been of."""
        nulls, cells = span[self._nulls], span[self._cells]
        of = np.concatenate([(span[0] - nulls)[self._feature_of], np.full(len(nulls), span[0])])
        return cells, of

    def pair(self, span: Ints, number: int) -> tuple[int, int]:
        """Of one span's row: rows where both of a pair are, and the sum of products."""
        both = span[self._pairs][2 * number : 2 * number + 2]
        return int(both[0]), int(both[1])

    def stands_still(self, span: Ints) -> NDArray[np.bool_]:
        """Of one span's row: which number features had one and the same value all the time."""
        present = (span[0] - span[self._nulls])[self.plan.numbers]
        first, squares = span[self._moments][0::2], span[self._moments][1::2]
        still = np.zeros(self._features, dtype=bool)
        # Equal means of squares and squared means: whole numbers, no rounding.
        mean = first // np.maximum(present, 1)
        still[self.plan.numbers] = (mean * present == first) & (mean * first == squares)
        still &= span[0] > span[self._nulls]
        return still

    def _terms(self, counts: Floats, of: Floats, surplus: Floats) -> Floats:
        """The cells' terms of the two-sample statistic."""
        cells = self.plan.cells
        scale = (counts + cells.reference) * of
        scale *= cells.rows
        np.maximum(scale, 1e-300, out=scale)
        terms: Floats = surplus * surplus
        terms /= scale
        return terms

    def _remarkable(
        self, counts: Floats, of: Floats, surplus: Floats, terms: Floats, log_level: Floats
    ) -> Cellwise:
        cells = self.plan.cells
        whole = of + cells.rows
        rest = whole - counts
        rest -= cells.reference
        rest *= _REMARKABLE
        whole *= terms
        look, cell = np.nonzero(whole > rest)
        k, m = counts[look, cell], of[look, cell]
        r, n = cells.reference[cell], cells.rows[cell]
        more = surplus[look, cell] > 0
        log_p = np.where(more, log_more(k, m, r, n), log_fewer(k, m, r, n))
        # An unseen text may come again: such rows are no independent ones.
        log_p = np.where(cells.is_unseen[cell], log_p / (1 + m / np.maximum(n, 1.0)), log_p)
        share = np.where(more, cells.share_more[cell], cells.share_fewer[cell])
        return Cellwise(look, cell, more, log_p, share + log_level[look] - log_p)

    def _features_of(
        self,
        sums: Floats,
        present: Floats,
        counts: Floats,
        terms: Floats,
        of: Floats,
        levels: Floats,
    ) -> tuple[Floats, Floats]:
        plan, size = self.plan, self._features
        scores = sums[:, self._scores]
        log_p = self._shape(present, counts, terms, of)
        excess = plan.share_shape + levels - log_p
        for trend, at in ((plan.shift, 0), (plan.spread, 2 * size)):
            first, second = scores[:, at : at + size], scores[:, at + size : at + 2 * size]
            other = _trend(trend, present, first, second)
            gained = trend.share + levels - other
            is_more = gained > excess
            log_p = np.where(is_more, other, log_p)
            excess = np.maximum(gained, excess)
        return log_p, excess

    def _shape(self, present: Floats, counts: Floats, terms: Floats, of: Floats) -> Floats:
        cells = self.plan.cells
        bins, starts = slice(cells.bins), cells.starts
        reference, rows = cells.reference[bins], cells.rows[bins]
        thick = reference * of[:, bins] >= _THIN * rows
        thick &= ~cells.is_unseen[bins]
        statistic = np.add.reduceat(terms[:, bins] * thick, starts, axis=1)
        freedom = np.add.reduceat(thick, starts, axis=1, dtype=np.float64)
        held = np.add.reduceat(counts[:, bins] * thick, starts, axis=1)
        base = np.add.reduceat(reference * thick, starts, axis=1)
        # The thin ones as one bin, where they are enough together; else the others have one
        # degree of freedom less than they are given.
        total = self.plan.present
        k, r = present - held, np.maximum(total - base, 0.0)
        scale = np.maximum((k + r) * present * total, 1e-300)
        rest = (k * total - r * present) ** 2 / scale
        statistic += np.where(r * present >= _THIN * total, rest, 0.0)
        return log_chi2(statistic, freedom)

    def _pair(self, sums: Floats) -> Floats:
        trend = self.plan.correlation
        both, products = sums[:, self._pairs][:, 0::2], sums[:, self._pairs][:, 1::2]
        whole = both + trend.rows
        deviation = products - both * (products + trend.mean * trend.rows) / np.maximum(whole, 1)
        variance = trend.variance * both * trend.rows / np.maximum(whole, 1)
        return log_mean(deviation, variance, both, trend.skew, trend.kurt)


def _trend(trend: Trends, m: Floats, first: Floats, second: Floats) -> Floats:
    whole = np.maximum(m + trend.rows, 1.0)
    mean = (first + trend.mean * trend.rows) / whole
    squares = (trend.variance + trend.mean**2) * trend.rows
    spread = (second + squares) / whole - mean * mean
    return log_mean(first - m * mean, m * trend.rows / whole * spread, m, trend.skew, trend.kurt)
