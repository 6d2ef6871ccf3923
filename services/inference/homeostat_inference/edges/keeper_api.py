"""What the keeper answers: truth, promises, and what the server is doing."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from homeostat.inference.v1.serving_pb2 import (
    GetServingRequest,
    GetServingResponse,
    ReleaseQuarantineRequest,
    ReleaseQuarantineResponse,
)
from homeostat.inference.v1.serving_pb2_grpc import ServingServiceServicer
from homeostat.inference.v1.truth_pb2 import (
    AdvanceWatermarkRequest,
    AdvanceWatermarkResponse,
    RecordOutcomesRequest,
    RecordOutcomesResponse,
)
from homeostat.inference.v1.truth_pb2_grpc import TruthServiceServicer
from homeostat_inference.app.ports import Clock, Done, Journal
from homeostat_inference.app.truth import HasSchema, outcome_block, record_outcomes
from homeostat_inference.domain.errors import InvalidInput, Leaving
from homeostat_inference.domain.times import TimeBounds

Context = Any


@dataclass(frozen=True, slots=True)
class KeeperTruthApi(TruthServiceServicer):
    """Truth and promises about time."""

    champions: Callable[[str], Mapping[str, HasSchema]]
    journal: Journal
    # Makes a caller's promise in every journal.
    advance: Callable[[int, int], Awaitable[None]]
    clock: Clock
    times: Callable[[int], TimeBounds]
    secret: bytes
    durability: str
    is_leaving: Callable[[], bool]
    # Held while a caller's promise, or truths that it may concern, are appended.
    promising: threading.Lock

    async def RecordOutcomes(  # noqa: N802 - the contract's name
        self, request: RecordOutcomesRequest, context: Context
    ) -> RecordOutcomesResponse:
        """Answers once the truths are kept."""
        self._refuse_leaving()
        now_us = self.clock.now_us()
        # In a thread: a large request must not hold up all that the keeper does.
        block = await asyncio.to_thread(
            outcome_block,
            request,
            self.champions(request.model_name),
            secret=self.secret,
            now_us=now_us,
            times=self.times(now_us),
        )
        await kept(
            lambda done: record_outcomes(
                block,
                self.journal,
                done,
                times=lambda: self.times(now_us),
                promising=self.promising,
            )
        )
        return RecordOutcomesResponse(recorded_count=block.row_count, durability=self.durability)

    async def AdvanceWatermark(  # noqa: N802 - the contract's name
        self, request: AdvanceWatermarkRequest, context: Context
    ) -> AdvanceWatermarkResponse:
        """Answers once the promise is kept, behind everything that was answered before."""
        self._refuse_leaving()
        latest_us = self.times(self.clock.now_us()).latest_us
        await self.advance(request.watermark_us, latest_us)
        return AdvanceWatermarkResponse()

    def _refuse_leaving(self) -> None:
        if self.is_leaving():
            raise Leaving("the server is shutting down; try another one or again later")


@dataclass(frozen=True, slots=True)
class ServingApi(ServingServiceServicer):
    """What the server is doing, and the few things that are changed on the spot."""

    collect: Callable[[], GetServingResponse]
    # How many quarantines were lifted.
    release: Callable[[str, int, str], int]

    async def GetServing(  # noqa: N802 - the contract's name
        self, request: GetServingRequest, context: Context
    ) -> GetServingResponse:
        """All of it, read now."""
        return self.collect()

    async def ReleaseQuarantine(  # noqa: N802 - the contract's name
        self, request: ReleaseQuarantineRequest, context: Context
    ) -> ReleaseQuarantineResponse:
        """Lets a version, or one input of it, run again."""
        if not request.model_name or not request.version:
            raise InvalidInput("expected the name of a model and a version's number")
        count = self.release(request.model_name, request.version, request.input_fingerprint)
        return ReleaseQuarantineResponse(released_count=count)


async def kept(begin: Callable[[Done], None]) -> None:
    """Runs ``begin``, which appends and commits, in a thread, and waits for the journal's word."""
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[None] = loop.create_future()

    def finish(error: Exception | None) -> None:
        if outcome.done():
            return
        if error is None:
            outcome.set_result(None)
        else:
            outcome.set_exception(error)

    def done(error: Exception | None) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(finish, error)

    await asyncio.to_thread(begin, done)
    await outcome
