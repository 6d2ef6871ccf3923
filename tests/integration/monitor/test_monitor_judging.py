"""Judging on a real database, without a broker: what must not depend on polls, lives and bugs."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import asyncpg
import numpy as np
import pytest

from homeostat.events.v1.column_pb2 import Watermark
from homeostat.events.v1.prediction_block_pb2 import PredictionBlock
from homeostat.monitor.v1.monitor_pb2 import GetModelHealthResponse
from homeostat.topics import JOINED, PREDICTIONS, Topic
from homeostat_kit import telemetry
from homeostat_kit.kafka import Batch, Received
from homeostat_kit.postgres import Pool, migrate, open_pool
from homeostat_monitor.api.health import _fill_known
from homeostat_monitor.app.hearing import RunNews, VersionNews, hear_run, hear_version
from homeostat_monitor.app.judging import judge_model
from homeostat_monitor.domain.alerts.alert import Alert, Moment, Resolution, Subject, after_window
from homeostat_monitor.domain.alerts.causes import Cause
from homeostat_monitor.domain.judges import Finding, Rule
from homeostat_monitor.domain.losses.truths import Task
from homeostat_monitor.health import losses_of
from homeostat_monitor.intake.marks import observe_marks
from homeostat_monitor.loops.judging import JudgeLoop
from homeostat_monitor.metrics import Metrics
from homeostat_monitor.ports import BlockOfLosses, KnownVersion, StateKey
from homeostat_monitor.recent_policies import RecentPolicies
from homeostat_monitor.store.notices import read_policy
from homeostat_monitor.store.transaction import Reader, StoreTransaction

SUBJECT = Subject("delays", 1)
KNOWN = {SUBJECT: KnownVersion(SUBJECT, Task.BINARY, profile=None)}


@pytest.fixture
async def pool(postgres_url: str) -> AsyncIterator[Pool]:
    pool = await open_pool(postgres_url, max_size=4)
    await migrate(pool, "homeostat_monitor")
    async with pool.acquire() as connection:
        await StoreTransaction(connection).add_models([SUBJECT.model_name])
    yield pool
    await pool.close()


async def add_losses(tx: StoreTransaction, *parts: tuple[int, float]) -> int:
    """Losses known one microsecond apart, so many at each rate; where they end."""
    rng = np.random.default_rng(3)
    values = np.concatenate([(rng.random(rows) < rate).astype(float) for rows, rate in parts])
    times = np.arange(len(values), dtype=np.int64)
    ids = np.array([f"{each:020d}".encode() for each in times])
    await tx.add_losses([BlockOfLosses(SUBJECT, b"", times, times, values, ids)])
    return len(values)


async def mark(tx: StoreTransaction, topic: Topic, *marks_us: int) -> None:
    marks, _ = await tx.watermarks(topic.name, "one")
    for number in range(topic.partitions):
        marks.observe(topic, number, Watermark(source_id="s", watermark_us=marks_us[-1]))
    await tx.save_watermarks(topic.name, "one", marks, marks_us[-1], marks_us)


async def moved_inputs(tx: StoreTransaction, opened_at: int, resolved_at: int) -> None:
    """An alert on the inputs that is over."""
    finding = Finding(Rule.COVARIATE, "x", "js_distance", 0.3, 0.05, 0.1, True, 0.0)
    at = Moment(opened_at, opened_at)
    alert = after_window(None, [finding], subject=SUBJECT, window_start_us=0, moment=at)
    for window in (1, 2):
        calm = replace(finding, observed=0.01, is_breach=False)
        at = Moment(resolved_at, resolved_at)
        alert = after_window(alert, [calm], subject=SUBJECT, window_start_us=window, moment=at)
    assert alert is not None and not alert.is_open
    await tx.save_alerts([alert])


async def told_by_losses(tx: StoreTransaction) -> list[Alert]:
    return [each for each in await tx.open_alerts(SUBJECT) if each.rule is Rule.PERFORMANCE]


async def judged_at(pool: Pool, polls: Sequence[Sequence[int]]) -> list[Alert]:
    """The performance alerts if the joined marks come in these portions; leaves no trace."""
    async with pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        tx = StoreTransaction(connection)
        standing = await tx.standing(SUBJECT)
        await tx.save_standing(replace(standing, first_judged_us=100, windows_judged=1))
        end = await add_losses(tx, (2000, 0.2), (1000, 0.4), (1000, 0.8))
        await moved_inputs(tx, opened_at=2500, resolved_at=3100)
        await mark(tx, PREDICTIONS, end)
        for each in polls:
            await mark(tx, JOINED, *each)
            await judge_model(SUBJECT.model_name, KNOWN, tx=tx)
        told = await told_by_losses(tx)
        await transaction.rollback()
        return told


async def test_the_cause_of_a_risen_loss_is_the_same_however_the_marks_came(pool: Pool) -> None:
    """Alone, a later mark would find the alert itself among what stands open."""
    at_once = await judged_at(pool, [(3000, 4000)])
    one_by_one = await judged_at(pool, [(3000,), (4000,)])
    assert at_once == one_by_one
    assert [(each.revision, each.cause) for each in at_once] == [(2, Cause.CONCEPT)]


async def risen(tx: StoreTransaction) -> Alert:
    """An open performance alert; the predictions' mark is far ahead of the losses'."""
    await tx.standing(SUBJECT)
    end = await add_losses(tx, (2000, 0.2), (1000, 0.5))
    await mark(tx, PREDICTIONS, 10 * end)
    await mark(tx, JOINED, end)
    await judge_model(SUBJECT.model_name, KNOWN, tx=tx)
    (alert,) = await told_by_losses(tx)
    return alert


async def test_an_alert_of_the_loss_ends_at_the_losses_mark(pool: Pool) -> None:
    """At the predictions' mark, who waits for outcomes would hold it for long."""
    async with pool.acquire() as connection, connection.transaction():
        tx = StoreTransaction(connection)
        opened = await risen(tx)
        news = VersionNews(Subject("delays", 2), 7, champion_version=2, occurred_us=5)
        (ended,) = await hear_version(news, tx=tx)
    assert ended.resolution is Resolution.SUPERSEDED
    assert ended.moment.watermark_us == opened.moment.watermark_us == 3000


async def test_a_state_that_is_of_an_older_form_does_not_stop_the_news(pool: Pool) -> None:
    async with pool.acquire() as connection, connection.transaction():
        tx = StoreTransaction(connection)
        await risen(tx)
        await tx.save_states(SUBJECT, {StateKey("", "losses"): b'{"tally": {}}'})
        news = RunNews("run", SUBJECT, cut_us=10**6, occurred_us=5)
        (ended,) = await hear_run(news, runs_until_accepted=1, tx=tx)
        assert ended.moment.watermark_us == 3000
        await add_losses(tx, (4000, 0.2))
        await mark(tx, JOINED, 4000)
        await judge_model(SUBJECT.model_name, KNOWN, tx=tx)
    health = losses_of(await Reader(pool).states(SUBJECT))
    assert health is not None
    assert health.losses > 0
    assert len(await Reader(pool).remarks(SUBJECT)) >= 2


def a_poll(epoch: str, source: str, watermark_us: int) -> Batch:
    mark = Watermark(source_id=source, watermark_us=watermark_us)
    records: list[tuple[Received, Any]] = [
        (Received(PREDICTIONS.name, number, 0, None, b"", {}), PredictionBlock(watermark=mark))
        for number in range(PREDICTIONS.partitions)
    ]
    return Batch(epoch, records, [], {}, {})


async def test_a_source_that_left_without_a_word_holds_nothing_in_a_new_life(pool: Pool) -> None:
    async with pool.acquire() as connection, connection.transaction():
        tx = StoreTransaction(connection)

        async def after(epoch: str, source: str, watermark_us: int) -> int | None:
            await observe_marks(tx, PREDICTIONS, a_poll(epoch, source, watermark_us))
            return (await tx.watermarks(PREDICTIONS.name, epoch))[1]

        assert await after("one", "slot-0", 100) == 100
        assert await after("one", "slot-1", 200) == 100
        assert await after("one", "slot-0", 300) == 200
        assert await after("one", "slot-0", 400) == 200
        # What was promised stays promised, and slot-1 is not waited for.
        assert await after("two", "slot-0", 150) == 200
        assert await after("two", "slot-0", 400) == 400


class NoVersions:
    async def get(self, subject: Subject) -> None:
        raise AssertionError("nothing is watched")


async def test_a_bug_in_sql_ends_the_process_and_is_not_tried_for_ever(pool: Pool) -> None:
    await pool.execute("ALTER TABLE mark RENAME TO other")
    nothing = telemetry.setup("monitor", None)
    loop = JudgeLoop(
        pool,
        NoVersions(),  # type: ignore[arg-type]
        instance="one",
        lease_seconds=10.0,
        told=lambda: None,
        spans=list,
        metrics=Metrics(nothing.meter),
        traces=nothing,
    )
    with pytest.raises(asyncpg.UndefinedTableError):
        async with asyncio.timeout(20):
            await loop.run(asyncio.Event())


async def test_a_list_of_alerts_is_bounded_and_has_the_newest(pool: Pool) -> None:
    async with pool.acquire() as connection:
        tx = StoreTransaction(connection)
        await moved_inputs(tx, opened_at=10, resolved_at=20)
        await connection.execute(
            "INSERT INTO alert SELECT alert_id || n, model_name, version, rule, is_open,"
            " opened_at_us, resolved_at_us, occurred_at_us + n,"
            " replace(body, '\"watermark_us\": 20', '\"watermark_us\": ' || 20 + n)"
            " FROM alert, generate_series(1, 10005) AS n"
        )
    alerts = await Reader(pool).list_alerts("", open_only=False)
    assert len(alerts) == 10_000
    assert alerts[0].moment.watermark_us == 20 + 10_005


async def test_thresholds_on_windows_and_on_truths_have_an_open_alert_each(pool: Pool) -> None:
    at, found = Moment(10, 10), []
    for metric in ("mean_score", "loss"):
        finding = Finding(Rule.POLICY, "", metric, 0.5, 0.2, 0.3, True, policy_rule=metric)
        alert = after_window(None, [finding], subject=SUBJECT, window_start_us=0, moment=at)
        assert alert is not None
        found.append(alert)
    async with pool.acquire() as connection:
        tx = StoreTransaction(connection)
        await tx.save_alerts(found)
        assert {each.alert_id for each in await tx.open_alerts(SUBJECT)} == {
            each.alert_id for each in found
        }
        # What truths told is no witness of what the inputs did.
        assert await tx.input_alerts_at(SUBJECT, 10) == found[:1]


async def test_a_policy_that_cannot_be_read_does_not_stop_the_judging_and_health_says_so(
    pool: Pool,
) -> None:
    await pool.execute(
        "INSERT INTO policy (model_name, revision, set_by, body) VALUES ($1, 3, 'ann', '{')",
        SUBJECT.model_name,
    )
    async with pool.acquire() as connection:
        assert (await read_policy(connection, SUBJECT.model_name)).revision == 3
        tx = StoreTransaction(connection)
        async with connection.transaction():
            alert = await risen(tx)
            await tx.tell([alert])
    policy = await RecentPolicies(pool).policy(SUBJECT.model_name)
    assert policy.segments == ()
    health = GetModelHealthResponse()
    _fill_known(health, replace(KNOWN[SUBJECT], policy=policy), {})
    assert health.policy_revision == 3
    assert any("set the policy anew" in each for each in health.remarks)
