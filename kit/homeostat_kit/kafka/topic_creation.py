"""Making the topics of the table, and those of their dead letters, on a broker."""

from collections.abc import Mapping
from typing import Any

from aiokafka.admin import NewTopic
from aiokafka.errors import TopicAlreadyExistsError, for_code

from homeostat.topics import Topic
from homeostat_kit import logs
from homeostat_kit.kafka.records import MAX_RECORD_BYTES

# Where there are so many brokers.
_REPLICAS = 3

_log = logs.get_logger("homeostat_kit.kafka")


async def create_topics(admin: Any, topics: Mapping[str, Topic]) -> None:
    """Creates what is missing of ``topics``; raises aiokafka's error if one of them is refused."""
    if not topics:
        return
    brokers = len((await admin.describe_cluster())["brokers"])
    replicas = max(1, min(_REPLICAS, brokers))
    response = await admin.create_topics(
        [
            new
            for topic in topics.values()
            for new in (
                _new(topic.name, topic.partitions, replicas, topic.retention_seconds),
                _new(topic.dead_letter, 1, replicas, topic.retention_seconds),
            )
        ]
    )
    there: list[str] = []
    for name, code, *_ in response.topic_errors:
        error = for_code(code)
        if error is TopicAlreadyExistsError:
            there.append(name)
        elif code:
            raise error(f"creating {name}")
    await _compare_partitions(admin, {name: topics[name] for name in there if name in topics})


async def _compare_partitions(admin: Any, topics: Mapping[str, Topic]) -> None:
    """Somebody else's idea of a topic would be read in part only, or not at all."""
    for found in await admin.describe_topics(list(topics)) if topics else ():
        count, wanted = len(found["partitions"]), topics[found["topic"]].partitions
        if count not in (0, wanted):
            _log.error(
                "topic_has_other_partitions", topic=found["topic"], found=count, wanted=wanted
            )


def _new(name: str, partitions: int, replicas: int, retention_seconds: int | None) -> Any:
    retention_ms = -1 if retention_seconds is None else retention_seconds * 1000
    return NewTopic(
        name,
        partitions,
        replicas,
        topic_configs={
            "retention.ms": str(retention_ms),
            "max.message.bytes": str(MAX_RECORD_BYTES),
        },
    )
