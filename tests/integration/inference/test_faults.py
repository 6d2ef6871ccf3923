"""What was answered is kept, whatever dies."""

import asyncio
import os
import signal
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import takewhile
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tests.support.broker import TestBroker
from tests.support.inference import (
    MODEL,
    RunningInference,
    StandInRegistry,
    Told,
    a_model,
    a_registry,
    a_signature,
    an_inference,
    columns,
    expected_probability,
    marks_of,
    read_topic,
    read_until_marked,
    tell,
)
from tests.support.ports import free_port
from tests.support.waiting import eventually

from homeostat.client import Client, infer_request
from homeostat.ids import parse_prediction_id
from homeostat.inference.v1.truth_pb2 import AdvanceWatermarkRequest, Outcome
from homeostat.topics import ACTIVATIONS, OUTCOMES, PREDICTIONS
from homeostat_inference.app.assembly import Assembler, Sealed
from homeostat_inference.edges.journal_format import parse

Place = tuple[bytes, int]


class Load:
    """Clients that ask without a pause, and remember what they were answered."""

    def __init__(self, address: str) -> None:
        self._address = address
        self.answered: list[Place] = []
        self.versions: Counter[int] = Counter()
        self.failures: list[grpc.aio.AioRpcError] = []
        self._is_over = False

    @asynccontextmanager
    async def running(self, clients: int = 8) -> AsyncIterator["Load"]:
        async with asyncio.TaskGroup() as tasks:
            for number in range(clients):
                tasks.create_task(self._ask(number))
            try:
                yield self
            finally:
                self._is_over = True

    async def until(self, answers: int) -> None:
        await eventually(lambda: len(self.answered) >= answers, what=f"{answers} answers")

    async def _ask(self, number: int) -> None:
        rows = number % 3 + 1
        async with Client(self._address, timeout_seconds=30) as client:
            while not self._is_over:
                request = infer_request(MODEL, columns([0.5] * rows, ["red"] * rows))
                try:
                    answer = await client.infer(request)
                except grpc.aio.AioRpcError as error:
                    self.failures.append(error)
                    await asyncio.sleep(0.01)
                    continue
                self.versions[answer.version] += 1
                self.answered += map(parse_prediction_id, answer.prediction_ids)


def places(found: list[tuple[str, Any]]) -> set[Place]:
    """Every row of distinct blocks; a block that comes twice must be the same both times."""
    by_id: dict[str, Any] = {}
    for name, block in found:
        if block.row_count:
            assert by_id.setdefault(name, block) == block
    return {(each.block_id, row) for each in by_id.values() for row in range(each.row_count)}


async def until_all_are_there(
    broker: str, answered: list[Place], kept: Collection[Place] = ()
) -> set[Place]:
    """Every row on the topic, once all that were answered are there, and all that are ``kept``."""
    assert len(set(answered)) == len(answered)
    wanted = {*answered, *kept}
    return places(await read_topic(broker, PREDICTIONS, lambda found: wanted <= places(found)))


@pytest.fixture
async def fresh(
    embedded_broker: TestBroker, registry: StandInRegistry, tmp_path: Path
) -> AsyncIterator[RunningInference]:
    """Ready, with the settings as they are by default."""
    async with an_inference(
        port=free_port(),
        broker=embedded_broker.address,
        registry=registry.address,
        folder=tmp_path / "inference",
    ) as running:
        yield running


def journalled(running: RunningInference) -> set[Place]:
    """Rows in the journal's files, read as they lie there."""
    folder = Path(running.environment["HOMEOSTAT_INFERENCE_DATA_FOLDER"]) / "worker-0" / "journal"
    assembler = Assembler()
    found: set[Place] = set()
    for path in sorted(folder.glob("*.journal")):
        for record in parse(path.read_bytes(), int(path.stem)):
            for made in assembler.feed(record.position, record.kind, record.payload):
                if isinstance(made, Sealed):
                    rows = sum(each.row_count for each in made.slices)
                    found |= {(made.block_id, row) for row in range(rows)}
    return found


async def test_after_a_kill_every_answered_prediction_is_on_the_topic_once(
    fresh: RunningInference, embedded_broker: TestBroker
) -> None:
    load = Load(fresh.address)
    async with load.running():
        for answers in (200, 800):
            await load.until(answers)
            await fresh.kill()
            await fresh.restart()
        await load.until(1200)
    assert await fresh.stop() == 0
    kept = journalled(fresh)
    # A reply may have been lost on its way: what is kept is more than what was heard.
    assert set(load.answered) <= kept
    assert await until_all_are_there(embedded_broker.address, load.answered, kept) == kept


async def test_leaving_under_load_loses_nothing_that_was_answered(
    fresh: RunningInference, embedded_broker: TestBroker
) -> None:
    load = Load(fresh.address)
    async with load.running():
        await load.until(300)
        assert await fresh.stop() == 0
    kept = journalled(fresh)
    assert await until_all_are_there(embedded_broker.address, load.answered, kept) == kept


async def test_a_swap_under_load_fails_no_request(
    on_each_transport: RunningInference, registry: StandInRegistry, embedded_broker: TestBroker
) -> None:
    load = Load(on_each_transport.address)
    async with load.running():
        await load.until(100)
        for version in (2, 3, 4):
            registry.add(version, a_model(weight=float(version)), a_signature())
            await tell(embedded_broker.address, registry.promote(version))
            await eventually(lambda version=version: load.versions[version] > 20)
    assert not load.failures
    found = await read_topic(
        embedded_broker.address, ACTIVATIONS, lambda found: len(dict(found)) >= 4
    )
    assert [each.version for each in dict(found).values()] == [1, 2, 3, 4]
    assert not any(each.error for _, each in found)
    async with Client(on_each_transport.address) as client:
        answer = await client.infer(infer_request(MODEL, columns([1.0], ["red"])))
    assert np.isclose(answer.outputs["probabilities"][0, 1], expected_probability(1.0, "red", 4.0))


async def test_a_version_that_can_not_be_loaded_leaves_the_champion_serving(
    fresh: RunningInference, registry: StandInRegistry, embedded_broker: TestBroker
) -> None:
    registry.add(2, b"not a model", a_signature())
    await tell(embedded_broker.address, registry.promote(2))
    found = await read_topic(
        embedded_broker.address, ACTIVATIONS, lambda found: any(each.error for _, each in found)
    )
    assert {each.version for _, each in found if each.error} == {2}
    async with Client(fresh.address) as client:
        assert (await client.infer(infer_request(MODEL, columns([1.0], ["red"])))).version == 1


async def test_without_the_broker_it_goes_on_and_a_new_one_gets_everything(
    fresh: RunningInference, embedded_broker: TestBroker
) -> None:
    load = Load(fresh.address)
    async with load.running(clients=4):
        await load.until(100)
        embedded_broker.kill()
        before = len(load.answered)
        await load.until(before + 500)
        await asyncio.to_thread(embedded_broker.restart)
        await load.until(len(load.answered) + 100)
    assert not load.failures
    await until_all_are_there(embedded_broker.address, load.answered)

    async def is_quiet() -> bool:
        answer = await fresh.progress()
        return answer.unsent_count == 0 and bool(answer.produced)

    await eventually(is_quiet, what="nothing unsent")


async def test_a_broker_that_hangs_holds_up_nobody_and_then_gets_everything(
    fresh: RunningInference, embedded_broker: TestBroker
) -> None:
    assert embedded_broker._running is not None
    broker = embedded_broker._running.process
    load = Load(fresh.address)
    async with load.running(clients=4):
        await load.until(100)
        broker.send_signal(signal.SIGSTOP)
        try:
            await load.until(len(load.answered) + 1500)
        finally:
            broker.send_signal(signal.SIGCONT)
        await load.until(len(load.answered) + 100)
    assert not load.failures
    found = await until_all_are_there(embedded_broker.address, load.answered)
    assert await fresh.stop() == 0
    assert found <= journalled(fresh)


async def test_it_starts_with_neither_registry_nor_broker(
    embedded_broker: TestBroker, tmp_path: Path
) -> None:
    port = free_port()
    async with (
        a_registry(port) as registry,
        an_inference(
            port=free_port(),
            broker=embedded_broker.address,
            registry=registry.address,
            folder=tmp_path / "inference",
        ) as running,
    ):
        async with Client(running.address) as client:
            await client.infer(infer_request(MODEL, columns([1.0], ["red"])))
        await running.kill()
        await registry.server.stop(None)
        embedded_broker.kill()
        await running.restart()
        async with Client(running.address) as client:
            answer = await client.infer(infer_request(MODEL, columns([1.0], ["red"])))
        assert answer.version == 1
        assert (await running.progress()).unsent_count > 0


async def test_a_callers_mark_stands_behind_all_that_was_answered_before_on_every_partition(
    embedded_broker: TestBroker, registry: StandInRegistry, tmp_path: Path
) -> None:
    async with an_inference(
        port=free_port(),
        broker=embedded_broker.address,
        registry=registry.address,
        folder=tmp_path / "inference",
        watermark_mode="explicit",
    ) as running:
        marks = (10, 20, 30)
        answered: dict[int, set[bytes]] = {}
        async with Client(running.address) as client:
            await first_promise(client, embedded_broker.address, 1)
            for mark in marks:
                answers = await asyncio.gather(
                    *(
                        client.infer(
                            infer_request(
                                MODEL,
                                columns([1.0], ["red"]),
                                event_times_us=np.array([mark - 1]),
                            )
                        )
                        for _ in range(20)
                    )
                )
                ids = [each.prediction_ids[0] for each in answers]
                outcomes = [
                    Outcome(prediction_id=each, value=1, known_at_us=mark - 1) for each in ids
                ]
                await client.record_outcomes(MODEL, outcomes)
                answered[mark] = {parse_prediction_id(each)[0] for each in ids}
                if mark == marks[-1]:
                    # The next life may tell the last one alone: it stands for those before it.
                    await until_told(embedded_broker.address, marks[:-1])
                await client.advance_watermark(mark)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await client.infer(
                    infer_request(MODEL, columns([1.0], ["red"]), event_times_us=np.array([5]))
                )
            assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await running.truth.AdvanceWatermark(AdvanceWatermarkRequest(watermark_us=29))
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        await running.kill()
        await running.restart()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await running.truth.AdvanceWatermark(AdvanceWatermarkRequest(watermark_us=29))
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        for topic in (PREDICTIONS, OUTCOMES):
            found = await read_until_marked(embedded_broker.address, topic, marks)
            for own in found.values():
                promises = [each.watermark for _, each in own if not each.row_count]
                assert {each.source_id for each in promises} == {"inference-0"}
                assert {each.watermark_us for each in promises} == {1, *marks}
            if topic is PREDICTIONS:
                for mark in marks:
                    assert answered[mark] == set().union(
                        *(blocks_before(mark, own, answered[mark]) for own in found.values())
                    )
        assert (await running.progress()).watermark_us == marks[-1]


async def test_a_callers_mark_is_told_again_after_a_restart(
    embedded_broker: TestBroker, registry: StandInRegistry, tmp_path: Path
) -> None:
    async with an_inference(
        port=free_port(),
        broker=embedded_broker.address,
        registry=registry.address,
        folder=tmp_path / "inference",
        watermark_mode="explicit",
    ) as running:
        async with Client(running.address) as client:
            await client.advance_watermark(10)
        assert await running.stop() == 0
        await until_told(embedded_broker.address, [10])
        # What was in flight when a server was killed is known to nobody: the next one says it anew.
        await running.restart()
        for topic in (PREDICTIONS, OUTCOMES):
            found = await read_until_marked(embedded_broker.address, topic, [10], times=2)
            assert {each for own in found.values() for each in marks_of(own)} == {10}


async def until_told(broker: str, marks: Sequence[int]) -> None:
    """Until these promises stand on every partition of both topics."""
    for topic in (PREDICTIONS, OUTCOMES):
        await read_until_marked(broker, topic, marks)


async def first_promise(client: Client, broker: str, mark_us: int) -> None:
    """The parts of a server find the broker one by one, and what is promised before the last of
    them has is told as one promise; after this one, each is told by itself."""
    await client.advance_watermark(mark_us)
    await until_told(broker, [mark_us])


def blocks_before(mark_us: int, own: list[Told], of: Collection[bytes]) -> set[bytes]:
    """Which blocks a partition has first told of before it promised that much."""
    before = takewhile(lambda told: told[1].watermark.watermark_us < mark_us, own)
    return {each.block_id for _, each in before if each.row_count} & set(of)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], check=False
    )
    if mounted.returncode:
        pytest.skip("this machine mounts no tmpfs")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


async def test_a_full_disk_refuses_what_it_can_not_keep_and_serves_again_with_space(
    small_disk: Path, embedded_broker: TestBroker, registry: StandInRegistry
) -> None:
    filler = small_disk / "filler"
    async with an_inference(
        port=free_port(),
        broker=embedded_broker.address,
        registry=registry.address,
        folder=small_disk,
    ) as running:
        load = Load(running.address)
        async with load.running(clients=4):
            await load.until(50)
            await asyncio.to_thread(_fill, filler)
            await eventually(lambda: len(load.failures) > 20)
            await asyncio.to_thread(filler.unlink)
            before = len(load.answered)
            await load.until(before + 50)
        codes = {each.code() for each in load.failures}
        assert codes == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert "No space left" in (load.failures[0].details() or "")
        found = await until_all_are_there(embedded_broker.address, load.answered)
        assert await running.stop() == 0
        assert found <= journalled(running)


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        for size in (4096, 256, 1):
            try:
                while file.write(b"x" * size):
                    pass
            except OSError:
                continue
