"""What the bus and its consumers promise, on the embedded broker and on real Kafka."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy
from tests.support.broker import TestBroker
from tests.support.kafka import JARS
from tests.support.waiting import eventually

from homeostat.cloudevents import headers
from homeostat.events.v1.outcome_block_pb2 import OutcomeBlock
from homeostat.topics import ALERTS, OUTCOMES, Topic
from homeostat_kit.kafka import Batch, BrokerAway, Bus, Outgoing, consume
from homeostat_local.kafka import java, start_kafka


def a_block(number: int) -> bytes:
    return OutcomeBlock(model_name="m", source=str(number), row_count=1).SerializeToString()


def outgoing(topic: Topic, number: int, partition: int | None = None) -> Outgoing:
    return Outgoing(
        topic.name,
        str(number).encode(),
        a_block(number),
        headers(topic, event_id=str(number), source="homeostat/test", occurred_at_us=0),
        partition,
    )


@dataclass
class Reading:
    """A consumer with its offsets and effects in memory, both changed at one instant."""

    offsets: dict[str, dict[tuple[str, int], int]] = field(default_factory=dict)
    seen: list[int] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)
    failures: int = 0
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    async def stored(self, epoch: str) -> Mapping[tuple[str, int], int]:
        return dict(self.offsets.get(epoch, {}))

    async def handle(self, batch: Batch) -> None:
        if self.failures:
            self.failures -= 1
            raise RuntimeError("the world is away")
        stored = self.offsets.setdefault(batch.epoch, {})
        for place, offset in batch.from_offsets.items():
            assert stored.get(place, 0) == offset
        stored.update(batch.next_offsets)
        self.seen.extend(int(message.source) for _, message in batch.records)
        self.batches.append(batch)


@asynccontextmanager
async def consuming(
    bus: Bus, topic: Topic, reading: Reading, max_records: int = 500
) -> AsyncIterator[None]:
    task = asyncio.create_task(
        consume(
            bus,
            [topic],
            offsets=reading.stored,
            handle=reading.handle,
            stop=reading.stop,
            max_records=max_records,
        )
    )
    try:
        yield
    finally:
        reading.stop.set()
        await asyncio.wait_for(task, 8)


@pytest.fixture
async def bus(broker: TestBroker) -> AsyncIterator[Bus]:
    async with Bus(broker.address, client_id="test") as bus:
        assert bus.epoch
        yield bus


async def test_records_arrive_once_and_in_order_of_their_partition(
    broker: TestBroker, bus: Bus
) -> None:
    topic, reading = broker.topic(OUTCOMES), Reading()
    await bus.ensure_topics([topic])
    async with consuming(bus, topic, reading):
        places = await bus.produce_many([outgoing(topic, each) for each in range(1000)])
        await eventually(lambda: len(reading.seen) >= 1000)
    assert sorted(reading.seen) == list(range(1000))
    assert len({partition for partition, _ in places}) == 4
    by_partition: dict[int, list[int]] = {}
    for batch in reading.batches:
        for record, _ in batch.records:
            by_partition.setdefault(record.partition, []).append(record.offset)
    for offsets in by_partition.values():
        assert offsets == list(range(len(offsets)))
    ends = {(topic.name, partition): len(each) for partition, each in by_partition.items()}
    assert bus.produced_positions() == ends == reading.offsets[bus.epoch]


async def test_the_producer_is_idempotent_where_the_broker_gives_out_ids(
    broker: TestBroker, bus: Bus
) -> None:
    topic = broker.topic(OUTCOMES)
    await bus.ensure_topics([topic])
    assert bus.is_idempotent is None
    await bus.produce(topic, b"k", a_block(1))
    assert bus.is_idempotent is not broker.is_embedded


async def test_a_failing_handler_loses_nothing(broker: TestBroker, bus: Bus) -> None:
    topic, reading = broker.topic(OUTCOMES), Reading(failures=2)
    await bus.ensure_topics([topic])
    await bus.produce_many([outgoing(topic, each) for each in range(100)])
    async with consuming(bus, topic, reading, max_records=7):
        await eventually(lambda: len(reading.seen) >= 50)
        reading.failures = 2
        await eventually(lambda: len(reading.seen) >= 100)
    assert sorted(reading.seen) == list(range(100))
    assert max(len(batch.records) for batch in reading.batches) <= 7


async def test_a_restarted_consumer_goes_on_where_its_offsets_stand(
    broker: TestBroker, bus: Bus
) -> None:
    topic, reading = broker.topic(OUTCOMES), Reading()
    await bus.ensure_topics([topic])
    for start in (0, 50):
        reading.stop = asyncio.Event()
        await bus.produce_many([outgoing(topic, each) for each in range(start, start + 50)])
        async with consuming(bus, topic, reading):
            await eventually(lambda start=start: len(reading.seen) >= start + 50)
    assert sorted(reading.seen) == list(range(100))


UNREADABLE: dict[str, Callable[[Topic], tuple[bytes, Mapping[str, bytes]]]] = {
    "no homeostat.events.v1.OutcomeBlock": lambda _: (b"\xff\xfe garbage", {}),
    "empty": lambda _: (b"", {}),
    "ce_type": lambda _: (a_block(1), {"ce_type": b"\xff\xfe\x00"}),
}


@pytest.mark.parametrize("reason", UNREADABLE)
async def test_unreadable_records_go_to_the_dead_letters_with_their_reason(
    broker: TestBroker, bus: Bus, reason: str
) -> None:
    topic, reading = broker.topic(OUTCOMES), Reading()
    dead = Topic(topic.dead_letter, ALERTS.message, "", 1, None, (), ())
    await bus.ensure_topics([topic])
    value, bad_headers = UNREADABLE[reason](topic)
    await bus.produce_many(
        [
            outgoing(topic, 0, partition=2),
            Outgoing(topic.name, b"k", value, bad_headers, 2),
            outgoing(topic, 2, partition=2),
        ]
    )
    async with consuming(bus, topic, reading):
        await eventually(lambda: len(reading.seen) >= 2)
    assert reading.seen == [0, 2]
    assert reading.offsets[bus.epoch][topic.name, 2] == 3
    letters = await first_records(bus, dead, count=1)
    (letter,) = letters
    assert reason in letter["reason"].decode()
    assert letter["original_topic"].decode() == topic.name
    assert (letter["original_partition"], letter["original_offset"]) == (b"2", b"1")


async def test_a_dead_letter_is_written_once_however_often_its_batch_fails(
    broker: TestBroker, bus: Bus
) -> None:
    topic, reading = broker.topic(OUTCOMES), Reading(failures=2)
    dead = Topic(topic.dead_letter, ALERTS.message, "", 1, None, (), ())
    await bus.ensure_topics([topic])
    await bus.produce(topic, b"k", b"\xff\xfe garbage", partition=0)
    async with consuming(bus, topic, reading):
        await eventually(lambda: reading.batches)
        await bus.produce(topic, b"k", b"\xff\xfe more", partition=0)
        await eventually(lambda: len(reading.batches) == 2)
    assert [len(batch.unreadable) for batch in reading.batches] == [1, 1]
    letters = await first_records(bus, dead, count=2)
    assert [each["original_offset"] for each in letters] == [b"0", b"1"]


async def test_headers_that_are_not_utf8_do_not_harm_a_readable_record(
    broker: TestBroker, bus: Bus
) -> None:
    topic, reading = broker.topic(OUTCOMES), Reading()
    await bus.ensure_topics([topic])
    await bus.produce(topic, b"k", a_block(5), {"anything": b"\xff\xfe"})
    async with consuming(bus, topic, reading):
        await eventually(lambda: reading.seen == [5])
    ((record, _),) = reading.batches[0].records
    assert record.headers["anything"] == b"\xff\xfe"
    assert record.header("anything") is None


async def first_records(bus: Bus, topic: Topic, count: int) -> list[dict[str, bytes]]:
    """Headers of a topic's first records, read as dead letters are: by anyone's Kafka client."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bus.bootstrap_servers, auto_offset_reset="earliest"
    )
    consumer.assign([TopicPartition(topic.name, 0)])
    await consumer.start()
    try:
        found = [await asyncio.wait_for(consumer.getone(), 60) for _ in range(count)]
        assert all(not each.value for each in found)
        return [dict(each.headers) for each in found]
    finally:
        await consumer.stop()


async def test_a_new_life_of_the_broker_is_read_from_its_start(embedded_broker: TestBroker) -> None:
    topic, reading = embedded_broker.topic(OUTCOMES), Reading()
    async with Bus(embedded_broker.address, client_id="test") as bus:
        await bus.ensure_topics([topic])
        first = bus.epoch
        async with consuming(bus, topic, reading):
            await bus.produce_many([outgoing(topic, each) for each in range(20)])
            await eventually(lambda: len(reading.seen) == 20)
            embedded_broker.restart()
            await eventually(lambda: bus.epoch != first)
            places = await bus.produce_many([outgoing(topic, each) for each in range(20, 30)])
            await eventually(lambda: len(reading.seen) == 30)
        assert min(offset for _, offset in places) == 0
        assert sum(reading.offsets[bus.epoch].values()) == 10
    assert sorted(reading.seen) == list(range(30))


async def test_records_of_a_new_life_are_never_taken_for_the_old_one(
    embedded_broker: TestBroker,
) -> None:
    """The client reconnects faster than anybody notices, and the new life is already longer."""
    topic, reading = embedded_broker.topic(OUTCOMES), Reading()
    async with (
        Bus(embedded_broker.address, client_id="test") as bus,
        Bus(embedded_broker.address, client_id="other") as other,
    ):
        await bus.ensure_topics([topic])
        async with consuming(bus, topic, reading):
            for each in range(5):
                await bus.produce_many([outgoing(topic, each, partition=0)])
            await eventually(lambda: len(reading.seen) == 5)
            embedded_broker.restart()
            await other.ensure_topics([topic])
            await other.confirm()
            await other.produce_many([outgoing(topic, each, partition=0) for each in range(50)])
            await eventually(lambda: len(reading.seen) == 55)
    assert reading.seen == [*range(5), *range(50)]
    assert [batch.from_offsets[topic.name, 0] for batch in reading.batches].count(0) == 2


async def test_a_broker_that_is_away_is_waited_for(embedded_broker: TestBroker) -> None:
    topic, reading = embedded_broker.topic(OUTCOMES), Reading()
    async with Bus(embedded_broker.address, client_id="test") as bus:
        await bus.ensure_topics([topic])
        first = bus.epoch
        async with consuming(bus, topic, reading):
            await bus.produce(topic, b"k", a_block(0))
            await eventually(lambda: reading.seen == [0])
            embedded_broker.kill()
            with pytest.raises(BrokerAway):
                await bus.produce(topic, b"k", a_block(1))
            embedded_broker.restart()
            await eventually(lambda: bus.epoch != first)
            await bus.produce(topic, b"k", a_block(2))
            await eventually(lambda: reading.seen[-1] == 2)


async def test_leaving_is_prompt_while_the_broker_is_away(embedded_broker: TestBroker) -> None:
    topic, reading = embedded_broker.topic(OUTCOMES), Reading()
    async with Bus(embedded_broker.address, client_id="test") as bus:
        await bus.ensure_topics([topic])
        async with consuming(bus, topic, reading):
            await bus.produce(topic, b"k", a_block(0))
            await eventually(lambda: reading.seen == [0])
            embedded_broker.kill()
            began = time.monotonic()
    assert time.monotonic() - began < 5


async def test_a_service_starts_without_its_broker(embedded_broker: TestBroker) -> None:
    topic, reading = embedded_broker.topic(OUTCOMES), Reading()
    embedded_broker.kill()
    began = time.monotonic()
    async with Bus(embedded_broker.address, client_id="test") as bus:
        await bus.ensure_topics([topic])
        assert time.monotonic() - began < 3
        assert bus.epoch == ""
        async with consuming(bus, topic, reading):
            embedded_broker.restart()
            await eventually(lambda: bus.epoch)
            await bus.produce(topic, b"k", a_block(3))
            await eventually(lambda: reading.seen == [3])


async def test_what_is_in_hand_at_a_stop_is_finished(broker: TestBroker, bus: Bus) -> None:
    topic, reading = broker.topic(OUTCOMES), Reading()
    await bus.ensure_topics([topic])
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(batch: Batch) -> None:
        begun.set()
        await go_on.wait()
        await reading.handle(batch)

    task = asyncio.create_task(
        consume(bus, [topic], offsets=reading.stored, handle=slowly, stop=reading.stop)
    )
    await bus.produce(topic, b"k", a_block(1))
    await asyncio.wait_for(begun.wait(), 60)
    reading.stop.set()
    go_on.set()
    await asyncio.wait_for(task, 60)
    assert reading.seen == [1]


async def test_a_stored_offset_that_was_moved_by_another_is_read_again(
    broker: TestBroker, bus: Bus
) -> None:
    topic, reading = broker.topic(OUTCOMES), Reading()
    await bus.ensure_topics([topic])
    async with consuming(bus, topic, reading):
        await bus.produce_many([outgoing(topic, each, partition=0) for each in range(3)])
        await eventually(lambda: len(reading.seen) == 3)
        reading.offsets[bus.epoch][topic.name, 0] = 1
        await bus.produce_many([outgoing(topic, 3, partition=0)])
        await eventually(lambda: len(reading.seen) >= 6)
    assert reading.seen == [0, 1, 2, 1, 2, 3]


class NotUtf8(str):
    """A header's name that only a careless client could write."""

    __slots__ = ()

    def encode(self, *_: object) -> bytes:
        return b"\xff\xfe"


async def produce_unparsable(bus: Bus, topic: Topic, partition: int, before: int) -> None:
    """One batch of a client of its own: readable records and one whose header's name is garbage."""
    builder = _DefaultRecordBatchBuilderPy(
        magic=2,
        compression_type=0,
        is_transactional=0,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        batch_size=1 << 20,
    )
    for number in range(before):
        builder.append(number, 0, b"k", a_block(900 + number), [])
    builder.append(before, 0, b"k", a_block(999), [(NotUtf8("x"), b"v")])
    async with AIOKafkaProducer(bootstrap_servers=bus.bootstrap_servers) as producer:
        batch = producer.create_batch()
        batch.append(key=b"k", value=b"v", timestamp=0)
        batch.close()
        batch._buffer = builder.build()
        await (await producer.send_batch(batch, topic.name, partition=partition))


async def test_a_header_name_that_no_client_can_parse_stops_nobody(
    broker: TestBroker, bus: Bus
) -> None:
    topic, reading = broker.topic(OUTCOMES), Reading()
    dead = Topic(topic.dead_letter, ALERTS.message, "", 1, None, (), ())
    await bus.ensure_topics([topic])
    await bus.produce_many([outgoing(topic, each, partition=1) for each in range(20)])
    await produce_unparsable(bus, topic, partition=1, before=2)
    await bus.produce_many([outgoing(topic, each, partition=1) for each in range(20, 40)])
    await bus.produce_many([outgoing(topic, each, partition=2) for each in range(40, 60)])
    async with consuming(bus, topic, reading, max_records=30):
        await eventually(lambda: len(reading.seen) >= 62)
        await bus.produce_many([outgoing(topic, each, partition=3) for each in range(60, 70)])
        await eventually(lambda: len(reading.seen) >= 72)
    assert sorted(reading.seen) == [*range(70), 900, 901]
    (letter,) = await first_records(bus, dead, count=1)
    assert "UTF-8" in letter["reason"].decode()
    assert (letter["original_partition"], letter["original_offset"]) == (b"1", b"22")


async def test_a_broker_that_hangs_is_an_error_within_seconds_and_then_forgotten(
    embedded_broker: TestBroker,
) -> None:
    topic, reading = embedded_broker.topic(OUTCOMES), Reading()
    async with Bus(embedded_broker.address, client_id="test") as bus:
        await bus.ensure_topics([topic])
        async with consuming(bus, topic, reading):
            await bus.produce(topic, b"k", a_block(0))
            await eventually(lambda: reading.seen == [0])
            embedded_broker.pause()
            began = time.monotonic()
            with pytest.raises(BrokerAway):
                await bus.produce(topic, b"k", a_block(1))
            # The library itself would wait for 40 seconds; five are meant.
            assert time.monotonic() - began < 12
            embedded_broker.go_on()
            await eventually(lambda: _produced(bus, topic, 2))
            await eventually(lambda: reading.seen[-1] == 2)
    # The outcome of the first attempt is unknown: it may be there.
    assert set(reading.seen) - {1} == {0, 2}


async def _produced(bus: Bus, topic: Topic, number: int) -> bool:
    try:
        await bus.produce(topic, b"k", a_block(number))
    except BrokerAway:
        return False
    return True


@pytest.mark.kafka
async def test_the_same_life_goes_on_after_a_crash_of_real_kafka(tmp_path: Path) -> None:
    if not any(JARS.glob("*.jar")) or java() is None:
        pytest.skip("no real Kafka: run `make kafka` (Java 17, Maven)")
    topic, reading = OUTCOMES, Reading()
    kafka = start_kafka(JARS, tmp_path)
    port = int(kafka.address.rpartition(":")[2])
    try:
        async with Bus(kafka.address, client_id="test") as bus:
            await bus.ensure_topics([topic])
            epoch = bus.epoch
            async with consuming(bus, topic, reading):
                await bus.produce_many([outgoing(topic, each) for each in range(20)])
                await eventually(lambda: len(reading.seen) == 20)
                kafka.kill()
                with pytest.raises(BrokerAway):
                    await bus.produce(topic, b"k", a_block(99))
                kafka = await asyncio.to_thread(start_kafka, JARS, tmp_path, port)
                await eventually(lambda: _produced(bus, topic, 20))
                await eventually(lambda: 20 in reading.seen)
            assert bus.epoch == epoch
    finally:
        kafka.stop()
    assert sorted(set(reading.seen) - {99}) == list(range(21))
