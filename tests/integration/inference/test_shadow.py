"""Shadows beside a serving champion: each of its rows once more, and nothing else is changed."""

import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from tests.integration.inference.test_faults import Load
from tests.integration.inference.test_shadow_process import a_model_that_divides
from tests.integration.ledger.harness import a_ledger
from tests.support.broker import TestBroker
from tests.support.inference import (
    MODEL,
    RunningInference,
    StandInRegistry,
    a_model,
    a_registry,
    a_signature,
    an_inference,
    columns,
    expected_probability,
    read_produced,
    tell,
)
from tests.support.ports import free_port
from tests.support.waiting import eventually

from homeostat.client import Client, infer_request
from homeostat.columns import unpack
from homeostat.events.v1.column_pb2 import ARM_CHAMPION, ARM_SHADOW
from homeostat.events.v1.prediction_block_pb2 import PredictionBlock
from homeostat.ids import parse_prediction_id, prediction_id
from homeostat.inference.v1.serving_pb2 import GetServingRequest, GetServingResponse
from homeostat.inference.v1.serving_pb2_grpc import ServingServiceStub
from homeostat.inference.v1.truth_pb2 import Outcome
from homeostat.ledger.v1.ledger_pb2 import LookUpPredictionRequest
from homeostat.topics import PREDICTIONS
from homeostat_inference.app.shadowing import shadow_block_id

WEIGHTS = {1: 1.0, 2: 2.0, 3: -1.0}


@dataclass(frozen=True)
class World:
    registry: StandInRegistry
    running: RunningInference
    broker: str

    async def serving(self) -> GetServingResponse:
        stub: Any = ServingServiceStub(self.running.channel)
        answer: GetServingResponse = await stub.GetServing(GetServingRequest(), timeout=30)
        return answer

    async def have_shadows(self, *versions: int) -> None:
        """The registry has said so, and they run."""
        await tell(self.broker, self.registry.share_out(shadow_versions=versions))

        async def do_run() -> bool:
            found = (await self.serving()).versions
            running = {
                each.version for each in found if each.arm == ARM_SHADOW and each.ready_workers
            }
            return running == {*versions}

        await eventually(do_run, what=f"shadows {versions}")

    def shadow_process(self) -> int | None:
        """Its number; the one with the idle class among the server's processes."""
        for each in children(self.running.process.pid):
            try:
                if os.sched_getscheduler(each) == os.SCHED_IDLE:
                    return each
            except ProcessLookupError:
                continue
        return None

    async def until_another_than(self, process: int) -> None:
        await eventually(lambda: self.shadow_process() not in (None, process), what="a new one")

    async def has_skipped_rows(self) -> bool:
        return (await self.serving()).loss_counts["shadow_rows_skipped"] > 0

    async def quiet(self) -> None:
        async def is_quiet() -> bool:
            progress = await self.running.progress()
            return not progress.unsent_count and not progress.open_work_count

        await eventually(is_quiet, what="the server has sent everything")


def children(process: int) -> list[int]:
    """Of a process, and of those."""
    try:
        tasks = list(Path(f"/proc/{process}/task").iterdir())
        found = [int(e) for t in tasks for e in (t / "children").read_text().split()]
    except OSError:
        return []
    return found + [each for child in found for each in children(child)]


@pytest.fixture
async def world(embedded_broker: TestBroker, tmp_path: Path) -> AsyncIterator[World]:
    async with a_registry() as registry:
        for version in (2, 3):
            registry.add(version, a_model(WEIGHTS[version]), a_signature())
        async with an_inference(
            port=free_port(),
            broker=embedded_broker.address,
            registry=registry.address,
            folder=tmp_path / "inference",
            workers=2,
            # A busy machine is no reason to give rows up here.
            shadow_lag_seconds=120,
        ) as running:
            yield World(registry, running, embedded_broker.address)


def by_arm(found: list[tuple[str, PredictionBlock]]) -> dict[int, list[PredictionBlock]]:
    """Distinct blocks with rows."""
    arms: dict[int, list[PredictionBlock]] = {}
    for block in dict(found).values():
        if block.row_count:
            arms.setdefault(block.arm, []).append(block)
    return arms


def rows(blocks: list[PredictionBlock]) -> int:
    return sum(each.row_count for each in blocks)


def assert_repeats(champions: list[PredictionBlock], shadows: list[PredictionBlock]) -> None:
    """Each of the shadows is its champion's block, row by row, as its version sees it."""
    origin = {each.block_id: each for each in champions}
    for each in shadows:
        of = origin[each.origin_block_id]
        for name in ("row_count", "inputs", "contexts", "event_times_us", "client_keys"):
            assert getattr(each, name) == getattr(of, name)
        amounts, _ = unpack(each.inputs[0], each.row_count)
        kinds, _ = unpack(each.inputs[1], each.row_count)
        expected = [
            expected_probability(amount, kind, WEIGHTS[each.version])
            for amount, kind in zip(amounts, kinds, strict=True)
        ]
        np.testing.assert_allclose(np.frombuffer(each.scores), expected, rtol=1e-5)


async def test_every_row_of_the_champion_is_repeated_once_by_every_shadow(world: World) -> None:
    await world.have_shadows(2, 3)
    load = Load(world.running.address)
    async with load.running(clients=4):
        await load.until(500)
    await world.quiet()
    assert not load.failures
    assert set(load.versions) == {1}
    found = await read_produced(world.running, world.broker, PREDICTIONS)
    arms = by_arm(found)
    assert rows(arms[ARM_CHAMPION]) == len(load.answered)
    repeated = Counter((each.origin_block_id, each.version) for each in arms[ARM_SHADOW])
    assert repeated == {(e.block_id, version): 1 for e in arms[ARM_CHAMPION] for version in (2, 3)}
    assert_repeats(arms[ARM_CHAMPION], arms[ARM_SHADOW])
    assert (await world.serving()).loss_counts["shadow_rows_skipped"] == 0


async def test_a_killed_shadow_process_goes_on_where_it_was(world: World) -> None:
    await world.have_shadows(2)
    load = Load(world.running.address)
    async with load.running(clients=4):
        for answers in (200, 400, 600):
            await load.until(answers)
            process = world.shadow_process()
            assert process is not None
            os.kill(process, signal.SIGKILL)
            await world.until_another_than(process)
        await load.until(800)
    await world.quiet()
    assert not load.failures
    found = await read_produced(world.running, world.broker, PREDICTIONS)
    arms = by_arm(found)
    assert {e.origin_block_id for e in arms[ARM_SHADOW]} == {e.block_id for e in arms[ARM_CHAMPION]}
    assert rows(arms[ARM_SHADOW]) == rows(arms[ARM_CHAMPION]) == len(load.answered)
    assert_repeats(arms[ARM_CHAMPION], arms[ARM_SHADOW])


@pytest.mark.parametrize("is_killed", [False, True], ids=["asked to leave", "killed"])
async def test_what_was_answered_before_a_restart_is_repeated_after_it(
    world: World, is_killed: bool
) -> None:
    await world.have_shadows(2)
    load = Load(world.running.address)
    async with load.running(clients=4):
        await load.until(300)
        if is_killed:
            await world.running.kill()
        else:
            assert await world.running.stop() == 0
    await world.running.restart()
    await world.quiet()
    arms = by_arm(await read_produced(world.running, world.broker, PREDICTIONS))
    assert rows(arms[ARM_CHAMPION]) >= len(load.answered)
    assert {e.origin_block_id for e in arms[ARM_SHADOW]} == {e.block_id for e in arms[ARM_CHAMPION]}
    assert_repeats(arms[ARM_CHAMPION], arms[ARM_SHADOW])


async def test_a_shadow_that_crashes_is_held_back_and_the_champion_goes_on(world: World) -> None:
    world.registry.add(4, a_model_that_divides(), a_signature())
    await world.have_shadows(4)
    load = Load(world.running.address)

    async def is_held_back() -> bool:
        return 4 in {each.version for each in (await world.serving()).quarantines}

    async with load.running(clients=2):
        await eventually(is_held_back, what="the shadow is held back")
        before = len(load.answered)
        await load.until(before + 50)
    assert not load.failures
    assert set(load.versions) == {1}
    await eventually(world.has_skipped_rows, what="rows that the shadow did not see")
    assert all(each.restart_count == 0 for each in (await world.serving()).workers)


async def test_promises_wait_for_shadows_and_for_a_stuck_one_only_so_long(
    embedded_broker: TestBroker, tmp_path: Path
) -> None:
    async with a_registry() as registry:
        registry.add(2, a_model(WEIGHTS[2]), a_signature())
        async with (
            an_inference(
                port=free_port(),
                broker=embedded_broker.address,
                registry=registry.address,
                folder=tmp_path / "inference",
                watermark_mode="explicit",
                shadow_lag_seconds=2,
            ) as running,
            Client(running.address) as client,
        ):
            world = World(registry, running, embedded_broker.address)
            await world.have_shadows(2)
            await ask_at(client, range(10, 20))
            await client.advance_watermark(20)
            await assert_no_row_follows_its_promise(world.broker, 20)
            process = world.shadow_process()
            assert process is not None
            os.kill(process, signal.SIGSTOP)
            await ask_at(client, range(30, 40))
            await client.advance_watermark(40)
            # It is ended for its silence, and what waited too long is given up.
            await assert_no_row_follows_its_promise(world.broker, 40)
            assert world.shadow_process() != process
            await eventually(world.has_skipped_rows, what="rows that the shadow did not see")


async def ask_at(client: Client, event_times_us: range) -> None:
    for each in event_times_us:
        request = infer_request(
            MODEL, columns([1.0], ["red"]), event_times_us=np.array([each], np.int64)
        )
        assert (await client.infer(request)).version == 1


async def assert_no_row_follows_its_promise(broker: str, until_us: int) -> None:
    """Reads each partition until its promise; behind it nothing earlier stands."""
    promised: dict[int, int] = {}
    consumer = AIOKafkaConsumer(bootstrap_servers=broker)
    await consumer.start()
    try:
        places = [TopicPartition(PREDICTIONS.name, each) for each in range(PREDICTIONS.partitions)]
        consumer.assign(places)
        for place in places:
            consumer.seek(place, 0)

        async def are_all_there() -> bool:
            for place, records in (await consumer.getmany(timeout_ms=100)).items():
                for record in records:
                    block = PredictionBlock.FromString(record.value)
                    if block.HasField("watermark"):
                        promised[place.partition] = block.watermark.watermark_us
                    else:
                        earliest = np.frombuffer(block.event_times_us, "<i8").min()
                        assert earliest >= promised.get(place.partition, 0)
            return len(promised) == len(places) and min(promised.values()) >= until_us

        await eventually(are_all_there, what=f"the promise of {until_us}")
    finally:
        await consumer.stop()


async def test_truth_told_of_the_champions_row_is_its_shadows_truth_too(
    world: World, embedded_broker: TestBroker, postgres_url: str, tmp_path: Path
) -> None:
    await world.have_shadows(2)
    async with (
        a_ledger(embedded_broker, postgres_url, tmp_path / "ledger") as ledger,
        Client(world.running.address) as client,
    ):
        await ledger.start_here()
        answer = await client.infer(infer_request(MODEL, columns([1.0, 2.0], ["red", "blue"])))
        subject = answer.prediction_ids[1]
        outcome = Outcome(prediction_id=subject, value=1.0)
        await client.record_outcomes(MODEL, [outcome])
        shadow_block = shadow_block_id(parse_prediction_id(subject)[0], 2)
        _, row = parse_prediction_id(subject)

        async def truths(name: str) -> list[float]:
            request = LookUpPredictionRequest(prediction_id=name)
            try:
                found = (await ledger.api.LookUpPrediction(request, timeout=30)).predictions
            except grpc.aio.AioRpcError:
                return []
            return [each.truth for each in found[0].truths]

        async def are_both_told() -> bool:
            shadow = prediction_id(shadow_block, row)
            return [await truths(each) for each in (subject, shadow)] == [[1.0], [1.0]]

        await eventually(are_both_told, what="the truth of both rows")
        counted = await ledger.statistics(MODEL)
    assert (counted.predictions, counted.predictions_joined) == (2, 1)


async def test_the_process_is_there_only_while_a_model_has_shadows(world: World) -> None:
    assert world.shadow_process() is None
    await world.have_shadows(2)
    assert world.shadow_process() is not None
    await tell(world.broker, world.registry.share_out())
    await eventually(lambda: world.shadow_process() is None, what="the process ends")
    load = Load(world.running.address)
    async with load.running(clients=1):
        await load.until(20)
    await world.quiet()
    assert not load.failures
