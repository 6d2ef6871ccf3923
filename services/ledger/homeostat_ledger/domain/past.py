"""Archived predictions in the order of their event times, without holding all of them.

Blocks come sorted by their earliest row. Once the next block's earliest row is known, whatever lies
before it is final: what waits is as much as blocks overlap in time, and a portion.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from homeostat_ledger.domain.data_sets import canonical, features_together
from homeostat_ledger.domain.joins import losses

PREFIX = "homeostat."
_ID = np.dtype([("high", ">u8"), ("low", ">u8"), ("row", "<u4")])

# A block as far as its place in time goes.
HEAD = np.dtype(
    [
        ("block_number", "i8"),
        ("min_event_us", "i8"),
        ("max_event_us", "i8"),
        ("row_count", "i4"),
    ]
)
# A prediction without its features.
ROW = np.dtype(
    [
        ("event_time_us", "i8"),
        ("high", "u8"),  # halves of the block id, big-endian so that they order
        ("low", "u8"),
        ("row", "i4"),
        ("version", "i4"),
        ("arm", "i2"),
        ("task", "i2"),
        ("score", "f8"),
        ("decision", "f8"),
        ("is_known", "?"),
        ("truth", "f8"),
        ("known_at_us", "i8"),  # of the first truth
        ("part_id", "i8"),
        ("part_row", "i4"),
    ]
)
Heads = NDArray[np.void]
Rows = NDArray[np.void]


@dataclass(frozen=True, slots=True)
class Features:
    """Where some rows' features lie: ``rows`` of ``table`` belong to places ``at``."""

    table: pa.Table
    rows: NDArray[np.int64]
    at: NDArray[np.intp]


def chunks(heads: Heads, least_rows: int, most_blocks: int) -> Iterator[Heads]:
    """Runs of blocks with about so many rows."""
    start, rows = 0, 0
    for place, count in enumerate(heads["row_count"].tolist(), start=1):
        rows += count
        if rows >= least_rows or place - start >= most_blocks:
            yield heads[start:place]
            start, rows = place, 0
    if start < len(heads):
        yield heads[start:]


class Sweep:
    """Puts rows in order and cuts them into portions."""

    def __init__(self, portion_rows: int, skip: int) -> None:
        """``skip``: so many of the first rows are left out."""
        self._portion_rows = portion_rows
        self._skip = skip
        self._pending: Rows = np.empty(0, dtype=ROW)

    def add(self, rows: Rows, final_before_us: int | None) -> Iterator[Rows]:
        """Whole portions of what is final; None: nothing comes after these, the rest is given."""
        pending = in_order(np.concatenate([self._pending, rows]))
        end = len(pending)
        if final_before_us is not None:
            end = int(np.searchsorted(pending["event_time_us"], final_before_us))
        at = min(self._skip, end)
        self._skip -= at
        while end - at >= self._portion_rows or (final_before_us is None and at < end):
            yield pending[at : min(at + self._portion_rows, end)]
            at = min(at + self._portion_rows, end)
        self._pending = pending[at:].copy()


def in_order(rows: Rows) -> Rows:
    """By event time, then prediction id."""
    return rows[np.lexsort((rows["row"], rows["low"], rows["high"], rows["event_time_us"]))]


def portion(rows: Rows, features: Sequence[Features]) -> pa.Table:
    """The contract's columns. Raises IncompatibleColumns."""
    table = features_together([each.table.take(pa.array(each.rows)) for each in features])
    places = np.concatenate([each.at for each in features])
    table = canonical(table.take(pa.array(np.argsort(places))))
    for name, column in _said(rows).items():
        table = table.append_column(PREFIX + name, column)
    return table


def _said(rows: Rows) -> dict[str, pa.Array]:
    unknown = ~rows["is_known"]
    nobody = np.isnan(rows["decision"])
    ids = np.empty(len(rows), dtype=_ID)
    for name in ("high", "low", "row"):
        ids[name] = rows[name]
    of_tasks = [(task, rows["task"] == task) for task in np.unique(rows["task"])]
    lost = np.select(
        [chosen for _, chosen in of_tasks],
        [losses(int(task), rows["decision"], rows["truth"]) for task, _ in of_tasks],
    )
    return {
        "event_time_us": _column(rows["event_time_us"]),
        "version": _column(rows["version"]),
        "arm": _column(rows["arm"].astype(np.int32)),
        "score": _column(rows["score"], np.isnan(rows["score"])),
        "decision": _column(rows["decision"], nobody),
        "prediction_id": pa.Array.from_buffers(
            pa.binary(_ID.itemsize), len(rows), [None, pa.py_buffer(ids.tobytes())]
        ),
        "truth": _column(rows["truth"], unknown),
        "loss": _column(lost, unknown | nobody),
        "known_at_us": _column(rows["known_at_us"], unknown),
    }


def _column(values: NDArray[Any], nulls: NDArray[np.bool_] | None = None) -> pa.Array:
    return pa.array(np.ascontiguousarray(values), mask=nulls)
