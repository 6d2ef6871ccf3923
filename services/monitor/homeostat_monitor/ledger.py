"""The ledger's rows as columns."""

from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
from numpy.typing import NDArray

from homeostat.ledger.v1.ledger_pb2 import ReadPredictionsRequest
from homeostat.ledger.v1.ledger_pb2_grpc import LedgerServiceStub
from homeostat.progress.v1.progress_pb2 import GetProgressRequest
from homeostat.progress.v1.progress_pb2_grpc import ProgressServiceStub
from homeostat_monitor.app.deepening import LedgerAway, ReadRows, Span
from homeostat_monitor.domain.diagnosis.rows import PastRows
from homeostat_monitor.domain.windows.bins import CategoryColumn, ColumnValues, NumberColumn

if TYPE_CHECKING:
    import pyarrow as pa

_ASK_SECONDS = 5.0
_READ_SECONDS = 45.0
_OWN = "homeostat."


class LedgerRows:
    """Asks over one channel."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._ledger = LedgerServiceStub(channel)
        self._progress = ProgressServiceStub(channel)

    async def reached_us(self) -> int | None:
        """Up to which watermark everything is archived and joined."""
        try:
            answer = await self._progress.GetProgress(GetProgressRequest(), timeout=_ASK_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise away(error) from error
        return answer.watermark_us if answer.HasField("watermark_us") else None

    async def rows(self, span: Span) -> ReadRows:
        """Scalar columns only; those that hold lists are left out."""
        # The Parquet reader takes a second to import: not at start.
        from homeostat import past  # noqa: PLC0415

        request = ReadPredictionsRequest(
            model_name=span.subject.model_name,
            version=span.subject.version,
            event_from_us=span.event_from_us,
            event_before_us=span.event_before_us,
            known_at_most_us=span.known_at_most_us,
            newest_rows=span.most_rows,
            labelled_only=span.labelled_only,
        )
        try:
            table = await past.Past(self._ledger, request, timeout_seconds=_READ_SECONDS).table()
        except grpc.aio.AioRpcError as error:
            raise away(error) from error
        return _read(table)


def away(error: grpc.aio.AioRpcError) -> LedgerAway:
    """What the ledger said instead of rows."""
    return LedgerAway(f"the ledger says {error.code().name}: {error.details()}")


def _read(table: "pa.Table") -> ReadRows:
    return ReadRows(
        PastRows(
            columns_of(table),
            scores=floats(table, "score"),
            truths=floats(table, "truth"),
            losses=floats(table, "loss"),
        ),
        event_times_us=micros(table, "event_time_us"),
        known_at_us=micros(table, "known_at_us"),
    )


def columns_of(table: "pa.Table") -> dict[str, ColumnValues]:
    """Inputs and contexts by their names; columns of lists are left out."""
    columns = {}
    for name in table.column_names:
        column = None if name.startswith(_OWN) else _column(table[name])
        if column is not None:
            columns[name] = column
    return columns


def _column(values: Any) -> ColumnValues | None:
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.compute as pc  # noqa: PLC0415

    whole = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    if isinstance(whole, pa.ChunkedArray):
        whole = pa.concat_arrays(whole.chunks) if whole.num_chunks else pa.array([], whole.type)
    nulls = np.asarray(whole.is_null()) if whole.null_count else None
    if pa.types.is_string(whole.type):
        whole = whole.dictionary_encode()
    if pa.types.is_dictionary(whole.type):
        codes = pc.fill_null(whole.indices, 0).to_numpy(zero_copy_only=False).astype(np.int32)
        return CategoryColumn(codes, whole.dictionary.to_pylist() or [""], nulls)
    if pa.types.is_boolean(whole.type):
        whole = whole.cast(pa.uint8())
    if pa.types.is_integer(whole.type) or pa.types.is_floating(whole.type):
        return NumberColumn(pc.fill_null(whole, 0).to_numpy(zero_copy_only=False), nulls)
    return None


def floats(table: "pa.Table", name: str) -> NDArray[np.float64]:
    """One of the ledger's own columns; NaN where nothing is known."""
    if not table.num_rows:
        return np.empty(0)
    filled: NDArray[np.float64] = table[_OWN + name].fill_null(float("nan")).to_numpy()
    return filled


def micros(table: "pa.Table", name: str) -> NDArray[np.int64]:
    """One of the ledger's own columns; 0 where nothing is known."""
    if not table.num_rows:
        return np.empty(0, dtype=np.int64)
    filled: NDArray[np.int64] = table[_OWN + name].fill_null(0).to_numpy()
    return filled
