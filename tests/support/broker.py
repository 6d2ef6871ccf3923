"""Brokers for tests: the embedded one always, real Apache Kafka where there is one.

Every test has topics of its own on real Kafka, and a broker of its own on the embedded one.
"""

import os
import signal
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from homeostat.topics import TOPICS, Topic
from homeostat_local.broker import RunningBroker, start_broker


@dataclass(slots=True)
class TestBroker:
    """A broker under test."""

    __test__ = False

    address: str
    kind: str
    folder: Path
    _running: RunningBroker | None = None
    _suffix: str = field(default_factory=lambda: uuid.uuid4().hex[:8])

    @property
    def is_embedded(self) -> bool:
        """It can be killed, and comes back empty as a new epoch."""
        return self._running is not None

    def topic(self, topic: Topic) -> Topic:
        """A topic like this one that no other test uses."""
        return replace(topic, name=f"{topic.name}.{self._suffix}")

    def kill(self) -> None:
        """Kill -9; embedded only."""
        assert self._running is not None
        self._running.process.kill()
        self._running.process.wait()

    def pause(self) -> None:
        """It keeps its connections and answers nothing; embedded only."""
        assert self._running is not None
        self._running.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._running.process.pid, os.WSTOPPED)

    def go_on(self) -> None:
        """After ``pause``."""
        assert self._running is not None
        self._running.process.send_signal(signal.SIGCONT)

    def restart(self) -> None:
        """The same address, a new epoch, nothing in it; embedded only."""
        assert self._running is not None
        if self._running.process.poll() is None:
            self.kill()
        self._running = start_broker(self.folder, port=int(self.address.rpartition(":")[2]))

    def stop(self) -> None:
        if self._running is not None and self._running.process.poll() is None:
            self.kill()


@pytest.fixture
def embedded_broker(tmp_path: Path) -> Iterator[TestBroker]:
    """A fresh embedded broker."""
    folder = tmp_path / "broker"
    folder.mkdir()
    running = start_broker(folder)
    broker = TestBroker(running.address, "embedded", folder, running)
    yield broker
    broker.stop()


@pytest.fixture(
    params=["embedded", pytest.param("kafka", marks=pytest.mark.kafka)],
)
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TestBroker]:
    """The embedded broker, and again real Kafka."""
    if request.param == "embedded":
        yield request.getfixturevalue("embedded_broker")
        return
    yield TestBroker(request.getfixturevalue("kafka_address"), "kafka", tmp_path)


def all_topics(broker: TestBroker) -> tuple[Topic, ...]:
    """The product's topics under names of this test's own."""
    return tuple(broker.topic(each) for each in TOPICS)
