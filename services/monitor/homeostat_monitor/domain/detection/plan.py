"""Everything about a reference that the tests of the i.i.d. mode need, laid out as arrays."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from homeostat_monitor.domain.bins import CategoryBins, NumberBins
from homeostat_monitor.domain.layout import SCORE, Counts
from homeostat_monitor.domain.reference import ReferenceCounts

Floats = NDArray[np.float64]
Places = NDArray[np.intp]

# Spans looked at, in rows; a half longer each time would see little sooner.
SCALES = (25, 50, 100, 200, 400, 800, 1600, 4000)
# How the budget is shared between kinds of tests. Broken data is what is most often wrong.
_QUALITY, _BINS, _SHAPE, _SHIFT, _SPREAD, _PAIRS = 0.3, 0.2, 0.1, 0.15, 0.1, 0.15


@dataclass(frozen=True, slots=True)
class Cells:
    """Kinds of rows that are counted: bins of all features, one after another, then nulls."""

    # Place in the layout, and the feature's number.
    at: Places
    feature: Places
    # Rows of that kind in the reference, and how many the reference has to compare with.
    reference: Floats
    rows: Floats
    # Logarithm of the share of the budget for too many, and for too few (-inf: not tested).
    share_more: Floats
    share_fewer: Floats
    is_unseen: NDArray[np.bool_]
    is_outside: NDArray[np.bool_]
    # The first so many are bins; each feature's begin at ``starts``.
    bins: int
    starts: Places


@dataclass(frozen=True, slots=True)
class Trends:
    """Sums of scores whose mean is compared; of one feature (shift, spread) or of a pair."""

    # Mean, and per row the variance, skewness and excess kurtosis, in the reference.
    rows: Floats
    mean: Floats
    variance: Floats
    skew: Floats
    kurt: Floats
    share: Floats


@dataclass(frozen=True, slots=True)
class Plan:
    """A reference as the tests see it. Of F features (the scores are the last), P pairs."""

    names: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...]
    cells: Cells
    # From a row of bins to sums of scores, squares less their mean, and of both squared; [B, 4F].
    weights: Floats
    # Of shift [F], spread [F] and correlation [P].
    trends: Trends
    # Reference rows of each feature that are not null.
    present: Floats
    share_shape: Floats
    # Places in the layout of the pairs' and the numbers' moments.
    pair_at: Places
    moment_at: Places
    # The features that have moments.
    numbers: Places

    @property
    def tests(self) -> int:
        """How many tests share the budget of one look."""
        cells = self.cells
        each = (cells.share_more, cells.share_fewer, self.share_shape)
        shares = (*each, self.trends.share)
        return len(SCALES) * sum(int(np.isfinite(each).sum()) for each in shares)


def plan_of(counts: ReferenceCounts) -> Plan:
    """From the reference's counts; the same counts give the same plan."""
    layout = counts.layout
    whole = counts.whole
    present = np.array([float(layout.histogram(name, whole).sum()) for name in layout.names])
    is_number = np.array([isinstance(each, NumberBins) for each in layout.bins])
    cells = _cells(counts, whole, present)
    scores = _scores(counts, cells)
    shift, spread, weights = _trends(cells, scores, present, is_number)
    numbers = [layout.names.index(name) for name in layout.extras.scales]
    return Plan(
        names=layout.names,
        pairs=layout.extras.pairs,
        cells=cells,
        weights=weights,
        trends=_joined(shift, spread, _correlation(counts, whole)),
        present=present,
        share_shape=_evenly(_SHAPE, present > 0),
        pair_at=np.arange(layout.pairs_start, layout.sketch_start),
        moment_at=np.arange(layout.moments_start, layout.pairs_start),
        numbers=np.array(numbers, dtype=np.intp),
    )


def _evenly(share: float, applies: NDArray[np.bool_]) -> Floats:
    """Logarithms of equal parts for those that apply; -inf for the others."""
    parts = np.where(applies, share / max(int(applies.sum()), 1), 0.0)
    with np.errstate(divide="ignore"):
        found: Floats = np.log(parts / len(SCALES))
    return found


def _cells(counts: ReferenceCounts, whole: Counts, present: Floats) -> Cells:
    layout = counts.layout
    widths = np.array([bins.width for bins in layout.bins])
    starts = np.concatenate([[0], np.cumsum(widths)[:-1]])
    total, features = int(widths.sum()), len(widths)
    feature = np.concatenate([np.repeat(np.arange(features), widths), np.arange(features)])
    at = np.concatenate(
        [start + np.arange(width) for start, width in zip(layout.starts, widths, strict=True)]
        + [np.array(layout.starts) + widths]
    )
    is_unseen, is_outside = np.zeros((2, len(at)), dtype=bool)
    reference = whole[at].astype(np.float64)
    for number, (name, bins) in enumerate(zip(layout.names, layout.bins, strict=True)):
        if isinstance(bins, CategoryBins):
            is_unseen[starts[number] + bins.unseen] = True
            # Good-Turing: new values come as often as those that came once.
            reference[starts[number] + bins.unseen] = counts.singletons(name)
        else:
            is_outside[starts[number] + np.array(bins.outside)] = True
    is_null = np.arange(len(at)) >= total
    # What happens of the scores' nulls is nobody's news; without a reference nothing is.
    of_score = feature == layout.names.index(SCORE)
    quality = (is_unseen | is_outside | is_null) & ~(is_null & of_score)
    quality &= np.where(is_null, counts.rows, present[feature]) > 0
    plain = ~quality & ~is_null & (present[feature] > 0)
    share = np.where(plain, 1 / (widths[feature] * max(int((present > 0).sum()), 1)), 0.0)
    with np.errstate(divide="ignore"):
        both = np.log(_BINS * share / 2 / len(SCALES))
    return Cells(
        at=at,
        feature=feature,
        reference=reference,
        rows=np.where(is_null, counts.rows, present[feature]).astype(np.float64),
        share_more=np.where(quality, _evenly(_QUALITY, quality), both),
        share_fewer=both,
        is_unseen=is_unseen,
        is_outside=is_outside,
        bins=total,
        starts=starts.astype(np.intp),
    )


def _scores(counts: ReferenceCounts, cells: Cells) -> Floats:
    """The score of every bin."""
    layout = counts.layout
    scores = np.zeros(cells.bins)
    for start, name in zip(cells.starts, layout.names, strict=True):
        values = layout.extras.scores.get(name)
        if values is None and name == SCORE:
            values = _score_ranks(counts)
        if values is not None:
            scores[start : start + len(values)] = values
    return scores


def _score_ranks(counts: ReferenceCounts) -> tuple[int, ...]:
    held = counts.score_sums.astype(np.float64)
    ranks = (np.cumsum(held) - held / 2) / max(held.sum(), 1.0) - 0.5
    return tuple(int(each) for each in np.rint(64 * np.sqrt(12.0) * ranks))


def _trends(
    cells: Cells, scores: Floats, present: Floats, is_number: NDArray[np.bool_]
) -> tuple[Trends, Trends, Floats]:
    held = cells.reference[: cells.bins].copy()
    held[cells.is_unseen[: cells.bins]] = 0.0
    feature = cells.feature[: cells.bins]
    member = feature[:, None] == np.arange(len(present))
    squares = scores * scores
    typical = np.bincount(feature, squares * held, minlength=len(present))
    squares = squares - np.rint(typical / np.maximum(present, 1.0))[feature]
    columns = [scores, squares, scores**2, squares**2]
    weights = np.concatenate([member * each[:, None] for each in columns], axis=1)
    shift = _trend(scores, held, feature, present, _SHIFT, present > 0)
    spread = _trend(squares, held, feature, present, _SPREAD, is_number & (present > 0))
    return shift, spread, weights


def _trend(
    values: Floats,
    held: Floats,
    feature: Places,
    present: Floats,
    share: float,
    applies: NDArray[np.bool_],
) -> Trends:
    def mean(each: Floats) -> Floats:
        sums = np.bincount(feature, each * held, minlength=len(present))
        found: Floats = sums / np.maximum(present, 1.0)
        return found

    centre = mean(values)
    offsets = values - centre[feature]
    variance = mean(offsets**2)
    spread = np.sqrt(np.maximum(variance, 1e-9))
    return Trends(
        rows=present,
        mean=centre,
        variance=variance,
        skew=mean(offsets**3) / spread**3,
        kurt=mean(offsets**4) / spread**4 - 3,
        share=_evenly(share, applies & (variance > 0)),
    )


def _joined(*parts: Trends) -> Trends:
    names = ("rows", "mean", "variance", "skew", "kurt", "share")
    return Trends(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def _correlation(counts: ReferenceCounts, whole: Counts) -> Trends:
    extras = counts.layout.extras
    both = [counts.layout.pair(number, whole) for number in range(len(extras.pairs))]
    rows = np.array([float(each) for each, _ in both])
    sums = np.array([float(each) for _, each in both])
    shapes = counts.pair_shapes()
    return Trends(
        rows=rows,
        mean=sums / np.maximum(rows, 1.0),
        variance=shapes[:, 0],
        skew=shapes[:, 1],
        kurt=shapes[:, 2],
        share=_evenly(_PAIRS, (shapes[:, 0] > 0) & (rows > 0)),
    )
