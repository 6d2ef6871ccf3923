"""Rows of the past, as the ledger gives them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from homeostat_monitor.domain.alerts.alert import Subject
from homeostat_monitor.domain.profile import VersionProfile
from homeostat_monitor.domain.windows.bins import (
    CategoryBins,
    CategoryColumn,
    ColumnValues,
    NumberColumn,
)
from homeostat_monitor.ports import BlockOfLosses

CONTEXT = "context."

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Portion:
    """Rows of one model by (event time, prediction id), with what is known of their truth."""

    event_times_us: Ints
    versions: NDArray[np.int32]
    # Inputs by name, contexts as "context.<name>".
    columns: Mapping[str, ColumnValues]
    # Scores, decisions and truths, shape [3, rows].
    said: Floats
    # NaN: no truth is known, or it has none.
    losses: Floats
    # Of the first truth.
    known_at_us: Ints
    # 20 bytes each.
    prediction_ids: NDArray[np.bytes_]

    def __len__(self) -> int:
        return len(self.event_times_us)

    def only(self, rows: "NDArray[Any] | slice") -> "Portion":
        """Those rows, in their order."""
        return Portion(
            self.event_times_us[rows],
            self.versions[rows],
            {name: _only(each, rows) for name, each in self.columns.items()},
            self.said[:, rows],
            self.losses[rows],
            self.known_at_us[rows],
            self.prediction_ids[rows],
        )


def _only(column: ColumnValues, rows: "NDArray[Any] | slice") -> ColumnValues:
    nulls = None if column.nulls is None else column.nulls[rows]
    if isinstance(column, NumberColumn):
        return NumberColumn(column.values[rows], nulls)
    return CategoryColumn(column.codes[rows], column.dictionary, nulls)


def columns_of(portion: Portion, profile: VersionProfile) -> tuple[ColumnValues, ...]:
    """In the layout's order; a column that no row brought is null."""
    layout, rows = profile.layout, len(portion)
    columns: list[ColumnValues] = []
    for name, bins in zip(layout.names[:-1], layout.bins[:-1], strict=True):
        found = portion.columns.get(name)
        is_text = isinstance(bins, CategoryBins)
        if found is None or isinstance(found, CategoryColumn) != is_text:
            nulls = np.ones(rows, dtype=bool)
            empty = np.zeros(rows, dtype=np.int32)
            found = (
                CategoryColumn(empty, [""], nulls)
                if is_text
                else NumberColumn(np.zeros(rows), nulls)
            )
        columns.append(found)
    return tuple(columns)


def segments_of(portion: Portion, profile: VersionProfile) -> dict[str, NDArray[np.bool_]]:
    """Which rows are in which segment of the policy."""
    if not profile.expressions:
        return {}
    known = dict(portion.columns)
    for name, each in portion.columns.items():
        if name.startswith(CONTEXT):
            known.setdefault(name.removeprefix(CONTEXT), each)
    return {name: each.mask(known, len(portion)) for name, each in profile.expressions.items()}


def losses_of(portion: Portion, subject: Subject, event_id: bytes) -> BlockOfLosses:
    """First truths, as one event would tell them."""
    whole = BlockOfLosses(
        subject,
        b"truths:" + event_id,
        portion.known_at_us,
        portion.event_times_us,
        portion.losses,
        portion.prediction_ids,
        portion.said,
    )
    return whole.only(np.isfinite(portion.losses))
