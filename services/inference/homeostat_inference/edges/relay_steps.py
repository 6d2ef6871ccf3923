"""What the records of a journal are to the broker: messages, and the marks between them."""

import struct
from collections.abc import Iterable
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from homeostat import cloudevents
from homeostat.events.v1.outcome_block_pb2 import OutcomeBlock
from homeostat.events.v1.version_activated_pb2 import VersionActivated
from homeostat.ids import event_id
from homeostat.topics import ACTIVATIONS, OUTCOMES, PREDICTIONS, Topic
from homeostat_inference.app.assembly import Assembled, Assembler, Event, Mark, Sealed
from homeostat_inference.app.ports import Kind
from homeostat_inference.app.whole import Whole
from homeostat_inference.edges.journal_format import Record
from homeostat_inference.edges.promises import SOURCE
from homeostat_kit.kafka import Outgoing, RecordTooLarge
from homeostat_kit.kafka.records import require_fit
from homeostat_kit.logs import get_logger

log = get_logger("homeostat_inference.relay")


@dataclass(frozen=True, slots=True)
class Step:
    """Records that may be under way together, and the mark that stands behind them."""

    outgoing: list[Outgoing]
    mark_us: int | None = None


class Steps:
    """Makes them, one stretch of the journal after the other. What can't be sent is left out and
    counted: it must not hold up all that follows."""

    def __init__(self, slot: str) -> None:
        self._slot = slot
        self._assembler = Assembler()
        # Records that no broker takes, however often they are sent.
        self.skipped_count = 0
        # Records that can't be made into a message.
        self.unreadable_count = 0
        # Nobody will archive these.
        self.skipped_blocks: set[bytes] = set()

    def begin_anew(self) -> None:
        """What comes next does not continue what came last."""
        self._assembler = Assembler()

    @property
    def needed_from(self) -> int | None:
        """Where the oldest record stands that a block still to be completed is made of."""
        return self._assembler.needed_from

    def of(self, records: Iterable[Record]) -> list[Step]:
        """Each is sent after the one before was acknowledged."""
        made = [each for record in records for each in self._fed(record)]
        last_clock_mark = max(
            (at for at, each in enumerate(made) if isinstance(each, Mark) and not each.is_callers),
            default=-1,
        )
        steps: list[Step] = []
        outgoing: list[Outgoing] = []
        for at, each in enumerate(made):
            if isinstance(each, Mark):
                # Of promises by the clock only the last one says something.
                if each.is_callers or at == last_clock_mark:
                    steps.append(Step(outgoing, each.mark_us))
                    outgoing = []
            elif isinstance(each, Sealed | Whole | Event):
                outgoing.extend(self._readable(each))
        return [*steps, Step(outgoing)]

    def _fed(self, record: Record) -> list[Assembled]:
        try:
            return self._assembler.feed(record.position, record.kind, record.payload)
        except (ValueError, struct.error, DecodeError) as error:
            self._note_unreadable(error)
            return []

    def _readable(self, made: Sealed | Whole | Event) -> list[Outgoing]:
        """Nothing of a record that its checksum let through and that is damaged all the same."""
        try:
            return self._if_it_fits(outgoing_of(made))
        except (ValueError, struct.error, DecodeError) as error:
            self._note_unreadable(error)
            if not isinstance(made, Event):
                self.skipped_blocks.add(made.block_id)
            return []

    def _note_unreadable(self, error: Exception) -> None:
        log.error("record_unreadable", slot=self._slot, reason=repr(error))
        self.unreadable_count += 1

    def _if_it_fits(self, outgoing: Outgoing) -> list[Outgoing]:
        """Nothing of a record that no broker takes."""
        try:
            require_fit(outgoing.topic, outgoing.value)
        except RecordTooLarge as error:
            key = outgoing.key or b""
            log.error("record_skipped", key=key.hex(), reason=str(error))
            self.skipped_count += 1
            self.skipped_blocks.add(key)
            return []
        return [outgoing]


def outgoing_of(made: Sealed | Whole | Event) -> Outgoing:
    """The message and its headers."""
    if isinstance(made, Sealed | Whole):
        headers = _headers(PREDICTIONS, made.block_id.hex(), made.sealed_at_us, made.traceparent)
        value = made.message if isinstance(made, Whole) else made.block().SerializeToString()
        return Outgoing(PREDICTIONS.name, made.block_id, value, headers)
    if made.kind == Kind.OUTCOMES:
        block = OutcomeBlock.FromString(made.message)
        headers = _headers(OUTCOMES, block.block_id.hex(), block.produced_at.ToMicroseconds())
        return Outgoing(OUTCOMES.name, block.block_id, made.message, headers)
    activated = VersionActivated.FromString(made.message)
    name = event_id(
        activated.model_name, activated.version, activated.revision, activated.worker_id,
        activated.error,
    )  # fmt: skip
    headers = _headers(ACTIVATIONS, name, activated.occurred_at.ToMicroseconds())
    return Outgoing(ACTIVATIONS.name, activated.model_name.encode(), made.message, headers)


def _headers(topic: Topic, name: str, at_us: int, traceparent: str = "") -> list[tuple[str, bytes]]:
    return cloudevents.headers(
        topic, event_id=name, source=SOURCE, occurred_at_us=at_us, traceparent=traceparent or None
    )
