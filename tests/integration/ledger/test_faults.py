"""Killed processes, databases and lost brokers change nothing in what the ledger knows."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import grpc
import pytest
from tests.integration.ledger.harness import LedgerUnderTest, a_ledger
from tests.support.broker import TestBroker
from tests.support.database import OwnDatabase
from tests.support.ledger_events import START_US, a_block, outcomes
from tests.support.ports import free_port
from tests.support.waiting import eventually

LATER_US = START_US + 3_600_000_000
BLOCKS = 300


def traffic() -> list:  # type: ignore[type-arg]
    """Blocks of ten rows, and truth for each row by its client id."""
    said = []
    for number in range(BLOCKS):
        ids = [f"{number}-{row}" for row in range(10)]
        said.append(a_block(number, client_ids=ids))
        said.append(outcomes(number, [float(number % 2)] * 10, LATER_US + number, client_ids=ids))
    return said


async def assert_exact(ledger: LedgerUnderTest) -> None:
    counted = await ledger.statistics()
    assert (counted.blocks, counted.predictions) == (BLOCKS, BLOCKS * 10)
    assert (counted.outcomes_received, counted.predictions_joined) == (BLOCKS * 10, BLOCKS * 10)
    assert (counted.outcomes_repeated, counted.corrections, counted.outcomes_parked) == (0, 0, 0)
    _, rows = await ledger.cut(model_name="delays", known_at_most_us=LATER_US + BLOCKS)
    assert rows.num_rows == BLOCKS * 10


async def test_kill_9_in_mid_run_leaves_the_join_exact(stopped_ledger: LedgerUnderTest) -> None:
    ledger = stopped_ledger
    said = traffic()
    ledger.settings["POLL_RECORDS"] = "7"
    await ledger.say(*said)
    for share in (BLOCKS // 8, BLOCKS // 3):
        await ledger.start()

        async def has_some(share: int = share) -> bool:
            return (await ledger.statistics()).blocks > share

        await eventually(has_some, what=f"more than {share} blocks")
        await ledger.kill()
    stray = ledger.folder / "archive" / "zz" / "stray.parquet"
    stray.parent.mkdir(exist_ok=True)
    stray.write_bytes(b"of a transaction that never was")
    await ledger.start()
    await ledger.settled()
    await assert_exact(ledger)
    assert not stray.exists()


@pytest.fixture
async def on_its_own_database(
    embedded_broker: TestBroker, tmp_path: Path
) -> AsyncIterator[tuple[LedgerUnderTest, OwnDatabase]]:
    """A ledger that is not started yet."""
    database = OwnDatabase(tmp_path / "database", "ledger")
    async with a_ledger(embedded_broker, database.url, tmp_path / "ledger") as ledger:
        yield ledger, database
    database.kill()


async def test_a_database_killed_in_mid_run_leaves_the_join_exact(
    on_its_own_database: tuple[LedgerUnderTest, OwnDatabase],
) -> None:
    ledger, database = on_its_own_database
    ledger.settings["POLL_RECORDS"] = "7"
    await ledger.start()
    await ledger.say(*traffic())
    for share in (BLOCKS // 8, BLOCKS // 3):

        async def has_some(share: int = share) -> bool:
            return (await ledger.statistics()).blocks > share

        await eventually(has_some, what=f"more than {share} blocks")
        database.kill()
        asked = asyncio.ensure_future(ledger.statistics())
        await database.start()
        # Questions wait for the server as the stream does.
        assert (await asked).blocks > share
    await ledger.mark(LATER_US + BLOCKS)
    await ledger.settled()
    await assert_exact(ledger)
    # What was sent and could not be marked any more was sent again.
    told = {each.prediction_ids: each.truths for each in await ledger.joined()}
    assert sum(map(len, told.values())) == BLOCKS * 10 * 8


async def test_a_database_that_stays_away_is_answered_unavailable(
    on_its_own_database: tuple[LedgerUnderTest, OwnDatabase], monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, database = on_its_own_database
    await ledger.start_here()
    monkeypatch.setattr("homeostat_kit.postgres._AWAY_SECONDS", 0.2)
    database.kill()
    for question in (
        ledger.statistics,
        lambda: ledger.cut(model_name="delays", known_at_most_us=LATER_US),
        ledger.progress,
    ):
        refused = await eventually(lambda ask=question: _refused(ask))
        assert refused.code() == grpc.StatusCode.UNAVAILABLE
        assert refused.details() == "the ledger's database is away; try again"
    await database.start()
    await eventually(ledger.is_serving, what="the ledger answers again")


async def _refused(ask: Callable[[], Awaitable[object]]) -> grpc.aio.AioRpcError | None:
    """None while a session of the killed server still answers."""
    try:
        await ask()
    except grpc.aio.AioRpcError as refused:
        return refused
    return None


async def test_a_new_broker_with_everything_sent_again_changes_nothing(
    ledger: LedgerUnderTest,
) -> None:
    said = traffic()
    await ledger.say(*said)
    await ledger.mark(LATER_US + BLOCKS)
    await ledger.settled()
    before, epoch = await ledger.joined(), ledger.bus.epoch
    ledger.broker.restart()
    await eventually(lambda: ledger.bus.epoch != epoch, what="the new epoch is seen")
    ledger.sent.clear()
    await ledger.say(*said)
    await ledger.mark(LATER_US + BLOCKS)
    await ledger.settled()
    await assert_exact(ledger)
    again = await ledger.joined()
    key = lambda block: block.SerializeToString(deterministic=True)  # noqa: E731
    assert sorted(map(key, again)) == sorted(map(key, before))


async def test_a_newer_process_fences_the_older_one(ledger_process: LedgerUnderTest) -> None:
    ledger = ledger_process
    await ledger.say(a_block(1, client_ids=["a"]))
    await ledger.settled()
    older = ledger.process
    ledger.port = free_port()
    older_channel = ledger.channel
    await ledger.start()
    await ledger.say(a_block(2, client_ids=["b"]))
    await ledger.settled()
    assert older is not None
    await eventually(lambda: older.poll() is not None, what="the older process leaves")
    await older_channel.close()
    assert (await ledger.statistics()).blocks == 2
