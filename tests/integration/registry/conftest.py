"""One registry process for all tests that leave it as it was; each test has models of its own."""

import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.integration.registry.harness import Registry, RegistryProcess
from tests.support.broker import TestBroker

from homeostat_local.broker import start_broker
from homeostat_local.database import create_service_database


@pytest.fixture(scope="package")
def registry_process(
    postgres_admin_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RegistryProcess]:
    """Running, on an embedded broker and a database of its own."""
    folder: Path = tmp_path_factory.mktemp("registry")
    (folder / "broker").mkdir()
    running = start_broker(folder / "broker")
    url = create_service_database(postgres_admin_url, f"registry_{uuid.uuid4().hex[:8]}", "test")
    under_test = RegistryProcess(running.address, url, folder)
    under_test.start()
    yield under_test
    under_test.kill()
    running.process.kill()
    running.process.wait()


@pytest.fixture
async def registry(registry_process: RegistryProcess) -> AsyncIterator[Registry]:
    """A connection to it."""
    connected = Registry(registry_process)
    await connected.wait_ready()
    yield connected
    await connected.channel.close()


@pytest.fixture
async def mortal(
    request: pytest.FixtureRequest, embedded_broker: TestBroker, postgres_url: str, tmp_path: Path
) -> AsyncIterator[Registry]:
    """A registry of this test's own, which it may kill; its parameter is further settings."""
    folder = tmp_path / "registry"
    folder.mkdir()
    settings = getattr(request, "param", {})
    under_test = RegistryProcess(embedded_broker.address, postgres_url, folder, settings)
    under_test.start()
    connected = Registry(under_test)
    await connected.wait_ready()
    yield connected
    await connected.channel.close()
    under_test.kill()


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A model's name that no other test uses."""
    return f"{request.node.originalname[:60]}-{uuid.uuid4().hex[:6]}"
