"""One model whose judging always fails, on a real database: the others do not wait for it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from tests.support.memory_monitor import (
    DAY_US,
    SCHEMA,
    SUBJECT,
    a_block,
    a_version,
    rows_of,
    truths_of,
)
from tests.support.waiting import eventually

from homeostat.events.v1.column_pb2 import Watermark
from homeostat.monitor.v1.monitor_pb2 import GetModelHealthRequest
from homeostat.topics import JOINED, PREDICTIONS
from homeostat_kit import telemetry
from homeostat_kit.kafka import Batch, Received
from homeostat_kit.postgres import Pool, migrate, open_pool
from homeostat_monitor.api.health import HealthApi
from homeostat_monitor.app.judging import judge_model
from homeostat_monitor.domain.alerts.alert import Alert, Subject
from homeostat_monitor.faults import fault_of
from homeostat_monitor.intake.bus import Listener
from homeostat_monitor.loops import judging as judge_loop
from homeostat_monitor.loops.judging import JudgeLoop
from homeostat_monitor.metrics import Metrics
from homeostat_monitor.store.transaction import Reader, StoreTransaction
from homeostat_monitor.versions import RegistryAway, Watched

POISONED = Subject("poisoned", 1)


class Versions:
    """What the registry would say; of one model it says what nobody foresaw."""

    def __init__(self, *, fails: bool = False) -> None:
        self.fails = fails
        self._known = a_version(rows_of(90, 3))

    async def get(self, subject: Subject) -> Watched:
        if self.fails and subject == POISONED:
            raise ZeroDivisionError
        return Watched(replace(self._known, subject=subject), SCHEMA)

    def announced(self, subject: Subject) -> None: ...


@pytest.fixture
async def pool(postgres_url: str) -> AsyncIterator[Pool]:
    pool = await open_pool(postgres_url, max_size=8)
    await migrate(pool, "homeostat_monitor")
    async with pool.acquire() as connection:
        names = [SUBJECT.model_name, POISONED.model_name]
        await StoreTransaction(connection).add_models(names)
    yield pool
    await pool.close()


async def moved_day(pool: Pool) -> None:
    """The same day of moved rows of two models, with their truths, ready to be judged."""
    nothing, now = telemetry.setup("monitor", None), rows_of(100, seed=3)
    now.features["amount"] += 50
    listener = Listener(
        pool,
        None,  # type: ignore[arg-type]
        Versions(),  # type: ignore[arg-type]
        told=lambda: None,
        marked=lambda: None,
        runs_until_accepted=4,
        metrics=Metrics(nothing.meter),
        traces=nothing,
    )
    for topic, make in ((PREDICTIONS, a_block), (JOINED, truths_of)):
        messages: list[Any] = [make(now), make(now, 2)]
        messages[1].model_name = POISONED.model_name
        records: list[tuple[Received, Any]] = [
            (Received(topic.name, 0, at, None, each.SerializeToString(), {}), each)
            for at, each in enumerate(messages)
        ]
        place = (topic.name, 0)
        batch = Batch("one", records, [], {place: 0}, {place: len(messages)})
        await (listener.on_predictions if topic is PREDICTIONS else listener.on_joined)(batch)
    async with pool.acquire() as connection, connection.transaction():
        tx = StoreTransaction(connection)
        for topic in (PREDICTIONS, JOINED):
            marks, _ = await tx.watermarks(topic.name, "one")
            for number in range(topic.partitions):
                source = Watermark(source_id="s", watermark_us=101 * DAY_US)
                marks.observe(topic, number, source)
            await tx.save_watermarks(topic.name, "one", marks, 101 * DAY_US, [101 * DAY_US])


@asynccontextmanager
async def judging(
    pool: Pool, versions: Versions, instance: str = "one"
) -> AsyncIterator[JudgeLoop]:
    nothing, stop = telemetry.setup("monitor", None), asyncio.Event()
    loop = JudgeLoop(
        pool,
        versions,  # type: ignore[arg-type]
        instance=instance,
        lease_seconds=600.0,
        told=lambda: None,
        spans=list,
        metrics=Metrics(nothing.meter),
        traces=nothing,
    )
    task = asyncio.create_task(loop.run(stop))
    try:
        yield loop
    finally:
        stop.set()
        await task


async def judged(pool: Pool, subject: Subject) -> list[Alert]:
    """The alerts of a version; none before it was judged."""
    return sorted(
        await Reader(pool).list_alerts(subject.model_name, open_only=False),
        key=lambda each: (each.rule, each.segment),
    )


def nameless(alert: Alert) -> Alert:
    """Without what is different for two models that see the same."""
    return replace(alert, alert_id="", subject=SUBJECT, witnesses=(), summary="")


class _Health(HealthApi):
    def __init__(self, pool: Pool) -> None:
        self._pool, self._reader = pool, Reader(pool)
        self._versions = _Away()  # type: ignore[assignment]


class _Away:
    async def newest(self, subject: Subject) -> Watched:
        raise RegistryAway("it is away")


async def remarks(pool: Pool, subject: Subject) -> list[str]:
    request = GetModelHealthRequest(model_name=subject.model_name)
    return list((await _Health(pool).GetModelHealth(request, None)).remarks)  # type: ignore[arg-type]


async def test_one_poisoned_model_stops_no_other_and_is_judged_exactly_once_the_cause_is_gone(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    await moved_day(pool)
    is_poisoned, told = True, []

    async def judge(name: str, *args: Any, **others: Any) -> Any:
        done = await judge_model(name, *args, **others)
        if is_poisoned and name == POISONED.model_name:
            raise IndexError("with everything done but the commit")
        return done

    async def tell(well: bool) -> None:
        told.append(well)

    monkeypatch.setattr(judge_loop, "judge_model", judge)
    async with judging(pool, Versions()) as loop:
        await loop.tells(tell)
        await eventually(lambda: False in told, seconds=20)
        healthy = await eventually(lambda: judged(pool, SUBJECT))
        assert await judged(pool, POISONED) == []
        fault = await fault_of(pool, POISONED.model_name)
        assert fault is not None
        assert fault.error == "IndexError"
        assert any("judging fails with IndexError" in e for e in await remarks(pool, POISONED))
        assert not any("judging fails" in each for each in await remarks(pool, SUBJECT))
        is_poisoned = False
        await eventually(lambda: told[-1], seconds=20)
        mended = await judged(pool, POISONED)
    assert await fault_of(pool, POISONED.model_name) is None
    assert healthy
    assert list(map(nameless, mended)) == list(map(nameless, healthy))


async def test_a_model_that_fails_here_is_judged_by_another_instance_that_can(pool: Pool) -> None:
    """Its lease is given back at once, long before it would end by itself."""
    await moved_day(pool)
    async with judging(pool, Versions(fails=True)) as loop:
        await eventually(lambda: fault_of(pool, POISONED.model_name))
        async with judging(pool, Versions(), "two"):
            await eventually(lambda: judged(pool, POISONED))
        # What the other has done this one learns from the database.
        await loop._tidy()
    assert await fault_of(pool, POISONED.model_name) is None
