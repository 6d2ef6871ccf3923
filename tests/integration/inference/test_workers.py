"""Workers may die, hang, swell: what was answered stays, and others are answered."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
from onnx import TensorProto, helper
from tests.integration.inference.conftest import TRANSPORTS
from tests.integration.inference.test_faults import (
    Load,
    Place,
    first_promise,
    places,
    until_all_are_there,
)
from tests.support.broker import TestBroker
from tests.support.inference import (
    MODEL,
    RunningInference,
    StandInRegistry,
    an_inference,
    columns,
    read_topic,
    read_until_marked,
)
from tests.support.onnx_models import (
    constant,
    endless,
    halves,
    integer_division,
    integers,
    signature,
    value,
)
from tests.support.ports import free_port
from tests.support.waiting import eventually

from homeostat.client import Answer, Client, infer_request, read_answer
from homeostat.ids import parse_prediction_id
from homeostat.inference.v1.serving_pb2 import (
    WORKER_STATE_READY,
    GetServingRequest,
    GetServingResponse,
    ReleaseQuarantineRequest,
)
from homeostat.inference.v1.serving_pb2_grpc import ServingServiceStub
from homeostat.inference.v2.open_inference_pb2 import ModelInferRequest
from homeostat.inference.v2.open_inference_pb2_grpc import GRPCInferenceServiceStub
from homeostat.topics import OUTCOMES, PREDICTIONS

SMALLEST = np.iinfo(np.int64).min


async def serving(running: RunningInference) -> GetServingResponse:
    """What the server says that it does."""
    stub: Any = ServingServiceStub(running.channel)
    answer: GetServingResponse = await stub.GetServing(GetServingRequest(), timeout=30)
    return answer


async def all_ready(
    running: RunningInference,
    workers: int,
    is_so: Callable[[GetServingResponse], bool] = lambda told: True,
) -> GetServingResponse:
    """Once so many workers are ready, and ``is_so`` of what the server says: a death that is not
    noticed yet changes nothing in it."""
    found: list[GetServingResponse] = []

    async def are_ready() -> bool:
        try:
            found.append(await serving(running))
        except grpc.aio.AioRpcError:
            return False
        states = [each.state for each in found[-1].workers]
        return states == [WORKER_STATE_READY] * workers and is_so(found[-1])

    await eventually(are_ready, what=f"{workers} workers ready")
    return found[-1]


def restarted(slot: int, *, times: int) -> Callable[[GetServingResponse], bool]:
    """Whether a slot's worker was replaced so often, and no more often."""
    return lambda told: told.workers[slot].restart_count == times


async def replaced(running: RunningInference, before: int) -> GetServingResponse:
    """Once another worker is ready in the place of the one with that process id."""
    return await all_ready(running, 1, lambda told: told.workers[0].process_id != before)


@asynccontextmanager
async def a_server(
    broker: TestBroker, registry: StandInRegistry, folder: Path, **settings: Any
) -> AsyncIterator[RunningInference]:
    async with an_inference(
        port=free_port(),
        broker=broker.address,
        registry=registry.address,
        folder=folder / "inference",
        **settings,
    ) as running:
        await all_ready(running, int(settings.get("workers", 1)))
        yield running


def pids_of(running: RunningInference) -> list[int]:
    """The keeper and everything below it."""
    keeper = psutil.Process(running.process.pid)
    return [keeper.pid, *(each.pid for each in keeper.children(recursive=True))]


def others_may_read(folder: Path) -> list[Path]:
    """What people sent is nobody else's."""
    made = [each for each in folder.rglob("*") if each.exists()]
    assert made
    return [each for each in made if each.stat().st_mode & 0o077]


def sockets_in(folder: Path) -> set[str]:
    """Where workers' two servers meet."""
    return {each.name for each in folder.glob("worker-*/rest-*")}


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def ask(address: str, rows: dict[str, np.ndarray], seconds: float = 30) -> Any:
    return await asked_apart(address, infer_request(MODEL, rows), seconds)


async def asked_apart(address: str, request: ModelInferRequest, seconds: float = 30) -> Answer:
    """On a connection of its own, so that it does not stick to one worker; gRPC would share one
    between channels that follow each other closely."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        stub: Any = GRPCInferenceServiceStub(channel)
        return read_answer(await stub.ModelInfer(request, timeout=seconds))


async def refusal(
    address: str, rows: dict[str, np.ndarray], seconds: float = 30
) -> grpc.StatusCode:
    """The status of a request that gets no answer."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await ask(address, rows, seconds)
    code: grpc.StatusCode = refused.value.code()
    return code


def integer_rows(x: int, z: int = 0) -> dict[str, np.ndarray]:
    return {"x": np.array([[x]], np.int64), "z": np.array([[z]], np.int64)}


def float_rows(x: float) -> dict[str, np.ndarray]:
    return {"x": np.array([[x]], np.float32), "z": np.array([[1.0]], np.float32)}


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_when_a_worker_is_killed_only_its_calls_fail_and_nothing_answered_is_lost(
    transport: str, embedded_broker: TestBroker, registry: StandInRegistry, tmp_path: Path
) -> None:
    async with a_server(
        embedded_broker, registry, tmp_path, workers=2, transport=transport
    ) as running:
        load = Load(running.address)
        async with load.running(clients=8):
            await load.until(200)
            for slot in (0, 1):
                victim = (await serving(running)).workers[slot].process_id
                os.kill(victim, signal.SIGKILL)
                before = len(load.answered)
                await load.until(before + 200)
                told = await all_ready(running, 2, restarted(slot, times=1))
                assert "SIGKILL" in told.workers[slot].last_end
            assert told.loss_counts["worker_crashes"] == 2
        allowed = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL, grpc.StatusCode.CANCELLED}
        assert {each.code() for each in load.failures} <= allowed
        found = await until_all_are_there(embedded_broker.address, load.answered)
        # What was kept and whose answer was lost on the way may be there too, and nothing else.
        assert len(found - set(load.answered)) <= 3 * (len(load.failures) + 1)


async def test_an_input_that_kills_workers_is_held_back_and_others_are_answered(
    embedded_broker: TestBroker, registry: StandInRegistry, tmp_path: Path
) -> None:
    registry.add(2, integer_division(), integers())
    registry.promote(2)
    async with a_server(embedded_broker, registry, tmp_path) as running:
        for crash in (1, 2):
            code = await refusal(running.address, integer_rows(SMALLEST))
            assert code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL)
            told = await all_ready(running, 1, restarted(0, times=crash))
            assert "SIGFPE" in told.workers[0].last_end
            assert f"{MODEL} version 2" in told.workers[0].last_end
        (held,) = told.quarantines
        assert (held.model_name, held.version, held.crash_count) == (MODEL, 2, 2)
        assert held.input_fingerprint
        assert any("held back" in each for each in told.degraded_reasons)
        code = await refusal(running.address, integer_rows(SMALLEST))
        assert code == grpc.StatusCode.FAILED_PRECONDITION
        assert (await ask(running.address, integer_rows(7))).version == 2
        assert (await serving(running)).workers[0].restart_count == 2
        stub: Any = ServingServiceStub(running.channel)
        released = await stub.ReleaseQuarantine(
            ReleaseQuarantineRequest(model_name=MODEL, version=2)
        )
        assert released.released_count == 1
        assert not (await serving(running)).quarantines


def endless_where_positive() -> bytes:
    """Loops forever for x > 0, and not at all otherwise."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Identity", ["carried"], ["carried_on"]),
        ],
        "body",
        [
            value("round", TensorProto.INT64, ()),
            value("go", TensorProto.BOOL, ()),
            value("carried"),
        ],
        [value("go_on", TensorProto.BOOL, ()), value("carried_on")],
    )
    return halves(
        helper.make_node("Add", ["x", "z"], ["both"]),
        helper.make_node("ReduceMax", ["x"], ["largest"], keepdims=0),
        helper.make_node("Greater", ["largest", "nothing"], ["is_positive"]),
        helper.make_node("Loop", ["", "is_positive", "both"], ["s"], body=body),
        initializers=[constant("nothing", np.array(0, np.float32))],
    )


async def test_an_endless_run_is_ended_at_its_deadline_and_the_server_lives(
    embedded_broker: TestBroker, registry: StandInRegistry, tmp_path: Path
) -> None:
    registry.add(2, endless_where_positive(), signature())
    registry.promote(2)
    async with a_server(embedded_broker, registry, tmp_path, run_limit_seconds=2.0) as running:
        code = await refusal(running.address, float_rows(1.0))
        assert code == grpc.StatusCode.DEADLINE_EXCEEDED
        assert (await ask(running.address, float_rows(-1.0))).version == 2
        told = await serving(running)
        assert told.workers[0].restart_count == 0


async def test_when_the_keeper_is_killed_nothing_stays_behind_and_its_next_life_sends_all(
    embedded_broker: TestBroker, registry: StandInRegistry, tmp_path: Path
) -> None:
    async with a_server(embedded_broker, registry, tmp_path, workers=2) as running:
        load = Load(running.address)
        async with load.running(clients=4):
            await load.until(300)
            pids = pids_of(running)
            assert len(pids) == 4
            assert not others_may_read(tmp_path / "inference" / "data")
            await running.kill()
            await eventually(lambda: not any(map(is_alive, pids)), what="no process left")
            await running.restart()
            await load.until(len(load.answered) + 100)
            alive = {f"rest-{each}.sock" for each in pids_of(running)}
            assert sockets_in(tmp_path / "inference" / "data") <= alive
        await until_all_are_there(embedded_broker.address, load.answered)


async def test_a_worker_that_swells_is_replaced(
    embedded_broker: TestBroker, registry: StandInRegistry, tmp_path: Path
) -> None:
    registry.add(2, swelling(), signature())
    registry.promote(2)
    async with a_server(
        embedded_broker, registry, tmp_path, worker_memory_bytes=160 * 2**20
    ) as running:
        before = (await serving(running)).workers[0].process_id
        await ask(running.address, float_rows(20e6))
        told = await replaced(running, before)
        assert "MiB are allowed" in told.workers[0].last_end
        assert told.loss_counts["worker_crashes"] == 0
        assert (await ask(running.address, float_rows(1.0))).version == 2


async def test_messages_that_come_in_all_at_once_do_not_fill_the_machine(
    embedded_broker: TestBroker, registry: StandInRegistry, tmp_path: Path
) -> None:
    async with a_server(
        embedded_broker, registry, tmp_path, worker_memory_bytes=128 * 2**20
    ) as running:
        before = (await serving(running)).workers[0].process_id
        options = [("grpc.max_send_message_length", -1)]
        async with grpc.aio.insecure_channel(running.address, options=options) as channel:
            call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            long = bytes(40 * 2**20)
            flood = [asyncio.ensure_future(call(long, timeout=60)) for _ in range(16)]
            ends = await asyncio.gather(*flood, return_exceptions=True)
        assert all(isinstance(each, grpc.aio.AioRpcError) for each in ends)
        told = await replaced(running, before)
        assert "MiB are allowed" in told.workers[0].last_end
        await ask(running.address, columns([1.0], ["red"]))


def swelling() -> bytes:
    """Takes 4 bytes of memory for each 1 of x; the session keeps them for its next runs."""
    return halves(
        helper.make_node("ReduceMax", ["x"], ["largest"], keepdims=0),
        helper.make_node("Cast", ["largest"], ["count"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["count", "one_number"], ["size"]),
        helper.make_node("ConstantOfShape", ["size"], ["many"]),
        helper.make_node("ReduceSum", ["many"], ["total"], keepdims=0),
        helper.make_node("Add", ["x", "total"], ["more"]),
        helper.make_node("Add", ["more", "z"], ["s"]),
        initializers=[constant("one_number", np.array([1], np.int64))],
    )


async def test_a_callers_promise_stands_behind_the_rows_of_all_workers(
    embedded_broker: TestBroker, registry: StandInRegistry, tmp_path: Path
) -> None:
    async with a_server(
        embedded_broker, registry, tmp_path, workers=2, watermark_mode="explicit"
    ) as running:
        answered: set[Place] = set()
        marks = (10, 20, 30)
        async with Client(running.address) as client:
            await first_promise(client, embedded_broker.address, 1)
        for mark in marks:
            # One connection after the other, so that each worker gets some.
            for _ in range(10):
                answer = await timed(running.address, mark - 1)
                answered.add(parse_prediction_id(answer.prediction_ids[0]))
            async with Client(running.address) as client:
                await client.advance_watermark(mark)
        told = await serving(running)
        assert all(each.row_count for each in told.workers), "both had requests"
        for topic in (PREDICTIONS, OUTCOMES):
            partitions = await read_until_marked(embedded_broker.address, topic, marks)
            found = [each for own in partitions.values() for each in own]
            sources = {each.watermark.source_id for _, each in found if not each.row_count}
            assert sources == {"inference-0"}
            if topic is PREDICTIONS:
                # All of them stand before the last promise.
                assert answered <= places(found)


async def timed(address: str, event_time_us: int) -> Any:
    times = np.array([event_time_us])
    return await asked_apart(
        address, infer_request(MODEL, columns([1.0], ["red"]), event_times_us=times)
    )


async def places_of_every_worker(running: RunningInference) -> list[Place]:
    """Asks, one connection after the other, until every worker has answered."""
    answered: list[Place] = []

    async def have_all_answered() -> bool:
        for _ in range(5):
            answer = await ask(running.address, columns([1.0], ["red"]))
            answered.append(parse_prediction_id(answer.prediction_ids[0]))
        return all(each.row_count for each in (await serving(running)).workers)

    await eventually(have_all_answered, what="answers of every worker")
    return answered


async def test_with_fewer_workers_the_journals_of_the_others_are_sent_to_their_end(
    embedded_broker: TestBroker, registry: StandInRegistry, tmp_path: Path
) -> None:
    async with a_server(embedded_broker, registry, tmp_path, workers=3) as running:
        embedded_broker.kill()
        answered = await places_of_every_worker(running)
        await running.kill()
        running.environment["HOMEOSTAT_INFERENCE_WORKERS"] = "1"
        await running.restart()
        await asyncio.to_thread(embedded_broker.restart)
        await until_all_are_there(embedded_broker.address, answered)

        def has_promise(found: list[tuple[str, Any]]) -> bool:
            return any(not each.row_count for _, each in found)

        # The dead journals hold up no promise.
        await read_topic(embedded_broker.address, PREDICTIONS, has_promise)


def deadly() -> bytes:
    """Ends whoever loads it: a division that is worked out in advance."""
    return halves(
        helper.make_node("Div", ["smallest", "minus_one"], ["d"]),
        helper.make_node("Cast", ["d"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["x", "f"], ["g"]),
        helper.make_node("Add", ["g", "z"], ["s"]),
        initializers=[
            constant("smallest", np.array([SMALLEST], np.int64)),
            constant("minus_one", np.array([-1], np.int64)),
        ],
    )


@pytest.mark.parametrize("make", [deadly, endless])
async def test_a_version_that_can_not_be_loaded_leaves_the_one_before_it_serving_in_any_worker(
    make: Callable[[], bytes],
    embedded_broker: TestBroker,
    registry: StandInRegistry,
    tmp_path: Path,
) -> None:
    async with a_server(embedded_broker, registry, tmp_path) as running:
        await ask(running.address, columns([1.0], ["red"]))
        registry.add(2, make(), signature())
        registry.promote(2)

        async def is_given_up() -> bool:
            try:
                told = await serving(running)
            except grpc.aio.AioRpcError:
                return False
            return any("version 2" in each for each in told.degraded_reasons)

        await eventually(is_given_up, what="version 2 given up")
        told = await all_ready(running, 1)
        os.kill(told.workers[0].process_id, signal.SIGKILL)

        before = told.workers[0].process_id

        async def is_answered_by_another() -> bool:
            try:
                told = await serving(running)
                answer = await ask(running.address, columns([1.0], ["red"]))
            except grpc.aio.AioRpcError:
                return False
            return told.workers[0].process_id != before and answer.version == 1

        await eventually(is_answered_by_another, what="an answer of version 1")
        await running.kill()
        await running.restart()
        assert (await ask(running.address, columns([1.0], ["red"]))).version == 1
