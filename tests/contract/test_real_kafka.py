"""The real Kafka of the tests: what it holds outlives its death."""

from pathlib import Path

import pytest
from tests.support.kafka import JARS

from homeostat.topics import PREDICTIONS
from homeostat_kit.kafka import Bus
from homeostat_local.kafka import KafkaDidNotStart, java, start_kafka

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.skipif(
        not any(JARS.glob("*.jar")) or java() is None,
        reason="no jars of a real Kafka: run `make kafka` (Java 17, Maven)",
    ),
]


async def produce_one(address: str) -> tuple[str, int]:
    """(cluster id, offset) of a record of our own."""
    async with Bus(address, client_id="test") as bus:
        epoch = await bus.confirm()
        await bus.ensure_topics([PREDICTIONS])
        return epoch, await bus.produce(PREDICTIONS, b"key", b"value", {}, partition=0)


async def test_a_killed_broker_comes_back_with_its_records(tmp_path: Path) -> None:
    first = start_kafka(JARS, tmp_path)
    before = await produce_one(first.address)
    first.kill()
    with start_kafka(JARS, tmp_path) as again:
        assert again.address == first.address
        after = await produce_one(again.address)
    assert after == (before[0], before[1] + 1)


def test_a_broker_that_cannot_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(KafkaDidNotStart, match="StorageTool"):
        start_kafka(tmp_path / "no-jars", tmp_path / "data")
