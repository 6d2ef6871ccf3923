"""One look: a span's sums against the reference, all tests of all features at once.

Every test gives the logarithm of a p-value, compared with what the test may spend. What is tested,
per feature: each bin, nulls, unseen texts and numbers out of range exactly (Fisher); the histogram
as a whole (Pearson's chi-squared of two samples, but for thin bins); mean and spread of mid-ranks
(Wilcoxon's and Mood's statistics on binned values, which see a shift or a change of spread in the
fewest rows); and per pair of dependent features the mean product of mid-ranks.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from homeostat_monitor.domain.detection.plan import Plan
from homeostat_monitor.domain.detection.tails import log_chi2, log_mean, log_tail

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Places = NDArray[np.intp]

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
    # Of all features together, [looks]; which feature has most of it is ``foremost``.
    joint_log_p: Floats
    joint_excess: Floats
    foremost: Places

    def is_quiet(self) -> bool:
        """No test breaches."""
        all_of = (self.excess, self.pair_excess, self.joint_excess)
        worst = max(each.max(initial=-1.0) for each in all_of)
        return bool(worst <= 0 and self.cells.excess.max(initial=-1.0) <= 0)


class Looker:
    """Knows the columns of a span's row: rows, cells, sums of scores and of pairs, both squared,
    rows of pairs, moments."""

    def __init__(self, plan: Plan) -> None:
        cells, features, pairs = plan.cells, len(plan.names), len(plan.pairs)
        self.plan = plan
        self._taken = np.concatenate([[0], cells.at])
        self._cells = slice(1, 1 + len(cells.at))
        self._bins = slice(1, 1 + cells.bins)
        self._nulls = slice(1 + cells.bins, 1 + len(cells.at))
        start = 1 + len(cells.at)
        self._firsts = slice(start, start + 2 * features + pairs)
        self._seconds = slice(self._firsts.stop, self._firsts.stop + 2 * features)
        self._pairs = slice(self._seconds.stop, self._seconds.stop + pairs)
        self._moments = slice(self._pairs.stop, self._pairs.stop + len(plan.moment_at))
        self.width = self._moments.stop
        self._feature_of = cells.feature[: cells.bins]
        self._features = features
        self._rare = np.flatnonzero(cells.is_rare) + 1
        self._unseen = np.flatnonzero(cells.is_unseen) + 1
        is_other = cells.is_rare | cells.is_unseen
        self._shaped = (~is_other & (cells.reference >= _FEWEST_OF_SHAPE))[: cells.bins]
        self._is_text = np.bincount(cells.feature, is_other, minlength=features) > 0
        # What is not tested is never remarkable.
        share = np.maximum(cells.share_more, cells.share_fewer)
        self._least = np.minimum(-_MARGIN - share, 1e9)

    def row_of(self, sums: Ints) -> Ints:
        """Rows of a layout ([panes, layout]) to rows of spans ([panes, width]); additive."""
        size, firsts, seconds = 2 * self._features, self._firsts, self._seconds
        found = np.empty((len(sums), self.width), dtype=np.int64)
        found[:, : self._cells.stop] = sums[:, self._taken]
        # Texts never seen are rare ones: that some of these are missing is to be expected then.
        found[:, self._rare] += found[:, self._unseen]
        # Whole numbers below 2**53: exact in floats, where products are fast.
        scores = found[:, self._bins].astype(np.float64) @ self.plan.weights
        found[:, firsts.start : firsts.start + size] = scores[:, :size]
        found[:, seconds] = scores[:, size:]
        pairs = sums[:, self.plan.pair_at]
        found[:, firsts.start + size : firsts.stop] = pairs[:, 1::2]
        found[:, self._pairs] = pairs[:, 0::2]
        found[:, self._moments] = sums[:, self.plan.moment_at]
        return found

    def look(self, spans: Ints, log_level: Floats) -> Looked:
        """Spans ([looks, width], shorter first) and the logarithm of what each look may spend."""
        plan, cells = self.plan, self.plan.cells
        sums = spans[:, : self._pairs.stop].astype(np.float64)
        present = sums[:, :1] - sums[:, self._nulls]
        counts = sums[:, self._cells]
        of = np.empty_like(counts)
        of[:, : cells.bins] = present[:, self._feature_of]
        of[:, cells.bins :] = sums[:, :1]
        surplus = counts * cells.rows
        surplus -= of * cells.reference
        terms = self._terms(counts, of, surplus)
        levels = log_level[:, None]
        size = self._features
        trend_p = self._trends(sums, present)
        trend_excess = plan.trends.share + levels - trend_p
        log_p, excess = _worse(
            (trend_p[:, :size], trend_excess[:, :size]),
            (trend_p[:, size : 2 * size], trend_excess[:, size : 2 * size]),
        )
        long = np.flatnonzero(sums[:, 0] >= _SHAPELESS)
        if len(long):
            shape = self._shape(present[long], terms[long], of[long])
            both = (shape, plan.share_shape + levels[long] - shape)
            log_p[long], excess[long] = _worse((log_p[long], excess[long]), both)
        joint_p = np.zeros(len(sums))
        many = np.flatnonzero(sums[:, 0] >= _FEWEST_JOINT)
        if len(many) and np.isfinite(plan.joint.share):
            joint_p[many] = self._joint(sums[many])
        return Looked(
            cells=self._remarkable(counts, of, surplus, terms, log_level),
            log_p=log_p,
            excess=excess,
            pair_log_p=trend_p[:, 2 * size :],
            pair_excess=trend_excess[:, 2 * size :],
            joint_log_p=joint_p,
            joint_excess=plan.joint.share + log_level - joint_p,
            foremost=trend_p[:, :size].argmin(axis=1),
        )

    def count(self, span: Ints, cell: int) -> tuple[int, int]:
        """Of one span's row: rows of a cell, and the rows that could have been of it."""
        of = int(span[0])
        if cell < self.plan.cells.bins:
            of -= int(span[self._nulls.start + self._feature_of[cell]])
        return int(span[self._cells.start + cell]), of

    def pair(self, span: Ints, number: int) -> tuple[int, int]:
        """Of one span's row: rows where both of a pair are, and the sum of products."""
        both = span[self._pairs.start + number]
        return int(both), int(span[self._firsts.start + 2 * self._features + number])

    def stands_still(self, span: Ints, number: int) -> bool:
        """Of one span's row: whether a feature is a number and had one value all the time."""
        place = np.flatnonzero(self.plan.numbers == number)
        present = int(span[0] - span[self._nulls.start + number])
        if not len(place) or not present:
            return False
        at = self._moments.start + 2 * int(place[0])
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
    ) -> Cellwise:
        cells = self.plan.cells
        whole = of + cells.rows
        rest = whole - counts
        rest -= cells.reference
        rest *= np.maximum(self._least - log_level[:, None], 1.0)
        whole *= terms
        look, cell = np.nonzero(whole > rest)
        if not len(look):
            return _NOTHING
        k, m = counts[look, cell], of[look, cell]
        r, n = cells.reference[cell], cells.rows[cell]
        more = surplus[look, cell] > 0
        log_p = log_tail(k, m, r, n, more)
        # An unseen text may come again: such rows are no independent ones.
        log_p = np.where(cells.is_unseen[cell], log_p / (1 + m / np.maximum(n, 1.0)), log_p)
        share = np.where(more, cells.share_more[cell], cells.share_fewer[cell])
        return Cellwise(look, cell, more, log_p, share + log_level[look] - log_p)

    def _trends(self, sums: Floats, present: Floats) -> Floats:
        """Mean scores and products against the reference's; [looks, 2F + P]."""
        trends, size = self.plan.trends, 2 * self._features
        m = np.concatenate([present, present, sums[:, self._pairs]], axis=1)
        whole = np.maximum(m + trends.rows, 1.0)
        first = sums[:, self._firsts]
        mean = (first + trends.mean * trends.rows) / whole
        # Of one feature the variance of both samples together, of a pair the reference's.
        variance = np.empty_like(m)
        variance[:, size:] = trends.variance[size:]
        squares = ((trends.variance + trends.mean**2) * trends.rows)[:size]
        both = (sums[:, self._seconds] + squares) / whole[:, :size]
        variance[:, :size] = both - mean[:, :size] ** 2
        # Of two samples the smaller one decides how normal their difference is.
        effective = m * trends.rows / whole
        variance *= effective
        return log_mean(first - m * mean, variance, effective, trends.skew, trends.kurt)

    def _joint(self, sums: Floats) -> Floats:
        """Hotelling's two-sample statistic of the mean scores of all features; [looks]."""
        joint, rows = self.plan.joint, sums[:, 0]
        first = sums[:, self._firsts][:, : len(joint.mean)]
        white = (first / rows[:, None] - joint.mean) @ joint.whitening
        effective = rows * joint.rows / (rows + joint.rows)
        # The reference's covariance is itself an estimate.
        freedom = white.shape[1]
        squared = (white * white).sum(axis=1) * effective * max(1 - (freedom + 1) / joint.rows, 0)
        heavier = 1 + joint.skew * np.sqrt(squared / effective) / 3
        heavier += joint.kurt * squared / (12 * effective)
        return log_chi2(squared / heavier, np.full(len(rows), float(freedom)))

    def _shape(self, present: Floats, terms: Floats, of: Floats) -> Floats:
        """Pearson's statistic over the bins that are not thin; these are tested one by one."""
        cells = self.plan.cells
        bins, starts = slice(cells.bins), cells.starts
        reference, rows = cells.reference[bins], cells.rows[bins]
        thick = reference * of[:, bins] >= _THIN * rows
        thick &= self._shaped
        statistic = np.add.reduceat(terms[:, bins] * thick, starts, axis=1)
        freedom = np.add.reduceat(thick, starts, axis=1, dtype=np.float64)
        # Of texts those were taken that the reference had often, some of them by luck. That adds
        # to the statistic what spans of more rows see, at most as much as chance does.
        total = self.plan.present
        statistic *= np.where(self._is_text, total / np.maximum(present + total, 1.0), 1.0)
        return log_chi2(statistic, freedom)


_NONE = np.empty(0, dtype=np.intp)
_NOTHING = Cellwise(_NONE, _NONE, np.empty(0, dtype=bool), np.empty(0), np.empty(0))


def _worse(one: tuple[Floats, Floats], other: tuple[Floats, Floats]) -> tuple[Floats, Floats]:
    """Of two tests' logarithms of p-values and excesses those that exceed more."""
    is_other = other[1] > one[1]
    return np.where(is_other, other[0], one[0]), np.maximum(one[1], other[1])
