"""One look: a span's sums against the reference, all tests of all features at once.

Every test gives the logarithm of a p-value, compared with what the test may spend. What is tested,
per feature: each bin, nulls, unseen texts and numbers out of range exactly (Fisher); the histogram
as a whole (Pearson's chi-squared of two samples, but for thin bins); mean and spread of mid-ranks
(Wilcoxon's and Mood's statistics on binned values, which see a shift or a change of spread in the
fewest rows); and per pair of dependent features the mean product of mid-ranks.

A p-value is worked out only where a cheap bound that is never above it says that it might be small
enough: bounds change no finding.
"""

import numpy as np
from numpy.typing import NDArray

from homeostat_monitor.domain.detection.hits import (
    NOTHING,
    Hits,
    Looked,
    Places,
    breaching,
    joined,
    numbered,
    only,
    where,
)
from homeostat_monitor.domain.detection.plan import Plan
from homeostat_monitor.domain.detection.tails import log_chi2, log_mean, log_tail

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Bins that the span should hold fewer rows of are left out: the approximation fails on them.
_THIN = 8.0
# And those that the reference hardly has: that it has them may be luck.
_FEWEST_OF_SHAPE = 20
# Shorter spans have no shape but a few cells.
_SHAPELESS = 80
# Mean scores of many features together are normal enough from here.
_FEWEST_JOINT = 150
# The exponent of an exact tail is at most Pearson's statistic, and what stands before it at most
# some powers of the counts: a cell this far below what may be spent cannot breach.
_MARGIN = 4.0
# Of too many rows of what less than half of all are it is at most that part of the statistic
# (ln 2 where all rows of a span as long as the reference are of a kind that the reference lacks).
_SELDOM = 0.7
# Of more cells than this some breach, mostly.
_FEW = 16
# Of other bounds; for rounding.
_SLACK = 1e-6
# What is not tested is never remarkable; no infinity, which times nothing is no number.
_NEVER = 1e9


class Looker:
    """Knows the columns of a span's row: rows, cells, sums of scores and of pairs, both squared,
    rows of pairs, moments."""

    def __init__(self, plan: Plan) -> None:
        cells, features, pairs = plan.cells, len(plan.names), len(plan.pairs)
        self.plan = plan
        self._features = features
        self._cells = slice(1, 1 + len(cells.at))
        self._bins = slice(1, 1 + cells.bins)
        self._nulls = slice(1 + cells.bins, 1 + len(cells.at))
        start = 1 + len(cells.at)
        self._firsts = slice(start, start + 2 * features + pairs)
        self._seconds = slice(self._firsts.stop, self._firsts.stop + 2 * features)
        self._pairs = slice(self._seconds.stop, self._seconds.stop + pairs)
        places = range(self._pairs.stop, self._pairs.stop + len(plan.moment_at), 2)
        self._moment_at = dict(zip(plan.numbers.tolist(), places, strict=True))
        self.width = self._pairs.stop + len(plan.moment_at)
        # Places in a layout; what stands at those of scores is filled in later.
        both, products = plan.pair_at[0::2], plan.pair_at[1::2]
        later = np.zeros(2 * features, dtype=np.intp)
        columns = [later[:1], cells.at, later, products, later, both, plan.moment_at]
        self._taken = np.concatenate(columns).astype(np.intp)
        self._rare_cells = np.flatnonzero(cells.is_rare)
        self._rare = self._rare_cells + 1
        self._unseen = np.flatnonzero(cells.is_unseen) + 1
        is_other = cells.is_rare | cells.is_unseen
        self._shaped = (~is_other & (cells.reference >= _FEWEST_OF_SHAPE))[: cells.bins]
        self._is_text = np.bincount(cells.feature, is_other, minlength=features) > 0
        self._prepare()

    def _prepare(self) -> None:
        """What is the same for every look."""
        plan, cells, trends = self.plan, self.plan.cells, self.plan.trends
        # Rows that have each feature stand behind the columns that are tested.
        present = self._pairs.stop + np.arange(self._features)
        rows = np.zeros(self._features, dtype=np.intp)
        self._of = np.concatenate([present[cells.feature[: cells.bins]], rows])
        pairs = np.arange(self._pairs.start, self._pairs.stop)
        self._trend_rows = np.concatenate([present, present, pairs])
        self._trend_sums = trends.mean * trends.rows
        squares = (trends.variance + trends.mean**2) * trends.rows
        self._trend_squares = squares[: 2 * self._features]
        self._thin_rows = _THIN * cells.rows[: cells.bins]
        # Logarithm of the least chance of a row of the cell after another.
        self._log_one = np.log((cells.reference + 1) / (cells.rows + 1))
        # What statistics are above where they breach, but for the level of the look.
        shares = np.maximum(cells.share_more, cells.share_fewer)
        self._cell_least = np.minimum(-_MARGIN - shares, _NEVER)
        self._trend_least = np.minimum(2 * (np.log(2.0) - trends.share) - _SLACK, _NEVER)
        self._shape_least = np.minimum(-2 * plan.share_shape - _SLACK, _NEVER)
        self._joint_least = -2 * plan.joint.share - _SLACK

    def row_of(self, sums: Ints) -> Ints:
        """Rows of a layout ([panes, layout]) to rows of spans ([panes, width]); additive."""
        size, start = 2 * self._features, self._firsts.start
        found: Ints = sums.take(self._taken, axis=1)
        # Texts never seen are rare ones: that some of these are missing is to be expected then.
        if len(self._rare):
            found[:, self._rare] += found[:, self._unseen]
        # Whole numbers below 2**53: exact in floats, where products are fast.
        scores = found[:, self._bins].astype(np.float64) @ self.plan.weights
        found[:, start : start + size] = scores[:, :size]
        found[:, self._seconds] = scores[:, size:]
        return found

    def look(self, spans: Ints, log_level: Floats) -> Looked:
        """Spans ([looks, width]), and the logarithm of what each look may spend, 0 at most."""
        cells, sums = self.plan.cells, self._tested(spans)
        counts, of = sums[:, self._cells], sums.take(self._of, axis=1)
        surplus = counts * cells.rows
        surplus -= of * cells.reference
        # That rare texts are fewer is not tested.
        surplus[:, self._rare_cells] = np.maximum(surplus[:, self._rare_cells], 0.0)
        terms = self._terms(counts, of, surplus)
        remarkable, is_more = self._remarkable(counts, of, surplus, terms, log_level)
        shapes = self._shapes(sums, terms, of, log_level)
        moved, pairs = self._trends(sums, log_level)
        joint = self._joint(sums, log_level)
        return Looked(remarkable, is_more, joined(moved, shapes), pairs, joint)

    def _tested(self, spans: Ints) -> Floats:
        """The columns that are tested, and behind them the rows that have each feature."""
        stop = self._pairs.stop
        sums = np.empty((len(spans), stop + self._features))
        sums[:, :stop] = spans[:, :stop]
        np.subtract(sums[:, :1], sums[:, self._nulls], out=sums[:, stop:])
        return sums

    def count(self, span: Ints, cell: int) -> tuple[int, int]:
        """Of one span's row: rows of a cell, and the rows that could have been of it."""
        of = int(span[0])
        if cell < self.plan.cells.bins:
            of -= int(span[self._nulls.start + self.plan.cells.feature[cell]])
        return int(span[self._cells.start + cell]), of

    def pair(self, span: Ints, number: int) -> tuple[int, int]:
        """Of one span's row: rows where both of a pair are, and the sum of products."""
        both = span[self._pairs.start + number]
        return int(both), int(span[self._firsts.start + 2 * self._features + number])

    def foremost(self, span: Ints) -> int:
        """Of one span's row: the feature whose mean score moved most."""
        each = np.arange(self._features)
        shifts = self._log_mean(
            self._moments(self._tested(span[None, :])), np.zeros_like(each), each
        )
        return int(shifts.argmin())

    def stands_still(self, span: Ints, number: int) -> bool:
        """Of one span's row: whether a feature is a number and had one value all the time."""
        at, present = self._moment_at.get(number), int(span[0] - span[self._nulls.start + number])
        if at is None or not present:
            return False
        first, squares = int(span[at]), int(span[at + 1])
        # No rounding: all are z where rows x squares = sum x sum.
        return present * squares == first * first

    def _terms(self, counts: Floats, of: Floats, surplus: Floats) -> Floats:
        """The cells' terms of the two-sample statistic."""
        cells = self.plan.cells
        scale = counts + cells.reference
        scale *= of
        scale *= cells.rows
        np.maximum(scale, 1e-300, out=scale)
        terms: Floats = surplus * surplus
        terms /= scale
        return terms

    def _remarkable(
        self, counts: Floats, of: Floats, surplus: Floats, terms: Floats, log_level: Floats
    ) -> tuple[Hits, NDArray[np.bool_]]:
        """Cells that breach, and whether by too many rows."""
        cells = self.plan.cells
        whole = of + cells.rows
        rest = whole - counts
        rest -= cells.reference
        rest *= np.maximum(self._cell_least - log_level[:, None], 1.0)
        whole *= terms
        look, cell = where(whole > rest)
        if not len(look):
            return NOTHING, np.empty(0, dtype=bool)
        more, k, m = surplus[look, cell] > 0, counts[look, cell], of[look, cell]
        r, n = cells.reference[cell], cells.rows[cell]
        limit = np.where(more, cells.share_more[cell], cells.share_fewer[cell]) + log_level[look]
        if len(look) <= _FEW:
            # That all of k rows are of the cell is rarer than that k of more rows are.
            might = (k * self._log_one[cell] - _SLACK < limit) | ~more
            seldom = more & (2 * (k + r) <= m + n) & (m <= n)
            might &= ~seldom | (_SELDOM * whole[look, cell] > rest[look, cell])
            if not might.any():
                return NOTHING, np.empty(0, dtype=bool)
        log_p = log_tail(k, m, r, n, more)
        # An unseen text may come again: such rows are no independent ones.
        again = np.where(cells.is_unseen[cell], m / np.maximum(n, 1.0), 0.0)
        log_p /= 1 + again
        return breaching(look, cell, log_p, limit), more[limit > log_p]

    def _moments(self, sums: Floats) -> tuple[Floats, Floats, Floats]:
        """Of mean scores and products, [looks, 2F + P]: how far their sums are from where they
        should be, the variance of that, and of how many rows it is."""
        trends, size = self.plan.trends, 2 * self._features
        m = sums.take(self._trend_rows, axis=1)
        whole = np.maximum(m + trends.rows, 1.0)
        first = sums[:, self._firsts]
        mean = first + self._trend_sums
        mean /= whole
        # Of one feature the variance of both samples together, of a pair the reference's.
        variance = np.empty_like(m)
        variance[:, size:] = trends.variance[size:]
        both = sums[:, self._seconds] + self._trend_squares
        both /= whole[:, :size]
        np.subtract(both, mean[:, :size] ** 2, out=variance[:, :size])
        # Of two samples the smaller one decides how normal their difference is.
        effective = m * trends.rows
        effective /= whole
        variance *= effective
        deviation = first - m * mean
        return deviation, variance, effective

    def _trends(self, sums: Floats, log_level: Floats) -> tuple[Hits, Hits]:
        """Mean scores and products against the reference's: of features and of pairs."""
        size, moments = 2 * self._features, self._moments(sums)
        deviation, variance, _ = moments
        least = self._trend_least - 2 * log_level[:, None]
        look, thing = where(deviation * deviation > variance * least)
        if not len(look):
            return NOTHING, NOTHING
        limit = self.plan.trends.share[thing] + log_level[look]
        found = breaching(look, thing, self._log_mean(moments, look, thing), limit)
        of_pair = found.thing >= size
        features, pairs = only(found, ~of_pair), only(found, of_pair)
        shifted = numbered(features, features.thing % self._features)
        return shifted, numbered(pairs, pairs.thing - size)

    def _log_mean(
        self, moments: tuple[Floats, Floats, Floats], look: Places, thing: Places
    ) -> Floats:
        deviation, variance, effective = (each[look, thing] for each in moments)
        skew, kurt = self.plan.trends.skew[thing], self.plan.trends.kurt[thing]
        return log_mean(deviation, variance, effective, skew, kurt)

    def _joint(self, sums: Floats, log_level: Floats) -> Hits:
        """Hotelling's two-sample statistic of the mean scores of all features."""
        joint, rows = self.plan.joint, sums[:, 0]
        freedom = joint.whitening.shape[1]
        if not np.isfinite(joint.share):
            return NOTHING
        first = sums[:, self._firsts][:, : len(joint.mean)]
        white = first / rows[:, None]
        white -= joint.mean
        white = white @ joint.whitening
        effective = rows * joint.rows / (rows + joint.rows)
        # The reference's covariance is itself an estimate.
        white *= white
        squared = white.sum(axis=1) * effective * max(1 - (freedom + 1) / joint.rows, 0)
        might = (squared - freedom > self._joint_least - 2 * log_level) & (rows >= _FEWEST_JOINT)
        look = might.nonzero()[0]
        if not len(look):
            return NOTHING
        squared, effective = squared[look], effective[look]
        heavier = 1 + joint.skew * np.sqrt(squared / effective) / 3
        heavier += joint.kurt * squared / (12 * effective)
        log_p = log_chi2(squared / heavier, np.full(len(look), float(freedom)))
        return breaching(look, np.zeros_like(look), log_p, joint.share + log_level[look])

    def _shapes(self, sums: Floats, terms: Floats, of: Floats, log_level: Floats) -> Hits:
        """Pearson's statistic over the bins that are not thin; these are tested one by one."""
        cells = self.plan.cells
        bins, starts = slice(cells.bins), cells.starts
        thick = cells.reference[bins] * of[:, bins] >= self._thin_rows
        thick &= self._shaped
        statistic = np.add.reduceat(terms[:, bins] * thick, starts, axis=1)
        freedom = np.add.reduceat(thick, starts, axis=1, dtype=np.float64)
        suspect = statistic - freedom > self._shape_least - 2 * log_level[:, None]
        look, thing = where(suspect & (sums[:, :1] >= _SHAPELESS))
        if not len(look):
            return NOTHING
        # Of texts those were taken that the reference had often, some of them by luck. That adds
        # to the statistic what spans of more rows see, at most as much as chance does.
        total, present = self.plan.present[thing], sums[look, self._pairs.stop + thing]
        by_luck = np.where(self._is_text[thing], total / np.maximum(present + total, 1.0), 1.0)
        log_p = log_chi2(statistic[look, thing] * by_luck, freedom[look, thing])
        return breaching(look, thing, log_p, self.plan.share_shape[thing] + log_level[look])
