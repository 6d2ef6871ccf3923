"""The player's feed of truth is as patient as a real one."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import grpc
import numpy as np
import pyarrow as pa
import pytest

from homeostat.client import Answer, Client
from homeostat.inference.v1.truth_pb2 import Outcome
from homeostat.quiet import Loop
from homeostat_flights.flights import Flights
from homeostat_flights.player import Midnight, PlayedModel, Player, Tally

DEPARTS_US = 1_577_836_800_000_000
FLIGHTS = Flights(
    pa.table({"x": pa.array([1.0, 2.0])}),
    np.array([0.0, 1.0]),
    np.array([DEPARTS_US, DEPARTS_US]),
    np.array([DEPARTS_US + 1, DEPARTS_US + 2]),
    np.array(["a", "b"], dtype=object),
    np.ones(2, dtype=np.int64),
)


class Away:
    """Refuses the first calls with these codes."""

    def __init__(self, *codes: grpc.StatusCode) -> None:
        self._codes = list(codes)
        self.told: list[str] = []

    async def record_outcomes(self, _: str, outcomes: Sequence[Outcome], *, source: str) -> int:
        if self._codes:
            nothing = grpc.aio.Metadata()
            raise grpc.aio.AioRpcError(self._codes.pop(0), nothing, nothing, details=source)
        self.told += [each.client_id for each in outcomes]
        return len(outcomes)


def a_player(client: Away) -> tuple[Any, Tally]:
    tally = Tally.of(2)
    model = PlayedModel("m", "p")
    nobody = cast(Loop, None)
    return Player(FLIGHTS, model, client=cast(Client, client), loop=nobody, tally=tally), tally


async def test_truth_is_told_again_while_its_receiver_is_away() -> None:
    client = Away(grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    player, tally = a_player(client)
    await player._tell(np.array([0, 1]))
    assert client.told == ["a", "b"]
    assert tally.outcomes_sent == 2
    assert tally.told.all()


async def test_truth_that_is_refused_is_not_told_again() -> None:
    player, tally = a_player(Away(grpc.StatusCode.INVALID_ARGUMENT))
    with pytest.raises(grpc.aio.AioRpcError):
        await player._tell(np.array([0, 1]))
    assert not tally.told.any()


class Listening:
    """Takes everything, and remembers what was promised."""

    def __init__(self) -> None:
        self.told: dict[str, int] = {}
        self.promised: list[int] = []

    async def infer(self, _: object) -> Answer:
        return Answer({"p": np.array([0.5], dtype=np.float32)}, "id", 1)

    async def record_outcomes(self, _: str, outcomes: Sequence[Outcome], *, source: str) -> int:
        self.told.update({each.client_id: each.known_at_us for each in outcomes})
        return len(outcomes)

    async def advance_watermark(self, watermark_us: int) -> None:
        self.promised.append(watermark_us)

    async def wait_until_quiet(self, **_: object) -> None:
        return None


async def test_no_promise_reaches_beyond_the_last_departure_and_all_truths_are_told() -> None:
    day, hour = 86_400_000_000, 3_600_000_000
    departs = DEPARTS_US + np.array([0, day + 5 * hour - 1])
    flights = replace(FLIGHTS, departs_us=departs, known_us=departs + day)
    server = Listening()
    player = Player(
        flights,
        PlayedModel("m", "p"),
        client=cast(Client, server),
        loop=cast(Loop, server),
        tally=Tally.of(2),
    )
    midnights: list[Midnight] = []

    async def at_midnight(midnight: Midnight) -> None:
        midnights.append(midnight)

    await player.play(at_midnight)
    assert server.promised == [DEPARTS_US + day, DEPARTS_US + day + 5 * hour]
    assert [each.at_us for each in midnights] == server.promised
    assert midnights[-1].day == midnights[-1].days == 2
    assert server.told == dict(zip("ab", (departs + day).tolist(), strict=True))
