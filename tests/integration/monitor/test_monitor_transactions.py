"""What is committed together: effect and offsets, judging with its states and what it tells."""

from collections.abc import AsyncIterator
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

from homeostat.events.v1.column_pb2 import Watermark
from homeostat.topics import JOINED, PREDICTIONS, Topic
from homeostat_kit import telemetry
from homeostat_kit.kafka import Batch, Received
from homeostat_kit.lease import LeaseLost, Leases
from homeostat_kit.offsets import read_offsets
from homeostat_kit.postgres import Pool, migrate, open_pool
from homeostat_monitor.domain.alerts.alert import Subject
from homeostat_monitor.intake.bus import Listener
from homeostat_monitor.loops.judging import JudgeLoop
from homeostat_monitor.metrics import Metrics
from homeostat_monitor.store.transaction import StoreTransaction
from homeostat_monitor.versions import Watched

EPOCH = "one"
PLACE = (PREDICTIONS.name, 0)


class OneVersion:
    """What the registry would say, without one."""

    def __init__(self) -> None:
        self.watched = Watched(a_version(rows_of(90, 3)), SCHEMA)

    async def get(self, subject: Subject) -> Watched:
        assert subject == SUBJECT
        return self.watched

    def announced(self, subject: Subject) -> None: ...


@pytest.fixture
async def pool(postgres_url: str) -> AsyncIterator[Pool]:
    pool = await open_pool(postgres_url, max_size=6)
    await migrate(pool, "homeostat_monitor")
    async with pool.acquire() as connection:
        await StoreTransaction(connection).add_models([SUBJECT.model_name])
    yield pool
    await pool.close()


def a_listener(pool: Pool) -> Listener:
    nothing = telemetry.setup("monitor", None)
    return Listener(
        pool,
        None,  # type: ignore[arg-type]
        OneVersion(),  # type: ignore[arg-type]
        told=lambda: None,
        marked=lambda: None,
        runs_until_accepted=4,
        metrics=Metrics(nothing.meter),
        traces=nothing,
    )


def a_judge(pool: Pool, instance: str) -> JudgeLoop:
    nothing = telemetry.setup("monitor", None)
    return JudgeLoop(
        pool,
        OneVersion(),  # type: ignore[arg-type]
        instance=instance,
        lease_seconds=60.0,
        told=lambda: None,
        spans=list,
        metrics=Metrics(nothing.meter),
        traces=nothing,
    )


def a_poll(topic: Topic, messages: list[Any], begin: int = 0) -> Batch:
    records = [
        (Received(topic.name, 0, begin + at, None, each.SerializeToString(), {}), each)
        for at, each in enumerate(messages)
    ]
    place = (topic.name, 0)
    return Batch(EPOCH, records, [], {place: begin}, {place: begin + len(messages)})


async def mark(pool: Pool, day: float) -> None:
    """Nothing earlier comes on any partition of either topic."""
    async with pool.acquire() as connection, connection.transaction():
        tx = StoreTransaction(connection)
        for topic in (PREDICTIONS, JOINED):
            at_us = int(day * DAY_US)
            marks, _ = await tx.watermarks(topic.name, EPOCH)
            for number in range(topic.partitions):
                marks.observe(topic, number, Watermark(source_id="s", watermark_us=at_us))
            await tx.save_watermarks(topic.name, EPOCH, marks, at_us, [at_us])


async def moved(pool: Pool) -> None:
    """A day of moved rows with their truths, ready to be judged."""
    listener, now = a_listener(pool), rows_of(100, seed=3)
    now.features["amount"] += 50
    await listener.on_predictions(a_poll(PREDICTIONS, [a_block(now)]))
    await listener.on_joined(a_poll(JOINED, [truths_of(now)]))
    await mark(pool, 101)


async def counted(pool: Pool) -> dict[str, int]:
    names = ("alert", "outbox", "detector_state", "closed_window", "window_sum", "loss_block")
    return {name: await pool.fetchval(f"SELECT count(*) FROM {name}") for name in names}


async def test_rows_and_offsets_are_taken_in_together_or_not_at_all(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener, poll = a_listener(pool), a_poll(PREDICTIONS, [a_block(rows_of(100, seed=3))])

    async def fail(*_: Any) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        # The last thing that taking in does.
        patched.setattr(StoreTransaction, "add_sums", fail)
        with pytest.raises(ZeroDivisionError):
            await listener.on_predictions(poll)
    assert await read_offsets(pool, EPOCH) == {}
    assert await pool.fetchval("SELECT count(*) FROM heard_event") == 0
    await listener.on_predictions(poll)
    assert await read_offsets(pool, EPOCH) == {PLACE: 1}
    assert await pool.fetchval("SELECT sum(total) FROM tally WHERE name = 'predictions'") == 600


async def test_judging_that_fails_in_its_last_step_leaves_nothing_and_is_done_again_whole(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    await moved(pool)
    before = await counted(pool)
    judge = a_judge(pool, "monitor-0")
    (lease,) = await Leases(pool, "monitor-0", 60.0).take([f"judge:{SUBJECT.model_name}"])
    tell = StoreTransaction.tell

    async def tell_and_fail(self: StoreTransaction, alerts: Any) -> None:
        await tell(self, alerts)
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr(StoreTransaction, "tell", tell_and_fail)
        with pytest.raises(ZeroDivisionError):
            await judge._judge(SUBJECT.model_name, lease)
    assert await counted(pool) == before
    # Detectors that were fed for nothing are not in hand any more.
    judged = await judge._judge(SUBJECT.model_name, lease)
    after = await counted(pool)
    assert judged.windows == after["closed_window"] == 24
    assert after["outbox"] == len(judged.alerts) == after["alert"] > 0
    assert after["detector_state"] >= 5


async def test_who_lost_the_lease_commits_nothing(pool: Pool) -> None:
    await moved(pool)
    before = await counted(pool)
    judge, name = a_judge(pool, "monitor-0"), f"judge:{SUBJECT.model_name}"
    (lease,) = await Leases(pool, "monitor-0", 60.0).take([name])
    await pool.execute("UPDATE lease SET expires_at = now()")
    assert await Leases(pool, "monitor-1", 60.0).take([name])
    with pytest.raises(LeaseLost):
        await judge._judge(SUBJECT.model_name, lease)
    assert await counted(pool) == before
