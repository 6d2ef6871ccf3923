"""Inference beside a real registry: what is registered and promoted there is what serves here."""

from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from tests.integration.inference.test_faults import Load, until_all_are_there
from tests.integration.registry.harness import Registry, RegistryProcess, header
from tests.support.broker import TestBroker
from tests.support.inference import (
    MODEL,
    a_model,
    a_signature,
    an_inference,
    columns,
    expected_probability,
    read_topic,
)
from tests.support.ports import free_port
from tests.support.waiting import eventually

from homeostat.client import Client, infer_request
from homeostat.registry.v1 import registry_pb2 as pb
from homeostat.topics import ACTIVATIONS


@pytest.fixture
async def real_registry(
    embedded_broker: TestBroker, postgres_url: str, tmp_path: Path
) -> AsyncIterator[Registry]:
    """The service, on a database of its own."""
    folder = tmp_path / "registry"
    folder.mkdir()
    process = RegistryProcess(embedded_broker.address, postgres_url, folder)
    process.start()
    registry = Registry(process)
    await registry.wait_ready()
    yield registry
    await registry.channel.close()
    process.kill()


async def promoted(registry: Registry, weight: float) -> int:
    """Registers a version and makes it champion; its number."""
    content = a_model(weight)
    said = header(MODEL, content, signature=a_signature())
    version = (await registry.register(said, content)).version
    if version.stage != pb.STAGE_CHAMPION:
        request = pb.PromoteVersionRequest(
            model_name=MODEL,
            version=version.version,
            etag=(await registry.model(MODEL)).etag,
            actor="bob",
            reason="test",
        )
        await registry.api.PromoteVersion(request, timeout=10)
    return int(version.version)


async def test_what_the_registry_promotes_serves_within_moments_and_no_request_fails(
    real_registry: Registry, embedded_broker: TestBroker, tmp_path: Path
) -> None:
    await real_registry.a_model(MODEL)
    first = await promoted(real_registry, 1.0)
    async with an_inference(
        port=free_port(),
        broker=embedded_broker.address,
        registry=f"127.0.0.1:{real_registry.of.port}",
        folder=tmp_path / "inference",
        # The topic alone must bring the news.
        snapshot_interval_seconds=60,
    ) as running:
        load = Load(running.address)
        async with load.running(clients=4):
            await load.until(50)
            second = await promoted(real_registry, 2.0)
            await eventually(lambda: load.versions[second] > 20)
        assert set(load.versions) == {first, second}
        assert not load.failures
        async with Client(running.address) as client:
            answer = await client.infer(infer_request(MODEL, columns([1.0], ["red"])))
            old = await client.infer(infer_request(MODEL, columns([1.0], ["red"]), version=first))
        for one, weight in ((answer, 2.0), (old, 1.0)):
            got = one.outputs["probabilities"][0, 1]
            assert np.isclose(got, expected_probability(1.0, "red", weight))
        await until_all_are_there(embedded_broker.address, load.answered)
        found = await read_topic(
            embedded_broker.address, ACTIVATIONS, lambda found: len(dict(found)) >= 2
        )
        assert [each.version for each in dict(found).values()] == [first, second]

        async def has_applied() -> bool:
            progress = await running.progress()
            return bool(progress.applied) and not progress.open_work_count

        await eventually(has_applied)
