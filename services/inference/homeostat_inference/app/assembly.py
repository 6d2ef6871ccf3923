"""Journal records back into what goes on the topics."""

from dataclasses import dataclass, field

from homeostat.events.v1.prediction_block_pb2 import PredictionBlock
from homeostat_inference.app.ports import Kind
from homeostat_inference.app.records import RowsRecord, unpack_mark, unpack_rows, unpack_seal
from homeostat_inference.domain.blocks import merge


@dataclass(frozen=True, slots=True)
class Sealed:
    """A block that is whole."""

    block_id: bytes
    sealed_at_us: int
    traceparent: str
    slices: list[RowsRecord]

    def block(self) -> PredictionBlock:
        """All its rows, as one message."""
        return merge([each.slice() for each in self.slices], self.sealed_at_us)


@dataclass(frozen=True, slots=True)
class Mark:
    """A promise, which goes out after everything before it was acknowledged."""

    mark_us: int
    # Made by the caller: it is passed on even if a later one is known already.
    is_callers: bool


@dataclass(frozen=True, slots=True)
class Event:
    """A record that is a message as it stands."""

    kind: Kind
    message: bytes


Assembled = Sealed | Mark | Event


@dataclass(slots=True)
class _Gathering:
    position: int
    rows: int = 0
    slices: list[RowsRecord] = field(default_factory=list)


class Assembler:
    """Fed with records in order, gives what they complete.

    It may begin anywhere: of a block whose first rows it has not seen it gives nothing, since
    whoever chose the beginning had that block acknowledged.
    """

    def __init__(self) -> None:
        self._gathering: dict[bytes, _Gathering] = {}

    @property
    def needed_from(self) -> int | None:
        """The position of the oldest record that is not complete yet; None if there is none."""
        return min((each.position for each in self._gathering.values()), default=None)

    @property
    def open_block_ids(self) -> list[bytes]:
        """Blocks that have rows and no end."""
        return list(self._gathering)

    def feed(self, position: int, kind: int, payload: bytes) -> list[Assembled]:
        """What this record completes; ValueError if it is of no kind that we know."""
        if kind == Kind.ROWS:
            self._add(position, unpack_rows(payload))
            return []
        if kind == Kind.SEAL:
            return self._seal(*unpack_seal(payload))
        if kind == Kind.BEGIN:
            return self.end_open(unpack_mark(payload))
        if kind in (Kind.CLOCK_MARK, Kind.CALLER_MARK):
            return [Mark(unpack_mark(payload), kind == Kind.CALLER_MARK)]
        return [Event(Kind(kind), payload)]

    def end_open(self, sealed_at_us: int) -> list[Assembled]:
        """Ends the blocks that are open: their writer is gone, and nothing follows."""
        return [made for each in list(self._gathering) for made in self._seal(each, sealed_at_us)]

    def _add(self, position: int, rows: RowsRecord) -> None:
        if rows.first_row == 0:
            self._gathering[rows.block_id] = _Gathering(position)
        block = self._gathering.get(rows.block_id)
        if block is not None and rows.first_row == block.rows:
            block.slices.append(rows)
            block.rows += rows.row_count

    def _seal(self, block_id: bytes, sealed_at_us: int) -> list[Assembled]:
        block = self._gathering.pop(block_id, None)
        if block is None or not block.slices:
            return []
        return [Sealed(block_id, sealed_at_us, block.slices[0].traceparent, block.slices)]
