"""What outbox, offsets and leases promise, on PostgreSQL and both brokers."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests.support.broker import TestBroker
from tests.support.waiting import eventually

from homeostat import topics
from homeostat.events.v1.outcome_block_pb2 import OutcomeBlock
from homeostat.topics import OUTCOMES, Topic
from homeostat_kit.kafka import Batch, Bus, consume
from homeostat_kit.lease import LeaseLost, held_lease
from homeostat_kit.offsets import OffsetConflict, advance_offsets, read_offsets, stored_offsets
from homeostat_kit.outbox import Event, OutboxRelay, put, put_many
from homeostat_kit.postgres import Connection, Pool, migrate, open_pool, retrying


@pytest.fixture
async def pool(postgres_url: str) -> AsyncIterator[Pool]:
    pool = await open_pool(postgres_url)
    await migrate(pool, "homeostat_kit")
    yield pool
    await pool.close()


@pytest.fixture
def topic(broker: TestBroker, monkeypatch: pytest.MonkeyPatch) -> Topic:
    topic = broker.topic(OUTCOMES)
    # The relay reads the message type from the table of topics.
    monkeypatch.setitem(topics._BY_NAME, topic.name, topic)
    return topic


def an_event(topic: Topic, number: int, partition: int | None = None) -> Event:
    message = OutcomeBlock(model_name="m", source=str(number))
    key = f"key-{number % 7}".encode()
    return Event(topic, key, message, f"event-{number}", 1_000_000 + number, partition)


async def put_numbers(pool: Pool, topic: Topic, numbers: range) -> None:
    async with pool.acquire() as connection, connection.transaction():
        await put_many(connection, [an_event(topic, each) for each in numbers])


@asynccontextmanager
async def relaying(relay: OutboxRelay) -> AsyncIterator[None]:
    stop = asyncio.Event()
    task = asyncio.create_task(relay.run(stop))
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait_for(task, 8)


@asynccontextmanager
async def reading(bus: Bus, topic: Topic) -> AsyncIterator[list[Batch]]:
    batches: list[Batch] = []
    stop = asyncio.Event()

    async def offsets(epoch: str) -> dict[tuple[str, int], int]:
        return {
            place: offset
            for batch in batches
            if batch.epoch == epoch
            for place, offset in batch.next_offsets.items()
        }

    async def handle(batch: Batch) -> None:
        batches.append(batch)

    task = asyncio.create_task(consume(bus, [topic], offsets=offsets, handle=handle, stop=stop))
    try:
        yield batches
    finally:
        stop.set()
        await asyncio.wait_for(task, 8)


def numbers_by_key(batches: list[Batch]) -> dict[bytes, list[int]]:
    found: dict[bytes, list[int]] = {}
    for batch in batches:
        for record, message in batch.records:
            found.setdefault(record.key or b"", []).append(int(message.source))
    return found


def count(batches: list[Batch]) -> int:
    return sum(len(batch.records) for batch in batches)


async def test_committed_events_arrive_in_order_of_their_key(
    broker: TestBroker, topic: Topic, pool: Pool
) -> None:
    async with Bus(broker.address, client_id="test") as bus:
        await bus.ensure_topics([topic])
        relay = OutboxRelay(pool, bus, "homeostat/test")
        async with relaying(relay), reading(bus, topic) as batches:
            for start in range(0, 1200, 400):
                await put_numbers(pool, topic, range(start, start + 400))
                relay.wake()
            await eventually(lambda: count(batches) >= 1200)
            await eventually(lambda: _is_empty(relay))
            positions = await relay.produced_positions()
    assert {key: sorted(each) for key, each in numbers_by_key(batches).items()} == numbers_by_key(
        batches
    )
    assert count(batches) == 1200 == sum(positions.values())
    record, _ = batches[0].records[0]
    number = numbers_by_key(batches)[record.key or b""][0]
    assert record.header("ce_id") == f"event-{number}"
    assert record.header("ce_type") == "homeostat.OutcomeBlock.v1"
    assert record.header("ce_source") == "homeostat/test"


async def test_an_event_of_a_transaction_that_failed_is_never_told(
    broker: TestBroker, topic: Topic, pool: Pool
) -> None:
    async with Bus(broker.address, client_id="test") as bus:
        await bus.ensure_topics([topic])
        async with relaying(OutboxRelay(pool, bus, "homeostat/test")):
            with contextlib.suppress(RuntimeError):
                async with pool.acquire() as connection, connection.transaction():
                    await put_many(connection, [an_event(topic, 1)])
                    raise RuntimeError("rolled back")
            await put_numbers(pool, topic, range(2, 3))
            async with reading(bus, topic) as batches:
                await eventually(lambda: count(batches) == 1)
    ((numbers),) = numbers_by_key(batches).values()
    assert numbers == [2]


async def test_a_mark_goes_to_the_partition_that_it_names(
    broker: TestBroker, topic: Topic, pool: Pool
) -> None:
    async with Bus(broker.address, client_id="test") as bus:
        await bus.ensure_topics([topic])
        async with pool.acquire() as connection, connection.transaction():
            for partition in range(topic.partitions):
                await put(
                    connection,
                    topic=topic,
                    key=b"m",
                    message=OutcomeBlock(source="0"),
                    event_id="mark",
                    occurred_at_us=1,
                    partition=partition,
                    traceparent="00-" + "1" * 32 + "-" + "2" * 16 + "-01",
                )
        relay = OutboxRelay(pool, bus, "homeostat/test")
        async with relaying(relay), reading(bus, topic) as batches:
            await eventually(lambda: count(batches) == topic.partitions)
    records = [record for batch in batches for record, _ in batch.records]
    assert sorted(each.partition for each in records) == list(range(topic.partitions))
    assert all("traceparent" in each.headers for each in records)


async def test_an_event_too_large_for_any_broker_is_refused_at_once(
    embedded_broker: TestBroker, pool: Pool
) -> None:
    huge = Event(OUTCOMES, b"k", OutcomeBlock(truths=bytes(17 * 1024 * 1024)), "huge", 1)
    async with pool.acquire() as connection:
        with pytest.raises(ValueError, match="exceeds"):
            await put_many(connection, [huge])


async def test_events_wait_for_a_broker_that_is_away_and_are_told_again_to_a_new_one(
    embedded_broker: TestBroker, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = embedded_broker.topic(OUTCOMES)
    monkeypatch.setitem(topics._BY_NAME, topic.name, topic)
    async with Bus(embedded_broker.address, client_id="test") as bus:
        await bus.ensure_topics([topic])
        first = bus.epoch
        relay = OutboxRelay(pool, bus, "homeostat/test")
        async with relaying(relay), reading(bus, topic) as batches:
            await put_numbers(pool, topic, range(300))
            await eventually(lambda: count(batches) == 300)
            await eventually(lambda: _is_empty(relay))
            embedded_broker.kill()
            await put_numbers(pool, topic, range(300, 400))
            relay.wake()
            assert await relay.unsent_count() == 100
            embedded_broker.restart()
            await eventually(lambda: count(batches) >= 700)
            await eventually(lambda: _is_empty(relay))
            assert sum((await relay.produced_positions()).values()) == 400
    anew = [batch for batch in batches if batch.epoch != first]
    assert count(anew) == 400
    for numbers in numbers_by_key(anew).values():
        assert numbers == sorted(numbers)


async def test_a_new_relay_tells_a_new_broker_what_the_old_one_told_the_old(
    embedded_broker: TestBroker, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = embedded_broker.topic(OUTCOMES)
    monkeypatch.setitem(topics._BY_NAME, topic.name, topic)
    await put_numbers(pool, topic, range(50))
    for _ in range(2):
        async with Bus(embedded_broker.address, client_id="test") as bus:
            await bus.ensure_topics([topic])
            relay = OutboxRelay(pool, bus, "homeostat/test")
            async with relaying(relay), reading(bus, topic) as batches:
                await eventually(lambda batches=batches: count(batches) == 50)
        embedded_broker.restart()


async def test_sent_events_beyond_the_retention_are_dropped_and_unsent_ones_never(
    broker: TestBroker, topic: Topic, pool: Pool
) -> None:
    async with Bus(broker.address, client_id="test") as bus:
        await bus.ensure_topics([topic])
        relay = OutboxRelay(pool, bus, "homeostat/test", retained_rows=100)
        async with relaying(relay):
            for start in range(0, 1000, 100):
                await put_numbers(pool, topic, range(start, start + 100))
                relay.wake()
            await eventually(lambda: _is_trimmed(pool))
        await put_numbers(pool, topic, range(1000, 1500))
        assert await relay.unsent_count() == 500


async def _is_trimmed(pool: Pool) -> bool:
    kept, unsent = await pool.fetchrow(
        "SELECT count(*), count(*) FILTER (WHERE sent_epoch IS NULL) FROM outbox"
    )
    return bool(unsent == 0 and 100 <= kept <= 600)


async def test_marks_do_not_push_out_events_and_stay_behind_what_they_cover(
    embedded_broker: TestBroker, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = embedded_broker.topic(OUTCOMES)
    monkeypatch.setitem(topics._BY_NAME, topic.name, topic)
    async with Bus(embedded_broker.address, client_id="test") as bus:
        await bus.ensure_topics([topic])
        first = bus.epoch
        relay = OutboxRelay(pool, bus, "homeostat/test", retained_rows=50)
        async with relaying(relay), reading(bus, topic) as batches:
            for number in range(40):
                async with pool.acquire() as connection, connection.transaction():
                    marks = [
                        Event(topic, b"", a_mark(number), f"mark-{number}", 1, partition)
                        for partition in range(topic.partitions)
                    ]
                    await put_many(connection, [an_event(topic, number), *marks])
                relay.wake()
            await eventually(lambda: _is_empty(relay))
            # Each of the four trims itself after some more were sent.
            await put_numbers(pool, topic, range(40, 45))
            relay.wake()
            await eventually(lambda: _is_empty(relay))
            await eventually(lambda: _holds_at_most(pool, 45 + 50), what="old marks are dropped")
            embedded_broker.restart()
            await eventually(lambda: bus.epoch != first, what="the new epoch is seen")
            await eventually(lambda: _is_empty(relay))
            positions = await relay.produced_positions()
            anew = [batch for batch in batches if batch.epoch != first]
            await eventually(
                lambda: (
                    sum(count([b]) for b in batches if b.epoch != first) >= sum(positions.values())
                )
            )
            anew = [batch for batch in batches if batch.epoch != first]
    told: dict[int, list[str]] = {}
    for batch in anew:
        for record, message in batch.records:
            told.setdefault(record.partition, []).append(message.source)
    events = sorted(int(each) for own in told.values() for each in own if each.isdigit())
    assert events == [*range(45)]
    for own in told.values():
        newest = own.index("mark 39")
        assert all(int(each) < 40 for each in own[:newest] if each.isdigit())
        assert all(int(each) >= 40 for each in own[newest + 1 :])


async def _holds_at_most(pool: Pool, rows: int) -> bool:
    return bool(await pool.fetchval("SELECT count(*) FROM outbox") <= rows)


def a_mark(number: int) -> OutcomeBlock:
    return OutcomeBlock(source=f"mark {number}")


async def test_sent_events_are_bounded_in_bytes_too(
    embedded_broker: TestBroker, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = embedded_broker.topic(OUTCOMES)
    monkeypatch.setitem(topics._BY_NAME, topic.name, topic)
    async with Bus(embedded_broker.address, client_id="test") as bus:
        await bus.ensure_topics([topic])
        relay = OutboxRelay(pool, bus, "homeostat/test", retained_rows=20, retained_bytes=10_000)
        async with relaying(relay):
            for number in range(40):
                big = OutcomeBlock(source=str(number), truths=bytes(2_000))
                async with pool.acquire() as connection, connection.transaction():
                    await put_many(connection, [Event(topic, b"k", big, str(number), 1)])
                relay.wake()
                await eventually(lambda: _is_empty(relay))
        kept = await pool.fetch("SELECT event_id FROM outbox ORDER BY id")
    assert kept[-1]["event_id"] == "39"
    assert len(kept) <= 4 + 20


async def test_one_relay_sends_at_a_time(broker: TestBroker, topic: Topic, pool: Pool) -> None:
    async with Bus(broker.address, client_id="test") as bus:
        await bus.ensure_topics([topic])
        both = [OutboxRelay(pool, bus, "homeostat/test") for _ in range(2)]
        async with relaying(both[0]), relaying(both[1]), reading(bus, topic) as batches:
            for start in range(0, 500, 50):
                await put_numbers(pool, topic, range(start, start + 50))
                for relay in both:
                    relay.wake()
            await eventually(lambda: count(batches) >= 500)
    for numbers in numbers_by_key(batches).values():
        assert numbers == sorted(numbers)


async def test_leaving_does_not_wait_for_a_broker_that_hangs(
    embedded_broker: TestBroker, pool: Pool
) -> None:
    async with Bus(embedded_broker.address, client_id="test") as bus:
        await bus.ensure_topics([OUTCOMES])
        relay = OutboxRelay(pool, bus, "homeostat/test")
        async with relaying(relay):
            await eventually(lambda: _is_empty(relay))
            embedded_broker.pause()
            await put_numbers(pool, OUTCOMES, range(10))
            relay.wake()
            began = time.monotonic()
        assert time.monotonic() - began < 3
        assert await relay.unsent_count() == 10


async def _is_empty(relay: OutboxRelay) -> bool:
    return await relay.unsent_count() == 0


async def test_the_relay_goes_on_after_its_connection_was_killed(
    broker: TestBroker, topic: Topic, pool: Pool
) -> None:
    async with Bus(broker.address, client_id="test") as bus:
        await bus.ensure_topics([topic])
        relay = OutboxRelay(pool, bus, "homeostat/test")
        async with relaying(relay), reading(bus, topic) as batches:
            await put_numbers(pool, topic, range(10))
            await eventually(lambda: count(batches) == 10)
            await pool.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            await retrying(pool, lambda connection: _put(connection, topic))
            relay.wake()
            await eventually(lambda: count(batches) >= 20)
    # What was sent and could not be marked any more is sent again.
    assert {each for numbers in numbers_by_key(batches).values() for each in numbers} == {
        *range(20)
    }


async def _put(connection: Connection, topic: Topic) -> None:
    await put_many(connection, [an_event(topic, each) for each in range(10, 20)])


async def test_offsets_move_with_the_effect_or_not_at_all(pool: Pool) -> None:
    first = Batch("e", [], [], {("t", 0): 0, ("t", 1): 0}, {("t", 0): 5, ("t", 1): 3})
    async with pool.acquire() as connection, connection.transaction():
        await advance_offsets(connection, first)
    assert await read_offsets(pool, "e") == {("t", 0): 5, ("t", 1): 3}
    assert await read_offsets(pool, "another") == {}
    half_wrong = Batch("e", [], [], {("t", 0): 5, ("t", 1): 2}, {("t", 0): 9, ("t", 1): 9})
    for wrong in (first, half_wrong):
        with pytest.raises(OffsetConflict):
            async with pool.acquire() as connection, connection.transaction():
                await advance_offsets(connection, wrong)
    assert await read_offsets(pool, "e") == {("t", 0): 5, ("t", 1): 3}


async def test_of_two_that_apply_one_batch_one_is_refused(pool: Pool) -> None:
    batch = Batch("e", [], [], {("t", 0): 0}, {("t", 0): 5})

    async def apply() -> bool:
        try:
            async with pool.acquire() as connection, connection.transaction():
                await advance_offsets(connection, batch)
        except OffsetConflict:
            return False
        return True

    assert sorted(await asyncio.gather(*(apply() for _ in range(5)))) == [False] * 4 + [True]


async def test_a_consumer_whose_effects_fail_now_and_then_applies_each_record_once(
    broker: TestBroker, topic: Topic, pool: Pool
) -> None:
    await pool.execute("CREATE TABLE effect (number int PRIMARY KEY)")
    stop, calls = asyncio.Event(), 0

    async def handle(batch: Batch) -> None:
        nonlocal calls
        calls += 1
        async with pool.acquire() as connection, connection.transaction():
            await advance_offsets(connection, batch)
            await connection.executemany(
                "INSERT INTO effect VALUES ($1)",
                [(int(message.source),) for _, message in batch.records],
            )
            if calls % 3 == 1:
                raise RuntimeError("before the commit")
        if calls % 3 == 2:
            raise RuntimeError("after the commit")

    async with Bus(broker.address, client_id="test") as bus:
        await bus.ensure_topics([topic])
        relay = OutboxRelay(pool, bus, "homeostat/test")
        task = asyncio.create_task(
            consume(
                bus,
                [topic],
                offsets=stored_offsets(pool),
                handle=handle,
                stop=stop,
                max_records=40,
            )
        )
        async with relaying(relay):
            await put_numbers(pool, topic, range(300))
            await eventually(lambda: _effects(pool, 300))
        stop.set()
        await asyncio.wait_for(task, 8)
        assert await read_offsets(pool, bus.epoch) == await relay.produced_positions()


async def _effects(pool: Pool, expected: int) -> bool:
    return bool(await pool.fetchval("SELECT count(*) FROM effect") == expected)


async def test_a_lease_has_one_holder_and_a_later_one_has_a_greater_token(pool: Pool) -> None:
    order: list[str] = []

    async def second() -> int:
        async with held_lease(pool, "owner", "b", 3.0) as lease:
            order.append("second")
            return lease.token

    async with held_lease(pool, "owner", "a", 3.0) as first:
        waiting = asyncio.create_task(second())
        # Longer than its time to live: it is renewed.
        await asyncio.sleep(4.5)
        order.append("first")
        assert not first.lost.is_set()
    assert await asyncio.wait_for(waiting, 60) > first.token
    assert order == ["first", "second"]


async def test_who_waits_for_a_lease_waits_out_a_killed_database_session(pool: Pool) -> None:
    async def second() -> int:
        async with held_lease(pool, "owner", "b", 1.0) as lease:
            return lease.token

    async with held_lease(pool, "owner", "a", 1.0):
        pass
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("LOCK TABLE lease")
        waiting = asyncio.create_task(second())
        await eventually(lambda: _kill_those_who_wait(pool))
    assert await asyncio.wait_for(waiting, 60) == 2


async def _kill_those_who_wait(pool: Pool) -> bool:
    killed = await pool.fetch(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    return bool(killed)


async def test_a_former_holder_is_refused_by_its_token(pool: Pool) -> None:
    # The same slot after a crash takes over at once.
    async with (
        held_lease(pool, "owner", "slot-1", 5.0) as old,
        held_lease(pool, "owner", "slot-1", 5.0) as new,
    ):
        async with pool.acquire() as connection, connection.transaction():
            await new.check(connection)
            with pytest.raises(LeaseLost):
                await old.check(connection)
        await asyncio.wait_for(old.lost.wait(), 60)


async def test_conflicting_transactions_are_tried_again(pool: Pool) -> None:
    await pool.execute("CREATE TABLE account (id int PRIMARY KEY, total int)")
    await pool.execute("INSERT INTO account VALUES (1, 0), (2, 0)")

    async def move(first: int, second: int) -> None:
        async def work(connection: object) -> None:
            for each in (first, second):
                await connection.execute(  # type: ignore[attr-defined]
                    "UPDATE account SET total = total + 1 WHERE id = $1", each
                )
                await asyncio.sleep(0)

        await retrying(pool, work)

    await asyncio.gather(*(move(1, 2) if each % 2 else move(2, 1) for each in range(4)))
    assert [row["total"] for row in await pool.fetch("SELECT total FROM account")] == [4, 4]
