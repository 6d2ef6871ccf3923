"""A running inference service: one per transport for a file's tests, or one of a test's own."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from tests.support.broker import TestBroker
from tests.support.inference import RunningInference, StandInRegistry, a_registry, an_inference
from tests.support.ports import free_port

from homeostat_local.broker import start_broker

TRANSPORTS = ("native", "grpcio")


@dataclass(frozen=True, slots=True)
class Shared:
    """What the tests of a file share."""

    inference: RunningInference
    registry: StandInRegistry
    broker: str


@pytest.fixture(scope="module")
def shared_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An embedded broker that nobody kills."""
    running = start_broker(tmp_path_factory.mktemp("broker"))
    yield running.address
    running.process.kill()
    running.process.wait()


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=TRANSPORTS)
async def shared(
    request: pytest.FixtureRequest, shared_broker: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Shared]:
    """Ready, on either transport."""
    async with (
        a_registry() as registry,
        an_inference(
            port=free_port(),
            broker=shared_broker,
            registry=registry.address,
            folder=tmp_path_factory.mktemp("inference"),
            transport=request.param,
            max_message_bytes=1_000_000,
        ) as running,
    ):
        yield Shared(running, registry, shared_broker)


@pytest.fixture
def inference(shared: Shared) -> RunningInference:
    """Ready, shared by the tests of a file; none may stop it."""
    return shared.inference


@pytest.fixture
async def registry() -> AsyncIterator[StandInRegistry]:
    """Version 1 of the test's model is champion."""
    async with a_registry() as serving:
        yield serving


@pytest.fixture(params=TRANSPORTS)
async def on_each_transport(
    request: pytest.FixtureRequest,
    embedded_broker: TestBroker,
    registry: StandInRegistry,
    tmp_path: Path,
) -> AsyncIterator[RunningInference]:
    """Ready, on either transport, for one test alone."""
    async with an_inference(
        port=free_port(),
        broker=embedded_broker.address,
        registry=registry.address,
        folder=tmp_path / "inference",
        transport=request.param,
    ) as running:
        yield running
