"""Everything about a reference that the tests of the i.i.d. mode need, laid out as arrays."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from homeostat_monitor.domain.windows.bins import CategoryBins, NumberBins
from homeostat_monitor.domain.windows.layout import SCORE, Counts
from homeostat_monitor.domain.windows.pairs import regressing
from homeostat_monitor.domain.windows.reference import ReferenceCounts

Floats = NDArray[np.float64]
Places = NDArray[np.intp]

# Spans looked at, in rows.
SCALES = (50, 100, 200, 400, 800, 1600, 4000)
# How the budget is shared between kinds of tests. Broken data is what is most often wrong.
_QUALITY, _BINS, _SHAPE, _SHIFT, _SPREAD, _PAIRS = 0.3, 0.15, 0.1, 0.15, 0.1, 0.15
_JOINT = 0.05
# Fewer rows tell too little of how features vary together; a direction that varies less than this
# part of the widest says more of chance than of the world.
_FEWEST_ROWS = 500
_LEAST_VARIANCE = 0.02


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
    # Bins of texts that the reference had too rarely for bins of their own.
    is_rare: NDArray[np.bool_]
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
class Joint:
    """Mean scores of all features at once (the model's score excepted): a change that is small in
    each of many. ``whitening`` makes them of unit variance; [F - 1, directions]."""

    rows: float
    mean: Floats
    whitening: Floats
    skew: float
    kurt: float
    share: float


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
    joint: Joint
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
        shares = (cells.share_more, cells.share_fewer, self.share_shape, self.trends.share)
        tests = sum(int(np.isfinite(each).sum()) for each in shares)
        return len(SCALES) * (tests + int(np.isfinite(self.joint.share)))


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
        trends=_joined(shift, spread, _correlation(counts)),
        joint=_joint(counts),
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
    is_unseen, is_outside, is_rare = np.zeros((3, len(at)), dtype=bool)
    reference = whole[at].astype(np.float64)
    kinds = widths.astype(np.float64)
    for number, (name, bins) in enumerate(zip(layout.names, layout.bins, strict=True)):
        if isinstance(bins, CategoryBins):
            is_unseen[starts[number] + bins.unseen] = True
            # Good-Turing: new values come as often as those that came once.
            reference[starts[number] + bins.unseen] = counts.singletons(name)
            is_rare[starts[number] + bins.kept] = True
            held = reference[starts[number] : starts[number] + bins.kept]
            reference[starts[number] + bins.kept] += regressing(held)
            # The bins are the fullest of so many that might have been.
            kinds[number] = len(bins.table) + 2
        else:
            is_outside[starts[number] + np.array(bins.outside)] = True
    is_null = np.arange(len(at)) >= total
    rows = np.where(is_null, counts.rows, present[feature]).astype(np.float64)
    # Scores that are no numbers are compared with those of honest rows.
    no_score = total + layout.names.index(SCORE)
    reference[no_score], rows[no_score] = counts.score_holes.sum(), len(counts.score_holes)
    # Without a reference nothing is news.
    quality = (is_unseen | is_outside | is_null) & (rows > 0)
    quality[no_score] &= counts.score_rows > 0
    plain = ~quality & ~is_null & (present[feature] > 0)
    reference = np.minimum(reference, rows)
    share = np.where(plain, 1 / (kinds[feature] * max(int((present > 0).sum()), 1)), 0.0)
    with np.errstate(divide="ignore"):
        more = np.log(_BINS * share / 2 / len(SCALES))
        # Rare texts are expected to be fewer: some are unseen in their place.
        fewer = np.where(is_rare, -np.inf, more)
    return Cells(
        at=at,
        feature=feature,
        reference=reference,
        rows=rows,
        share_more=np.where(quality, _evenly(_QUALITY, quality), more),
        share_fewer=fewer,
        is_unseen=is_unseen,
        is_outside=is_outside,
        is_rare=is_rare,
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
    # As they are, without what the tests of single cells expect.
    extra = cells.is_unseen | cells.is_rare
    held[extra[: cells.bins]] = 0.0
    others = np.bincount(cells.feature[: cells.bins], held, minlength=len(present))
    rare = np.flatnonzero(cells.is_rare[: cells.bins])
    held[rare] = present[cells.feature[rare]] - others[cells.feature[rare]]
    feature = cells.feature[: cells.bins]
    member = feature[:, None] == np.arange(len(present))
    squares = scores * scores
    typical = np.bincount(feature, squares * held, minlength=len(present))
    squares = squares - np.rint(typical / np.maximum(present, 1.0))[feature]
    columns = [scores, squares, scores**2, squares**2]
    weights = np.concatenate([member * each[:, None] for each in columns], axis=1)
    shift = _trend(scores, held, feature, present, _SHIFT, present > 0)
    spread = _trend(squares, held, feature, present, _SPREAD, is_number & (present > 0))
    # Texts never seen are counted with the rare ones.
    weights[cells.is_unseen[: cells.bins]] = 0.0
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


def _correlation(counts: ReferenceCounts) -> Trends:
    found = np.zeros((len(counts.layout.extras.pairs), 5))
    for number in range(len(found)):
        products = counts.pair_products(number)
        variance = float(products.var()) if len(products) else 0.0
        if variance > 0:
            mean = float(products.mean())
            found[number] = len(products), mean, variance, *_shape(products, mean, variance)
    share = _evenly(_PAIRS, found[:, 2] > 0)
    rows, means, variances, skews, kurts = found.T
    return Trends(rows, means, variances, skews, kurts, share)


def _shape(values: Floats, mean: float, variance: float) -> tuple[float, float]:
    """Skewness and excess kurtosis."""
    z = (values - mean) / np.sqrt(variance)
    return float((z**3).mean()), float((z**4).mean()) - 3


def _joint(counts: ReferenceCounts) -> Joint:
    """Hotelling's statistic, in the directions in which scores vary at all."""
    scored = counts.scored()
    rows, size = scored.shape
    whitening = np.zeros((size, 0))
    mean = scored.mean(axis=0) if rows else np.zeros(size)
    if rows >= _FEWEST_ROWS and size > 1:
        values, vectors = np.linalg.eigh(np.cov(scored.T))
        usable = values > max(_LEAST_VARIANCE * float(values.max()), 1e-9)
        whitening = vectors[:, usable] / np.sqrt(values[usable])
    white = (scored - mean) @ whitening
    shapes = [_shape(each, 0.0, 1.0) for each in white.T]
    # Of linear combinations of one row's scores the most leaning, and the heaviest.
    skew = max((abs(each) for each, _ in shapes), default=0.0)
    kurt = max((each for _, each in shapes), default=0.0)
    share = np.log(_JOINT / len(SCALES)) if white.shape[1] > 1 else -np.inf
    return Joint(float(rows), mean, whitening, skew, max(kurt, 0.0), float(share))
