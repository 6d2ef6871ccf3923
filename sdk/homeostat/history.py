"""A model's own past as a file: which column is what, and blocks of it for the ledger."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from homeostat.columns import nulls_of, pack
from homeostat.events.v1.column_pb2 import Column
from homeostat.ledger.v1.ledger_pb2 import HistoryHeader, HistoryRows, ImportHistoryRequest
from homeostat.model_file import to_array
from homeostat.registry.v1.registry_pb2 import Signature

_ROWS_PER_BLOCK = 10_000


class BadHistory(ValueError):
    """The file does not hold what was said of it; the message names the cure."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns of the file are what."""

    truth: str
    time: str
    # When the truth became known; without it the event time is taken.
    known_at: str | None = None
    # Honest loss per row (not trained on, or out of fold), null where there is none.
    holdout_loss: str | None = None
    contexts: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class History:
    """Rows in event-time order."""

    table: pa.Table
    columns: Columns
    event_times_us: NDArray[np.int64]
    known_at_us: NDArray[np.int64]
    # sha256 of the file and of which column is what.
    history_id: str

    @property
    def holdout_losses(self) -> NDArray[np.float64] | None:
        """Per row, NaN where there is none; None without such a column."""
        if self.columns.holdout_loss is None:
            return None
        losses = self.table[self.columns.holdout_loss].cast(pa.float64())
        return np.asarray(losses.fill_null(float("nan")).to_numpy(zero_copy_only=False))

    def classes(self) -> list[str]:
        """Distinct truths as text, in order; empty where the truth is a float (regression)."""
        truth = self.table[self.columns.truth]
        if pa.types.is_floating(truth.type):
            return []
        distinct = sorted(pc.unique(truth.drop_null()).to_pylist())
        if len(distinct) > 1000:
            raise BadHistory(
                f"the truth {self.columns.truth!r} has {len(distinct)} distinct values; "
                "for a regression make it a float column"
            )
        return [_label(value) for value in distinct]

    def truths(self, classes: Sequence[str]) -> NDArray[np.float64]:
        """Class index (with ``classes``) or value per row; BadHistory names a foreign label."""
        truth = self.table[self.columns.truth]
        if truth.null_count:
            raise BadHistory(
                f"{truth.null_count} rows have no truth in {self.columns.truth!r}; leave them out"
            )
        if not classes:
            return np.asarray(truth.cast(pa.float64()).to_numpy(zero_copy_only=False))
        index = {label: float(position) for position, label in enumerate(classes)}
        try:
            return np.array([index[_label(value)] for value in truth.to_pylist()])
        except KeyError as error:
            raise BadHistory(f"truth {error} is none of the classes {', '.join(classes)}") from None


def _label(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def read_history(path: Path, columns: Columns) -> History:
    """Reads a Parquet file; BadHistory says which column is missing or of a wrong type."""
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise BadHistory(f"{path} can't be read as Parquet: {error}") from error
    named = [columns.truth, columns.time, columns.known_at, columns.holdout_loss]
    _require(table, [name for name in named if name] + list(columns.contexts), path)
    if not table.num_rows:
        raise BadHistory(f"{path} has no rows")
    event_times = _micros(table, columns.time)
    known_at = _micros(table, columns.known_at) if columns.known_at else event_times
    order = np.argsort(event_times, kind="stable")
    digest = hashlib.sha256(path.read_bytes())
    digest.update(repr(columns).encode())
    return History(
        table.take(pa.array(order)),
        columns,
        event_times[order],
        known_at[order],
        digest.hexdigest(),
    )


def _require(table: pa.Table, names: Sequence[str], path: Path) -> None:
    missing = [name for name in names if name not in table.column_names]
    if missing:
        raise BadHistory(
            f"{path} has no column {', '.join(map(repr, missing))}; "
            f"it has {', '.join(table.column_names)}"
        )


def require_inputs(history: History, signature: Signature) -> None:
    """BadHistory where an input of the model is not a column of the file."""
    names = [spec.name for spec in signature.inputs]
    missing = [name for name in names if name not in history.table.column_names]
    if missing:
        raise BadHistory(
            f"the history lacks the model's inputs {', '.join(map(repr, missing))}; "
            "write the raw columns that a client will send, under the inputs' names"
        )


def _micros(table: pa.Table, name: str) -> NDArray[np.int64]:
    column = table[name]
    if column.null_count:
        raise BadHistory(f"{column.null_count} rows have no time in {name!r}; leave them out")
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("us")).cast(pa.int64())
    elif pa.types.is_integer(column.type):
        column = column.cast(pa.int64())
    else:
        raise BadHistory(
            f"{name!r} is {column.type}; give a timestamp (UTC), or int64 microseconds since 1970"
        )
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.int64)


def import_requests(history: History, signature: Signature) -> Iterator[ImportHistoryRequest]:
    """What `ImportHistory` is sent: a header, then blocks of at most 10,000 rows."""
    rows = history.table.num_rows
    yield ImportHistoryRequest(
        header=HistoryHeader(history_id=history.history_id, row_count=rows, task=signature.task)
    )
    truths = history.truths(list(signature.classes))
    for start in range(0, rows, _ROWS_PER_BLOCK):
        stop = min(rows, start + _ROWS_PER_BLOCK)
        part = history.table.slice(start, stop - start)
        yield ImportHistoryRequest(
            rows=HistoryRows(
                row_count=stop - start,
                inputs=[_pack(part, spec.name, spec.datatype) for spec in signature.inputs],
                contexts=[_pack(part, name) for name in history.columns.contexts],
                event_times_us=history.event_times_us[start:stop].tobytes(),
                known_at_us=history.known_at_us[start:stop].tobytes(),
                truths=truths[start:stop].tobytes(),
            )
        )


def _pack(table: pa.Table, name: str, datatype: str | None = None) -> Column:
    column = table[name]
    if datatype is None:
        datatype = "FP64" if pa.types.is_floating(column.type) else "BYTES"
        datatype = "INT64" if pa.types.is_integer(column.type) else datatype
    values = to_array(column, datatype)
    return pack(name, values, ~nulls_of(values))
