"""A real ledger beside a real monitor: an alert is told once more, with the rows looked at."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.integration.ledger.harness import LedgerUnderTest, a_ledger
from tests.support.broker import TestBroker
from tests.support.monitor import (
    DAY_US,
    Days,
    RunningMonitor,
    a_monitor,
    a_registry,
    alert_events,
    blocks,
    days,
)
from tests.support.waiting import eventually

from homeostat.columns import pack
from homeostat.events.v1 import alert_pb2 as pb
from homeostat.events.v1.outcome_block_pb2 import OutcomeBlock
from homeostat.events.v1.prediction_block_pb2 import PredictionBlock
from homeostat.ids import pack_prediction_id
from homeostat_local.database import create_service_database

PAST = days(20, first_day=70, seed=7)
AIRPORTS = np.array(["EWR", "JFK", "LGA"], dtype=object)


def planted(what: Days, where: np.ndarray) -> Days:
    """Nearly every decision is wrong there."""
    rng = np.random.default_rng(99)
    return replace(what, losses=np.where(where, rng.random(what.rows) < 0.95, what.losses))


def origins(what: Days) -> np.ndarray:
    """A context that no input tells."""
    return AIRPORTS[np.random.default_rng(what.first_day).integers(0, 3, what.rows)]


def spoken(what: Days) -> tuple[list[PredictionBlock], list[tuple[int, bytes, float]]]:
    """Predictions with their context, and (known at, prediction id, truth) of each row."""
    said = blocks(what)
    origin, at = origins(what), 0
    truths = []
    for block in said:
        rows = slice(at, at + block.row_count)
        block.contexts.append(pack("origin", origin[rows]))
        for row in range(block.row_count):
            prediction_id = pack_prediction_id(block.block_id, row)
            truths.append((int(what.known_at[at + row]), prediction_id, what.losses[at + row]))
        at += block.row_count
    return said, truths


async def play(ledger: LedgerUnderTest, what: Sequence[Days]) -> None:
    """Midnight by midnight, as inference would say it; the ledger joins."""
    said, truths = zip(*map(spoken, what), strict=True)
    predictions = [block for part in said for block in part]
    known = sorted(each for part in truths for each in part)
    for number in range(what[0].first_day, what[-1].end_us // DAY_US):
        start, end = number * DAY_US, (number + 1) * DAY_US
        first = {id(block): np.frombuffer(block.event_times_us, "<i8")[0] for block in predictions}
        await ledger.say(*(each for each in predictions if start <= first[id(each)] < end))
        now = [each for each in known if start <= each[0] < end]
        if now:
            await ledger.say(outcome(number, now))
        await ledger.mark(end)


def outcome(number: int, rows: Sequence[tuple[int, bytes, float]]) -> OutcomeBlock:
    return OutcomeBlock(
        model_name="delays",
        block_id=number.to_bytes(16, "big"),
        row_count=len(rows),
        prediction_ids=b"".join(prediction_id for _, prediction_id, _ in rows),
        truths=np.array([truth for *_, truth in rows], dtype="<f8").tobytes(),
        known_at_us=np.array([known_at for known_at, *_ in rows], dtype="<i8").tobytes(),
        source="tests",
    )


@asynccontextmanager
async def a_world(
    broker: TestBroker, urls: tuple[str, str], folder: Path, **settings: object
) -> AsyncIterator[tuple[LedgerUnderTest, RunningMonitor]]:
    """The ledger is not started yet."""
    async with (
        a_registry(PAST) as registry,
        a_ledger(broker, urls[0], folder / "ledger") as ledger,
        a_monitor(
            broker=broker.address,
            database=urls[1],
            registry=registry.address,
            folder=folder / "monitor",
            ledger_address=f"127.0.0.1:{ledger.port}",
            **settings,
        ) as monitor,
    ):
        yield ledger, monitor


@pytest.fixture
def urls(postgres_admin_url: str, postgres_url: str) -> tuple[str, str]:
    name = postgres_url.rpartition("/")[2].partition("?")[0]
    return create_service_database(postgres_admin_url, f"{name}_l", "test"), postgres_url


async def told(monitor: RunningMonitor, state: int, seconds: float = 40.0) -> pb.Alert:
    """The performance alert, once it is in that state."""
    found: list[pb.Alert] = []

    async def is_told() -> bool:
        assert monitor.process.poll() is None, monitor.log()[-3000:]
        found[:] = [
            each
            for each in await monitor.alerts()
            if each.rule == pb.ALERT_RULE_PERFORMANCE and each.state == state
        ]
        return bool(found)

    await eventually(is_told, seconds=seconds, what=f"told; {monitor.log()[-3000:]}")
    return found[0]


def calm_and_broken(name: str) -> list[Days]:
    calm, after = days(3, first_day=100, seed=11), days(3, first_day=103, seed=12)
    inside = after.features["carrier"] == "BB" if name == "carrier" else origins(after) == "JFK"
    return [calm, planted(after, inside)]


async def test_the_segment_that_carries_the_loss_is_named_on_the_topic(
    embedded_broker: TestBroker, urls: tuple[str, str], tmp_path: Path
) -> None:
    async with a_world(embedded_broker, urls, tmp_path) as (ledger, monitor):
        await ledger.start()
        await monitor.until_serving()
        await play(ledger, calm_and_broken("carrier"))
        alert = await told(monitor, pb.ALERT_STATE_DIAGNOSED)
        assert alert.diagnosis.is_complete
        assert alert.diagnosis.segments[0].expression == 'carrier == "BB"'
        assert alert.diagnosis.segments[0].statistic == "loss"
        assert alert.diagnosis.segments[0].observed_value > 0.8
        assert any('carrier == "BB"' in each.text for each in alert.diagnosis.evidence)
        events = [event for _, event in await alert_events(embedded_broker.address, alert.revision)]
        own = [each for each in events if each.alert_id == alert.alert_id]
        assert [each.revision for each in own] == sorted({each.revision for each in own})
        diagnosed = [each for each in own if each.state == pb.ALERT_STATE_DIAGNOSED]
        assert [each.diagnosis.segments[0].expression for each in diagnosed] == ['carrier == "BB"']


async def test_a_column_that_was_left_out_is_named_once_the_ledger_is_there(
    embedded_broker: TestBroker, urls: tuple[str, str], tmp_path: Path
) -> None:
    async with a_world(embedded_broker, urls, tmp_path) as (ledger, monitor):
        await ledger.start()
        await monitor.until_serving()
        await play(ledger, calm_and_broken("origin"))
        alert = await told(monitor, pb.ALERT_STATE_DIAGNOSED)
        assert alert.diagnosis.segments[0].expression == 'context.origin == "JFK"'
        assert [each.context for each in alert.diagnosis.residuals] == ["context.origin"]
        assert any("Add the column origin" in each.text for each in alert.diagnosis.steps)


async def test_a_ledger_that_stays_away_is_given_up(
    embedded_broker: TestBroker, urls: tuple[str, str], tmp_path: Path
) -> None:
    async with a_world(embedded_broker, urls, tmp_path, deepening_give_up_seconds=1.0) as (
        ledger,
        monitor,
    ):
        await judge_without_ledger(ledger, monitor)
        alert = await told(monitor, pb.ALERT_STATE_DIAGNOSED)
        assert not alert.diagnosis.is_complete
        assert any("could not be read" in each.text for each in alert.diagnosis.evidence)


async def test_a_ledger_that_comes_back_is_asked_again_also_by_another_process(
    embedded_broker: TestBroker, urls: tuple[str, str], tmp_path: Path
) -> None:
    async with a_world(embedded_broker, urls, tmp_path) as (ledger, monitor):
        await judge_without_ledger(ledger, monitor)
        before = await told(monitor, pb.ALERT_STATE_OPENED)
        await monitor.kill()
        monitor.start()
        await ledger.start()
        await monitor.until_serving()
        # A process that was killed while it asked holds the alert for two minutes.
        alert = await told(monitor, pb.ALERT_STATE_DIAGNOSED, seconds=180.0)
        assert alert.alert_id == before.alert_id
        assert alert.revision == before.revision + 1
        assert alert.watermark_us == before.watermark_us
        assert alert.diagnosis.segments[0].expression == 'carrier == "BB"'


async def judge_without_ledger(ledger: LedgerUnderTest, monitor: RunningMonitor) -> None:
    """The ledger joins everything and is killed, and only then the monitor goes on."""
    await monitor.until_serving()
    await monitor.kill()
    await ledger.start()
    await play(ledger, calm_and_broken("carrier"))
    await ledger.settled()
    await ledger.kill()
    monitor.start()
    await monitor.until_serving()
