"""A lost broker, two monitors, a damaged state: the same alerts, and nothing counted twice."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from tests.support.broker import TestBroker
from tests.support.monitor import (
    DAY_US,
    Stream,
    a_monitor,
    a_registry,
    a_stream,
    alert_events,
    between,
    days,
)
from tests.support.waiting import eventually

from homeostat.events.v1.alert_pb2 import Alert

PAST = days(20, first_day=70, seed=7)
CALM = days(3, first_day=100, seed=11)
TROUBLE = days(4, first_day=103, seed=12, shift=1.5, null_rate=0.3, loss_rate=0.5)


@pytest.fixture
def world(embedded_broker: TestBroker, postgres_url: str, tmp_path: Path) -> dict[str, Any]:
    return {"broker": embedded_broker.address, "database": postgres_url, "folder": tmp_path / "m"}


async def _events(world: dict[str, Any], alerts: Sequence[Alert]) -> dict[str, set[bytes]]:
    """By ce_id what was told under it: one content, however often."""
    least = sum(each.revision for each in alerts)
    told: dict[str, set[bytes]] = {}
    for ce_id, alert in await alert_events(world["broker"], least):
        told.setdefault(ce_id, set()).add(alert.SerializeToString(deterministic=True))
    return told


async def _play_all(stream: Stream) -> None:
    await stream.play(CALM)
    await stream.play(TROUBLE)


async def test_a_new_life_of_the_broker_counts_nothing_twice(
    world: dict[str, Any], embedded_broker: TestBroker
) -> None:
    async with (
        a_registry(PAST) as registry,
        a_stream(world["broker"]) as stream,
        a_monitor(registry=registry.address, **world) as monitor,
    ):
        await stream.play(CALM)
        half = days(1, first_day=103, seed=21)
        await stream.predict(half)
        await monitor.until_judged(stream)
        before = await monitor.health()
        epoch = stream.bus.epoch
        embedded_broker.restart()
        await eventually(lambda: stream.bus.epoch not in ("", epoch), seconds=20)
        stream.produced.clear()
        # What the writers retain is sent again, also that of windows that are closed or open.
        await stream.play(CALM)
        await stream.predict(half)
        # The truth of the last calm hours too: without it predictions would lack theirs.
        await stream.learn(between(CALM, 102 * DAY_US, 104 * DAY_US, known=True))
        await stream.learn(half)
        await stream.mark(half.end_us)
        await monitor.until_judged(stream)
        after = await monitor.health()
        assert after.predictions == before.predictions == CALM.rows + half.rows
        # A day of panes of an hour.
        assert after.windows == before.windows + 24
        assert after.losses <= CALM.rows + half.rows
        assert await monitor.alerts() == []
        assert not any("late" in each for each in after.remarks)


async def test_two_monitors_on_one_database_tell_everything_once(world: dict[str, Any]) -> None:
    second = {**world, "folder": world["folder"].parent / "m2", "instance": "monitor-1"}
    async with (
        a_registry(PAST) as registry,
        a_stream(world["broker"]) as stream,
        a_monitor(registry=registry.address, **world) as monitor,
        a_monitor(registry=registry.address, **second) as other,
    ):
        await _play_all(stream)
        await monitor.until_judged(stream)
        await other.until_judged(stream)
        health = await monitor.health()
        assert health.predictions == CALM.rows + TROUBLE.rows
        alerts = await other.alerts()
        assert len(alerts) >= 3
        told = await _events(world, alerts)
        assert len(told) == sum(each.revision for each in alerts)


async def test_a_detector_state_that_was_tampered_with_is_rebuilt_and_said_so(
    world: dict[str, Any],
) -> None:
    async with (
        a_registry(PAST) as registry,
        a_stream(world["broker"]) as stream,
        a_monitor(registry=registry.address, **world) as monitor,
    ):
        await stream.play(CALM)
        await monitor.until_judged(stream)
        connection = await asyncpg.connect(world["database"])
        await connection.execute(
            "UPDATE detector_state SET state = set_byte(state, 9, get_byte(state, 9) # 1)"
        )
        await connection.close()
        # What is in hand needs no stored state.
        await monitor.kill()
        monitor.start()
        await stream.play(days(1, first_day=103, seed=31))
        await monitor.until_judged(stream)
        health = await monitor.health()
        assert any("rebuilt" in each for each in health.remarks)
        assert abs(health.reference_loss - 0.2) < 0.03
        assert await monitor.alerts() == []
