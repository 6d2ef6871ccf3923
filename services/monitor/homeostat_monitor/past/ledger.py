"""A model's whole past from the ledger, portion by portion."""

import io
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

import grpc
import numpy as np

from homeostat.ledger.v1.ledger_pb2 import ReadPredictionsRequest
from homeostat.ledger.v1.ledger_pb2_grpc import LedgerServiceStub
from homeostat_monitor.app.deepening import LedgerAway
from homeostat_monitor.app.portions import Portion
from homeostat_monitor.intake.blocks import JUDGED_ARMS
from homeostat_monitor.ledger import away, columns_of, floats, micros
from homeostat_monitor.ports import ID_BYTES

_ASK_SECONDS = 30.0
# What is not read by then is not read at all.
_READ_SECONDS = 4 * 3_600.0


@dataclass(frozen=True, slots=True)
class PastSpan:
    """Which rows; times in microseconds UTC, None: no bound."""

    model_name: str
    version: int | None = None
    event_from_us: int | None = None
    event_before_us: int | None = None
    known_at_most_us: int | None = None


class LedgerPast:
    """Asks over one channel. Every call raises LedgerAway."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._ledger = LedgerServiceStub(channel)

    async def last_event_us(self, model_name: str, version: int | None) -> int | None:
        """Of the newest row; None where the ledger has none."""
        request = ReadPredictionsRequest(
            model_name=model_name, version=version, newest_rows=1, arms=sorted(JUDGED_ARMS)
        )
        try:
            call = self._ledger.ReadPredictions(request, timeout=_ASK_SECONDS)
            async for answer in call:
                header = answer.header
                call.cancel()
                return header.last_event_us if header.HasField("last_event_us") else None
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise away(error) from error
        return None

    async def files(self, span: PastSpan) -> AsyncGenerator[tuple[int, bytes]]:
        """How many rows there are in all, and each portion as ``portion_of`` takes it."""
        # The Parquet reader takes a second to import: not at start.
        from homeostat import past  # noqa: PLC0415

        request = ReadPredictionsRequest(
            model_name=span.model_name,
            version=span.version,
            event_from_us=span.event_from_us,
            event_before_us=span.event_before_us,
            known_at_most_us=span.known_at_most_us,
            arms=sorted(JUDGED_ARMS),
        )
        reading = past.Past(self._ledger, request, timeout_seconds=_READ_SECONDS)
        try:
            async with aclosing(reading.files()) as files:
                async for each in files:
                    yield reading.header.row_count, each
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise away(error) from error


def portion_of(parquet: bytes) -> Portion:
    """Takes some milliseconds: not for the event loop."""
    import pyarrow.parquet as pq  # noqa: PLC0415

    table = pq.read_table(io.BytesIO(parquet))
    ids = b"".join(table["homeostat.prediction_id"].to_pylist())
    return Portion(
        event_times_us=micros(table, "event_time_us"),
        versions=table["homeostat.version"].to_numpy().astype(np.int32),
        columns=columns_of(table),
        said=np.stack([floats(table, each) for each in ("score", "decision", "truth")]),
        losses=floats(table, "loss"),
        known_at_us=micros(table, "known_at_us"),
        prediction_ids=np.frombuffer(ids, dtype=f"S{ID_BYTES}"),
    )


__all__ = ["LedgerAway", "LedgerPast", "PastSpan", "portion_of"]
