"""A ledger of its own for each test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.integration.ledger.harness import LedgerUnderTest, stop_quietly
from tests.support.broker import TestBroker

from homeostat.topics import JOINED, OUTCOMES, PREDICTIONS
from homeostat_kit.kafka import Bus


@pytest.fixture
async def stopped_ledger(
    embedded_broker: TestBroker, postgres_url: str, tmp_path: Path
) -> AsyncIterator[LedgerUnderTest]:
    """An embedded broker and a real database; the ledger is not started yet."""
    bus = Bus(embedded_broker.address, client_id="test")
    await bus.ensure_topics((PREDICTIONS, OUTCOMES, JOINED))
    async with bus:
        under_test = LedgerUnderTest(embedded_broker, postgres_url, tmp_path / "ledger", bus)
        under_test.folder.mkdir()
        yield under_test
        await stop_quietly(under_test)


@pytest.fixture
async def ledger(stopped_ledger: LedgerUnderTest) -> LedgerUnderTest:
    """The whole service, in this process."""
    await stopped_ledger.start_here()
    return stopped_ledger


@pytest.fixture
async def ledger_process(stopped_ledger: LedgerUnderTest) -> LedgerUnderTest:
    """The whole service as a process of its own."""
    await stopped_ledger.start()
    return stopped_ledger
