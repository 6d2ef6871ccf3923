"""Rows as a diagnosis looks at them, and their columns cut into few bins."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from homeostat_monitor.domain.segments.nodes import Column, Comparison, Constant, Node, Nullness, Or
from homeostat_monitor.domain.windows.bins import (
    CategoryColumn,
    ColumnValues,
    NumberColumn,
    known_codes,
)

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Codes = NDArray[np.int16]

_QUANTILES = 16
_MOST_CATEGORIES = 32


@dataclass(frozen=True, slots=True)
class PastRows:
    """Predictions with what came of them, columns of equal length."""

    # Inputs by name, contexts by "context.<name>".
    columns: Mapping[str, ColumnValues]
    # NaN where unknown: class index or value; 0 or 1, or the squared error.
    scores: Floats
    truths: Floats
    losses: Floats

    def __len__(self) -> int:
        return len(self.losses)

    def only(self, keep: Mask) -> "PastRows":
        """Some of them."""
        columns = {name: _only(column, keep) for name, column in self.columns.items()}
        return PastRows(columns, self.scores[keep], self.truths[keep], self.losses[keep])


@dataclass(frozen=True, slots=True)
class NumberCut:
    """``code`` is how many edges are not above the value."""

    edges: tuple[float, ...]

    @property
    def width(self) -> int:
        """Codes without the one for null."""
        return len(self.edges) + 1

    def codes(self, column: ColumnValues | None, rows: int) -> Codes:
        """One per row; ``width`` is null."""
        if not isinstance(column, NumberColumn):
            return np.full(rows, self.width, dtype=np.int16)
        values = column.values
        kind = values.dtype if values.dtype.kind == "f" else np.float64
        codes = np.searchsorted(np.array(self.edges, dtype=kind), values, side="right")
        if values.dtype.kind == "f":
            codes[np.isnan(values)] = self.width
        if column.nulls is not None:
            codes[column.nulls] = self.width
        return codes.astype(np.int16)

    def sides(self, name: str, at: int) -> tuple[Node, Node]:
        """Codes below ``at``, and the others that are not null."""
        column, edge = Column(name), Constant(_plain(self.edges[at - 1]))
        return Comparison((column, edge), ("<",)), Comparison((column, edge), (">=",))


@dataclass(frozen=True, slots=True)
class CategoryCut:
    """``code`` is the text's place in ``texts``; the rest share one."""

    texts: tuple[str, ...]

    @property
    def width(self) -> int:
        """Codes without the one for null."""
        return len(self.texts) + 1

    def codes(self, column: ColumnValues | None, rows: int) -> Codes:
        """One per row; ``width`` is null."""
        if not isinstance(column, CategoryColumn):
            return np.full(rows, self.width, dtype=np.int16)
        place = {text: at for at, text in enumerate(self.texts)}
        rest = len(self.texts)
        of_code = [place.get(text, rest) if text else self.width for text in column.dictionary]
        codes = np.array(of_code or [self.width], dtype=np.int16)[column.codes]
        if column.nulls is not None:
            codes[column.nulls] = self.width
        return codes

    def sides(self, name: str, at: int) -> tuple[Node, Node]:
        """The text ``at``, and the others that are not null."""
        column, text = Column(name), Constant(self.texts[at])
        return Comparison((column, text), ("==",)), Comparison((column, text), ("!=",))


Cut = NumberCut | CategoryCut


def cut_of(columns: Sequence[ColumnValues]) -> Cut | None:
    """Bins of one column as it is in several samples; None where nothing can be told apart."""
    numbers = [each for each in columns if isinstance(each, NumberColumn)]
    texts = [each for each in columns if isinstance(each, CategoryColumn)]
    if numbers and not texts:
        edges = _edges(np.concatenate([_present(each) for each in numbers]))
        return NumberCut(edges) if edges else None
    if texts and not numbers:
        counts: dict[str, int] = {}
        for each in texts:
            for text, count in _text_counts(each):
                counts[text] = counts.get(text, 0) + count
        most = sorted(counts, key=lambda text: (-counts[text], text))[:_MOST_CATEGORIES]
        return CategoryCut(tuple(most)) if len(counts) > 1 else None
    return None


def _only(column: ColumnValues, keep: Mask) -> ColumnValues:
    nulls = None if column.nulls is None else column.nulls[keep]
    if isinstance(column, NumberColumn):
        return NumberColumn(column.values[keep], nulls)
    return CategoryColumn(column.codes[keep], column.dictionary, nulls)


def with_null(side: Node, name: str, *, has_nulls: bool) -> Node:
    """The side that also takes the rows where the column is null."""
    return Or((side, Nullness(Column(name), False))) if has_nulls else side


def _edges(values: NDArray[Any]) -> tuple[float, ...]:
    """Quantiles in few digits, for a person to read; exact where that would merge them."""
    if not len(values):
        return ()
    inner = np.linspace(0, 1, _QUANTILES + 1)[1:-1]
    exact = np.unique(np.quantile(values.astype(np.float64), inner, method="higher"))
    exact = exact[exact > values.min()]
    short = np.unique([float(f"{each:.3g}") for each in exact])
    short = short[(short > values.min()) & (short <= values.max())]
    return tuple((short if 4 * len(short) >= 3 * len(exact) else exact).tolist())


def _present(column: NumberColumn) -> NDArray[Any]:
    values = column.values if column.nulls is None else column.values[~column.nulls]
    return values[np.isfinite(values)] if values.dtype.kind == "f" else values


def _text_counts(column: CategoryColumn) -> Iterator[tuple[str, int]]:
    codes, present = known_codes(column)
    texts = list(dict.fromkeys(column.dictionary))
    counts = np.bincount(codes[present], minlength=len(texts)).tolist()
    return ((text, count) for text, count in zip(texts, counts, strict=False) if count)


def _plain(value: float) -> float:
    return int(value) if value.is_integer() and abs(value) < 2**53 else value
