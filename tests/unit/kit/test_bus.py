"""The bus never gives a life of the broker what was chosen for another."""

from typing import Any

import pytest

from homeostat_kit.kafka import BrokerAway, Bus, Outgoing

RECORDS = [Outgoing("topic", None, b"value")]


async def test_records_for_an_older_life_of_the_broker_are_not_sent() -> None:
    bus = Bus("127.0.0.1:1", client_id="test")
    bus._epoch = "second"
    with pytest.raises(BrokerAway, match="epoch"):
        await bus.produce_many(RECORDS, epoch="first")


async def test_records_are_not_sent_to_a_life_that_is_seen_while_connecting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bus = Bus("127.0.0.1:1", client_id="test")
    bus._epoch = "first"

    async def connect() -> Any:
        bus._epoch = "second"

    monkeypatch.setattr(bus, "_living_producer", connect)
    with pytest.raises(BrokerAway, match="epoch"):
        await bus.produce_many(RECORDS, epoch="first")
