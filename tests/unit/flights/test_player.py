"""The player's feed of truth is as patient as a real one."""

from collections.abc import Sequence
from typing import Any, cast

import grpc
import numpy as np
import pyarrow as pa
import pytest

from homeostat.client import Client
from homeostat.inference.v1.truth_pb2 import Outcome
from homeostat.quiet import Loop
from homeostat_flights.flights import Flights
from homeostat_flights.player import PlayedModel, Player, Tally

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
