"""kill -9 while a whole stack serves: every answer is in the ledger exactly once."""

import asyncio
import os
import signal
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tests.support.loop import Played, a_stack, look_up, play
from tests.support.waiting import eventually
from tests.support.world import a_world, first_push

from homeostat.inference.v1.serving_pb2 import WORKER_STATE_READY, GetServingRequest
from homeostat.inference.v1.serving_pb2_grpc import ServingServiceStub
from homeostat_flights.player import Tally
from homeostat_local.stack import Stack

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
ROWS_PER_DAY = 400
WORKERS = "a worker of inference"


async def kill_a_worker(stack: Stack) -> None:
    """Whichever is ready."""
    async with grpc.aio.insecure_channel(stack.addresses["inference"]) as channel:
        stub: Any = ServingServiceStub(channel)

        async def victim() -> int | None:
            try:
                told = await stub.GetServing(GetServingRequest(), timeout=30)
            except grpc.aio.AioRpcError:
                return None
            ready = [each for each in told.workers if each.state == WORKER_STATE_READY]
            return ready[0].process_id if ready else None

        os.kill(await eventually(victim, what="a ready worker"), signal.SIGKILL)


async def killing(kills: Sequence[tuple[str, float]], stack: Stack, tally: Tally) -> None:
    """Kills whom it is told, once so many days were played."""
    for victim, day in kills:
        rows = day * ROWS_PER_DAY
        await eventually(partial(lambda rows: tally.requests >= rows, rows), seconds=240)
        if victim == WORKERS:
            await kill_a_worker(stack)
        else:
            await asyncio.to_thread(stack.kill, victim)


async def assert_every_answer_once(stack: Stack, played: Played) -> None:
    answered = np.isfinite(played.tally.answers)
    ids = played.flights.ids
    kept = await look_up(stack, ids[answered].tolist())
    lost_replies = await look_up(stack, ids[~answered].tolist())
    assert answered.any()
    assert [len(each) for each in kept] == [1] * len(kept)
    answers = [each[0].score for each in kept]
    assert np.allclose(answers, played.tally.answers[answered], atol=1e-7)
    # A row whose reply was lost may be there, and then once.
    assert max((len(each) for each in lost_replies), default=0) <= 1
    total = len(kept) + sum(len(each) for each in lost_replies)
    assert played.story.statistics.predictions == total


KILLS = {
    "workers alone": [(WORKERS, 0.4), (WORKERS, 1.2), (WORKERS, 2.0), (WORKERS, 2.8)],
    "workers and the database": [
        *((WORKERS, 0.4), ("database", 0.6), (WORKERS, 1.4), ("database", 2.2), (WORKERS, 2.8)),
    ],
    "workers, the broker and the whole server": [
        *((WORKERS, 0.4), ("broker", 0.6), ("inference", 1.4), (WORKERS, 2.0), ("broker", 2.6)),
    ],
}


@pytest.mark.parametrize("whom", KILLS)
async def test_whoever_dies_while_it_serves_every_answer_is_in_the_ledger_once(
    whom: str, tmp_path: Path
) -> None:
    world = a_world(days=4, rows_per_day=ROWS_PER_DAY, shift_day=None)
    beside = partial(killing, KILLS[whom])
    with a_stack(tmp_path) as stack:
        push = first_push(world, tmp_path / "model")
        played = await play(stack, push, world.played, beside=beside)
        await assert_every_answer_once(stack, played)
