"""Which records say something that can be; the others go to the dead letters."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from homeostat.events.v1.alert_pb2 import Alert
from homeostat.events.v1.column_pb2 import ARM_SHADOW
from homeostat.events.v1.joined_block_pb2 import JoinedBlock
from homeostat.events.v1.version_changed_pb2 import VERSION_CHANGE_SERVING, VersionChanged
from homeostat_kit.kafka import Received, Unreadable
from homeostat_retrainer.domain.errors import PeerRefused, UnknownToPeer, UnreadableRecord
from homeostat_retrainer.messages import is_heard

# What the database can hold; names beyond are nobody's.
_MOST_TEXT = 255
# What an event's time can say: the years 1 to 3938.
_MOST_TIME_US = 62_135_596_800_000_000
_NO_VERSION = "the registry knows no such version"

# (model, version) to W
Lengths = Mapping[tuple[str, int], int]


class KnowsVersions(Protocol):
    """What hearing needs of the registry."""

    async def reference_rows(self, model_name: str, version: int) -> int | None:
        """W that a version brought by a person sets; None where a run made the version."""
        ...


@dataclass(slots=True)
class Heard:
    """A batch's records: those to apply with what the registry adds, and those that are none."""

    records: list[tuple[Received, Any]] = field(default_factory=list)
    lengths: dict[tuple[str, int], int] = field(default_factory=dict)
    unreadable: list[Unreadable] = field(default_factory=list)


async def sort_out(
    records: Sequence[tuple[Received, Any]], registry: KnowsVersions, newest: Mapping[str, int]
) -> Heard:
    """Checks each record; ``newest``: per model the newest version that was heard of before.

    Asks the registry about new champions, and about alerts whose version nobody announced: those
    would wait for ever. PeerAway where it does not answer.
    """
    heard = Heard()
    known = dict(newest)
    for record, message in records:
        try:
            check(message)
            await _ask(message, registry, known, heard.lengths)
        except UnreadableRecord as error:
            heard.unreadable.append(Unreadable(record, str(error)))
        except UnknownToPeer:
            heard.unreadable.append(Unreadable(record, _NO_VERSION))
        except PeerRefused:
            heard.unreadable.append(Unreadable(record, "the registry refuses to tell the version"))
        else:
            heard.records.append((record, message))
    return heard


async def _ask(
    message: object,
    registry: KnowsVersions,
    known: dict[str, int],
    lengths: dict[tuple[str, int], int],
) -> None:
    if isinstance(message, VersionChanged):
        if _brings_champion(message):
            place = (message.model_name, message.champion_version)
            rows = await registry.reference_rows(*place)
            if rows is not None:
                lengths[place] = rows
        known[message.model_name] = max(message.version, known.get(message.model_name, 0))
    elif (
        isinstance(message, Alert)
        and is_heard(message)
        and message.version > known.get(message.model_name, 0)
    ):
        await registry.reference_rows(message.model_name, message.version)


def check(message: object) -> None:
    """UnreadableRecord for what parses and yet cannot be."""
    if isinstance(message, Alert):
        if is_heard(message):
            _check_alert(message)
    elif isinstance(message, VersionChanged):
        _check_name(message.model_name)
    elif isinstance(message, JoinedBlock):
        _check_block(message)


def _check_alert(alert: Alert) -> None:
    _check_name(alert.model_name)
    _check_text(alert.alert_id, "the alert's id is no id")
    _check_time(alert.watermark_us)
    _check_time(alert.settled_at_us)


def _check_block(block: JoinedBlock) -> None:
    if block.HasField("watermark"):
        _check_time(block.watermark.watermark_us)
        if "\0" in block.watermark.source_id:
            raise UnreadableRecord("the mark's source is no source")
    if not block.row_count or block.arm == ARM_SHADOW:
        return
    _check_name(block.model_name)
    rows = block.row_count
    if len(block.revisions) != 4 * rows or len(block.known_at_us) != 8 * rows:
        raise UnreadableRecord("revisions or times do not fit the row count")
    known_at = np.frombuffer(block.known_at_us, dtype="<i8")
    _check_time(int(known_at.max()))
    _check_time(int(known_at.min()))


def _check_name(name: str) -> None:
    _check_text(name, "the model's name is no name")


def _check_text(text: str, reason: str) -> None:
    if not text or len(text) > _MOST_TEXT or "\0" in text:
        raise UnreadableRecord(reason)


def _check_time(at_us: int) -> None:
    # The last microsecond before counts too: a run cuts its data there.
    if abs(at_us) >= _MOST_TIME_US:
        raise UnreadableRecord("a time is beyond the ages")


def _brings_champion(message: VersionChanged) -> bool:
    """A promotion or roll-back. One by a run keeps W, and so does sharing traffic otherwise."""
    is_shared_out = message.change == VERSION_CHANGE_SERVING
    return message.HasField("champion_version") and not message.run_id and not is_shared_out
