"""One registry, ledger and retrainer for a file of tests; each test has a model of its own."""

import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.integration.retrainer.harness import ALL_TOPICS, Client, Service, Services
from tests.support.broker import TestBroker

from homeostat_kit.kafka import Bus
from homeostat_local.broker import start_broker
from homeostat_local.database import create_service_database


@pytest.fixture(scope="module")
def services(
    postgres_admin_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Services]:
    """Running, on an embedded broker and databases of their own."""
    folder: Path = tmp_path_factory.mktemp("retrainer")
    (folder / "broker").mkdir()
    running_broker = start_broker(folder / "broker")
    broker = TestBroker(running_broker.address, "embedded", folder / "broker", running_broker)

    def service(name: str, **settings: str) -> Service:
        database = f"{name}_{uuid.uuid4().hex[:8]}"
        url = create_service_database(postgres_admin_url, database, "test")
        shared = {"KAFKA_BOOTSTRAP_SERVERS": broker.address, "DATABASE_URL": url}
        return Service(name, {**shared, **settings}, folder)

    registry, ledger = service("registry"), service("ledger")
    retrainer = service(
        "retrainer", REGISTRY_ADDRESS=registry.address, LEDGER_ADDRESS=ledger.address
    )
    running = Services(broker, registry, ledger, retrainer)
    for each in running:
        each.start()
    yield running
    for each in running:
        each.kill()
    broker.stop()


@pytest.fixture
async def client(
    services: Services, tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[Client]:
    """A model of this test's own; the services run."""
    for each in services:
        if each.process is None or each.process.poll() is not None:
            each.start()
    name = f"{request.node.originalname[:40]}-{uuid.uuid4().hex[:6]}"
    async with Bus(services.broker.address, client_id="test") as bus:
        await bus.ensure_topics(ALL_TOPICS)
        connected = Client(services, bus, tmp_path, name)
        await connected.wait_ready()
        yield connected
        await connected.close()
