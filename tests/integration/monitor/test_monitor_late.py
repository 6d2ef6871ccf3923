"""What is late is told by the order of the topic, on a real database: polls do not matter."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from tests.integration.monitor.test_monitor_transactions import a_listener
from tests.support.memory_monitor import DAY_US, SUBJECT, a_block, rows_of, truths_of

from homeostat.events.v1.column_pb2 import Watermark
from homeostat.topics import JOINED, PREDICTIONS, Topic
from homeostat_kit.kafka import Batch, Received
from homeostat_kit.postgres import Pool, migrate, open_pool

HOUR_US = DAY_US // 24
Message = tuple[int, Any]


@pytest.fixture
async def pool(postgres_url: str) -> AsyncIterator[Pool]:
    pool = await open_pool(postgres_url, max_size=2)
    await migrate(pool, "homeostat_monitor")
    yield pool
    await pool.close()


def a_mark(topic: Topic, partition: int, at_us: int, source: str = "s") -> Message:
    return partition, topic.message(watermark=Watermark(source_id=source, watermark_us=at_us))


def polls(topic: Topic, messages: Sequence[Message], size: int) -> list[Batch]:
    """The messages in polls of so many; on each partition they keep their order."""
    reached: dict[tuple[str, int], int] = {}
    found = []
    for first in range(0, len(messages), size):
        begin, records = dict(reached), []
        for partition, each in messages[first : first + size]:
            offset = reached.get((topic.name, partition), 0)
            record = Received(topic.name, partition, offset, None, each.SerializeToString(), {})
            records.append((record, each))
            reached[topic.name, partition] = offset + 1
        places = {(record.topic, record.partition) for record, _ in records}
        found.append(
            Batch(
                "one",
                records,
                [],
                {place: begin.get(place, 0) for place in places},
                {place: reached[place] for place in places},
            )
        )
    return found


async def taken(pool: Pool, topic: Topic, messages: Sequence[Message], size: int) -> Any:
    """Sums, truths in waiting and counts after it all came in polls of so many messages."""
    await pool.execute(
        "TRUNCATE model, version, window_sum, loss_block, heard_event, watermark, mark, tally,"
        " due, consumer_offset CASCADE"
    )
    async with pool.acquire() as connection:
        await connection.execute("INSERT INTO model VALUES ($1)", SUBJECT.model_name)
    listener = a_listener(pool)
    handle = listener.on_predictions if topic is PREDICTIONS else listener.on_joined
    for each in polls(topic, messages, size):
        await handle(each)
    sums = await pool.fetch("SELECT * FROM window_sum ORDER BY window_start_us, partition, segment")
    known = await pool.fetchval("SELECT coalesce(sum(row_count), 0) FROM loss_block")
    tallies = await pool.fetch("SELECT name, total FROM tally ORDER BY name")
    return [tuple(row) for row in sums], known, {row["name"]: row["total"] for row in tallies}


async def test_rows_behind_the_mark_that_closed_their_window_are_late_in_any_poll(
    pool: Pool,
) -> None:
    day, noon = rows_of(100), 100 * DAY_US + 12 * HOUR_US
    morning, evening = day.only(day.times < noon), day.only(day.times >= noon)
    late = rows_of(100, seed=2).only(slice(100, 300))
    messages = [
        (0, a_block(morning, 1)),
        (1, a_block(evening, 2)),
        *(a_mark(PREDICTIONS, number, noon) for number in range(PREDICTIONS.partitions)),
        # 04:00 to 12:00: everything of it was closed on this partition.
        (0, a_block(late, 3)),
        (0, a_block(evening, 4)),
    ]
    whole = await taken(pool, PREDICTIONS, messages, len(messages))
    assert whole[2]["late_rows"] == late.rows == 200
    assert whole[2]["predictions"] == day.rows + evening.rows + late.rows
    for size in (1, 3, PREDICTIONS.partitions + 3):
        assert await taken(pool, PREDICTIONS, messages, size) == whole


async def test_another_source_that_promised_less_holds_its_windows_open(pool: Pool) -> None:
    day, noon = rows_of(100), 100 * DAY_US + 12 * HOUR_US
    messages = [
        a_mark(PREDICTIONS, 0, 100 * DAY_US, "other"),
        a_mark(PREDICTIONS, 0, noon),
        (0, a_block(day, 1)),
        a_mark(PREDICTIONS, 0, noon, "other"),
        (0, a_block(day, 2)),
    ]
    for size in (1, 2, 5):
        _, _, counts = await taken(pool, PREDICTIONS, messages, size)
        assert counts["late_rows"] == 300


async def test_truths_behind_the_mark_that_passed_them_are_late_in_any_poll(pool: Pool) -> None:
    day, end = rows_of(100), 101 * DAY_US + 2 * HOUR_US
    messages = [
        (0, truths_of(day.only(slice(0, 300)))),
        *(a_mark(JOINED, number, end) for number in range(JOINED.partitions)),
        (0, truths_of(day.only(slice(300, 600)))),
    ]
    for size in (1, 2, len(messages)):
        _, known, counts = await taken(pool, JOINED, messages, size)
        assert (known, counts["losses"], counts["late_losses"]) == (300, 300, 300)
