"""The one table of topics: what travels, under which key, who writes it and who reads it."""

from dataclasses import dataclass

from google.protobuf.message import Message

from homeostat.events.v1.alert_pb2 import Alert
from homeostat.events.v1.joined_block_pb2 import JoinedBlock
from homeostat.events.v1.outcome_block_pb2 import OutcomeBlock
from homeostat.events.v1.prediction_block_pb2 import PredictionBlock
from homeostat.events.v1.retraining_run_pb2 import RetrainingRun
from homeostat.events.v1.version_activated_pb2 import VersionActivated
from homeostat.events.v1.version_changed_pb2 import VersionChanged

_DAY = 86_400


@dataclass(frozen=True, slots=True)
class Topic:
    """One stream of facts of one message type."""

    name: str
    message: type[Message]
    # What the record's key is: it decides the partition.
    key: str
    partitions: int
    # None keeps everything.
    retention_seconds: int | None
    writers: tuple[str, ...]
    readers: tuple[str, ...]

    @property
    def dead_letter(self) -> str:
        """Where records go that could not be read, with the reason and without values."""
        return f"{self.name}.dlq"

    @property
    def ce_type(self) -> str:
        """The CloudEvents type of its records."""
        return f"homeostat.{self.message.DESCRIPTOR.name}.v1"


PREDICTIONS = Topic(
    "homeostat.predictions.v1",
    PredictionBlock,
    "block id",
    4,
    7 * _DAY,
    ("inference",),
    ("ledger", "monitor"),
)
OUTCOMES = Topic(
    "homeostat.outcomes.v1", OutcomeBlock, "block id", 4, 30 * _DAY, ("inference",), ("ledger",)
)
JOINED = Topic(
    "homeostat.joined.v1",
    JoinedBlock,
    "model name",
    4,
    7 * _DAY,
    ("ledger",),
    ("monitor", "retrainer"),
)
ALERTS = Topic(
    "homeostat.alerts.v1", Alert, "model name", 1, 365 * _DAY, ("monitor",), ("retrainer",)
)
VERSIONS = Topic(
    "homeostat.versions.v1",
    VersionChanged,
    "model name",
    1,
    None,
    ("registry",),
    ("inference", "monitor", "retrainer"),
)
ACTIVATIONS = Topic(
    "homeostat.activations.v1",
    VersionActivated,
    "model name",
    1,
    365 * _DAY,
    ("inference",),
    (),
)
RUNS = Topic(
    "homeostat.runs.v1",
    RetrainingRun,
    "model name",
    1,
    365 * _DAY,
    ("retrainer",),
    ("monitor",),
)

TOPICS: tuple[Topic, ...] = (PREDICTIONS, OUTCOMES, JOINED, ALERTS, VERSIONS, ACTIVATIONS, RUNS)


def topic(name: str) -> Topic:
    """The topic of that name; KeyError if there is none."""
    return _BY_NAME[name]


_BY_NAME = {each.name: each for each in TOPICS}
