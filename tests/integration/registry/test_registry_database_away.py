"""A database that goes away and comes back."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from tests.integration.registry.harness import Registry, RegistryProcess, header, new_file
from tests.support.broker import TestBroker
from tests.support.database import OwnDatabase
from tests.support.waiting import eventually

from homeostat.registry.v1 import registry_pb2 as pb


@pytest.fixture
async def on_its_own_database(
    embedded_broker: TestBroker, tmp_path: Path
) -> AsyncIterator[tuple[Registry, OwnDatabase]]:
    """A registry, and the server that only it uses."""
    folder = tmp_path / "registry"
    folder.mkdir()
    database = OwnDatabase(tmp_path / "database", "registry")
    process = RegistryProcess(embedded_broker.address, database.url, folder)
    process.start()
    connected = Registry(process)
    await connected.wait_ready()
    yield connected, database
    await connected.channel.close()
    process.kill()
    database.kill()


async def test_calls_wait_for_a_database_that_was_killed_and_comes_back(
    on_its_own_database: tuple[Registry, OwnDatabase], name: str
) -> None:
    registry, database = on_its_own_database
    await registry.a_model(name)
    await registry.push(name)
    content = new_file()
    said = header(name, content, author="retrainer", run_id="run-1")
    said.evidence.CopyFrom(await registry.evidence(name, content))
    database.kill()

    async def waits() -> bool:
        """No while a session of the killed server still answers."""
        try:
            await registry.api.GetModel(pb.GetModelRequest(model_name=name), timeout=0.5)
        except grpc.aio.AioRpcError as error:
            assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
            return True
        return False

    await eventually(waits, what="calls wait")
    call = asyncio.ensure_future(registry.register(said, content))
    await database.start()
    assert (await call).version.stage == pb.STAGE_CHAMPION
    assert [each.version for each in await registry.versions(name)] == [1, 2]
