"""A model's own past as a file: which column is what, and blocks of it for the ledger."""

import hashlib
import json
import time
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
from homeostat.model_file import BadModelFile, is_list, to_array, to_rows, width_of
from homeostat.registry.v1.registry_pb2 import Signature, TensorSpec

_ROWS_PER_BLOCK = 10_000
# 1990: what is older was given in another unit, or is no time.
_EARLIEST_US = 631_152_000_000_000
_DAY_US = 86_400_000_000
# So many distinct whole numbers may be classes as well as values.
_FEW_CLASSES = 20
_MOST_CLASSES = 1_000


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
    # sha256 of the file and of which column is what: the ledger takes the same one in once.
    history_id: str

    @property
    def holdout_losses(self) -> NDArray[np.float64] | None:
        """Per row, NaN where there is none; None without such a column."""
        if self.columns.holdout_loss is None:
            return None
        losses = self.table[self.columns.holdout_loss].cast(pa.float64())
        return np.asarray(losses.fill_null(float("nan")).to_numpy(zero_copy_only=False))

    def classes(self, task: str | None = None) -> list[str]:
        """Distinct truths as text, in order; empty for a regression.

        ``task``: "binary", "multiclass" or "regression". Without it the column's type decides;
        BadHistory where numbers could be classes as well as values.
        """
        name = self.columns.truth
        truth = self._whole_truth()
        if task == "regression":
            return []
        distinct = sorted(pc.unique(truth).to_pylist())
        if task is None and _is_number(truth.type):
            if not all(float(each).is_integer() for each in distinct):
                return []
            is_few = len(distinct) <= _FEW_CLASSES
            if pa.types.is_floating(truth.type) and not is_few:
                return []
            if pa.types.is_floating(truth.type) or not is_few:
                raise BadHistory(
                    f"the truth {name!r} holds {len(distinct)} distinct whole numbers: classes or "
                    "values? say --task binary, multiclass or regression (or name --classes)"
                )
        if len(distinct) > _MOST_CLASSES:
            raise BadHistory(
                f"the truth {name!r} has {len(distinct)} distinct values, too many for classes; "
                "for a regression give numbers and --task regression"
            )
        return [_label(value) for value in distinct]

    def truths(self, classes: Sequence[str]) -> NDArray[np.float64]:
        """Class index (with ``classes``) or value per row; BadHistory names a foreign label."""
        truth = self._whole_truth()
        if not classes:
            try:
                return np.asarray(truth.cast(pa.float64()).to_numpy(zero_copy_only=False))
            except pa.ArrowException as error:
                raise BadHistory(
                    f"the truth {self.columns.truth!r} is {truth.type}; a regression needs numbers"
                ) from error
        index = {label: float(position) for position, label in enumerate(classes)}
        try:
            return np.array([index[_label(value)] for value in truth.to_pylist()])
        except KeyError as error:
            raise BadHistory(f"truth {error} is none of the classes {', '.join(classes)}") from None

    def _whole_truth(self) -> pa.ChunkedArray:
        truth = self.table[self.columns.truth]
        if pa.types.is_dictionary(truth.type):
            truth = truth.cast(truth.type.value_type)
        absent = truth.null_count
        if pa.types.is_floating(truth.type):
            absent += len(truth) - absent - int(pc.sum(pc.is_finite(truth)).as_py() or 0)
        if absent:
            raise BadHistory(
                f"{absent} rows have no (finite) truth in {self.columns.truth!r}; leave them out"
            )
        return truth


def _is_number(datatype: pa.DataType) -> bool:
    return bool(pa.types.is_floating(datatype) or pa.types.is_integer(datatype))


def _label(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


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
    # What the ledger gets, and no more: with other losses the rows are the same.
    digest = hashlib.sha256(path.read_bytes())
    mapping = (columns.truth, columns.time, columns.known_at, list(columns.contexts))
    digest.update(json.dumps(mapping).encode())
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


def require_inputs(history: History, inputs: Sequence[TensorSpec]) -> None:
    """BadHistory where an input of the model is not a column of the file."""
    missing = [spec for spec in inputs if spec.name not in history.table.column_names]
    if missing:
        wide = ", ".join(f"{each.name!r}: {width_of(each)}" for each in missing if _is_wide(each))
        cure = (
            f"they hold several values per row ({wide}); give one named input per column (export "
            "the model so), or a list column"
            if wide
            else "write the raw columns that a client will send, under the inputs' names"
        )
        raise BadHistory(
            f"the history lacks the model's inputs {', '.join(repr(m.name) for m in missing)}; "
            f"{cure}"
        )


def list_widths(history: History) -> dict[str, int]:
    """How long the lists of each list column are, by its first row."""
    return {
        field.name: len(history.table[field.name][0].as_py() or ())
        for field in history.table.schema
        if is_list(field.type)
    }


def with_nulls(history: History, inputs: Sequence[TensorSpec]) -> set[str]:
    """The inputs that are missing in some row: null, NaN, or an empty text. BadHistory names the
    input whose column does not fit."""
    found = set()
    for spec in inputs:
        try:
            values = to_rows(history.table[spec.name], spec)
        except BadModelFile as error:
            raise BadHistory(f"the column {spec.name!r}: {error}") from error
        if nulls_of(values.reshape(-1)).any():
            found.add(spec.name)
    return found


def _is_wide(spec: TensorSpec) -> bool:
    return width_of(spec) > 1 or (len(spec.shape) == 2 and spec.shape[1] < 0)


def _micros(table: pa.Table, name: str) -> NDArray[np.int64]:
    column = table[name]
    if column.null_count:
        raise BadHistory(f"{column.null_count} rows have no time in {name!r}; leave them out")
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("us"), safe=False).cast(pa.int64())
    elif pa.types.is_integer(column.type):
        column = column.cast(pa.int64())
    else:
        raise BadHistory(
            f"{name!r} is {column.type}; give a timestamp (UTC), or int64 microseconds since 1970"
        )
    times = np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.int64)
    outside = times[(times < _EARLIEST_US) | (times > time.time() * 1e6 + _DAY_US)]
    if len(outside):
        raise BadHistory(
            f"{name!r} has {len(outside)} times before 1990 or in the future, like {outside[0]}; "
            "are they microseconds since 1970 (UTC)? A timestamp column leaves no doubt"
        )
    return times


def import_requests(history: History, signature: Signature) -> Iterator[ImportHistoryRequest]:
    """What `ImportHistory` is sent: a header, then blocks of at most 10,000 rows."""
    rows = history.table.num_rows
    yield ImportHistoryRequest(
        header=HistoryHeader(history_id=history.history_id, row_count=rows, task=signature.task)
    )
    truths = history.truths(list(signature.classes))
    contexts = [(name, _context_kind(history.table[name])) for name in history.columns.contexts]
    for start in range(0, rows, _ROWS_PER_BLOCK):
        stop = min(rows, start + _ROWS_PER_BLOCK)
        part = history.table.slice(start, stop - start)
        yield ImportHistoryRequest(
            rows=HistoryRows(
                row_count=stop - start,
                inputs=[_pack_input(part, spec) for spec in signature.inputs],
                contexts=[_pack_context(part, name, kind) for name, kind in contexts],
                event_times_us=history.event_times_us[start:stop].tobytes(),
                known_at_us=history.known_at_us[start:stop].tobytes(),
                truths=truths[start:stop].tobytes(),
            )
        )


def _pack_input(table: pa.Table, spec: TensorSpec) -> Column:
    values = to_rows(table[spec.name], spec)
    nulls = nulls_of(values.reshape(-1)).reshape(len(values), -1)
    # A row of several values is missing where all of them are.
    return pack(spec.name, values, ~np.logical_and.reduce(nulls, axis=1))


def _context_kind(column: pa.ChunkedArray) -> str:
    """One for all blocks; integers can't be null."""
    if pa.types.is_integer(column.type) and not column.null_count:
        return "INT64"
    return "FP64" if _is_number(column.type) else "BYTES"


def _pack_context(table: pa.Table, name: str, datatype: str) -> Column:
    values = to_array(table[name], datatype)
    return pack(name, values, ~nulls_of(values))
