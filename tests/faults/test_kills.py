"""kill -9 in mid-run: the same story as without, every answer kept once, every effect once."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import grpc
import numpy as np
import pytest
from tests.support.loop import Played, a_stack, audit_entries, look_up, play
from tests.support.waiting import eventually
from tests.support.world import World, a_world, first_push

from homeostat.audit import verify
from homeostat.quiet import Loop
from homeostat.registry.v1.registry_pb2 import STAGE_CHAMPION
from homeostat_flights.player import Tally
from homeostat_local.stack import Stack

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROWS_PER_DAY = 400


@dataclass(frozen=True, slots=True)
class Kill:
    """Who is killed, and in the middle of which played day."""

    victim: str
    day: float


def killing(kills: Sequence[Kill]):
    """What runs beside the play and kills in time."""

    async def kill_in_time(stack: Stack, tally: Tally) -> None:
        for kill in kills:
            await eventually(partial(_has_come_to, tally, kill.day), seconds=240)
            await asyncio.to_thread(stack.kill, kill.victim)

    return kill_in_time


def _has_come_to(tally: Tally, day: float) -> bool:
    return tally.requests >= day * ROWS_PER_DAY


async def kill_the_retrainer_in_its_first_two_runs(stack: Stack, _: Tally) -> None:
    for _kill in range(2):
        async with Loop({"retrainer": stack.addresses["retrainer"]}) as loop:
            await eventually(partial(_has_open_work, loop), seconds=240)
        await asyncio.to_thread(stack.kill, "retrainer")
        await asyncio.to_thread(stack.wait_ready, "retrainer")


async def kill_inference_at_work(stack: Stack, tally: Tally) -> None:
    """On three days, each time until a request was under way when it died."""
    for day in (0.5, 1.5, 2.5):
        await eventually(partial(_has_come_to, tally, day), seconds=240)
        before = tally.failed_requests
        for _attempt in range(4):
            await asyncio.to_thread(stack.kill, "inference")
            await asyncio.to_thread(stack.wait_ready, "inference")
            # A server that is killed again at once would be waited for longer and longer.
            await eventually(partial(_has_come_to, tally, (tally.requests + 60) / ROWS_PER_DAY))
            if tally.failed_requests > before:
                break


async def _has_open_work(loop: Loop) -> bool:
    try:
        return (await loop.ask("retrainer")).open_work_count > 0
    except grpc.aio.AioRpcError:
        return False  # not yet up again


@pytest.fixture(scope="module")
def world() -> World:
    return a_world(days=12, rows_per_day=ROWS_PER_DAY)


@pytest.fixture(scope="module")
def calm(world: World, tmp_path_factory: pytest.TempPathFactory) -> Played:
    """The story that nobody disturbed."""
    folder = tmp_path_factory.mktemp("calm")
    with a_stack(folder) as stack:
        played = asyncio.run(play(stack, first_push(world, folder / "model"), world.played))
    assert played.story.promoted, "nothing would be proven: the calm run promoted nothing"
    return played


async def disturbed(world: World, folder: Path, beside) -> Played:
    with a_stack(folder) as stack:
        played = await play(stack, first_push(world, folder / "model"), world.played, beside=beside)
        assert verify(await audit_entries(stack))
    return played


def assert_same_story(played: Played, calm: Played) -> None:
    """Nothing lost, nothing twice, the same alerts, runs and versions."""
    rows = len(played.flights)
    statistics = played.story.statistics
    assert played.tally.failures == []
    assert (statistics.predictions, statistics.predictions_joined) == (rows, rows)
    assert statistics.joined_checksum == played.checksum
    assert {each.alert_id for each in played.story.alerts} == {
        each.alert_id for each in calm.story.alerts
    }
    assert {each.run_id for each in played.story.runs} == {each.run_id for each in calm.story.runs}
    assert [(each.version, each.model_sha256) for each in played.story.promoted] == [
        (each.version, each.model_sha256) for each in calm.story.promoted
    ]
    assert sum(each.stage == STAGE_CHAMPION for each in played.story.versions) == 1


async def test_services_may_die_in_mid_run(world: World, calm: Played, tmp_path: Path) -> None:
    kills = [
        Kill("ledger", 0.5),
        Kill("monitor", 1.5),
        Kill("registry", 2.5),
        Kill("retrainer", 3.5),
        Kill("ledger", 4.5),
        Kill("monitor", 5.2),
        Kill("monitor", 5.7),
        Kill("retrainer", 7.5),
        Kill("registry", 8.5),
    ]
    assert_same_story(await disturbed(world, tmp_path, killing(kills)), calm)


async def test_the_database_may_die_in_mid_run(world: World, calm: Played, tmp_path: Path) -> None:
    kills = [Kill("database", 0.5), Kill("database", 4.5), Kill("database", 7.5)]
    assert_same_story(await disturbed(world, tmp_path, killing(kills)), calm)


async def test_the_broker_may_die_with_all_it_holds(
    world: World, calm: Played, tmp_path: Path
) -> None:
    kills = [Kill("broker", 0.5), Kill("broker", 4.5), Kill("broker", 7.5)]
    assert_same_story(await disturbed(world, tmp_path, killing(kills)), calm)


async def test_a_retrainer_killed_in_its_runs_has_each_effect_once(
    world: World, calm: Played, tmp_path: Path
) -> None:
    beside = kill_the_retrainer_in_its_first_two_runs
    assert_same_story(await disturbed(world, tmp_path, beside), calm)


async def test_what_inference_answered_before_it_died_is_kept_once(tmp_path: Path) -> None:
    world = a_world(days=4, shift_day=None)
    with a_stack(tmp_path) as stack:
        played = await play(
            stack,
            first_push(world, tmp_path / "model"),
            world.played,
            beside=kill_inference_at_work,
        )
        answered = np.isfinite(played.tally.answers)
        kept = await look_up(stack, world.played.ids[answered].tolist())
        lost_replies = await look_up(stack, world.played.ids[~answered].tolist())
    assert 0 < (~answered).sum() < len(answered) / 2, "no request was in flight at the kills"
    assert [len(each) for each in kept] == [1] * len(kept)
    answers = [each[0].score for each in kept]
    assert np.allclose(answers, played.tally.answers[answered], atol=1e-7)
    assert all(each[0].truths for each in kept)
    # A row whose reply was lost may be there, and then once.
    assert max((len(each) for each in lost_replies), default=0) <= 1
    statistics = played.story.statistics
    assert statistics.predictions == len(kept) + sum(len(each) for each in lost_replies)
