"""A running inference service, once per transport."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.broker import TestBroker
from tests.support.inference import RunningInference, StandInRegistry, a_registry, an_inference
from tests.support.ports import free_port

TRANSPORTS = ("native", "grpcio")


@pytest.fixture
async def registry() -> AsyncIterator[StandInRegistry]:
    """Version 1 of the test's model is champion."""
    async with a_registry() as serving:
        yield serving


@pytest.fixture(params=TRANSPORTS)
async def inference(
    request: pytest.FixtureRequest,
    embedded_broker: TestBroker,
    registry: StandInRegistry,
    tmp_path: Path,
) -> AsyncIterator[RunningInference]:
    """Ready, on either transport."""
    async with an_inference(
        port=free_port(),
        broker=embedded_broker.address,
        registry=registry.address,
        folder=tmp_path / "inference",
        transport=request.param,
        max_message_bytes=1_000_000,
    ) as running:
        yield running
