"""Sums of a window: histograms, moments, products of pairs and a sketch of whole rows, all in one
row of whole numbers.

Sums of parts add up to the sums of the whole, in any order: that is all the detectors need.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from homeostat_monitor.domain.windows.bins import (
    Bins,
    CategoryBins,
    CategoryColumn,
    ColumnValues,
    NumberColumn,
)
from homeostat_monitor.domain.windows.layout import (
    BUCKETS,
    MOST_DEVIATIONS,
    SCORE,
    STEPS,
    Counts,
    Extras,
    Floats,
    Layout,
    layout_of,
    score_table,
)

__all__ = ["SCORE", "Counter", "Counts", "Extras", "Layout", "Rows", "count", "layout_of"]

Places = NDArray[np.intp]
Nulls = NDArray[np.bool_]
# Rows summed at a time: what they need stays in the cache, and sums of squares exact in floats.
_CHUNK = 8192
# A product of matrices sums so many groups faster than counting does.
_FEW_GROUPS = 16
# One that is worth no second thread: threads that wait for each other cost more than they help.
_SMALL_PRODUCT = 2**18
_MOST_STEPS = float(MOST_DEVIATIONS * STEPS)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FOLD = np.uint64(29)
_TOP = np.uint64(64 - (BUCKETS - 1).bit_length())


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of one version: which sum each belongs to, and its columns."""

    # For every row the index of its sum, 0 .. groups - 1.
    groups: NDArray[np.intp]
    group_count: int
    # In the layout's order, without the scores.
    columns: Sequence[ColumnValues]
    scores: NDArray[np.float64]


class Counter:
    """Sums rows of one layout; it may be kept and is safe to share."""

    def __init__(self, layout: Layout) -> None:
        extras = layout.extras
        at = {name: number for number, name in enumerate(layout.names)}
        self._layout = layout
        self._histograms = layout.moments_start
        self._starts = np.array(layout.starts, dtype=np.intp)[:, None]
        widths = np.array([bins.width for bins in layout.bins], dtype=np.intp)[:, None]
        self._null_places = self._starts + widths
        # Numbers mostly stand side by side: then no copies are made of what is theirs.
        self._numbers = _run(np.array([at[name] for name in extras.scales], dtype=np.intp))
        self._number_nulls = self._null_places[self._numbers]
        self._number_names = [at[name] for name in extras.scales]
        scales = np.array(list(extras.scales.values())).reshape(-1, 2)
        self._means = scales[:, :1]
        self._factors = STEPS / scales[:, 1:]
        self._left = np.array([at[a] for a, _ in extras.pairs], dtype=np.intp)
        self._right = np.array([at[b] for _, b in extras.pairs], dtype=np.intp)
        self._scores = score_table(layout).astype(np.float64)
        self._dictionaries: dict[int, tuple[Sequence[str], Places]] = {}
        # Odd multipliers, one per feature, so that swapped columns are other rows.
        odd = np.arange(1, len(layout.names), dtype=np.uint64) * _GOLDEN
        self._multipliers = (odd | np.uint64(1))[:, None]

    def count(self, rows: Rows) -> Counts:
        """One row of sums per group; [groups, width]."""
        layout, total = self._layout, rows.group_count
        # An infinite score is no number either.
        columns = (*rows.columns, NumberColumn(rows.scores, ~np.isfinite(rows.scores)))
        places = np.empty((len(columns), len(rows.groups)), dtype=np.intp)
        for number, (bins, column) in enumerate(zip(layout.bins, columns, strict=True)):
            places[number] = self._assigned(number, bins, column)
        places += self._starts
        sums = np.zeros((total, layout.width), dtype=np.int64)
        sums[:, 0] = np.bincount(rows.groups, minlength=total)
        for start in range(0, len(rows.groups), _CHUNK):
            cut = slice(start, start + _CHUNK)
            self._add(sums, places[:, cut], rows, cut)
        return sums

    def _assigned(self, number: int, bins: Bins, column: ColumnValues) -> Places:
        """The bin of every row. A dictionary that cannot change is looked up once."""
        if not isinstance(column, CategoryColumn) or not isinstance(column.dictionary, tuple):
            return bins.assign(column)
        if not isinstance(bins, CategoryBins):
            raise TypeError("texts where numbers were expected")
        known = self._dictionaries.get(number)
        if known is None or known[0] is not column.dictionary:
            known = (column.dictionary, bins.places(column.dictionary))
            self._dictionaries[number] = known
        return bins.placed(column, known[1])

    def _add(self, sums: Counts, places: Places, rows: Rows, cut: slice) -> None:
        groups, total = rows.groups[cut], rows.group_count
        sums[:, 1 : self._histograms] += _tally(places, groups, self._histograms, total)[:, 1:]
        layout, steps = self._layout, 2 * len(self._number_names)
        values, nulls = self._values(rows, cut), places[self._numbers] == self._number_nulls
        weights = np.empty((layout.sketch_start - layout.moments_start, len(groups)))
        if steps:
            self._steps(values, nulls, weights[:steps])
        if len(self._left):
            self._products(places, weights[steps:])
        if len(weights):
            sums[:, self._histograms : layout.sketch_start] += _added(weights, groups, total)
        if layout.extras.has_sketch:
            buckets = self._buckets(values, nulls, places)
            sums[:, layout.sketch_start :] += _tally(buckets, groups, BUCKETS, total)

    def _values(self, rows: Rows, cut: slice) -> Floats:
        """The number features' values, [numbers, rows]."""
        values = np.empty((len(self._number_names), len(rows.groups[cut])))
        for place, number in enumerate(self._number_names):
            column = rows.columns[number]
            if not isinstance(column, NumberColumn):
                raise TypeError("texts where numbers were expected")
            values[place] = column.values[cut]
        return values

    def _steps(self, values: Floats, nulls: Nulls, both: Floats) -> None:
        """Whole steps from the mean and their squares, in turn; nulls add nothing."""
        with np.errstate(over="ignore", invalid="ignore"):
            steps = values - self._means
            steps *= self._factors
        np.copyto(steps, 0.0, where=nulls)
        np.rint(steps, out=steps)
        np.minimum(steps, _MOST_STEPS, out=steps)
        np.maximum(steps, -_MOST_STEPS, out=both[0::2])
        np.multiply(both[0::2], both[0::2], out=both[1::2])

    def _products(self, places: Places, both: Floats) -> None:
        """Whether both are present, and the product of their scores, in turn."""
        scores = self._scores.take(places)
        present = places != self._null_places
        np.logical_and(
            present.take(self._left, axis=0), present.take(self._right, axis=0), out=both[0::2]
        )
        # The score of a null is 0.
        np.multiply(
            scores.take(self._left, axis=0), scores.take(self._right, axis=0), out=both[1::2]
        )

    def _buckets(self, values: Floats, nulls: Nulls, places: Places) -> Places:
        """A hash of every row's inputs. Texts enter by their bin, numbers by all their bits."""
        words = places[:-1].astype(np.uint64)
        if len(values):
            bits = values.view(np.uint64)
            numbers = bits >> _FOLD
            numbers ^= bits
            # A null is a null, whatever stands there.
            np.copyto(numbers, np.uint64(0), where=nulls)
            words[self._numbers] = numbers
        words *= self._multipliers
        mixed = words.sum(axis=0, dtype=np.uint64)
        mixed = (mixed ^ (mixed >> _FOLD)) * _GOLDEN
        buckets: Places = (mixed >> _TOP).astype(np.intp)
        return buckets


def count(layout: Layout, rows: Rows) -> Counts:
    """One row of sums per group."""
    return Counter(layout).count(rows)


def _tally(places: Places, groups: Places, width: int, total: int) -> Counts:
    """How often each place occurs per group; [total, width]."""
    if total > 1:
        places = places + groups * width
    return np.bincount(places.ravel(), minlength=total * width).reshape(total, width)


def _added(weights: Floats, groups: Places, total: int) -> Counts:
    """Sums of whole numbers per group, exact below 2**53; [total, weights]."""
    kinds = len(weights)
    if total == 1:
        return np.ascontiguousarray(weights.sum(axis=1)[None, :], dtype=np.int64)
    if total <= _FEW_GROUPS:
        # Whole numbers times 0 or 1: exact in whatever order they are added.
        member = (groups[:, None] == np.arange(total)).astype(np.float64)
        added = np.zeros((kinds, total))
        step = max(_SMALL_PRODUCT // (kinds * total), 1)
        for start in range(0, len(groups), step):
            added += weights[:, start : start + step] @ member[start : start + step]
        return np.ascontiguousarray(added.T, dtype=np.int64)
    flat = groups + np.arange(kinds)[:, None] * total
    sums = np.bincount(flat.ravel(), weights.ravel(), minlength=kinds * total)
    return np.ascontiguousarray(sums.reshape(kinds, total).T, dtype=np.int64)


def _run(places: Places) -> Places | slice:
    """A slice where the places follow one on another."""
    if not len(places) or (np.diff(places) != 1).any():
        return places
    return slice(int(places[0]), int(places[-1]) + 1)
