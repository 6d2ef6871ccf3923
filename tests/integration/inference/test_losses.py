"""Whatever dies, fills up or goes away: what was answered is on the topic exactly once."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from tests.support.answered import Clients, Memory, assert_kept
from tests.support.broker import TestBroker
from tests.support.inference import (
    RunningInference,
    StandInRegistry,
    a_model,
    a_registry,
    a_signature,
    an_inference,
    read_produced,
)
from tests.support.ports import free_port
from tests.support.waiting import eventually

from homeostat.inference.v1.serving_pb2 import WORKER_STATE_READY, GetServingRequest
from homeostat.inference.v1.serving_pb2_grpc import ServingServiceStub
from homeostat.inference.v1.truth_pb2 import AdvanceWatermarkRequest
from homeostat.ledger.v1.ledger_pb2 import AreArchivedResponse
from homeostat.ledger.v1.ledger_pb2_grpc import (
    LedgerServiceServicer,
    add_LedgerServiceServicer_to_server,
)
from homeostat.topics import OUTCOMES, PREDICTIONS

# One that is soon full, and forgets what it may at once.
SMALL_JOURNAL = {
    "journal_segment_bytes": 1 << 19,
    "journal_quota_bytes": 1 << 22,
    "journal_tail_bytes": 1 << 17,
    "journal_tail_seconds": 0,
}
# What a client may hear whose request was in flight when a process died.
CUT_OFF = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL}


@asynccontextmanager
async def serving(
    broker: TestBroker, registry: StandInRegistry, folder: Path, **settings: Any
) -> AsyncIterator[RunningInference]:
    """The service for one test."""
    async with an_inference(
        port=free_port(),
        broker=broker.address,
        registry=registry.address,
        folder=folder,
        **settings,
    ) as running:
        try:
            yield running
        except BaseException:
            # Shown with the failure: the folder may be gone by then.
            print(running.log()[-20_000:])
            raise


async def workers(running: RunningInference) -> dict[int, int]:
    """Slot to process id, of the workers that are ready."""
    stub: Any = ServingServiceStub(running.channel)
    answer = await stub.GetServing(GetServingRequest(), timeout=30)
    return {
        each.slot: each.process_id for each in answer.workers if each.state == WORKER_STATE_READY
    }


async def kill_a_worker(running: RunningInference, slot: int = 0) -> None:
    """kill -9, and until another one serves in its place."""
    victim = (await workers(running))[slot]
    psutil.Process(victim).kill()

    async def is_replaced() -> bool:
        try:
            return (await workers(running)).get(slot, victim) != victim
        except grpc.aio.AioRpcError:
            return False

    await eventually(is_replaced, what="another worker")


@pytest.fixture
async def registry() -> AsyncIterator[StandInRegistry]:
    async with a_registry() as serving_registry:
        yield serving_registry


class ArchivesEverything(LedgerServiceServicer):
    """A ledger to which nothing is too much."""

    async def AreArchived(self, request: Any, context: Any) -> AreArchivedResponse:  # noqa: N802
        return AreArchivedResponse(are_archived=[True] * len(request.block_ids))


@pytest.fixture
async def ledger() -> AsyncIterator[str]:
    """The address of a ledger that has archived whatever it is asked about."""
    server = grpc.aio.server()
    add_LedgerServiceServicer_to_server(ArchivesEverything(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


@pytest.mark.parametrize("transport", ("native", "grpcio"))
@pytest.mark.parametrize("count", (1, 2))
async def test_a_worker_that_dies_takes_only_its_calls_with_it(
    transport: str,
    count: int,
    embedded_broker: TestBroker,
    registry: StandInRegistry,
    tmp_path: Path,
) -> None:
    async with serving(
        embedded_broker, registry, tmp_path / "inference", transport=transport, workers=count
    ) as running:
        keeper = running.process.pid
        clients = Clients(running.address)
        async with clients.asking(8) as memory:
            for slot in [*range(count)] * (4 // count):
                await memory.until(200)
                await kill_a_worker(running, slot)
            await memory.until(200)
        assert set(memory.codes) <= CUT_OFF, memory.texts
        assert running.process.pid == keeper
        assert running.process.poll() is None
        await assert_kept(embedded_broker.address, memory)
        assert await running.stop() == 0


async def test_a_server_that_is_killed_with_everybody_in_it_has_kept_what_it_answered(
    embedded_broker: TestBroker, registry: StandInRegistry, tmp_path: Path
) -> None:
    async with serving(embedded_broker, registry, tmp_path / "inference", workers=2) as running:
        clients = Clients(running.address)
        async with clients.asking(8) as memory:
            for _ in range(3):
                await memory.until(300)
                family = psutil.Process(running.process.pid).children(recursive=True)
                await running.kill()
                # Nobody answers for a server that has gone.
                await eventually(
                    lambda family=family: not any(_is_alive(each) for each in family),
                    what="no orphans",
                )
                await running.restart()
            await memory.until(300)
        assert set(memory.codes) <= CUT_OFF, memory.texts
        await assert_kept(embedded_broker.address, memory)


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


async def test_a_worker_and_the_broker_may_die_in_turns(
    embedded_broker: TestBroker, registry: StandInRegistry, tmp_path: Path
) -> None:
    async with serving(embedded_broker, registry, tmp_path / "inference", workers=2) as running:
        clients = Clients(running.address)
        async with clients.asking(6) as memory:
            await memory.until(200)
            embedded_broker.kill()
            await memory.until(200)
            await kill_a_worker(running, 0)
            await memory.until(200)
            await asyncio.to_thread(embedded_broker.restart)
            await kill_a_worker(running, 1)
            await memory.until(200)
            await asyncio.to_thread(embedded_broker.restart)
            await memory.until(200)
        assert set(memory.codes) <= CUT_OFF, memory.texts
        await assert_kept(embedded_broker.address, memory)


async def test_without_the_registry_serving_goes_on_and_a_fresh_worker_serves_the_same(
    embedded_broker: TestBroker, tmp_path: Path
) -> None:
    async with a_registry() as registry:
        registry.add(2, a_model(2.0), a_signature())
        registry.promote(2)
        async with serving(embedded_broker, registry, tmp_path / "inference") as running:
            clients = Clients(running.address)
            async with clients.asking(4) as memory:
                await memory.until(100)
                await registry.server.stop(None)
                await kill_a_worker(running)
                await memory.until(200)
                await running.kill()
                await running.restart()
                await memory.until(200)
            assert set(memory.versions) == {2}
            assert set(memory.codes) <= CUT_OFF, memory.texts
            await assert_kept(embedded_broker.address, memory)


async def paused_for(seconds: float, broker: TestBroker, running: RunningInference) -> Memory:
    """The memory of clients that asked while the broker hung."""
    clients = Clients(running.address)
    async with clients.asking(4) as memory:
        await memory.until(100)
        broker.pause()
        try:
            for _ in range(int(seconds * 10)):
                await memory.until(1)
                await asyncio.sleep(0.1)
        finally:
            broker.go_on()
        await memory.until(100)
    return memory


async def test_a_broker_that_hangs_for_20_seconds_is_noticed_by_nobody(
    embedded_broker: TestBroker, registry: StandInRegistry, tmp_path: Path
) -> None:
    async with serving(embedded_broker, registry, tmp_path / "inference") as running:
        memory = await paused_for(20, embedded_broker, running)
        assert not memory.codes
        await assert_kept(embedded_broker.address, memory)


@pytest.mark.slow
async def test_a_broker_that_hangs_for_a_minute_is_noticed_by_nobody(
    embedded_broker: TestBroker, registry: StandInRegistry, tmp_path: Path
) -> None:
    async with serving(embedded_broker, registry, tmp_path / "inference") as running:
        memory = await paused_for(60, embedded_broker, running)
        assert not memory.codes
        await assert_kept(embedded_broker.address, memory)


async def test_leaving_under_load_answers_or_refuses_and_keeps_what_was_answered(
    embedded_broker: TestBroker, registry: StandInRegistry, tmp_path: Path
) -> None:
    async with serving(embedded_broker, registry, tmp_path / "inference", workers=2) as running:
        clients = Clients(running.address)
        async with clients.asking(8) as memory:
            await memory.until(500)
            assert await running.stop() == 0
        assert set(memory.codes) <= {grpc.StatusCode.UNAVAILABLE}
        # Nothing is left to be sent by a next life.
        await assert_kept(embedded_broker.address, memory)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096, 256, 1):
            try:
                while file.write(b"x" * size):
                    pass
            except OSError:
                continue


async def test_a_full_disk_refuses_keeps_what_was_answered_and_serves_again_with_space(
    small_disk: Path, embedded_broker: TestBroker, registry: StandInRegistry
) -> None:
    async with serving(
        embedded_broker, registry, small_disk, journal_segment_bytes=1 << 20
    ) as running:
        clients = Clients(running.address)
        async with clients.asking(6) as memory:
            for number in range(2):
                await memory.until(300)
                filler = small_disk / f"filler-{number}"
                await asyncio.to_thread(_fill, filler)
                await memory.until_failures(50)
                await asyncio.to_thread(filler.unlink)
            await memory.until(300)
        assert set(memory.codes) == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert any("No space left" in each for each in memory.texts)
        await assert_kept(embedded_broker.address, memory)
        await running.kill()
        await running.restart()
        await assert_kept(embedded_broker.address, memory)


async def test_a_server_killed_on_a_full_disk_has_kept_what_it_answered(
    small_disk: Path, embedded_broker: TestBroker, registry: StandInRegistry
) -> None:
    async with serving(
        embedded_broker, registry, small_disk, journal_segment_bytes=1 << 20
    ) as running:
        clients = Clients(running.address)
        embedded_broker.kill()
        async with clients.asking(6) as memory:
            await memory.until(300)
            filler = small_disk / "filler"
            await asyncio.to_thread(_fill, filler)
            await memory.until_failures(20)
            await running.kill()
            await asyncio.to_thread(filler.unlink)
            await asyncio.to_thread(embedded_broker.restart)
            await running.restart()
            await memory.until(300)
        assert set(memory.codes) <= CUT_OFF | {grpc.StatusCode.RESOURCE_EXHAUSTED}
        await assert_kept(embedded_broker.address, memory)


async def test_a_journal_at_its_quota_refuses_until_the_broker_is_back(
    embedded_broker: TestBroker, registry: StandInRegistry, ledger: str, tmp_path: Path
) -> None:
    async with serving(
        embedded_broker,
        registry,
        tmp_path / "inference",
        **SMALL_JOURNAL,
        ledger_address=ledger,
    ) as running:
        clients = Clients(running.address, rows=(50,))
        async with clients.asking(4) as memory:
            await memory.until(500)
            embedded_broker.pause()
            try:
                await memory.until_failures(50)
            finally:
                embedded_broker.go_on()
            await memory.until(2000)
        assert set(memory.codes) == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert any("may hold" in each for each in memory.texts)
        await assert_kept(embedded_broker.address, memory)


async def test_a_full_journal_that_may_shed_answers_and_says_what_it_did_not_keep(
    embedded_broker: TestBroker, registry: StandInRegistry, ledger: str, tmp_path: Path
) -> None:
    async with serving(
        embedded_broker,
        registry,
        tmp_path / "inference",
        **SMALL_JOURNAL,
        journal_full="shed",
        ledger_address=ledger,
    ) as running:
        clients = Clients(running.address, rows=(50,))
        async with clients.asking(4) as memory:
            await memory.until(500)
            embedded_broker.pause()
            try:
                await eventually(lambda: memory.durability["none"] > 20)
            finally:
                embedded_broker.go_on()
            kept = len(memory.answered)
            await memory.until(2000)
        assert len(memory.answered) > kept
        assert not memory.codes
        await assert_kept(embedded_broker.address, memory)
        losses = (await _serving(running)).loss_counts
        assert sum(losses.values()) >= memory.durability["none"]


async def _serving(running: RunningInference) -> Any:
    stub: Any = ServingServiceStub(running.channel)
    return await stub.GetServing(GetServingRequest(), timeout=30)


async def test_of_a_broker_that_lost_all_no_more_is_said_to_be_there_than_is(
    embedded_broker: TestBroker, registry: StandInRegistry, tmp_path: Path
) -> None:
    async with serving(
        embedded_broker, registry, tmp_path / "inference", watermark_mode="explicit", workers=3
    ) as running:
        clients = Clients(running.address)
        async with clients.asking(2) as memory:
            await memory.until(50)
        for mark in range(1, 40):
            request = AdvanceWatermarkRequest(watermark_us=mark)
            await running.truth.AdvanceWatermark(request, timeout=30)
        epoch = (await running.progress()).epoch
        await asyncio.to_thread(embedded_broker.restart)

        async def is_all_sent_again() -> bool:
            told = await running.progress()
            return told.epoch != epoch and told.unsent_count == 0 and told.watermark_us == 39

        await eventually(is_all_sent_again, what="all sent again")
        for topic in (PREDICTIONS, OUTCOMES):
            await read_produced(running, embedded_broker.address, topic)
