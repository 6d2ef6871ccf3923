"""What ended long ago is forgotten, what is open or young is not, on a real database."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from homeostat_kit.postgres import Pool, migrate, open_pool, queries
from homeostat_monitor.domain.alerts.alert import Moment, Subject, after_window
from homeostat_monitor.domain.judges import Finding, Rule
from homeostat_monitor.loops.retention import Retention
from homeostat_monitor.store.deepening import DeepeningStore
from homeostat_monitor.store.transaction import StoreTransaction

SUBJECT = Subject("delays", 1)


@pytest.fixture
async def pool(postgres_url: str) -> AsyncIterator[Pool]:
    pool = await open_pool(postgres_url, max_size=2)
    await migrate(pool, "homeostat_monitor")
    async with pool.acquire() as connection:
        tx = StoreTransaction(connection)
        await tx.add_models([SUBJECT.model_name])
        await tx.standing(SUBJECT)
        finding = Finding(Rule.COVARIATE, "x", "js_distance", 0.3, 0.05, 0.1, True, 0.0)
        at = Moment(1, 1)
        alert = after_window(None, [finding], subject=SUBJECT, window_start_us=0, moment=at)
        assert alert is not None
        await tx.save_alerts([alert])
    yield pool
    await pool.close()


async def _copies(pool: Pool) -> None:
    """Of the open alert: 7 that ended 500 days ago, one yesterday; with all that hangs on them."""
    await pool.execute(
        "INSERT INTO alert (alert_id, model_name, version, rule, is_open, opened_at_us,"
        " resolved_at_us, occurred_at_us, body, stored_at)"
        " SELECT 'ended-' || n, model_name, version, rule, false, 1, 2, 2, body,"
        " now() - make_interval(days => CASE WHEN n = 8 THEN 1 ELSE 500 END)"
        " FROM alert, generate_series(1, 8) AS n"
    )
    await pool.execute(
        "UPDATE alert SET stored_at = now() - make_interval(days => 500) WHERE is_open"
    )
    await pool.execute("INSERT INTO alert_event SELECT alert_id, 1, false, now(), '' FROM alert")
    await pool.execute(
        "INSERT INTO acknowledgement (alert_id, acknowledged_by, comment)"
        " SELECT alert_id, 'ann', '' FROM alert"
    )
    await pool.execute(
        "INSERT INTO deepening (alert_id, done_at)"
        " SELECT alert_id, now() - make_interval(days => 40) FROM alert"
    )
    await pool.execute(
        "INSERT INTO notification (notification_id, model_name, webhook_name, alert_id,"
        " alert_revision, body, created_at, delivered_at)"
        " SELECT n::text, 'delays', 'w', 'a', 1, '', now() - make_interval(days => 9 * n),"
        " CASE WHEN n < 6 THEN now() END FROM generate_series(1, 6) AS n"
    )
    await pool.execute(
        "INSERT INTO mute SELECT 'delays', '', n::text, '',"
        " now() - make_interval(days => 20 * n), 'ann', '' FROM generate_series(0, 3) AS n"
    )


async def _ids(pool: Pool, table: str, column: str = "alert_id") -> list[str]:
    return [row[0] for row in await pool.fetch(f"SELECT {column} FROM {table} ORDER BY 1")]


async def test_what_ended_long_ago_is_forgotten_and_nothing_else(pool: Pool) -> None:
    await _copies(pool)
    (open_id,) = await _ids(pool, "alert WHERE is_open")
    retention = Retention(pool, alert_days=400, delivery_days=30, portion=3)
    stop = asyncio.Event()
    # 7 alerts in portions of 3, one deepening, 2 notifications, 2 mutes.
    assert await retention.forget(stop) == 7 + 1 + 2 + 2
    assert await retention.forget(stop) == 0
    kept = sorted([open_id, "ended-8"])
    for table in ("alert", "alert_event", "acknowledgement"):
        assert sorted(await _ids(pool, table)) == kept
    assert await _ids(pool, "deepening") == [open_id]
    # What was not delivered yet stays however old it is.
    assert await _ids(pool, "notification", "notification_id") == ["1", "2", "3", "6"]
    assert await _ids(pool, "mute", "feature") == ["0", "1"]
    # What was forgotten of an ended alert is not looked into again.
    assert await DeepeningStore(pool).claim(seconds=1.0) is None


async def test_a_level_that_was_accepted_is_remembered_as_long_as_its_version_serves(
    pool: Pool,
) -> None:
    await _copies(pool)
    await pool.execute(
        "UPDATE alert SET body = jsonb_set(body::jsonb, '{resolution}', '\"accepted\"')::text"
        " WHERE alert_id = 'ended-3'"
    )
    retention = Retention(pool, alert_days=400, delivery_days=30)
    await retention.forget(asyncio.Event())
    assert "ended-3" in await _ids(pool, "alert")
    await pool.execute("UPDATE version SET is_watched = false")
    await retention.forget(asyncio.Event())
    assert "ended-3" not in await _ids(pool, "alert")


async def test_alerts_of_all_models_are_listed_by_an_index(pool: Pool) -> None:
    await pool.execute(
        "INSERT INTO alert (alert_id, model_name, version, rule, is_open, opened_at_us,"
        " occurred_at_us, body) SELECT n::text, 'm' || n % 7, 1, 'x', false, n, n, '{}'"
        " FROM generate_series(1, 5000) AS n"
    )
    await pool.execute("ANALYZE alert")
    listed = queries("homeostat_monitor")["list_all_alerts"]
    plan = await pool.fetch(f"EXPLAIN {listed}", False, 100)
    assert "alert_newest_of_all" in "\n".join(row[0] for row in plan)
