"""A monitor that is killed at any moment, or whose database or broker is away, tells exactly what
one tells that nobody disturbed: the same alerts, revisions and bytes."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from tests.support.broker import TestBroker
from tests.support.database import OwnDatabase
from tests.support.monitor import (
    RunningMonitor,
    Stream,
    a_monitor,
    a_registry,
    a_stream,
    alert_events,
    days,
)
from tests.support.waiting import eventually

from homeostat.events.v1.alert_pb2 import Alert
from homeostat_kit.postgres import migrate, open_pool
from homeostat_local.broker import start_broker
from homeostat_local.database import create_service_database

PAST = days(20, first_day=70, seed=7)
CALM = days(1, first_day=100, seed=11)
TROUBLE = days(2, first_day=101, seed=12, shift=1.5, null_rate=0.3, loss_rate=0.6)
WINDOWS = 24 * 3
AWAY_SECONDS = 5.0


@dataclass(slots=True)
class World:
    """A topic's whole story, and what is told of it when nobody disturbs."""

    broker: TestBroker
    produced: dict[tuple[str, int], int]
    alerts: list[bytes]
    # By ce_id, as often as there was a run.
    events: dict[str, bytes]


def as_bytes(message: Alert) -> bytes:
    return message.SerializeToString(deterministic=True)


async def told(broker: TestBroker, least: int) -> dict[str, bytes]:
    """Every event on the topic; one id always tells the same."""
    found: dict[str, bytes] = {}
    for ce_id, alert in await alert_events(broker.address, least):
        assert found.setdefault(ce_id, as_bytes(alert)) == as_bytes(alert)
    return found


async def undisturbed(broker: TestBroker, url: str, folder: Path) -> World:
    async with a_registry(PAST) as registry, a_stream(broker.address) as stream:
        for part in (CALM, TROUBLE):
            await stream.play(part, rows_a_block=100)
        where = {"broker": broker.address, "database": url, "folder": folder}
        async with a_monitor(registry=registry.address, **where) as monitor:
            await monitor.until_judged(stream)
            alerts = await monitor.alerts()
        events = await told(broker, sum(each.revision for each in alerts))
    assert len(alerts) >= 3
    return World(broker, dict(stream.produced), sorted(map(as_bytes, alerts)), events)


@pytest.fixture(scope="module")
def world(postgres_admin_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("outages")
    (folder / "broker").mkdir()
    running = start_broker(folder / "broker")
    broker = TestBroker(running.address, "embedded", folder / "broker", running)
    url = create_service_database(postgres_admin_url, f"outages_{running.address[-5:]}", "calm")
    yield asyncio.run(undisturbed(broker, url, folder / "calm"))
    broker.stop()


@dataclass(slots=True)
class Run:
    """Monitors that hear the whole story again, on a database of their own."""

    stream: Stream
    monitors: list[RunningMonitor]
    database: asyncpg.Connection

    async def count(self, query: str) -> int:
        """One number of the first monitor's database; 0 while there is no such table."""
        try:
            return int(await self.database.fetchval(query) or 0)
        except asyncpg.UndefinedTableError:
            return 0

    async def windows(self) -> int:
        return await self.count("SELECT sum(windows_judged) FROM version")

    async def until_windows(self, least: int) -> None:
        async def have_come() -> bool:
            return await self.windows() >= least

        await eventually(have_come, what=f"{least} windows judged")


@asynccontextmanager
async def a_run(
    world: World, url: str, folder: Path, *, monitors: int = 1, **settings: Any
) -> AsyncIterator[Run]:
    where = {"broker": world.broker.address, "database": url, **settings}
    async with AsyncExitStack() as stack:
        registry = await stack.enter_async_context(a_registry(PAST))
        stream = await stack.enter_async_context(a_stream(world.broker.address))
        stream.produced = dict(world.produced)
        where["registry"] = registry.address
        running = [
            await stack.enter_async_context(
                a_monitor(folder=folder / f"m{each}", instance=f"monitor-{each}", **where)
            )
            for each in range(monitors)
        ]
        database = await asyncpg.connect(url)
        stack.push_async_callback(database.close)
        yield Run(stream, running, database)


async def assert_same_story(world: World, run: Run, monitor: RunningMonitor) -> None:
    await monitor.until_judged(run.stream, seconds=60)
    assert sorted(map(as_bytes, await monitor.alerts())) == world.alerts
    health = await monitor.health()
    assert health.predictions == CALM.rows + TROUBLE.rows
    # Nothing was told under another id, and nothing else under the same.
    assert await told(world.broker, 2 * len(world.events)) == world.events


async def test_a_monitor_that_is_killed_at_random_moments_of_its_judging_tells_the_same(
    world: World, postgres_url: str, tmp_path: Path
) -> None:
    rng = random.Random(4)
    async with a_run(world, postgres_url, tmp_path, poll_records=2) as run:
        (monitor,) = run.monitors
        for _ in range(3):
            least = await run.windows() + rng.randrange(1, WINDOWS // 4)
            await run.until_windows(min(least, WINDOWS - 1))
            # Somewhere in what comes next.
            await asyncio.sleep(rng.random() * 0.05)
            await monitor.kill()
            monitor.start()
        await assert_same_story(world, run, monitor)


async def test_of_two_monitors_one_is_killed_in_the_middle_of_its_transaction(
    world: World, postgres_url: str, tmp_path: Path
) -> None:
    """It has judged windows and written alerts, and has neither told of them nor committed."""
    pool = await open_pool(postgres_url, max_size=1)
    await migrate(pool, "homeostat_monitor")
    await pool.close()
    async with a_run(world, postgres_url, tmp_path, monitors=2, lease_seconds=2.0) as run:
        # Whoever tells waits for his turn.
        await run.database.execute(
            "BEGIN; SELECT pg_advisory_xact_lock(hashtext('homeostat_outbox_order'))"
        )
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'advisory'"
        holding = "SELECT holder FROM lease WHERE name LIKE 'judge:%' AND expires_at > now()"

        async def waits() -> bool:
            return await run.count(waiting) > 0 and bool(await run.database.fetchval(holding))

        await eventually(waits, what="a judge that waits in its transaction")
        assert await run.count("SELECT count(*) FROM alert") == 0
        judge = int((await run.database.fetchval(holding))[-1])
        await run.monitors[judge].kill()
        await run.database.execute("ROLLBACK")
        await assert_same_story(world, run, run.monitors[1 - judge])


async def test_a_database_that_is_away_for_five_seconds_is_waited_for(
    world: World, tmp_path: Path
) -> None:
    database = OwnDatabase(tmp_path / "database", "monitor")
    try:
        async with a_run(world, database.url, tmp_path, poll_records=2) as run:
            (monitor,) = run.monitors
            await run.until_windows(10)
            database.kill()
            away = time.monotonic()
            await eventually(lambda: time.monotonic() - away > AWAY_SECONDS)
            assert monitor.process.poll() is None
            await database.start()
            await assert_same_story(world, run, monitor)
    finally:
        database.kill()


async def test_a_broker_that_answers_nothing_for_five_seconds_is_waited_for(
    world: World, postgres_url: str, tmp_path: Path
) -> None:
    async with a_run(world, postgres_url, tmp_path, poll_records=2) as run:
        (monitor,) = run.monitors
        await run.until_windows(10)
        world.broker.pause()
        try:
            away = time.monotonic()
            await eventually(lambda: time.monotonic() - away > AWAY_SECONDS)
            assert monitor.process.poll() is None
            assert (await monitor.health()).predictions > 0
        finally:
            world.broker.go_on()
        await assert_same_story(world, run, monitor)
