"""The ledger's gRPC: message in, one use case, message out."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import grpc

from homeostat.events.v1.column_pb2 import Arm
from homeostat.ids import client_key, parse_prediction_id, prediction_id
from homeostat.ledger.v1.ledger_pb2 import (
    AreArchivedRequest,
    AreArchivedResponse,
    CutDataSetHeader,
    CutDataSetRequest,
    CutDataSetResponse,
    GetStatisticsRequest,
    GetStatisticsResponse,
    ImportHistoryRequest,
    ImportHistoryResponse,
    LookUpPredictionRequest,
    LookUpPredictionResponse,
    NamedValue,
    Prediction,
    ReadPredictionsHeader,
    ReadPredictionsRequest,
    ReadPredictionsResponse,
    TruthRevision,
)
from homeostat.ledger.v1.ledger_pb2_grpc import (
    LedgerServiceServicer,
    add_LedgerServiceServicer_to_server,
)
from homeostat_kit import memory
from homeostat_kit.auth import Roles, roles_of
from homeostat_kit.clock import Clock
from homeostat_ledger.app.cut import cut
from homeostat_ledger.app.import_history import History, history_block_id, import_history
from homeostat_ledger.app.look_up import LookedUp, Value, look_up_client, look_up_prediction
from homeostat_ledger.app.ports import Archive, Index, Question
from homeostat_ledger.app.read import Past, PastQuestion, read
from homeostat_ledger.archive.answers import portions, to_parquet
from homeostat_ledger.bus.messages import read_history
from homeostat_ledger.domain.blocks import Block
from homeostat_ledger.domain.errors import (
    BadRequest,
    DatabaseAway,
    IncompatibleColumns,
    Superseded,
    UnknownModel,
    UnknownPrediction,
)
from homeostat_ledger.metrics import Metrics
from homeostat_ledger.store.finding import PostgresFinder
from homeostat_ledger.store.index import MAX_ROWS

SERVICE_NAME = "homeostat.ledger.v1.LedgerService"
ROLES: Roles = roles_of(
    SERVICE_NAME,
    read=["LookUpPrediction", "CutDataSet", "ReadPredictions", "GetStatistics", "AreArchived"],
    manage=["ImportHistory"],
)
ERRORS: Mapping[type[Exception], grpc.StatusCode] = {
    BadRequest: grpc.StatusCode.INVALID_ARGUMENT,
    IncompatibleColumns: grpc.StatusCode.FAILED_PRECONDITION,
    UnknownModel: grpc.StatusCode.NOT_FOUND,
    UnknownPrediction: grpc.StatusCode.NOT_FOUND,
    Superseded: grpc.StatusCode.UNAVAILABLE,
    DatabaseAway: grpc.StatusCode.UNAVAILABLE,
}
_CHUNK_BYTES = 1024 * 1024
_ALL_TIME = (-(2**63), 2**63 - 1)
# Rows of shadows repeat those of champions: a data set takes each truth once.
_ANSWERED_ARMS = tuple(
    arm for arm in Arm.values() if arm not in (Arm.ARM_UNSPECIFIED, Arm.ARM_SHADOW)
)
_MAX_IDS = 100_000
# Rows of history were answered by nobody.
_SERVED_ARMS = tuple(arm for arm in _ANSWERED_ARMS if arm != Arm.ARM_HISTORY)
_PORTION_ROWS, _MAX_PORTION_ROWS = 20_000, 100_000


class LedgerApi(LedgerServiceServicer):
    """Translates; decides nothing."""

    def __init__(
        self,
        *,
        index: Index,
        archive: Archive,
        finder: PostgresFinder,
        past: Past,
        client_key_secret: bytes,
        known_at_ahead_us: int,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._index = index
        self._archive = archive
        self._finder = finder
        self._past = past
        self._secret = client_key_secret
        self._known_at_ahead_us = known_at_ahead_us
        self._clock = clock
        self._metrics = metrics

    def add_to(self, server: grpc.aio.Server) -> None:
        """Registers it with a server that is not started yet."""
        add_LedgerServiceServicer_to_server(self, server)

    async def LookUpPrediction(  # noqa: N802 - the contract's name
        self, request: LookUpPredictionRequest, context: Any
    ) -> LookUpPredictionResponse:
        """By prediction id, or all under a client's id."""
        finder, archive = self._finder, self._archive
        if request.WhichOneof("subject") == "prediction_id":
            try:
                block_id, row = parse_prediction_id(request.prediction_id)
            except ValueError as error:
                raise BadRequest(str(error)) from None
            found = await look_up_prediction(block_id, row, finder=finder, archive=archive)
        elif request.client_id and request.model_name:
            key = client_key(self._secret, request.client_id)
            found = await look_up_client(request.model_name, key, finder=finder, archive=archive)
        else:
            raise BadRequest("name a prediction_id, or a client_id and its model_name")
        return LookUpPredictionResponse(predictions=[_prediction(each) for each in found])

    async def ImportHistory(  # noqa: N802 - the contract's name
        self, request_iterator: AsyncIterator[ImportHistoryRequest], context: Any
    ) -> ImportHistoryResponse:
        """The whole history or none of it."""
        first = await anext(request_iterator, None)
        if first is None or first.WhichOneof("part") != "header":
            raise BadRequest("the first message of a history is its header")
        header = first.header
        if not header.model_name or not header.history_id:
            raise BadRequest("a history names its model and has an id: the sha256 of its file")
        history = History(header.model_name, header.history_id, header.row_count, header.task)
        imported = await import_history(
            history,
            self._blocks(history, request_iterator),
            index=self._index,
            archive=self._archive,
        )
        return ImportHistoryResponse(imported_rows=imported.rows, is_repeat=imported.is_repeat)

    async def _blocks(
        self, history: History, requests: AsyncIterator[ImportHistoryRequest]
    ) -> AsyncIterator[Block]:
        number = 0
        async for request in requests:
            if request.WhichOneof("part") != "rows":
                raise BadRequest("after its header a history has rows only")
            yield read_history(
                request.rows,
                model_name=history.model_name,
                task=history.task,
                block_id=history_block_id(history, number),
                known_at_most_us=self._clock.now_us() + self._known_at_ahead_us,
            )
            number += 1

    async def CutDataSet(  # noqa: N802 - the contract's name
        self, request: CutDataSetRequest, context: Any
    ) -> AsyncIterator[CutDataSetResponse]:
        """The header, then the Parquet file in pieces."""
        begun = time.perf_counter()
        data_set = await cut(_question(request), index=self._index, archive=self._archive)
        content = await asyncio.to_thread(to_parquet, data_set.table)
        self._metrics.cut(time.perf_counter() - begun)
        header = CutDataSetHeader(
            content_sha256=data_set.content_sha256,
            row_count=data_set.table.num_rows,
            file_bytes=len(content),
        )
        # A slow reader holds the file only.
        del data_set
        await asyncio.to_thread(memory.give_back)
        yield CutDataSetResponse(header=header)
        for start in range(0, len(content), _CHUNK_BYTES):
            yield CutDataSetResponse(chunk=content[start : start + _CHUNK_BYTES])

    async def ReadPredictions(  # noqa: N802 - the contract's name
        self, request: ReadPredictionsRequest, context: Any
    ) -> AsyncIterator[ReadPredictionsResponse]:
        """The header, then portions; the next is read when the last one has left."""
        question = _past_question(request)
        reading = await read(question, past=self._past, index=self._index, archive=self._archive)
        extent = reading.extent
        yield ReadPredictionsResponse(
            header=ReadPredictionsHeader(
                row_count=extent.rows, first_event_us=extent.first_us, last_event_us=extent.last_us
            )
        )
        async for table in reading.portions():
            for portion in await asyncio.to_thread(portions, table):
                yield ReadPredictionsResponse(parquet=portion)
        await asyncio.to_thread(memory.give_back)

    async def GetStatistics(  # noqa: N802 - the contract's name
        self, request: GetStatisticsRequest, context: Any
    ) -> GetStatisticsResponse:
        """Exact at the last commit."""
        counts = await self._finder.counts(request.model_name)
        return GetStatisticsResponse(
            **{name: getattr(counts, name) for name in type(counts).__slots__}
        )

    async def AreArchived(  # noqa: N802 - the contract's name
        self, request: AreArchivedRequest, context: Any
    ) -> AreArchivedResponse:
        """Committed, that is."""
        if len(request.block_ids) > _MAX_IDS:
            raise BadRequest(f"at most {_MAX_IDS} block ids at once")
        # Asked first: what is taken in meanwhile after all counts as archived, too.
        aside = await self._finder.are_set_aside(list(request.block_ids))
        archived = await self._finder.are_archived(list(request.block_ids))
        return AreArchivedResponse(are_archived=archived, are_set_aside=aside)


def _question(request: CutDataSetRequest) -> Question:
    if not request.model_name:
        raise BadRequest("a data set is of one model: name it")
    if not set(request.arms) <= set(Arm.values()):
        raise BadRequest("an arm is none of the contract's")
    earliest, latest = _ALL_TIME
    return Question(
        model_name=request.model_name,
        known_at_most_us=request.known_at_most_us,
        event_from_us=request.event_from_us if request.HasField("event_from_us") else earliest,
        event_before_us=request.event_before_us if request.HasField("event_before_us") else latest,
        newest_rows=min(request.newest_rows, MAX_ROWS) if request.HasField("newest_rows") else None,
        arms=tuple(request.arms) or _ANSWERED_ARMS,
    )


def _past_question(request: ReadPredictionsRequest) -> PastQuestion:
    if not request.model_name:
        raise BadRequest("predictions are of one model: name it")
    if not set(request.arms) <= set(Arm.values()):
        raise BadRequest("an arm is none of the contract's")
    if request.portion_rows > _MAX_PORTION_ROWS:
        raise BadRequest(f"a portion has at most {_MAX_PORTION_ROWS} rows")
    earliest, latest = _ALL_TIME
    given = {field.name: value for field, value in request.ListFields()}
    return PastQuestion(
        model_name=request.model_name,
        version=given.get("version"),
        event_from_us=given.get("event_from_us", earliest),
        event_before_us=given.get("event_before_us", latest),
        known_at_most_us=given.get("known_at_most_us", latest),
        arms=tuple(request.arms) or _SERVED_ARMS,
        newest_rows=given.get("newest_rows"),
        labelled_only=request.labelled_only,
        portion_rows=request.portion_rows or _PORTION_ROWS,
    )


def _prediction(each: LookedUp) -> Prediction:
    block, row = each.found.block, each.found.row
    return Prediction(
        prediction_id=prediction_id(block.block_id, row),
        model_name=each.found.model_name,
        version=block.version,
        arm=Arm.ValueType(block.arm),
        event_time_us=int(block.event_times_us[row]),
        inputs=[_named(name, value) for name, value in each.inputs],
        contexts=[_named(name, value) for name, value in each.contexts],
        score=float(block.scores[row]),
        decision=float(block.decisions[row]),
        truths=[
            TruthRevision(
                truth=told.truth,
                known_at_us=told.known_at_us,
                revision=told.revision,
                source=told.source,
            )
            for told in each.found.told
        ],
    )


def _named(name: str, value: Value) -> NamedValue:
    if value is None:
        return NamedValue(name=name, is_null=True)
    if isinstance(value, str):
        return NamedValue(name=name, text=value)
    return NamedValue(name=name, number=value)
