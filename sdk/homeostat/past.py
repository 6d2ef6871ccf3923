"""A model's archived predictions, with the truth known at a cut, as tables.

Columns: each input by its name, "context.<name>", and those named below.
"""

import io
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from homeostat.ledger.v1.ledger_pb2 import ReadPredictionsHeader, ReadPredictionsRequest

if TYPE_CHECKING:  # exists in the stubs only
    from homeostat.ledger.v1.ledger_pb2_grpc import LedgerServiceAsyncStub

EVENT_TIME = "homeostat.event_time_us"
VERSION = "homeostat.version"
ARM = "homeostat.arm"
SCORE = "homeostat.score"
DECISION = "homeostat.decision"
PREDICTION_ID = "homeostat.prediction_id"
TRUTH = "homeostat.truth"
LOSS = "homeostat.loss"
# Of the row's first truth.
KNOWN_AT = "homeostat.known_at_us"


@dataclass(slots=True)
class Past:
    """An answer while it is read; ``header`` is there once the first portion was asked for."""

    stub: "LedgerServiceAsyncStub"
    request: ReadPredictionsRequest
    timeout_seconds: float | None = None
    header: ReadPredictionsHeader = field(default_factory=ReadPredictionsHeader)

    async def portions(self) -> AsyncIterator[pa.Table]:
        """Tables by (event time, prediction id). Whoever stops early ends the call.

        Raises grpc.aio.AioRpcError: NOT_FOUND where the ledger has nothing of the model.
        """
        async with aclosing(self.files()) as files:
            async for each in files:
                yield pq.read_table(io.BytesIO(each))

    async def files(self) -> AsyncGenerator[bytes]:
        """The same as Parquet, for those who read it elsewhere than on the event loop."""
        call = self.stub.ReadPredictions(self.request, timeout=self.timeout_seconds)
        try:
            async for answer in call:
                if answer.HasField("header"):
                    self.header = answer.header
                else:
                    yield answer.parquet
        finally:
            call.cancel()

    async def table(self) -> pa.Table:
        """All portions in one table; columns that a portion lacks are null there."""
        tables = [each async for each in self.portions()]
        if not tables:
            return pa.table({})
        plain = [_plain(each) for each in tables]
        return pa.concat_tables(plain, promote_options="permissive").combine_chunks()


def _plain(table: pa.Table) -> pa.Table:
    """Dictionaries of one type, so that portions fit together."""
    for place, each in enumerate(table.schema):
        if pa.types.is_dictionary(each.type):
            kind = pa.dictionary(pa.int32(), pa.string())
            table = table.set_column(place, each.name, table[each.name].cast(kind))
    return table
