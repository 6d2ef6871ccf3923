"""A database that goes away and comes back."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from tests.integration.registry.harness import Registry, RegistryProcess, header, new_file
from tests.support.broker import TestBroker

from homeostat.registry.v1 import registry_pb2 as pb
from homeostat_local.database import RunningDatabase, create_service_database, start_database


@pytest.fixture
async def on_its_own_database(
    embedded_broker: TestBroker, tmp_path: Path
) -> AsyncIterator[tuple[Registry, RunningDatabase]]:
    """A registry, and the server that only it uses."""
    folder = tmp_path / "registry"
    folder.mkdir()
    database = start_database(tmp_path)
    url = create_service_database(database.admin_url, "registry", "test")
    process = RegistryProcess(embedded_broker.address, url, folder)
    process.start()
    connected = Registry(process)
    await connected.wait_ready()
    yield connected, database
    await connected.channel.close()
    process.kill()
    database.process.kill()
    database.process.wait()


async def test_calls_wait_for_a_database_that_was_killed_and_comes_back(
    on_its_own_database: tuple[Registry, RunningDatabase], name: str, tmp_path: Path
) -> None:
    registry, database = on_its_own_database
    await registry.a_model(name)
    await registry.push(name)
    port = int(database.admin_url.rpartition(":")[2].partition("/")[0])
    content = new_file()
    said = header(name, content, author="retrainer", run_id="run-1")
    said.evidence.CopyFrom(await registry.evidence(name, content))
    database.process.kill()
    database.process.wait()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await registry.api.GetModel(pb.GetModelRequest(model_name=name), timeout=0.5)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    call = asyncio.ensure_future(registry.register(said, content))
    again = await asyncio.to_thread(start_database, tmp_path, port)
    try:
        answer = await call
        assert answer.version.stage == pb.STAGE_CHAMPION
        assert [each.version for each in await registry.versions(name)] == [1, 2]
    finally:
        again.process.kill()
        again.process.wait()
