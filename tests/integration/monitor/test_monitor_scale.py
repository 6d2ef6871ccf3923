"""Many models on few monitors: parts of the topics, one owner per model, the same alerts always."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from tests.support.broker import TestBroker
from tests.support.monitor import (
    DAY_US,
    PREDICTIONS,
    Days,
    RunningMonitor,
    Stream,
    a_monitor,
    a_registry,
    a_stream,
    between,
    blocks,
    days,
    profile,
)
from tests.support.waiting import eventually

from homeostat.events.v1.alert_pb2 import Alert
from homeostat.monitor.v1.monitor_pb2 import ListAlertsRequest
from homeostat.monitor.v1.monitor_pb2_grpc import MonitorServiceStub

PAST = days(2, first_day=98, seed=7)
TROUBLE = days(3, first_day=100, seed=12, shift=1.5, null_rate=0.3, loss_rate=0.5)


@pytest.fixture
def world(embedded_broker: TestBroker, postgres_url: str, tmp_path: Path) -> dict[str, Any]:
    return {"broker": embedded_broker.address, "database": postgres_url, "folder": tmp_path / "m"}


def beside(world: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A second monitor in the same world."""
    return {**world, "folder": world["folder"].parent / "m2", "instance": "monitor-1", **changes}


async def all_alerts(monitor: RunningMonitor) -> list[Alert]:
    stub = MonitorServiceStub(monitor.channel)
    answer = await stub.ListAlerts(ListAlertsRequest(), timeout=10)
    return sorted(answer.alerts, key=lambda each: each.alert_id)


def as_bytes(alerts: list[Alert]) -> list[bytes]:
    return [each.SerializeToString(deterministic=True) for each in alerts]


async def predict_all(stream: Stream, what: Days, models: int) -> None:
    """The same rows for every model, each in blocks of its own."""
    for number in range(models):
        name = f"model-{number:04d}"
        made = blocks(what, salt=name, rows_a_block=600)
        for each in made:
            each.model_name = name
        await stream.send(PREDICTIONS, made)


async def statements(world: dict[str, Any]) -> int:
    connection = await asyncpg.connect(world["database"])
    try:
        return int(
            await connection.fetchval(
                "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
            )
        )
    finally:
        await connection.close()


@pytest.mark.slow
@pytest.mark.timeout(280)
async def test_a_thousand_models_are_judged_by_two_monitors_and_one_is_killed(
    world: dict[str, Any],
) -> None:
    models, settings = 1000, {"lease_seconds": 2.0, "poll_records": 500}
    async with a_registry(PAST) as registry, a_stream(world["broker"]) as stream:
        for number in range(models):
            registry.add(1, profile(PAST), model_name=f"model-{number:04d}")
        first = a_monitor(registry=registry.address, **world, **settings)
        second = a_monitor(registry=registry.address, **beside(world), **settings)
        async with first as one, second as other:
            await predict_all(stream, between(TROUBLE, 100 * DAY_US, 101 * DAY_US), models)
            await stream.mark(101 * DAY_US)
            # In the middle of it one of them is gone.
            await eventually(lambda: other.logged("alert"), seconds=120)
            await other.kill()
            await one.until_judged(stream, seconds=200)
            alerts = await all_alerts(one)
            # The same rows, so the same alerts for every model.
            told = {each.model_name: 0 for each in alerts}
            for each in alerts:
                told[each.model_name] += 1
            assert len(told) == models
            assert len(set(told.values())) == 1
            assert any("partitions_shared" in line for line in one.log().splitlines())
            # Marks at which nobody has anything due cost next to nothing.
            before = await statements(world)
            for minute in range(1, 21):
                await stream.mark(101 * DAY_US + minute * 60_000_000)
            await one.until_judged(stream)
            await asyncio.sleep(1.0)
            assert await statements(world) - before < models


@pytest.mark.timeout(120)
async def test_a_backlog_tells_what_live_traffic_told(
    world: dict[str, Any], postgres_admin_url: str
) -> None:
    """Once day by day as it comes, once partition by partition after all of it has come."""
    from homeostat_local.database import create_service_database  # noqa: PLC0415

    calm = days(3, first_day=97, seed=11)
    other = create_service_database(postgres_admin_url, f"{world['broker'][-5:]}_live", "live")
    async with a_registry(days(20, first_day=70, seed=7)) as registry:
        async with (
            a_stream(world["broker"]) as stream,
            a_monitor(registry=registry.address, **{**world, "database": other}) as monitor,
        ):
            for part in (calm, TROUBLE):
                for day in range(part.first_day, part.end_us // DAY_US):
                    one_day = between(part, day * DAY_US, (day + 1) * DAY_US)
                    await stream.play(replace(one_day, first_day=day))
                    await monitor.until_judged(stream)
            live = [
                each.SerializeToString(deterministic=True) for each in await all_alerts(monitor)
            ]
            produced = dict(stream.produced)
        backlog = beside(world, poll_records=3000)
        async with (
            a_stream(world["broker"]) as stream,
            a_monitor(registry=registry.address, **backlog) as monitor,
        ):
            stream.produced = produced
            await eventually(lambda: monitor.logged("monitor_serving"), seconds=20)
            await monitor.until_judged(stream)
            found = as_bytes(await all_alerts(monitor))
    assert len(live) >= 3
    assert found == live
