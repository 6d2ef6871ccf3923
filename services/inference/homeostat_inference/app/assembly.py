"""Journal records back into what goes on the topics."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from homeostat.events.v1.column_pb2 import Column
from homeostat.events.v1.prediction_block_pb2 import PredictionBlock
from homeostat_inference.app.ports import Kind
from homeostat_inference.app.records import (
    ColumnsReader,
    RowsRecord,
    unpack_mark,
    unpack_rows,
    unpack_seal,
)
from homeostat_inference.app.whole import Whole, unpack_whole
from homeostat_inference.domain.blocks import filled, row_bytes, timestamp
from homeostat_inference.domain.tensors import Packed

_TIME, _SCORE, _LATENCY = 8, 8, 4


@dataclass(frozen=True, slots=True)
class Sealed:
    """A block that is whole."""

    block_id: bytes
    sealed_at_us: int
    traceparent: str
    slices: list[RowsRecord]

    def block(self) -> PredictionBlock:
        """All its rows, as one message; ValueError, struct.error or DecodeError if its records are
        damaged in a way that their checksums missed."""
        outline = PredictionBlock.FromString(self.slices[0].outline)
        readers = [ColumnsReader.of(each) for each in self.slices]
        pairs = list(zip(readers, self.slices, strict=True))
        has_keys = any(each.has_client_keys for each in self.slices)
        keys = [reader.client_keys(each) for reader, each in pairs]
        block = PredictionBlock(
            model_name=outline.model_name,
            version=outline.version,
            arm=outline.arm,
            task=outline.task,
            schema_fingerprint=outline.schema_fingerprint,
            block_id=self.block_id,
            row_count=sum(each.row_count for each in self.slices),
            client_keys=b"".join(keys) if has_keys else b"",
            event_times_us=_joined(readers, _TIME),
            scores=_joined(readers, _SCORE),
            decisions=_joined(readers, _SCORE),
            latencies_seconds=_joined(readers, _LATENCY),
            inputs=_filled(outline.inputs, readers),
            outputs=_filled(outline.outputs, readers),
            contexts=_filled(outline.contexts, readers),
            produced_at=timestamp(self.sealed_at_us),
        )
        return block


def _joined(readers: Sequence[ColumnsReader], row_size: int) -> bytes:
    return b"".join(each.numbers(row_size) for each in readers)


def _filled(columns: Iterable[Column], readers: Sequence[ColumnsReader]) -> list[Column]:
    return [filled(each, [_values(each, reader) for reader in readers]) for each in columns]


def _values(column: Column, reader: ColumnsReader) -> Packed:
    if column.datatype == "BYTES":
        return reader.texts(column.width)
    return bytes(reader.numbers(row_bytes(column)))


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


Assembled = Sealed | Whole | Mark | Event


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
        if kind == Kind.BLOCK:
            return [unpack_whole(payload)]
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
