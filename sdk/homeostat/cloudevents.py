"""CloudEvents 1.0 in Kafka's binary mode: the facts about an event that stand in its headers."""

from datetime import UTC, datetime

from homeostat.topics import Topic

SPEC_VERSION = "1.0"
CONTENT_TYPE = "application/protobuf"
Headers = list[tuple[str, bytes]]


def headers(
    topic: Topic, *, event_id: str, source: str, occurred_at_us: int, traceparent: str | None = None
) -> Headers:
    """Headers of one record; ``source`` is for example "homeostat/ledger"."""
    time = datetime.fromtimestamp(occurred_at_us / 1e6, UTC).isoformat().replace("+00:00", "Z")
    fields = [
        ("ce_specversion", SPEC_VERSION),
        ("ce_id", event_id),
        ("ce_source", source),
        ("ce_type", topic.ce_type),
        ("ce_time", time),
        ("content-type", CONTENT_TYPE),
    ]
    if traceparent:
        fields.append(("traceparent", traceparent))
    return [(name, value.encode()) for name, value in fields]
