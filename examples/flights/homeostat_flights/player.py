"""Plays the year in event time through the real client, one simulated day after the other.

The calendar waits: at each midnight (UTC) the player promises that the day is complete, and goes on
when every service has taken it in and every retraining that came of it has ended. So the models
that answer on a given day do not depend on the machine's speed, and a run can be repeated.

The calendar stops with the hour of the last departure. Of what departs later nothing is known, not
even that nothing does: a promise beyond would be a false one, and rightly be taken for silence.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any, TypeVar

import grpc
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from homeostat.client import Client, infer_request
from homeostat.inference.v1.truth_pb2 import Outcome
from homeostat.inference.v2.open_inference_pb2 import ModelInferRequest
from homeostat.quiet import Loop
from homeostat_flights.flights import CLASSES, Flights

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
_CONCURRENT_REQUESTS = 24
_OUTCOMES_PER_CALL = 1_000
# A retraining on all history takes seconds; this only ends a run that hangs.
_QUIET_SECONDS = 600.0
_RECEIVER_AWAY_SECONDS = 30.0
# A call that goes with the connection of a server that was killed may end as cancelled.
_AWAY = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
)

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class PlayedModel:
    """The model that is asked."""

    name: str
    # Which output holds the probabilities, the late ones last.
    score_output: str


@dataclass(slots=True)
class Tally:
    """What was sent and what came back, so far. Arrays have one entry per flight played."""

    # Probability of being late as answered at the departure; NaN while unanswered.
    answers: NDArray[np.float64]
    versions: NDArray[np.int64]
    # Whose truth was sent.
    told: NDArray[np.bool_]
    predictions: int = 0
    requests: int = 0
    failed_requests: int = 0
    outcomes_sent: int = 0
    failures: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, rows: int) -> "Tally":
        """Nothing sent yet of so many flights."""
        return cls(np.full(rows, np.nan), np.zeros(rows, np.int64), np.zeros(rows, dtype=bool))


@dataclass(frozen=True, slots=True)
class Midnight:
    """The end of a simulated day, or of the last one's last hour, after the loop came to rest."""

    at_us: int
    day: int
    days: int
    # How long the calendar stood still for the loop to come to rest.
    waited_seconds: float


class Player:
    """Sends predictions at the scheduled departure and truth when it is known."""

    def __init__(
        self, flights: Flights, model: PlayedModel, *, client: Client, loop: Loop, tally: Tally
    ) -> None:
        self._flights = flights
        self._model = model
        self._client = client
        self._loop = loop
        self._tally = tally
        self._columns = _arrays(flights)
        self._known_order = np.argsort(flights.known_us, kind="stable")
        self._known_sorted = flights.known_us[self._known_order]

    async def play(self, at_midnight: Callable[[Midnight], Awaitable[None]]) -> None:
        """Plays from the first departure to the last; NotQuiet where the loop does not come to rest
        after a day. Truths that become known later are told in the end, with no promise."""
        first = int(self._flights.departs_us[0]) // DAY_US
        ends = (int(self._flights.departs_us[-1]) // HOUR_US + 1) * HOUR_US
        last = (ends - 1) // DAY_US
        for day in range(first, last + 1):
            until = min((day + 1) * DAY_US, ends)
            await self._play_hours(day * DAY_US, until)
            if until == ends:
                await self._arrive(ends, int(self._known_sorted[-1]) + 1)
            waited = await self._come_to_rest(until)
            await at_midnight(Midnight(until, day - first + 1, last - first + 1, waited))

    async def _play_hours(self, start: int, until: int) -> None:
        for hour in range(start, until, HOUR_US):
            await self._depart(hour)
            await self._arrive(hour, hour + HOUR_US)

    async def _come_to_rest(self, until: int) -> float:
        """After the promise that everything until then was told; seconds that it took."""
        began = time.monotonic()
        await _patiently(partial(self._client.advance_watermark, until))
        await self._loop.wait_until_quiet(timeout_seconds=_QUIET_SECONDS, watermark_us=until)
        return time.monotonic() - began

    async def _depart(self, hour: int) -> None:
        limit = asyncio.Semaphore(_CONCURRENT_REQUESTS)
        async with asyncio.TaskGroup() as requests:
            for rows in _same_minute(self._flights.departs_us, hour, hour + HOUR_US):
                await limit.acquire()
                requests.create_task(self._ask(rows, limit))

    async def _ask(self, rows: slice, limit: asyncio.Semaphore) -> None:
        tally = self._tally
        try:
            answer = await self._client.infer(self._request(rows))
        except grpc.aio.AioRpcError as error:
            tally.failed_requests += 1
            tally.failures.append(f"{error.code().name}: {error.details()}")
        else:
            scores = answer.outputs[self._model.score_output]
            tally.answers[rows] = scores.reshape(rows.stop - rows.start, -1)[:, -1]
            tally.versions[rows] = answer.version
            tally.predictions += rows.stop - rows.start
        finally:
            tally.requests += 1
            limit.release()

    def _request(self, rows: slice) -> ModelInferRequest:
        return infer_request(
            self._model.name,
            {name: values[rows] for name, values in self._columns.items()},
            client_ids=self._flights.ids[rows].tolist(),
            event_times_us=self._flights.departs_us[rows],
        )

    async def _arrive(self, since: int, until: int) -> None:
        start, stop = np.searchsorted(self._known_sorted, [since, until])
        rows = self._known_order[start:stop]
        for part in np.array_split(rows, max(1, -(-len(rows) // _OUTCOMES_PER_CALL))):
            if len(part):
                await self._tell(part)

    async def _tell(self, rows: NDArray[np.int64]) -> None:
        flights, tally = self._flights, self._tally
        outcomes = [
            Outcome(client_id=flight, label=CLASSES[int(late)], known_at_us=known)
            for flight, late, known in zip(
                flights.ids[rows].tolist(),
                flights.late[rows].tolist(),
                flights.known_us[rows].tolist(),
                strict=True,
            )
        ]
        tell = partial(self._client.record_outcomes, self._model.name, outcomes, source="arrivals")
        recorded = await _patiently(tell)
        tally.outcomes_sent += recorded
        tally.told[rows] = True


async def _patiently(call: Callable[[], Awaitable[Result]]) -> Result:
    """What a feed does while its receiver is away: it tries again. Telling a truth or a watermark
    twice has the effect of once."""
    deadline = time.monotonic() + _RECEIVER_AWAY_SECONDS
    while True:
        try:
            return await call()
        except grpc.aio.AioRpcError as error:
            if error.code() not in _AWAY or time.monotonic() > deadline:
                raise
        await asyncio.sleep(0.1)


def _arrays(flights: Flights) -> dict[str, NDArray[Any]]:
    return {
        name: np.asarray(column.to_pylist(), dtype=object)
        if pa.types.is_string(column.type)
        else column.to_numpy()
        for name, column in zip(
            flights.features.column_names, flights.features.columns, strict=True
        )
    }


def _same_minute(times_us: NDArray[np.int64], start: int, stop: int) -> Iterator[slice]:
    """Runs of equal times in [start, stop); ``times_us`` ascend."""
    low, high = (int(each) for each in np.searchsorted(times_us, [start, stop]))
    cuts = low + 1 + np.flatnonzero(np.diff(times_us[low:high]))
    edges = [low, *cuts.tolist(), high] if high > low else []
    yield from (slice(a, b) for a, b in pairwise(edges))
