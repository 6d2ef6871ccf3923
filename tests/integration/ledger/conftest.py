"""A ledger of its own for each test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.integration.ledger.harness import LedgerUnderTest, stop_quietly
from tests.support.broker import TestBroker

from homeostat.topics import JOINED, OUTCOMES, PREDICTIONS
from homeostat_kit.kafka import Bus


@pytest.fixture
async def ledger(
    embedded_broker: TestBroker, postgres_url: str, tmp_path: Path
) -> AsyncIterator[LedgerUnderTest]:
    """Running, on an embedded broker and a real database."""
    bus = Bus(embedded_broker.address, client_id="test")
    await bus.ensure_topics((PREDICTIONS, OUTCOMES, JOINED))
    async with bus:
        under_test = LedgerUnderTest(embedded_broker, postgres_url, tmp_path / "ledger", bus)
        under_test.folder.mkdir()
        await under_test.start()
        yield under_test
        await stop_quietly(under_test)
