"""A reference profile's Parquet to the rows that the domain calibrates on."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from homeostat import reference
from homeostat.columns import DTYPES
from homeostat_monitor.domain.errors import UnusableReference
from homeostat_monitor.domain.losses.ties import fair_order
from homeostat_monitor.domain.losses.truths import Truths
from homeostat_monitor.domain.windows.bins import CategoryColumn, ColumnValues, NumberColumn
from homeostat_monitor.domain.windows.reference import Holdout, ReferenceRows
from homeostat_monitor.intake.blocks import InputSpec, Schema

# A profile is read once in a version's life: threads would only hold memory.
pa.set_cpu_count(1)
pa.set_io_thread_count(1)


def reference_rows(parquet: bytes, schema: Schema) -> ReferenceRows:
    """The profile's rows with the signature's scalar inputs, in the types that traffic has.

    UnusableReference where it is no profile or lacks an input.
    """
    try:
        table = reference.read(parquet)
    except reference.BadReference as error:
        raise UnusableReference(str(error)) from error
    missing = [each.name for each in schema.inputs if each.name not in table.column_names]
    if missing:
        raise UnusableReference(f"the reference profile lacks the inputs {', '.join(missing)}")
    features = {each.name: _column(table[each.name], each) for each in schema.inputs}
    return ReferenceRows(
        event_times_us=_times(table, reference.EVENT_TIME),
        features=features,
        scores=_floats(table[reference.SCORE]),
        is_holdout=pc.fill_null(table[reference.IS_HOLDOUT], False).to_numpy(),
        holdout=_holdout(table),
        truths=_floats(table[reference.TRUTH]),
        decisions=_floats(table[reference.DECISION]),
    )


def _holdout(table: pa.Table) -> Holdout:
    """Honest losses in the order in which their truth became known, as live ones are taken."""
    honest = pc.fill_null(table[reference.IS_HOLDOUT], False).to_numpy()
    losses = _floats(table[reference.LOSS])[honest]
    known_at = _times(table, reference.KNOWN_AT)[honest]
    events = _times(table, reference.EVENT_TIME)[honest]
    said = [
        _floats(table[name])[honest]
        for name in (reference.SCORE, reference.DECISION, reference.TRUTH)
    ]
    order = fair_order(known_at, events, (losses, *said))
    order = order[np.isfinite(losses[order])]
    scores, decisions, truths = (each[order] for each in said)
    rows = Truths(known_at[order], events[order], losses[order], scores, decisions, truths)
    return Holdout(losses[order], known_at[order], rows, np.flatnonzero(honest)[order])


def _times(table: pa.Table, name: str) -> Any:
    values = table[name]
    if values.null_count:
        raise UnusableReference(f"{name} is null in {values.null_count} rows")
    return values.cast(pa.int64()).to_numpy()


def _column(values: Any, spec: InputSpec) -> ColumnValues:
    if spec.datatype == "BYTES":
        return _texts(values, spec)
    nulls = values.is_null().to_numpy()
    try:
        # Whole numbers as they are: not all of them are floats.
        kind = values.type if pa.types.is_integer(values.type) else pa.float64()
        numbers = values.cast(kind).fill_null(0).to_numpy()
        return NumberColumn(numbers.astype(DTYPES[spec.datatype]), nulls if nulls.any() else None)
    except (pa.ArrowException, KeyError) as error:
        raise UnusableReference(f"{spec.name} has no numbers of {spec.datatype}") from error


def _texts(values: Any, spec: InputSpec) -> CategoryColumn:
    try:
        encoded = values.cast(pa.string()).combine_chunks().dictionary_encode()
    except pa.ArrowException as error:
        raise UnusableReference(f"{spec.name} has no texts") from error
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    nulls = encoded.indices.is_null().to_numpy(zero_copy_only=False)
    codes = encoded.indices.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int32)
    dictionary = encoded.dictionary.to_pylist() or [""]
    return CategoryColumn(codes, dictionary, nulls if nulls.any() else None)


def _floats(values: Any) -> Any:
    return values.cast(pa.float64()).fill_null(float("nan")).to_numpy()
