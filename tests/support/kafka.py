"""A real Apache Kafka for the session: the one that is named, or one started from `.kafka/jars`."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from homeostat_local.kafka import KafkaDidNotStart, java, start_kafka

VARIABLE = "HOMEOSTAT_TEST_KAFKA"
JARS = Path(__file__).resolve().parents[2] / ".kafka" / "jars"


@pytest.fixture(scope="session")
def kafka_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """host:port of a real Kafka. Skips where there is none, and says how to get one.

    Its topics are shared by the session: a test that needs its own makes its own.
    """
    if given := os.environ.get(VARIABLE):
        yield given
        return
    if not any(JARS.glob("*.jar")) or java() is None:
        pytest.skip(f"no real Kafka: run `make kafka` (Java 17, Maven) or set {VARIABLE}=host:port")
    try:
        running = start_kafka(JARS, tmp_path_factory.mktemp("kafka"))
    except KafkaDidNotStart as reason:
        pytest.skip(f"real Kafka did not start: {reason}")
    with running:
        yield running.address
