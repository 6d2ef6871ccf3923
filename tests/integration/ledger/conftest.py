"""A ledger of its own for each test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.integration.ledger.harness import LedgerUnderTest, a_ledger
from tests.support.broker import TestBroker


@pytest.fixture
async def stopped_ledger(
    embedded_broker: TestBroker, postgres_url: str, tmp_path: Path
) -> AsyncIterator[LedgerUnderTest]:
    """An embedded broker and a real database; the ledger is not started yet."""
    async with a_ledger(embedded_broker, postgres_url, tmp_path / "ledger") as under_test:
        yield under_test


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
