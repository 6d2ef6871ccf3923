"""The reference of a version: its rows in time order, and what can be counted of them in blocks."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from homeostat_monitor.domain.losses.truths import Truths
from homeostat_monitor.domain.windows.bins import (
    CategoryColumn,
    ColumnValues,
    NumberColumn,
    bins_of,
    known_codes,
    number_bins,
    taken,
)
from homeostat_monitor.domain.windows.layout import SCORE, Counts, Layout, layout_of
from homeostat_monitor.domain.windows.pairs import extras_of
from homeostat_monitor.domain.windows.sums import Rows, count

Floats = NDArray[np.float64]
Micros = NDArray[np.int64]

# Fewer hold-out rows than this say too little of the scores' distribution.
_FEWEST_HOLDOUT_SCORES = 500
# More distinct truths than this are no classes.
_MOST_CLASSES = 20
# Block sizes are tried by doubling from here, up to a quarter of the reference.
_SMALLEST_BLOCK = 100


@dataclass(frozen=True, slots=True)
class Holdout:
    """Losses on rows that the version was not trained on, in the order their truth became known."""

    losses: Floats
    known_at_us: Micros
    # The same rows with scores, decisions and truths; None where only losses are known.
    rows: Truths | None = None
    # Which rows of the reference they are; None where that is not known.
    places: NDArray[np.intp] | None = None

    def of(self, rows: NDArray[np.bool_]) -> "Holdout | None":
        """Those in a mask of the reference's rows; None where it is not known which they are."""
        if self.places is None:
            return None
        keep = rows[self.places]
        return Holdout(
            self.losses[keep],
            self.known_at_us[keep],
            None if self.rows is None else self.rows.only(keep),
        )


@dataclass(frozen=True, slots=True)
class ReferenceRows:
    """The reference profile's rows, oldest first."""

    event_times_us: Micros
    features: Mapping[str, ColumnValues]
    scores: Floats
    is_holdout: NDArray[np.bool_]
    holdout: Holdout
    # Class index or value per row, NaN where unknown; None: not told.
    truths: Floats | None = None
    decisions: Floats | None = None

    @property
    def rows(self) -> int:
        return len(self.event_times_us)

    def only(self, rows: NDArray[np.bool_]) -> "ReferenceRows":
        """The rows of a mask, in their order; the hold-out's losses stay whole."""
        return ReferenceRows(
            event_times_us=self.event_times_us[rows],
            features={name: taken(each, rows) for name, each in self.features.items()},
            scores=self.scores[rows],
            is_holdout=self.is_holdout[rows],
            holdout=replace(self.holdout, places=None),
            truths=None if self.truths is None else self.truths[rows],
            decisions=None if self.decisions is None else self.decisions[rows],
        )


@dataclass(frozen=True, slots=True)
class Blocks:
    """Sums of contiguous blocks of the reference, half overlapping, all of ``rows`` rows."""

    rows: int
    sums: Counts


class ReferenceCounts:
    """Everything the judges calibrate on, counted once."""

    def __init__(
        self,
        reference: ReferenceRows,
        *,
        rows: NDArray[np.bool_] | None = None,
        layout: Layout | None = None,
    ) -> None:
        """``rows`` keeps only those (a segment), ``layout`` counts in another's bins."""
        # Rows that scores of texts are fitted on: see pairs.
        self._fitted = np.arange(reference.rows) % 2 == 0
        if rows is not None:
            reference, self._fitted = reference.only(rows), self._fitted[rows]
        self.rows = reference.rows
        self.features = tuple(reference.features)
        # A model is surer of rows it was trained on: scores are compared with honest ones.
        asked, finite = reference.is_holdout, np.isfinite(reference.scores)
        if (asked & finite).sum() < _FEWEST_HOLDOUT_SCORES and (finite & ~asked).any():
            asked = np.ones(reference.rows, dtype=bool)
        honest = asked & finite
        self.score_rows = int(honest.sum())
        # Of the rows that the honest ones are of: which have no finite score.
        self.score_holes: NDArray[np.bool_] = ~finite[asked]
        self.scores_are_honest = bool(reference.is_holdout[honest].all())
        self._honest = honest
        scores = reference.scores[honest]
        self.layout: Layout = layout or _layout(reference, scores)
        self._reference = reference
        self._scores = scores
        self._halves, rest = self._count_halves()
        # The scores' own bins are empty here: see score_sums.
        self.sums = self._halves.sum(axis=0) + rest
        self._score_halves, rest = self._count_score_halves()
        self.score_sums = self._score_halves.sum(axis=0) + rest

    @property
    def whole(self) -> Counts:
        """The reference as one row of sums; the scores' bins hold the honest rows'."""
        sums: Counts = self.sums.copy()
        at = self.layout.names.index(SCORE)
        start, width = self.layout.starts[at], self.layout.bins[at].width
        sums[start : start + width] = self.score_sums
        sums[start + width] = 0
        return sums

    def classes(self) -> Floats:
        """The distinct truths, ascending; empty where they are unknown or no classes."""
        truths = self._reference.truths
        if truths is None:
            return np.empty(0)
        found = np.unique(truths[np.isfinite(truths)])
        are_classes = len(found) <= _MOST_CLASSES and bool((found == np.rint(found)).all())
        return found if are_classes else np.empty(0)

    def sums_by_class(self) -> Counts | None:
        """Sums of the rows of each of ``classes``, [classes, width]; None without classes."""
        classes, truths = self.classes(), self._reference.truths
        if truths is None or not len(classes):
            return None
        groups = np.where(np.isfinite(truths), np.searchsorted(classes, truths), len(classes))
        columns = tuple(self._reference.features.values())
        scores = np.where(self._honest, self._reference.scores, np.nan)
        rows = Rows(groups.astype(np.intp), len(classes) + 1, columns, scores)
        return count(self.layout, rows)[:-1]

    def pair_products(self, number: int) -> Floats:
        """Products of scores of one of the layout's pairs over rows where both are. Where a text
        is of it only the rows that its scores were not fitted on."""
        pair = self.layout.extras.pairs[number]
        (a, has_a), (b, has_b) = (self._scored(name) for name in pair)
        honest = has_a & has_b
        columns = [self._reference.features[name] for name in pair]
        if any(isinstance(each, CategoryColumn) for each in columns):
            honest &= ~self._fitted
        products: Floats = (a * b)[honest].astype(np.float64)
        return products

    def scored(self) -> Floats:
        """Every row's score of each feature, 0 for nulls; [rows, features]."""
        columns = [self._scored(name)[0] for name in self.features]
        return np.stack(columns, axis=1).astype(np.float64) if columns else np.empty((0, 0))

    def singletons(self, name: str) -> int:
        """How many texts of a category the reference has exactly once (Good-Turing)."""
        column = self._reference.features[name]
        if not isinstance(column, CategoryColumn):
            return 0
        codes, present = known_codes(column)
        return int((np.bincount(codes[present]) == 1).sum()) if present.any() else 0

    def _scored(self, name: str) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        bins = self.layout.bins[self.layout.names.index(name)]
        places = bins.assign(self._reference.features[name])
        scores = np.array([*self.layout.extras.scores[name], 0], dtype=np.int64)
        return scores[places], places != bins.width

    def block_sizes(self, rows: int) -> Iterator[int]:
        """Row counts at which ``rows`` rows give at least seven half-overlapping blocks."""
        size = _SMALLEST_BLOCK
        while size * 4 <= rows:
            yield size
            size *= 2

    def blocks(self) -> Iterator[Blocks]:
        """Blocks of all features, by growing size."""
        return self._doubling(self._halves, self.rows)

    def score_blocks(self) -> Iterator[Blocks]:
        """Blocks of the scores."""
        return self._doubling(self._score_halves, self.score_rows)

    def _doubling(self, halves: Counts, rows: int) -> Iterator[Blocks]:
        for size in self.block_sizes(rows):
            yield Blocks(size, halves[:-1] + halves[1:])
            pairs = halves[: len(halves) // 2 * 2]
            halves = pairs[::2] + pairs[1::2]

    def categories(self) -> Iterator[tuple[str, NDArray[np.int64], NDArray[np.bool_]]]:
        """Each category feature with its codes and which rows are present."""
        for name, column in self._reference.features.items():
            if isinstance(column, CategoryColumn):
                yield name, *known_codes(column)

    def numbers(self) -> Iterator[tuple[str, Floats]]:
        """Each number feature with its values, NaN where null."""
        for name, column in self._reference.features.items():
            if isinstance(column, NumberColumn):
                values = column.values.astype(np.float64)
                if column.nulls is not None:
                    values[column.nulls] = np.nan
                yield name, values

    @property
    def event_times_us(self) -> Micros:
        """Of every row, in the reference's order."""
        return self._reference.event_times_us

    def grouped(self, groups: NDArray[np.intp], group_count: int) -> Counts:
        """Sums of any groups of the rows; scores are those of honest rows, the others null."""
        scores = np.where(self._honest, self._reference.scores, np.nan)
        columns = tuple(self._reference.features.values())
        return count(self.layout, Rows(groups, group_count, columns, scores))

    def _count_halves(self) -> tuple[Counts, Counts]:
        """Sums of halves of the smallest blocks, and of the rows that are left over."""
        groups, whole = _whole_blocks(self.rows, _SMALLEST_BLOCK // 2)
        columns = tuple(self._reference.features.values())
        rows = Rows(groups, whole + 1, columns, np.full(self.rows, np.nan))
        sums = count(self.layout, rows)
        return sums[:whole], sums[whole]

    def _count_score_halves(self) -> tuple[Counts, Counts]:
        groups, whole = _whole_blocks(self.score_rows, _SMALLEST_BLOCK // 2)
        bins = self.layout.bins[self.layout.names.index(SCORE)]
        places = bins.assign(NumberColumn(self._scores)) + groups * (bins.width + 1)
        shape = (whole + 1, bins.width + 1)
        flat = np.bincount(places, minlength=shape[0] * shape[1])
        histogram = flat.reshape(shape)[:, : bins.width].astype(np.int64)
        return histogram[:whole], histogram[whole]


def _layout(reference: ReferenceRows, scores: Floats) -> Layout:
    bins = {name: bins_of(column) for name, column in reference.features.items()}
    extras = extras_of(reference.features, bins)
    return layout_of(bins, number_bins(NumberColumn(scores)), extras)


def _whole_blocks(total: int, rows: int) -> tuple[NDArray[np.intp], int]:
    """Each row's block, and how many blocks are whole; what is left over is one block more."""
    whole = total // rows
    return np.minimum(np.arange(total) // rows, whole).astype(np.intp), whole
