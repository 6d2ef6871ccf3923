"""Models that the registry can't find out, on the rows that make them do harm: one server per
transport serves all of them, one after the other does its worst, and the others go on."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import grpc
import numpy as np
import psutil
import pytest
import pytest_asyncio
from tests.hostile.runtime_models import RUNTIME_MODELS, TRIGGER, Effect, RuntimeModel
from tests.integration.inference.conftest import TRANSPORTS
from tests.support.inference import (
    MODEL,
    RunningInference,
    StandInRegistry,
    a_registry,
    an_inference,
    columns,
)
from tests.support.ports import free_port
from tests.support.waiting import PATIENCE_SECONDS, eventually

from homeostat.client import Client, infer_request

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(400)]
MIB = 1024 * 1024
WORKER_MIB = 400
DIED = {"UNAVAILABLE", "INTERNAL"}
# What may be answered to a request that does its worst.
ANSWERS: dict[Effect, set[str]] = {
    Effect.KILLS: DIED,
    Effect.ENDLESS: {"DEADLINE_EXCEEDED"},
    Effect.DEAF: {*DIED, "DEADLINE_EXCEEDED"},
    Effect.GREEDY: DIED,
    Effect.FAILS: {"INTERNAL"},
    # Whoever asked sees it, and the monitor counts it.
    Effect.NOT_FINITE: {"OK"},
    Effect.SHRINKS: {"INTERNAL"},
    # No server can tell wrong answers from right ones.
    Effect.MIXES: {"OK"},
}
BENIGN = (0.0, 1.0, 2.0)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=TRANSPORTS)
async def server(
    request: pytest.FixtureRequest, shared_broker: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningInference]:
    """With every harmful model, each the champion under its own name."""
    folder: Path = tmp_path_factory.mktemp("harmed")
    async with a_registry() as registry:
        add_them(registry, RUNTIME_MODELS)
        async with an_inference(
            port=free_port(),
            broker=shared_broker,
            registry=registry.address,
            folder=folder,
            transport=request.param,
            run_limit_seconds=1,
            worker_memory_bytes=WORKER_MIB * MIB,
        ) as running:
            yield running


def add_them(registry: StandInRegistry, models: Sequence[RuntimeModel]) -> None:
    for each in models:
        registry.add(1, each.build(), each.sign(), model_name=each.name)
        registry.promote(1, model_name=each.name)


async def asked(
    server: RunningInference,
    model: str,
    rows: dict[str, np.ndarray],
    seconds: float = PATIENCE_SECONDS,
) -> str:
    """The status, of a call on a connection of its own."""
    async with Client(server.address, timeout_seconds=seconds) as client:
        try:
            await client.infer(infer_request(model, rows))
        except grpc.aio.AioRpcError as error:
            code: str = error.code().name
            return code
    return "OK"


async def until_answered(server: RunningInference, model: str, rows: dict[str, np.ndarray]) -> None:
    async def is_answered() -> bool:
        return await asked(server, model, rows) == "OK"

    await eventually(is_answered, what=f"an answer of {model}")


@pytest.mark.parametrize("model", RUNTIME_MODELS, ids=lambda each: each.name)
async def test_a_model_that_does_its_worst_harms_its_own_requests_alone(
    server: RunningInference, model: RuntimeModel
) -> None:
    keeper = server.process.pid
    await until_answered(server, model.name, model.columns(BENIGN))
    worst = model.columns([1.0, float(TRIGGER), 2.0])
    watching = asyncio.create_task(_watch_memory(server))
    assert await asked(server, model.name, worst) in ANSWERS[model.effect]
    await until_answered(server, MODEL, columns([1.0], ["red"]))
    await until_answered(server, model.name, model.columns(BENIGN))
    watching.cancel()
    await asyncio.wait([watching])
    assert watching.cancelled(), watching.exception()
    assert server.process.pid == keeper
    assert server.process.poll() is None


async def test_what_kills_again_and_again_is_held_back_and_the_rest_is_answered(
    server: RunningInference,
) -> None:
    killers = [each for each in RUNTIME_MODELS if each.effect is Effect.KILLS]
    for each in killers:
        worst = each.columns([float(TRIGGER)])

        async def is_held_back(name: str = each.name, rows: dict[str, np.ndarray] = worst) -> bool:
            return await asked(server, name, rows) == "FAILED_PRECONDITION"

        await eventually(is_held_back, what=f"{each.name} held back")
        await until_answered(server, MODEL, columns([1.0], ["red"]))


async def _watch_memory(server: RunningInference) -> None:
    """Looks all the time that no process takes much more than it may."""
    while True:
        for each in psutil.Process(server.process.pid).children(recursive=True):
            try:
                assert each.memory_info().rss < 4 * WORKER_MIB * MIB
            except psutil.NoSuchProcess:
                continue
        await asyncio.sleep(0.02)
