"""Bins of one feature, fixed by a version's reference: every value falls into exactly one.

The last bin is always "null". Unseen values and values out of range have bins of their own that
the reference leaves empty, so no marker value is needed that real data could collide with.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

# Ten quantile bins: what the usual distances are calibrated for.
_QUANTILE_BINS = 10
# A single value this frequent gets a bin of its own, or a constant that starts to move is unseen.
_ATOM_SHARE = 0.05
# Of hardly any values every one is frequent.
_FEWEST_OF_ATOM = 3
# With fewer rows the search is faster, whose branches no processor foresees. There are at most
# 51 edges: nine quantiles, two for each of twenty frequent values, two ends.
_ROWS_PER_EDGE = 40
# What the rest of it costs, in edges.
_FEWEST_EDGES = 8
# A category rarer than this shares one bin with the other rare ones.
_RARE_SHARE = 0.002
# Widest histogram of a category column; the rest are rare.
_MAX_CATEGORIES = 254


@dataclass(frozen=True, slots=True)
class NumberColumn:
    """Values of a numeric feature; NaN and ``nulls`` (None: no row) are null."""

    values: NDArray[Any]
    nulls: Mask | None = None


@dataclass(frozen=True, slots=True)
class CategoryColumn:
    """Texts of a category feature as codes into ``dictionary``, which may repeat a text.

    An empty text and ``nulls`` (None: no row) are null.
    """

    codes: NDArray[np.int32]
    dictionary: Sequence[str]
    nulls: Mask | None = None


ColumnValues = NumberColumn | CategoryColumn


@dataclass(frozen=True, slots=True)
class NumberBins:
    """Quantile bins, own bins for frequent single values, one bin on either side of the range."""

    edges: NDArray[Any]
    # The edges, and NaN after them: the search itself then takes NaN for null.
    _search: NDArray[Any] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        kind = self.edges.dtype
        last = np.array([np.nan], dtype=kind if kind.kind == "f" else np.float64)
        object.__setattr__(self, "_search", np.concatenate([self.edges, last]))

    @property
    def width(self) -> int:
        """Bins without the null bin."""
        return len(self.edges) + 1

    @property
    def outside(self) -> tuple[int, ...]:
        """Bins that the reference never reached."""
        return (0, len(self.edges))

    def assign(self, column: ColumnValues) -> NDArray[np.intp]:
        """The bin of every row."""
        if not isinstance(column, NumberColumn):
            raise TypeError("texts where numbers were expected")
        values = column.values
        if len(values) < _ROWS_PER_EDGE * (len(self.edges) + _FEWEST_EDGES):
            bins = self._search.searchsorted(values, side="right")
        else:
            bins = self._counted(values)
        if column.nulls is not None:
            bins[column.nulls] = self.width
        return bins

    def _counted(self, values: NDArray[Any]) -> NDArray[np.intp]:
        """The same for many rows: how many edges each has reached, one edge after another."""
        reached = np.zeros(len(values), dtype=np.uint8)
        has_reached = np.empty(len(values), dtype=bool)
        for edge in self.edges:
            np.greater_equal(values, edge, out=has_reached)
            np.add(reached, has_reached.view(np.uint8), out=reached)
        bins = reached.astype(np.intp)
        if values.dtype.kind == "f":
            bins[np.isnan(values)] = self.width
        return bins


@dataclass(frozen=True, slots=True)
class CategoryBins:
    """One bin per frequent text, one for the rare ones, one for texts the reference never had."""

    table: Mapping[str, int]
    # Bins of their own; the rare bin is the next, the unseen bin the one after.
    kept: int

    @property
    def width(self) -> int:
        """Bins without the null bin."""
        return self.kept + 2

    @property
    def unseen(self) -> int:
        """The bin of texts that the reference never had."""
        return self.kept + 1

    def assign(self, column: ColumnValues) -> NDArray[np.intp]:
        """The bin of every row."""
        if not isinstance(column, CategoryColumn):
            raise TypeError("numbers where texts were expected")
        return self.placed(column, self.places(column.dictionary))

    def places(self, dictionary: Sequence[str]) -> NDArray[np.intp]:
        """The bin of every text of a dictionary."""
        get, unseen = self.table.get, self.unseen
        return np.fromiter(
            [get(text, unseen) if text else self.width for text in dictionary],
            dtype=np.intp,
            count=len(dictionary),
        )

    def placed(self, column: CategoryColumn, places: NDArray[np.intp]) -> NDArray[np.intp]:
        """The bin of every row, from those of the dictionary's texts."""
        # Rows of an empty dictionary can only be null.
        bins = places[column.codes] if len(places) else np.full(len(column.codes), self.width)
        if column.nulls is not None:
            bins[column.nulls] = self.width
        return bins


Bins = NumberBins | CategoryBins


def number_bins(column: NumberColumn) -> NumberBins:
    """Bins from the reference's values of one numeric feature, in the type that traffic has."""
    values = column.values if column.nulls is None else column.values[~column.nulls]
    is_float = values.dtype.kind == "f"
    values = values[~np.isnan(values)] if is_float else values.astype(np.float64)
    if not len(values):
        # Nothing known: every value that comes is out of range.
        return NumberBins(np.array([np.inf], dtype=values.dtype))
    inner = np.linspace(0, 1, _QUANTILE_BINS + 1)[1:-1]
    quantiles = np.quantile(values, inner, method="higher")
    distinct, counts = np.unique(values, return_counts=True)
    atoms = distinct[counts >= max(_ATOM_SHARE * len(values), _FEWEST_OF_ATOM)]
    above = np.nextafter(atoms, np.inf, dtype=values.dtype)
    ends = np.array([distinct[0], np.nextafter(distinct[-1], np.inf, dtype=values.dtype)])
    edges = np.unique(np.concatenate([quantiles, atoms, above, ends]))
    return NumberBins(edges.astype(values.dtype))


def category_bins(column: CategoryColumn) -> CategoryBins:
    """Bins from the reference's texts of one category feature."""
    texts, counts = _text_counts(column)
    total = max(int(counts.sum()), 1)
    order = sorted(range(len(texts)), key=lambda i: (-int(counts[i]), texts[i]))
    frequent = [i for i in order if counts[i] >= _RARE_SHARE * total][:_MAX_CATEGORIES]
    table = {texts[i]: place for place, i in enumerate(frequent)}
    rare = len(frequent)
    for i in order:
        table.setdefault(texts[i], rare)
    return CategoryBins(table, rare)


def bins_of(column: ColumnValues) -> Bins:
    """The bins that fit the column's kind."""
    if isinstance(column, NumberColumn):
        return number_bins(column)
    return category_bins(column)


def taken(column: ColumnValues, rows: Mask) -> ColumnValues:
    """The column's rows of a mask, in their order."""
    nulls = None if column.nulls is None else column.nulls[rows]
    if isinstance(column, NumberColumn):
        return NumberColumn(column.values[rows], nulls)
    return CategoryColumn(column.codes[rows], column.dictionary, nulls)


def known_codes(column: CategoryColumn) -> tuple[Ints, Mask]:
    """One code per distinct text, and which rows are present."""
    index: dict[str, int] = {}
    same = np.fromiter(
        (index.setdefault(text, len(index)) for text in column.dictionary),
        dtype=np.int64,
        count=len(column.dictionary),
    )
    codes = same[column.codes] if len(same) else np.zeros(len(column.codes), dtype=np.int64)
    present = np.ones(len(codes), dtype=bool) if column.nulls is None else ~column.nulls
    if not len(same):
        present[:] = False
    elif "" in index:
        present &= codes != index[""]
    return codes, present


def _text_counts(column: CategoryColumn) -> tuple[list[str], Ints]:
    texts = list(dict.fromkeys(column.dictionary))
    codes, present = known_codes(column)
    counts = np.bincount(codes[present], minlength=len(texts))
    held = np.flatnonzero(counts)
    return [texts[i] for i in held], counts[held]
